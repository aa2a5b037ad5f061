"""``basicsr list``: the registered names that an option file can use."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import basicsr
from basicsr.utils.registry import REGISTRIES

from .imports import add_imports, import_all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kinds", nargs="*", metavar="kind", help=f"of these kinds only: {', '.join(REGISTRIES)}")
    add_imports(parser)


def run(args: argparse.Namespace) -> int:
    """Print the registered names by kind, each with its file and what it is."""
    if not import_all(args.imports):
        return 1
    unknown = [kind for kind in args.kinds if kind not in REGISTRIES]
    if unknown:
        print(f"there is no kind '{unknown[0]}'; kinds: {', '.join(REGISTRIES)}", file=sys.stderr)
        return 1
    for kind in args.kinds or REGISTRIES:
        print(f"{kind}:")
        for name, target in sorted(REGISTRIES[kind]):
            print(f"  {name:<28} {_file(target):<44} {_summary(target)}")
    return 0


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
