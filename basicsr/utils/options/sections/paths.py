"""Names that become folders and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import Key
from ..lookup import datasets_of, section_of
from ..section import Finding
from ..words import shown


def name_rules(opt: Mapping[Any, Any]) -> Iterator[Finding]:
    """Names serve as names of files; results are kept by a dataset's name, so no two may share one."""
    yield from _file_name(("name",), opt.get("name"))
    yield from _file_name(("val", "suffix"), section_of(opt, "val").get("suffix"))
    sections: dict[Any, str] = {}
    for section, dataset in datasets_of(opt):
        name = dataset.get("name")
        key = ("datasets", section, "name")
        yield from _file_name(key, name)
        if section.startswith("train") or not isinstance(name, str):
            continue
        if name in sections:
            yield Finding(key, f"'{name}' is already the name of datasets.{sections[name]}")
        sections[name] = section


def _file_name(key: Key, name: Any) -> Iterator[Finding]:
    if not isinstance(name, str):
        return
    if not name.strip() or name in (".", "..") or len(name.encode()) > 200 or set(name) & set("/\\\0\n\r\t"):
        yield Finding(key, f"must serve as the name of a folder (not empty, no / or \\), and {shown(name)} does not")
