"""Read YAML safely and remember where every value was written.

Beyond PyYAML's safe loader: numbers as in YAML 1.2 (``1e-4`` is a float, ``1:30`` and ``2024-01-01`` are strings),
a key written twice is an error, and aliases cannot expand without bound.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

MAX_NODES = 20_000
"""An option file with more values than this, aliases expanded, is refused."""

Key = tuple[Any, ...]
"""The way to a value: ``("datasets", "train", "gt_size")``; list items by their index."""


class OptionError(ValueError):
    """What is wrong with an option file: one sentence per problem.

    Args:
        problems: The sentences, each naming the option, the file and the line.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        if len(self.problems) == 1:
            text = self.problems[0]
        else:
            text = f"{len(self.problems)} problems in the options:\n" + "\n".join(f"  - {p}" for p in self.problems)
        super().__init__(text)


class Marks(dict[Key, str]):
    """Where each option was written: ``options/x.yml:12`` or ``--force_yml``, by the way to the option.

    An option that was translated from another spelling is known by its new name too, and messages about it name what
    the user wrote.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._written: dict[Key, Key] = {}

    def carry(self, new: Key, old: Key) -> None:
        """From now on ``new`` means what was written as ``old``, and what is below ``new`` what is below ``old``."""
        self._written[new] = self.written(old)

    def written(self, key: Key) -> Key:
        """An option as the user wrote it: itself, or what it was translated from."""
        for end in range(len(key), -1, -1):
            if key[:end] in self._written:
                old = self._written[key[:end]]
                # what the translation has added to a section was not written anywhere
                return (*old, *key[end:]) if (*old, *key[end:]) in self else old
        return key

    def where(self, key: Key) -> str:
        """The place of an option, or of the nearest section around it that has one; '' if none has."""
        key = self.written(key)
        for end in range(len(key), -1, -1):
            if key[:end] in self:
                return self[key[:end]]
        return ""

    def label(self, key: Key) -> str:
        """An option for a message: ``network_g.upscale (options/x.yml:12)``."""
        where = self.where(key)
        name = dotted(self.written(key))
        return f"{name} ({where})" if where else name

    def drop(self, key: Key) -> None:
        """Forget an option and all below it."""
        for known in [k for k in self if k[: len(key)] == key]:
            del self[known]


def dotted(key: Key) -> str:
    """``("train", "optim_g", "lr")`` → ``train.optim_g.lr``."""
    return ".".join(map(str, key)) or "the option file"


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path for a message: relative to the working folder where it lies below it."""
    full = Path(path).resolve()
    try:
        return str(full.relative_to(Path.cwd()))
    except ValueError:
        return str(full)


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


def dump_yaml(data: Any) -> str:
    """YAML text that reads back as the same data, here and in other YAML readers."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


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
        OptionError: If it is not valid YAML, writes a key twice, uses a tag other than YAML's own, or is too large.
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
            if name in lines:
                raise OptionError(f"{self._place(name_node)}: '{name}' is written twice, first in line {lines[name]}")
            lines[name] = name_node.start_mark.line + 1
            path = (*key, name)
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
