"""What the preparation commands share. Importing it makes the checkout's own `basicsr` the one that is imported."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all commands have."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument(
        "--num-workers", type=int, default=os.cpu_count() or 1, help="number of processes (default: the cores)"
    )
    return arguments


def run(step: Callable[[], list[str] | None]) -> int:
    """Run a preparation step and report what went wrong; the exit status is 1 if anything did."""
    try:
        failures = step() or []
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if failures:
        print(f"{len(failures)} images could not be used:", *failures, sep="\n  ", file=sys.stderr)
        return 1
    return 0
