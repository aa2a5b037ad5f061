"""``basicsr prepare``: public data sets from the folders as downloaded, and single steps of preparing images."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from basicsr.data.layouts.prepare import Prepared, prepare_set
from basicsr.data.layouts.sets import SETS, RestorationSet
from basicsr.utils.misc import sizeof_fmt

from .preparation_steps import STEPS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    width = max(map(len, (*SETS, *STEPS)))
    sets = [f"  {each.name:<{width}}  {each.task}: {each.looks_like}" for each in SETS.values()]
    steps = [f"  {name:<{width}}  {step.summary}" for name, step in STEPS.items()]
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(
        [
            "data sets, and what SOURCE holds:",
            *sets,
            "",
            "steps:",
            *steps,
            "",
            "basicsr prepare NAME --help shows more.",
        ]
    )
    parser.add_argument("name", metavar="NAME", type=_name, help="a data set, then SOURCE TARGET; or a step")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="what the set or the step takes")


def _name(text: str) -> str:
    """The name of a data set, whatever its case, or of a step."""
    names = {name.lower(): name for name in (*SETS, *STEPS)}
    if text.lower() in names:
        return names[text.lower()]
    near = get_close_matches(text.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {names[near[0]]}?" if near else f"there are {', '.join(names.values())}"
    raise argparse.ArgumentTypeError(f"there is no data set or step '{text}'; {hint}")


def run(args: argparse.Namespace) -> int:
    """Prepare a data set, or run a step.

    Returns:
        0; 1 where images could not be used, or nothing was made.
    """
    return run_step(args.name, args.arguments) if args.name in STEPS else _run_set(SETS[args.name], args.arguments)


def run_step(name: str, argv: Sequence[str] | None = None) -> int:
    """Run a step with the options of a command line, by default those of a script's."""
    parser = _parser(None if argv is None else name, STEPS[name].summary)
    STEPS[name].add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return _report(STEPS[name].run(args) or [])
    except (OSError, ValueError) as error:
        return _refuse(error)


def _parser(name: str | None, summary: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name and f"basicsr prepare {name}", description=summary)
    parser.add_argument(
        "--num-workers", type=int, default=os.cpu_count() or 1, help="number of processes (default: the cores)"
    )
    return parser


def _run_set(which: RestorationSet, argv: Sequence[str]) -> int:
    parser = _parser(which.name, f"{which.name}, for {which.task}. SOURCE holds {which.looks_like}.")
    parser.add_argument("source", metavar="SOURCE", help="the folder as downloaded and unpacked; it is not written to")
    parser.add_argument("target", metavar="TARGET", help=f"the folder to make, such as datasets/{which.name}")
    parser.add_argument(
        "--patch-size",
        type=int,
        metavar="N",
        help=f"cut training images into patches of N pixels, 0 for whole images (default {which.patch_size})",
    )
    parser.add_argument(
        "--overlap", type=int, metavar="N", help=f"of patches (default {which.overlap}, or half of --patch-size)"
    )
    storage = parser.add_mutually_exclusive_group()
    for name, what in (("lmdb", "an LMDB"), ("memmap", "decoded storage")):
        storage.add_argument(
            f"--{name}", dest="storage", action="store_const", const=name, help=f"make {what} of each folder as well"
        )
    if which.variants:
        parser.add_argument(
            "--variant",
            choices=which.variants,
            help=f"the folder of LQ images to use (default {which.variants[0]})",
        )
    args = parser.parse_args(argv)
    made: list[Prepared] = []
    try:
        for part in prepare_set(
            which,
            args.source,
            args.target,
            variant=args.variant if which.variants else None,
            patch_size=args.patch_size,
            overlap=args.overlap,
            storage=args.storage or "disk",
            num_workers=args.num_workers,
        ):
            made.append(part)
            print(_summary(part))
    except (OSError, ValueError) as error:
        return _refuse(error)
    print("\nFor the option file:\n" + _options(which, made))
    return _report([failure for part in made for failure in part.failures])


def _summary(part: Prepared) -> str:
    cut = part.cut
    patches = f", {part.images} patches of {cut.patch_size} pixels (overlap {cut.overlap})" if cut.patch_size else ""
    sizes = ", ".join(f"{role} {sizeof_fmt(part.nbytes[role])}" for role in part.roots)
    spare = f"; {part.spare_gt} GT images without LQ are left out" if part.spare_gt else ""
    return f"{part.part}: {part.pairs} pairs{patches}; {sizes}{spare}"


def _options(which: RestorationSet, made: Sequence[Prepared]) -> str:
    """The lines of an option file: the training part as ``train``, the others as ``val``, ``val_2`` …"""
    lines, validated = ["datasets:"], 0
    for part in made:
        phase = "train"
        if part.part != "train":
            validated += 1
            phase = "val" if validated == 1 else f"val_{validated}"
        _, _, name = part.part.partition("/")
        lines += [
            f"  {phase}:",
            f"    name: {name or which.name}",
            "    type: PairedImageDataset",
            f"    dataroot_gt: {part.roots['gt']}",
            f"    dataroot_lq: {part.roots['lq']}",
            f"    io_backend: {{type: {part.storage}}}",
        ]
    return "\n".join(lines)


def _report(failures: Sequence[str]) -> int:
    if failures:
        print(f"{len(failures)} images could not be used:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


def _refuse(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1
