"""Read a value from YAML as a Python annotation says.

YAML's own types are taken at their word: 3 is a number where a float is wanted and a list serves as a tuple, but
``'3'`` is not an integer, ``true`` is not a number, and 3.5 is not an integer.
"""

from __future__ import annotations

import collections.abc as abc
import inspect
import json
import types
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

LISTS = (list, tuple, set, frozenset, abc.Sequence, abc.Iterable, abc.Collection, abc.MutableSequence)
DICTS = (dict, abc.Mapping, abc.MutableMapping)
_PLAIN = (bool, int, float, str, type(None), list, tuple, dict, PurePath, Enum, BaseModel)
_UNFIT = object()


def read_value(annotation: Any, value: Any) -> Any:
    """A value that was read from YAML, as an annotation means it. What YAML cannot express takes anything.

    Raises:
        ValueError: If the value does not fit. No number may be infinite or NaN, and no integer need more than 64 bits.
    """
    kind = yaml_type(annotation)
    if kind is not Any and has_huge_integer(value):
        raise ValueError("an integer needs more than 64 bits")
    try:
        text = json.dumps(value, allow_nan=kind is Any)
    except (TypeError, ValueError) as error:  # a value of one of YAML's rarer types, such as !!binary; .nan or .inf
        raise ValueError(str(error)) from error
    adapter = adapter_of(kind)
    try:
        found = value if adapter is None or kind is Any else adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(str(error)) from error
    if isinstance(value, bool) and isinstance(found, int) and not isinstance(found, bool):
        raise ValueError("true is not a number")  # pydantic takes it for the literal 1
    return found


def has_huge_integer(value: Any) -> bool:
    """Whether a value is, or holds, an integer that no array or counter can hold."""
    if isinstance(value, (list, dict)):
        return any(map(has_huge_integer, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def adapter_of(annotation: Any) -> TypeAdapter | None:
    """What validates an annotation that YAML can express; None where pydantic cannot."""
    try:
        return _adapter(annotation)
    except TypeError:  # an annotation that cannot be hashed, such as Literal[[1]]
        return None


@lru_cache(maxsize=1024)
def _adapter(annotation: Any) -> TypeAdapter | None:
    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None


def yaml_type(annotation: Any) -> Any:
    """The part of an annotation that YAML can express: ``float | Tensor`` → ``float``; ``Any`` if there is none."""
    kept = _strip(annotation)
    return Any if kept is _UNFIT else kept


def _strip(annotation: Any) -> Any:
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is Any or annotation is object:
        return Any if annotation is object else annotation
    if isinstance(annotation, (str, TypeVar)):
        return _UNFIT
    if origin is Annotated:
        inner = _strip(args[0])
        return _UNFIT if inner is _UNFIT else Annotated[(inner, *args[1:])]
    if origin in (Union, types.UnionType):
        arms = [arm for arm in map(_strip, args) if arm is not _UNFIT]
        fit = [arm for arm in arms if arm is not type(None)]
        return Union[tuple(arms)] if fit else _UNFIT  # noqa: UP007 - the arms are known only at run time
    if origin is Literal:
        return annotation
    if origin in LISTS or origin in DICTS:
        inner = tuple(arg if arg is Ellipsis else yaml_type(arg) for arg in args)
        return origin[inner if len(inner) > 1 else inner[0]] if inner else origin
    if inspect.isclass(annotation):
        plain = annotation in (*LISTS, *DICTS) or issubclass(annotation, _PLAIN)
        return annotation if plain else _UNFIT
    return _UNFIT


def strings_in(value: Any) -> set[str]:
    """The strings in nested options, the keys of sections aside."""
    if isinstance(value, str):
        return {value}
    parts = value.values() if isinstance(value, abc.Mapping) else value if isinstance(value, (list, tuple)) else ()
    return {text for part in parts for text in strings_in(part)}
