"""Options as text: YAML to read, and lines for a log."""

from __future__ import annotations

import os
from os import path as osp
from typing import Any

from .yaml_text import read_yaml, read_yaml_file


def yaml_load(f: str | os.PathLike[str]) -> Any:
    """Read YAML: a file, or the text itself.

    Raises:
        OptionError: If the file is missing or the YAML is not valid.
    """
    text = os.fspath(f)
    if osp.isfile(text) or ("\n" not in text and text.endswith((".yml", ".yaml"))):
        return read_yaml_file(text)[0]
    return read_yaml(text, "the YAML text")[0]


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
