"""Spellings that older BasicSR option files use, read as today's."""

from __future__ import annotations

import re
from typing import Any

from .errors import Key, Marks, dotted

# (section, key as written, section and key as read now)
_RENAMED: list[tuple[str, str, tuple[str, ...]]] = [
    (r"", r"save_img", ("val", "save_img")),
    (r"", r"suffix", ("val", "suffix")),
    (r"datasets\.\w+", r"use_flip", ("use_hflip",)),
    (r"path", r"pretrain_model_(\w+)", (r"pretrain_network_\1",)),
    (r"path", r"strict_load", ("strict_load_g",)),
]


def modernise(opt: dict[str, Any], marks: Marks) -> list[str]:
    """Give older keys their present names, in place.

    Returns:
        A sentence for each of them. A key whose present name is there as well is left to the check: BasicSR passes it
        over, and so do we, but for weights of two names.
    """
    notices: list[str] = []
    sections: list[tuple[str, Key, Any]] = [("", (), opt), ("path", ("path",), opt.get("path"))]
    datasets = opt.get("datasets")
    if isinstance(datasets, dict):
        sections += [(f"datasets.{name}", ("datasets", name), section) for name, section in datasets.items()]
    for name, key, section in sections:
        if isinstance(section, dict):
            for old in [k for k in section if isinstance(k, str)]:
                notices += _rename(name, key, section, old, marks)
    return notices


def _rename(name: str, key: Key, section: dict[str, Any], old: str, marks: Marks) -> list[str]:
    for where, pattern, new in _RENAMED:
        match = re.fullmatch(pattern, old)
        if match is None or not re.fullmatch(where, name):
            continue
        label = marks.label((*key, old))
        *inner, last = (match.expand(part) for part in new)
        target = section
        for part in inner:
            target = target.setdefault(part, {})
        if not isinstance(target, dict) or last in target:
            return []
        target[last] = section.pop(old)
        new_key = (*key, *inner, last)
        marks.carry(new_key, (*key, old))
        return [f"{label} is the older spelling of {dotted(new_key)} and is read as that"]
    return []
