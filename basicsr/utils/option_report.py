"""What the checks of options share: where findings go, and how sections are looked up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from .option_shape import find_registered
from .option_yaml import Key

Section = Mapping[Any, Any]


class Reporter(Protocol):
    """Takes problems and notices."""

    def problem(self, key: Key, text: str) -> None: ...

    def notice(self, key: Key, text: str) -> None: ...


def section_of(opt: Section, name: str) -> Section:
    value = opt.get(name)
    return value if isinstance(value, dict) else {}


def datasets_of(opt: Section) -> Iterator[tuple[str, Section]]:
    for name, dataset in section_of(opt, "datasets").items():
        if isinstance(dataset, dict):
            yield str(name), dataset


def is_ours(kind: str, section: Section) -> bool:
    """Whether a section names a class of this package, whose keys mean what we take them to mean."""
    try:
        return find_registered(kind, section.get("type", "")).__module__.startswith("basicsr.")
    except (KeyError, TypeError):
        return False
