"""What a run keeps of its options, and logs of them."""

from __future__ import annotations

import copy
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..dist_util import master_only
from .yaml_text import dump_yaml


@dataclass(frozen=True)
class OptionRecord:
    """An option file as it was read.

    Attributes:
        name: The file's name.
        text: Its text.
        options: The options that it led to: with ``_base_`` merged, ``--force_yml`` applied and other spellings
            translated.
    """

    name: str
    text: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, path: str, opt: Mapping[str, Any]) -> OptionRecord:
        """The record of a file and its options, before a run's own settings are filled in."""
        source = Path(path)
        return cls(source.name, source.read_text(encoding="utf-8-sig"), copy.deepcopy(dict(opt)))

    @master_only
    def keep_in(self, folder: str) -> None:
        """Write ``<name>.yml``, the file, and ``<name>_resolved.yml``, headed by the time and the command.

        The latter is an option file that repeats the run by itself, but for a seed that was drawn.
        """
        header = f"# Time: {time.asctime()}\n# Command: {shlex.join(sys.argv)}\n\n"
        target = Path(folder) / self.name
        target.write_text(header + self.text, encoding="utf-8")
        target.with_name(f"{target.stem}_resolved.yml").write_text(header + dump_yaml(self.options), encoding="utf-8")


def dict2str(opt: dict, indent_level: int = 1) -> str:
    """Options as indented lines for a log, sections in brackets."""
    indent = " " * (indent_level * 2)
    lines = "\n"
    for key, value in opt.items():
        if isinstance(value, dict):
            lines += f"{indent}{key}:[{dict2str(value, indent_level + 1)}{indent}]\n"
        else:
            lines += f"{indent}{key}: {value}\n"
    return lines
