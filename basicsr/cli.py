"""``basicsr <command>``: what there is, whether it works here, and whether an option file is right."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import basicsr
from basicsr.utils.openmp import poll_briefly

EXTRAS = {
    "iqa": ("torchvision", "lpips"),
    "diffusion": ("diffusers", "transformers"),
    "export": ("onnx",),
    "wandb": ("wandb",),
    "test": ("pytest", "ruff"),
}
"""The modules of each optional extra in pyproject.toml."""

SECTIONS = ("arch", "dataset", "model", "loss", "metric", "distillation term")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0, or 1 where something is wrong.
    """
    poll_briefly()
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="basicsr", description="BasicSR-KD: distillation for image restoration.")
    parser.add_argument("--version", action="version", version=f"basicsr-kd {basicsr.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="<command>", required=True)

    doctor = commands.add_parser("doctor", help="show versions, devices, optional extras, and what fails to import")
    doctor.set_defaults(run=run_doctor)

    listing = commands.add_parser("list", help="list what an option file can name")
    listing.add_argument("kinds", nargs="*", metavar="kind", help=f"of these kinds only: {', '.join(SECTIONS)}")
    listing.add_argument("--imports", nargs="+", default=[], metavar="MODULE", help="import your own modules first")
    listing.set_defaults(run=run_list)

    schema = commands.add_parser("schema", help="print the JSON Schema of an option file, for editors")
    schema.add_argument("--imports", nargs="+", default=[], metavar="MODULE", help="import your own modules first")
    schema.set_defaults(run=run_schema)

    check = commands.add_parser("check", help="check option files without building anything")
    check.add_argument("files", nargs="+", metavar="FILE", help="option files")
    check.add_argument("--data", action="store_true", help="also require that data folders and weights exist")
    check.add_argument("--force_yml", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    check.set_defaults(run=run_check)

    upscale = commands.add_parser("upscale", help="run a network over an image or a folder of images")
    upscale.add_argument("-i", "--input", required=True, metavar="PATH", help="an image, or a folder of images")
    upscale.add_argument("-o", "--output", required=True, metavar="FOLDER", help="folder for the results, PNG files")
    network = upscale.add_mutually_exclusive_group(required=True)
    network.add_argument("--opt", metavar="FILE", help="an option file: its network_g, and its rules in val")
    network.add_argument("--arch", metavar="YAML", help="the network, such as '{type: IMDN, upscale: 2}'")
    upscale.add_argument("--weights", metavar="FILE", help="weights, a path or URL; by default the option file's")
    upscale.add_argument("--param_key", metavar="KEY", help="which of the file's state dicts (default: params_ema)")
    upscale.add_argument("--imports", nargs="+", default=[], metavar="MODULE", help="import your own modules first")
    upscale.add_argument(
        "--tile", type=_tile, metavar="N", help="side of a tile in pixels; 0 for none; auto (default): as memory allows"
    )
    upscale.add_argument("--tile_overlap", type=int, metavar="N", help="pixels that tiles share (default: 32)")
    upscale.add_argument("--self_ensemble", action="store_true", help="average over the 8 flips and rotations")
    upscale.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 …")
    upscale.add_argument("--suffix", default="", help="added to the names of the results")
    upscale.add_argument("--overwrite", action="store_true", help="replace results that exist; else they are kept")
    upscale.set_defaults(run=run_upscale)
    return parser


def _tile(text: str) -> int | str:
    if text == "auto" or text.isdecimal():
        return text if text == "auto" else int(text)
    raise argparse.ArgumentTypeError(f"must be a number of pixels, 0 for none, or auto, not '{text}'")


def run_doctor(args: argparse.Namespace) -> int:
    """Print what a report of a problem needs."""
    import torch

    print(f"basicsr      {basicsr.__version__} from {Path(basicsr.__file__).parent}")
    print(f"Python       {platform.python_version()} on {platform.platform()}")
    for name in ("torch", "numpy", "cv2", "pydantic"):
        print(f"{name:<12} {_version(name)}")
    print(f"CPU          {os.cpu_count()} cores, {torch.get_num_threads()} threads in use")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"GPU          {', '.join(devices) or 'none'} (CUDA {torch.version.cuda or 'not built in'})")
    for extra, modules in EXTRAS.items():
        absent = [name for name in modules if importlib.util.find_spec(name) is None]
        state = f"lacks {', '.join(absent)}: pip install 'basicsr-kd[{extra}]'" if absent else "installed"
        print(f"[{extra}]".ljust(13) + state)
    failures: dict[str, str] = {}
    for registry in _registries().values():
        print(f"{len(registry.keys()):>3} registered as {registry.name}")
        failures |= registry.import_failures
    for module, why in failures.items():
        print(f"FAILED to import {module}: {why}")
    return 1 if failures else 0


def run_list(args: argparse.Namespace) -> int:
    """Print the registered names by kind, each with its file and what it is."""
    if not _import(args.imports):
        return 1
    registries = _registries()
    unknown = [kind for kind in args.kinds if kind not in registries]
    if unknown:
        print(f"there is no kind '{unknown[0]}'; kinds: {', '.join(SECTIONS)}", file=sys.stderr)
        return 1
    for kind in args.kinds or SECTIONS:
        print(f"{kind}:")
        for name, target in sorted(registries[kind]):
            print(f"  {name:<28} {_file(target):<44} {_summary(target)}")
    return 0


def run_schema(args: argparse.Namespace) -> int:
    """Print the JSON Schema."""
    from basicsr.utils.option_json_schema import option_json_schema

    if not _import(args.imports):
        return 1
    print(json.dumps(option_json_schema(), indent=1))
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Check option files, each by itself."""
    from basicsr.utils.options import OptionError, read_options

    failed = 0
    for file in args.files:
        try:
            _, notices = read_options(file, args.force_yml, check_files=args.data)
        except OptionError as error:
            failed += 1
            print(f"{file}: WRONG\n{error}")
        else:
            print(f"{file}: ok" + "".join(f"\n  note: {notice}" for notice in notices))
    return 1 if failed else 0


def run_upscale(args: argparse.Namespace) -> int:
    """Restore images with a network."""
    from basicsr.upscale import run

    return run(args)


def _registries() -> dict[str, Any]:
    from basicsr.utils import registry as r

    kinds = (r.ARCH_REGISTRY, r.DATASET_REGISTRY, r.MODEL_REGISTRY, r.LOSS_REGISTRY, r.METRIC_REGISTRY, r.KD_REGISTRY)
    return {registry.name: registry for registry in kinds}


def _import(entries: list[str]) -> bool:
    from basicsr.utils.option_files import import_modules
    from basicsr.utils.option_yaml import Marks, OptionError

    try:
        import_modules({"imports": entries}, Marks({("imports",): "--imports"}))
    except OptionError as error:
        print(error, file=sys.stderr)
        return False
    return True


def _version(module: str) -> str:
    try:
        return str(importlib.import_module(module).__version__)
    except ImportError as error:
        return f"not importable: {error}"


def _summary(target: Any) -> str:
    """The first line of a docstring, without the mark-up of references."""
    return re.sub(r":\w+:`~?([^`]+)`", r"\1", (inspect.getdoc(target) or "").partition("\n")[0])


def _file(target: Any) -> str:
    try:
        path = Path(inspect.getfile(target))
    except (OSError, TypeError):  # defined in an interactive session
        return target.__module__
    root = Path(basicsr.__file__).parents[1]
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


if __name__ == "__main__":
    sys.exit(main())
