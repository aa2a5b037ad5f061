"""Options with every default filled in, by dotted names, so that two option files can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from .errors import Key, dotted
from .finding import Setting
from .registered import find_registered
from .section import Section
from .sections import Options


@dataclass(frozen=True)
class CompleteOptions:
    """The values of an option file by dotted names, such as ``train.optim_g.lr``; lists are one value.

    Attributes:
        values: The values, without those that are None.
        defaults: The names of those that are what they would be if their section were not there.
    """

    values: Mapping[str, Any]
    defaults: frozenset[str]


def complete(files: Iterable[Mapping[str, Any]]) -> list[CompleteOptions]:
    """Fill in the defaults of several option files that are to be trained with, unless one of them does not fit today's
    declarations.

    Args:
        files: The options in our form, as :func:`~.reading.read_options` returns them.
    """
    files = list(files)
    try:
        trees: list[Any] = [_validated(opt) for opt in files]
    except (ValidationError, KeyError):
        trees = files
    return [_complete(tree) for tree in trees]


def _complete(tree: Any) -> CompleteOptions:
    leaves = [(dotted(key), value, is_default) for key, value, is_default in _leaves(tree)]
    return CompleteOptions(
        {name: value for name, value, _ in leaves}, frozenset(name for name, _, is_default in leaves if is_default)
    )


def _validated(opt: Mapping[str, Any]) -> Section:
    recipe = find_registered("model", str(opt.get("model_type")))
    return Options.model_validate(dict(opt), context=Setting(True, recipe, "TrainOptions" not in vars(recipe)))


def _leaves(value: Any, key: Key = (), is_default: bool = False) -> Iterator[tuple[Key, Any, bool]]:
    if isinstance(value, Section):
        for name, field in type(value).model_fields.items():
            item = getattr(value, name)
            yield from _leaves(item, (*key, name), not field.is_required() and item == field.default)
        yield from _leaves(value.model_extra or {}, key)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, (*key, name))
    elif value is not None:
        yield key, _plain(value), is_default


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return {dotted(key): item for key, item, _ in _leaves(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
