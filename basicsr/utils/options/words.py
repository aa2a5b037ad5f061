"""Options in words: what an annotation allows, and a value as it stands in YAML."""

from __future__ import annotations

import collections.abc as abc
import inspect
import types
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .annotations import DICTS, LISTS, yaml_type


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
    if origin is Annotated and at.MinLen(1) in args[1:]:
        return _describe(args[0], plural).replace("a list", "a non-empty list")
    if origin is Annotated:
        return _describe(args[0], plural) + _bounds(args[1:], args[0] is int)
    if origin in (Union, types.UnionType):
        words = list(dict.fromkeys(_describe(arm, plural) for arm in args))
        return " or ".join(words)
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(map(shown, args))
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return "one of " + ", ".join(shown(member.value) for member in annotation)
    if origin in DICTS or (inspect.isclass(annotation) and issubclass(annotation, (abc.Mapping, BaseModel))):
        return "sections" if plural else "a section"
    if annotation in LISTS or origin in LISTS:
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


def _bounds(metadata: tuple[Any, ...], is_integer: bool) -> str:
    """`` ≥ 0 and < 1`` for the bounds among an annotation's metadata."""
    flat = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
    flat = [at.Ge(part.gt + 1) if is_integer and isinstance(part, at.Gt) else part for part in flat]
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
