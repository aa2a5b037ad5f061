"""``basicsr <command>``: a table of the commands."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import basicsr
from basicsr.utils.openmp import limit_spinning

COMMANDS = {
    "doctor": ("doctor", "show versions, devices, optional extras, and what fails to import"),
    "list": ("listing", "list what an option file can name"),
    "schema": ("schema", "print the JSON Schema of an option file, for editors"),
    "check": ("check", "check option files: build what they describe, try a step, and stop"),
    "prepare": ("prepare", "prepare public data sets, sub-images, LR images, LMDBs and decoded storage"),
    "upscale": ("upscale", "restore an image or a folder of images with a network of any scale, also 1"),
}
"""Command → its module in :mod:`basicsr.commands`, with ``add_arguments(parser)`` and ``run(args)``; and its help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0, or 1 where something is wrong.
    """
    limit_spinning()
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(argv).parse_args(argv)
    try:
        return args.run(args)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of a command line. Only the module of the command that is in it is imported."""
    parser = argparse.ArgumentParser(prog="basicsr", description="BasicSR-KD: distillation for image restoration.")
    parser.add_argument("--version", action="version", version=f"basicsr-kd {basicsr.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="<command>", required=True)
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name in argv[:1]:
            module = importlib.import_module(f"basicsr.commands.{module_name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
