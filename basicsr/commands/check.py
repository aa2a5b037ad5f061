"""``basicsr check``: whether option files are right."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="option files")
    parser.add_argument("--data", action="store_true", help="also require that data folders and weights exist")
    parser.add_argument("--force_yml", nargs="+", action="extend", default=[], metavar="KEY=VALUE")


def run(args: argparse.Namespace) -> int:
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
