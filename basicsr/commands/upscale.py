"""``basicsr upscale``: run a network on an image or a folder of images. It may enlarge them, or keep their size."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
from torch import nn
from tqdm import tqdm

from basicsr.archs import build_network
from basicsr.archs.local_average import has_local_statistics
from basicsr.data.data_util import IMAGE_EXTENSIONS
from basicsr.engine.restore.image_restorer import ImageRestorer, read_image
from basicsr.engine.restore.restorer import Restorer, RestoreSettings
from basicsr.engine.run.host_memory import disable_malloc_trim
from basicsr.utils.files import UNREADABLE_FOLDER, kind_of, require_writable
from basicsr.utils.img_util import imwrite
from basicsr.utils.misc import scandir
from basicsr.utils.options.errors import Marks, OptionError
from basicsr.utils.options.files import import_modules, load_options
from basicsr.utils.options.legacy import modernise
from basicsr.utils.options.yaml_text import read_yaml
from basicsr.utils.paths import path_inside
from basicsr.utils.weights import load_weights

from .imports import add_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--input", required=True, metavar="PATH", help="an image, or a folder of images")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="folder for the results, PNG files")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--opt", metavar="FILE", help="an option file: its network_g, weights and rules in val")
    network.add_argument("--arch", metavar="YAML", help="the network, such as '{type: IMDN, upscale: 2}'")
    parser.add_argument("--weights", metavar="FILE", help="weights, a path or URL; by default the option file's")
    parser.add_argument("--param_key", metavar="KEY", help="which of the file's state dicts (default: params_ema)")
    add_imports(parser)
    parser.add_argument(
        "--tile", type=_tile, metavar="N", help="side of a tile in pixels; 0 for none; auto (default): as memory allows"
    )
    parser.add_argument("--tile_overlap", type=int, metavar="N", help="pixels that tiles share (default: 32)")
    parser.add_argument("--self_ensemble", action="store_true", help="average over the 8 flips and rotations")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 …")
    parser.add_argument("--suffix", default="", help="added to the names of the results")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist; else they are kept")


def _tile(text: str) -> int | str:
    if text == "auto" or text.isdecimal():
        return text if text == "auto" else int(text)
    raise argparse.ArgumentTypeError(f"must be a number of pixels, 0 for none, or auto, not '{text}'")


class Job(NamedTuple):
    """An image and the file that its result is written to."""

    source: Path
    target: Path


def run(args: argparse.Namespace) -> int:
    """Restore what the command line names.

    Returns:
        0; 1 if images failed, each of which is named; 2 if nothing could be started.
    """
    disable_malloc_trim()
    try:
        jobs, ignored = plan_jobs(Path(args.input), Path(args.output), args.suffix)
        restorer = build_restorer(args)
        require_writable(args.output)
    except (OptionError, ValueError, KeyError, OSError) as error:
        _print_safely(f"error: {error.args[0] if isinstance(error, KeyError) else error}", sys.stderr)
        return 2
    if ignored:
        _print_safely(f"{_count(ignored, 'file')} in {args.input} left out: not an image by the name's ending.")
    present = [] if args.overwrite else [job for job in jobs if job.target.exists()]
    if present:
        _print_safely(f"{_count(len(present), 'image')} left out: the result exists (--overwrite replaces it).")
    failures = upscale_all([job for job in jobs if job not in present], restorer)
    done = len(jobs) - len(present) - len(failures)
    what = "restored" if restorer.scale == 1 else f"upscaled by {restorer.scale:g}"
    _print_safely(f"{done} of {_count(len(jobs), 'image')} {what} into {args.output}.")
    if failures:
        _print_safely(f"{_count(len(failures), 'image')} failed:", sys.stderr)
        for source, reason in failures:
            _print_safely(f"  {source}: {reason}", sys.stderr)
    return 1 if failures else 0


def plan_jobs(source: Path, output: Path, suffix: str = "") -> tuple[list[Job], int]:
    """Which images there are, and where their results go.

    The result of ``a/photo.jpg`` is ``a/photo<suffix>.png`` in the output folder. Where two images of a folder would
    have the same result, both keep their extension: ``photo.jpg<suffix>.png``.

    Args:
        source: An image, or a folder, which is searched with its sub-folders but without the output folder.
        output: A folder; it need not exist.
        suffix: What is added to the names.

    Returns:
        The jobs, in sorted order, and the number of files without the extension of an image.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If there is no image, or a result would replace an image that is read or another result.
    """
    if "/" in suffix or "\\" in suffix:
        raise ValueError(f"--suffix {suffix} must not hold a path separator")
    if output.exists() and not output.is_dir():
        raise ValueError(f"the output {output} must be a folder, and is a file")
    odd: list[Path] = []  # what is named like an image and cannot be read becomes a job, which fails with the reason

    def skip(name: str, kind: str) -> None:
        if name.lower().endswith(IMAGE_EXTENSIONS) or kind == UNREADABLE_FOLDER:
            odd.append(Path(name))
        else:
            logging.getLogger("basicsr").warning(f"{source / name} is left out: it is {kind}.")

    if source.is_dir():
        root = source
        inside = _resolved(output) != _resolved(source)
        files = [Path(name) for name in scandir(str(source), recursive=True, skipped=skip)]
        files = [file for file in files if not (inside and _resolved(source / file).is_relative_to(_resolved(output)))]
        images = [file for file in files if file.name.lower().endswith(IMAGE_EXTENSIONS)]
        ignored = len(files) - len(images)
        images = sorted(images + odd)
        if not images:
            endings = ", ".join(extension[1:] for extension in IMAGE_EXTENSIONS)
            raise ValueError(f"the folder {source} holds no images ({endings})")
    elif source.is_file():
        root, images, ignored = source.parent, [Path(source.name)], 0
    else:
        kind = kind_of(source)
        absent = kind == "absent"
        problem = "does not exist" if absent else f"is {kind}, neither an image nor a folder"
        raise (FileNotFoundError if absent else ValueError)(f"the input {source} {problem}")
    short = [image.with_name(f"{image.stem}{suffix}.png") for image in images]
    count = Counter(short)
    names = [
        name if count[name] == 1 else image.with_name(f"{image.name}{suffix}.png") for image, name in zip(images, short)
    ]
    jobs = [Job(root / image, path_inside(output, name)) for image, name in zip(images, names)]
    _refuse_replacing(jobs)
    return jobs, ignored


def _resolved(path: Path) -> Path:
    """Without links, as far as they lead anywhere: ``Path.resolve`` raises an error for a link to itself."""
    return Path(os.path.realpath(path))


def _refuse_replacing(jobs: list[Job]) -> None:
    sources = {_resolved(job.source) for job in jobs}
    for target, count in Counter(job.target for job in jobs).items():
        if count > 1:
            raise ValueError(f"{count} images would become {target}; rename all but one of them")
        if _resolved(target) in sources:
            raise ValueError(f"{target} is read and would be replaced; choose another output folder, or a --suffix")


def build_restorer(args: argparse.Namespace) -> ImageRestorer:
    """The network that the command line describes, with its weights, on its device.

    Raises:
        OptionError, ValueError, KeyError, OSError: With a message for the user.
    """
    if args.opt:
        opt, marks = load_options(args.opt)
        modernise(opt, marks)
    else:
        network, _ = read_yaml(args.arch, "--arch")
        opt, marks = {"network_g": {"type": network} if isinstance(network, str) else network}, Marks()
    if args.imports:
        import_modules({"imports": args.imports}, Marks({("imports",): "--imports"}))
    import_modules(opt, marks)
    network, path = opt.get("network_g"), opt.get("path") or {}
    if not isinstance(network, dict):
        where = f"{args.opt} has no section network_g" if args.opt else f"--arch {args.arch}: no mapping"
        raise ValueError(f"{where}; it describes the network, as in '{{type: EDSR, num_in_ch: 3, num_out_ch: 3}}'")
    weights = args.weights or path.get("pretrain_network_g")
    if not weights:
        raise ValueError(f"give the network's --weights{'; the option file names none' if args.opt else ''}")
    net = build_network(network)
    param_key = args.param_key or path.get("param_key_g")
    for message in load_weights(net, weights, path.get("strict_load_g", True), param_key):
        _print_safely(f"{weights}: keys {message}", sys.stderr)
    return ImageRestorer(Restorer(net.to(_device(args.device)), _settings(args, opt.get("val"), net)))


def _settings(args: argparse.Namespace, val: dict[str, Any] | None, net: nn.Module) -> RestoreSettings:
    """The option file's rules, which the command line overrides; tiles as large as memory allows by default, and none
    where statistics are local."""
    settings = RestoreSettings.from_options(val)
    by_default = None if settings.local_statistics or has_local_statistics(net) else "auto"
    tile = args.tile if args.tile is not None else settings.tile or by_default
    overlap = settings.tile_overlap if args.tile_overlap is None else args.tile_overlap
    self_ensemble = settings.self_ensemble or args.self_ensemble
    return dataclasses.replace(settings, tile=tile or None, tile_overlap=overlap, self_ensemble=self_ensemble)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise ValueError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def upscale_all(jobs: Iterable[Job], restorer: ImageRestorer) -> list[tuple[Path, str]]:
    """Run the jobs one after the other, with a progress bar in a terminal.

    Returns:
        The images that failed, and why; the others are done.
    """
    failures = []
    for job in tqdm(jobs, unit="image", disable=None):
        try:
            imwrite(restorer(read_image(job.source)), job.target)
        except (OSError, ValueError, RuntimeError, MemoryError, cv2.error) as error:
            failures.append((job.source, f"{error}" or type(error).__name__))
    return failures


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _print_safely(text: str, stream: Any = None) -> None:
    """Print text that may hold characters that the terminal cannot show."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)
