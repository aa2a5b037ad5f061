"""Read YAML safely and remember where every value was written.

Beyond PyYAML's safe loader: numbers as in YAML 1.2 (``1e-4`` is a float, ``1:30`` and ``2024-01-01`` are strings),
and aliases cannot expand without bound. Of a key that is written twice the last value is taken, as by PyYAML, with a
notice.
"""

from __future__ import annotations

import logging
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import yaml

from .errors import Key, Marks, OptionError, dotted, shown_path

MAX_NODES = 20_000
"""An option file with more values than this, aliases expanded, is refused."""

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's idea of a number."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":float", ":int", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0b[01_]+|0[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, quoting also the strings that `_Loader` would read as numbers."""


_Dumper.yaml_implicit_resolvers = {
    first: yaml.SafeDumper.yaml_implicit_resolvers.get(first, []) + _Loader.yaml_implicit_resolvers.get(first, [])
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


class _OrderedLoader(_Loader):
    """The same with sections as an `OrderedDict`."""

    def construct_ordered(self, node: yaml.MappingNode) -> OrderedDict[Any, Any]:
        """A section."""
        self.flatten_mapping(node)
        return OrderedDict(self.construct_pairs(node, deep=True))


class _OrderedDumper(_Dumper):
    """The same for what `_OrderedLoader` reads."""


_OrderedLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _OrderedLoader.construct_ordered)
_OrderedDumper.add_representer(OrderedDict, lambda dumper, data: dumper.represent_dict(data.items()))


def ordered_yaml() -> tuple[type[yaml.SafeLoader], type[yaml.SafeDumper]]:
    """A loader and a dumper for ``yaml.load`` and ``yaml.dump`` that keep the order of keys, under BasicSR's name."""
    return _OrderedLoader, _OrderedDumper


def dump_yaml(data: Any) -> str:
    """YAML text that reads back as the same data, here and in other YAML readers."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def yaml_load(f: str | os.PathLike[str]) -> Any:
    """Read YAML: a file, or the text itself. A key that is written twice is logged.

    Raises:
        OptionError: If the file is missing or the YAML is not valid.
    """
    text = os.fspath(f)
    if os.path.isfile(text) or ("\n" not in text and text.endswith((".yml", ".yaml"))):
        data, marks = read_yaml_file(text)
    else:
        data, marks = read_yaml(text, "the YAML text")
    for notice in marks.notices:
        logging.getLogger("basicsr").warning(notice)
    return data


def read_yaml_file(path: str | os.PathLike[str]) -> tuple[Any, Marks]:
    """Read one YAML file.

    Returns:
        The data, and where each of its values was written.

    Raises:
        OptionError: If the file is missing, is not UTF-8, or is not valid YAML.
    """
    shown = shown_path(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise OptionError(f"{shown}: there is no such option file") from None
    except UnicodeDecodeError as error:
        raise OptionError(f"{shown}: not a UTF-8 text file ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise OptionError(f"{shown}: cannot be read: {error.strerror}") from None
    return read_yaml(text, shown)


def read_yaml(text: str, source: str) -> tuple[Any, Marks]:
    """Read YAML text.

    Args:
        text: The YAML.
        source: What to call it in messages: a file name.

    Raises:
        OptionError: If it is not valid YAML, uses a tag other than YAML's own, or is too large.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        builder = _Builder(loader, source)
        return (None if node is None else builder.build(node, ())), builder.marks
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise OptionError(f"{source}{line}: not valid YAML: {reason}") from None
    except yaml.YAMLError as error:
        raise OptionError(f"{source}: not valid YAML: {error}") from None
    except RecursionError:
        raise OptionError(f"{source}: nested too deeply to be an option file") from None


class _Builder:
    """Turns a tree of YAML nodes into plain dicts, lists and scalars."""

    def __init__(self, loader: _Loader, source: str) -> None:
        self.marks = Marks()
        self._loader = loader
        self._source = source
        self._count = 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node, key: Key) -> Any:
        self.marks.setdefault(key, self._place(node))
        self._count += 1
        if self._count > MAX_NODES:
            raise OptionError(f"{self._place(node)}: more than {MAX_NODES:,} values, counting what its aliases repeat")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise OptionError(f"{self._place(node)}: an alias that contains itself")
        self._open.add(id(node))
        value = self._mapping(node, key) if isinstance(node, yaml.MappingNode) else self._sequence(node, key)
        self._open.remove(id(node))
        return value

    def _place(self, node: yaml.Node) -> str:
        return f"{self._source}:{node.start_mark.line + 1}"

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return self._loader.construct_object(node)
        except ValueError as error:  # such as `!!float abc`
            raise OptionError(f"{self._place(node)}: {error}") from None

    def _sequence(self, node: yaml.Node, key: Key) -> list[Any]:
        self._require_tag(node, "seq")
        return [self.build(item, (*key, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[Any, Any]:
        self._require_tag(node, "map")
        inherited: list[dict[Any, Any]] = []
        for name_node, value_node in node.value:
            if name_node.tag == _MERGE:
                value = self.build(value_node, key)
                inherited += value if isinstance(value, list) else [value]
        if not all(isinstance(section, dict) for section in inherited):
            raise OptionError(f"{self._place(node)}: `<<:` takes a section or a list of sections")
        result: dict[Any, Any] = {}
        lines: dict[Any, int] = {}
        for name_node, value_node in node.value:
            if name_node.tag == _MERGE:
                continue
            name = self._scalar(name_node) if isinstance(name_node, yaml.ScalarNode) else None
            if name is None:
                raise OptionError(f"{self._place(name_node)}: a key must be a plain word")
            path = (*key, name)
            if name in lines:
                self.marks.notices.append(
                    f"{dotted(path)} ({self._place(name_node)}): is written twice, first in line {lines[name]}; "
                    f"the last one is taken"
                )
                self.marks.drop(path)
            lines[name] = name_node.start_mark.line + 1
            if any(name in section for section in inherited):
                self.marks.drop(path)
            self.marks[path] = self._place(name_node)
            result[name] = self.build(value_node, path)
        for section in inherited:
            for name, value in section.items():
                result.setdefault(name, value)
        return result

    def _require_tag(self, node: yaml.Node, tag: str) -> None:
        if node.tag != f"tag:yaml.org,2002:{tag}":
            raise OptionError(f"{self._place(node)}: the tag {node.tag} is not allowed in an option file")
