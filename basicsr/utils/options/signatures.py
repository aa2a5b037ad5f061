"""The parameters of a class's constructor, or of a function, as the keys that a section of the options may hold."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from typing_extensions import NotRequired, Required


class Parameter(NamedTuple):
    """A key: what it takes, and its default; ``...`` where it is required."""

    annotation: Any
    default: Any


def parameters_of(target: Callable[..., Any], given: Collection[str] = ()) -> tuple[dict[str, Parameter], bool]:
    """The parameters of a class's constructor or of a function.

    A parameter without an annotation, or with one that cannot be resolved, takes anything.

    Args:
        target: The class or function.
        given: The parameters that the framework gives.

    Returns:
        The others, by name; and whether further keys are passed on, by a ``**kwargs`` parameter.
    """
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError:  # some built-in classes have none
        return {}, True
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    names = getattr(function, "__globals__", {})
    keys = {
        p.name: Parameter(_annotation(p, names), ... if p.default is p.empty else p.default)
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in given
    }
    return keys, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _annotation(parameter: inspect.Parameter, names: dict[str, Any]) -> Any:
    if parameter.annotation is parameter.empty:
        return Any
    holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        annotation = get_type_hints(holder, globalns=names, include_extras=True)["it"]
    except Exception:  # a name imported for type checkers only, or an annotation that is not a type
        return Any
    return annotation | None if parameter.default is None and annotation is not Any else annotation


def keys_of_typed_dict(target: type) -> dict[str, Parameter]:
    """The keys of a TypedDict."""
    total = getattr(target, "__total__", True)
    keys = {}
    for name, hint in get_type_hints(target, include_extras=True).items():
        marker = get_origin(hint)
        required = marker is Required or (total and marker is not NotRequired)
        annotation = get_args(hint)[0] if marker in (Required, NotRequired) else hint
        keys[name] = Parameter(annotation, ... if required else None)
    return keys
