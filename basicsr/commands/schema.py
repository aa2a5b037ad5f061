"""``basicsr schema``: the JSON Schema of an option file."""

from __future__ import annotations

import argparse
import json

from .imports import add_imports, import_all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_imports(parser)


def run(args: argparse.Namespace) -> int:
    """Print the JSON Schema."""
    from basicsr.utils.options.json_schema import option_json_schema

    if not import_all(args.imports):
        return 1
    print(json.dumps(option_json_schema(), indent=1))
    return 0
