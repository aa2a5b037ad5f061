"""Whether a value from YAML fits a Python type annotation, and how to say what would.

YAML's own types are taken at their word: 3 is a number where a float is wanted and a list serves as a tuple, but
``'3'`` is no integer, ``true`` no number, and 3.5 no integer.
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

import annotated_types as at
from pydantic import BaseModel, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

_PLAIN = (bool, int, float, str, type(None), list, tuple, dict, PurePath, Enum, BaseModel)
_LISTS = (list, tuple, set, frozenset, abc.Sequence, abc.Iterable, abc.Collection, abc.MutableSequence)
_DICTS = (dict, abc.Mapping, abc.MutableMapping)
_UNFIT = object()


def fits(annotation: Any, value: Any) -> bool:
    """Whether a value read from YAML fits an annotation. What YAML cannot express fits anything.

    No number is infinite or NaN, and no integer needs more than 64 bits.
    """
    kind = yaml_type(annotation)
    if kind is not Any and has_huge_integer(value):
        return False
    try:
        text = json.dumps(value, allow_nan=kind is Any)
    except (TypeError, ValueError):  # a value of one of YAML's rarer types, such as !!binary; .nan or .inf
        return False
    try:
        adapter = _adapter(kind)
    except TypeError:  # an annotation that cannot be hashed, such as Literal[[1]]
        return True
    if adapter is None:
        return True
    try:
        adapter.validate_json(text, strict=True)
    except ValidationError:
        return False
    return True


def has_huge_integer(value: Any) -> bool:
    """Whether a value is, or holds, an integer that no array or counter can hold."""
    if isinstance(value, (list, dict)):
        return any(map(has_huge_integer, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


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
    if origin in _LISTS or origin in _DICTS:
        inner = tuple(arg if arg is Ellipsis else yaml_type(arg) for arg in args)
        return origin[inner if len(inner) > 1 else inner[0]] if inner else origin
    if inspect.isclass(annotation):
        plain = annotation in (*_LISTS, *_DICTS) or issubclass(annotation, _PLAIN)
        return annotation if plain else _UNFIT
    return _UNFIT


def describe(annotation: Any) -> str:
    """An annotation in words: ``list[int] | None`` → ``a list of integers or ~``."""
    return _describe(yaml_type(annotation), plural=False)


_WORDS = {
    bool: ("true or false", "true or false values"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
    type(None): ("~", "~"),
    None: ("~", "~"),
}


def _describe(annotation: Any, plural: bool) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation][plural]
    if origin is Annotated:
        return _describe(args[0], plural) + _bounds(args[1:])
    if origin in (Union, types.UnionType):
        words = list(dict.fromkeys(_describe(arm, plural) for arm in args))
        return " or ".join(words)
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(map(shown, args))
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return "one of " + ", ".join(shown(member.value) for member in annotation)
    if origin in _DICTS or (inspect.isclass(annotation) and issubclass(annotation, (abc.Mapping, BaseModel))):
        return "sections" if plural else "a section"
    if annotation in _LISTS or origin in _LISTS:
        noun = "lists" if plural else "a list"
        if origin is tuple and args and args[-1] is not Ellipsis:
            same = len(set(map(str, args))) == 1
            inner = _describe(args[0], True) if same else ", ".join(_describe(arg, False) for arg in args)
            return f"{noun} of {len(args)} {inner}" if same else f"{noun} of {inner}"
        return f"{noun} of {_describe(args[0], True)}" if args and args[0] is not Any else noun
    if inspect.isclass(annotation) and issubclass(annotation, PurePath):
        return "paths" if plural else "a path"
    return "anything"


_SIGNS = ((at.Gt, "gt", ">"), (at.Ge, "ge", "≥"), (at.Lt, "lt", "<"), (at.Le, "le", "≤"))


def _bounds(metadata: tuple[Any, ...]) -> str:
    """`` ≥ 0 and < 1`` for the bounds among an annotation's metadata."""
    flat = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
    words = [f" {sign} {getattr(part, name)}" for part in flat for kind, name, sign in _SIGNS if isinstance(part, kind)]
    return " and".join(words)


def choices(annotation: Any) -> list[str]:
    """The strings that an annotation allows by name, for suggesting the nearest."""
    if get_origin(annotation) is Literal:
        return [arg for arg in get_args(annotation) if isinstance(arg, str)]
    return [choice for arg in get_args(annotation) for choice in choices(arg)]


def shown(value: Any) -> str:
    """A value as it stands in YAML, shortened to fit a sentence."""
    if value is None or isinstance(value, bool):
        text = {None: "~", True: "true", False: "false"}[value]
    else:
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def strings_in(value: Any) -> set[str]:
    """The strings in nested options, the keys of sections aside."""
    if isinstance(value, str):
        return {value}
    parts = value.values() if isinstance(value, abc.Mapping) else value if isinstance(value, (list, tuple)) else ()
    return {text for part in parts for text in strings_in(part)}
