"""The option ``--imports`` of several commands: a user's own modules."""

from __future__ import annotations

import argparse
import sys


def add_imports(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--imports", nargs="+", default=[], metavar="MODULE", help="import your own modules first")


def import_all(entries: list[str]) -> bool:
    """Import modules; says on stderr what fails.

    Returns:
        Whether all were imported.
    """
    from basicsr.utils.options.errors import Marks, OptionError
    from basicsr.utils.options.files import import_modules

    try:
        import_modules({"imports": entries}, Marks({("imports",): "--imports"}))
    except OptionError as error:
        print(error, file=sys.stderr)
        return False
    return True
