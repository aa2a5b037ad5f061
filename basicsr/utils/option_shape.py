"""Which keys a section may hold: read from the signature of a registered class, or from a pydantic model."""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typing_extensions import NotRequired, Required

from .option_schema import Section, TrainOptions
from .registry import ARCH_REGISTRY, DATASET_REGISTRY, KD_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY


@dataclass(frozen=True)
class KeySpec:
    """One key that a section may hold."""

    annotation: Any
    required: bool = False
    description: str = ""


@dataclass
class Shape:
    """The keys that a section may hold.

    Attributes:
        keys: By name.
        patterns: Families of keys: regular expression → annotation.
        takes_any: Whether further keys are passed on, as by a ``**kwargs`` parameter.
    """

    keys: dict[str, KeySpec] = field(default_factory=dict)
    patterns: dict[str, Any] = field(default_factory=dict)
    takes_any: bool = False

    def find(self, name: Any) -> KeySpec | None:
        if name in self.keys:
            return self.keys[name]
        for pattern, annotation in self.patterns.items():
            if isinstance(name, str) and re.fullmatch(pattern, name):
                return KeySpec(annotation)
        return None

    def nearest(self, name: Any) -> str | None:
        """The key that a misspelt one was most likely meant to be."""
        families = [pattern.replace(r"\w+", end) for pattern in self.patterns for end in ("g", "t", "d")]
        matches = get_close_matches(str(name), [*self.keys, *families], n=1, cutoff=0.6)
        return matches[0] if matches else None


def shape_of_model(model: type[Section]) -> Shape:
    """The keys that a pydantic model declares."""
    keys = {}
    for name, info in model.model_fields.items():
        annotation = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        keys[name] = KeySpec(annotation, info.is_required(), info.description or "")
    patterns: dict[str, Any] = {}
    for parent in reversed(model.__mro__):
        patterns |= parent.__dict__.get("patterns", {})
    return Shape(keys, patterns)


def declares_its_keys(target: Any) -> bool:
    """Whether a recipe declares the keys of `train` itself; one that does not may read further keys of its own."""
    return "TrainOptions" in vars(target)


def shape_of_training(recipe: Any) -> Shape:
    """The keys that `train` may hold for a recipe, None for an unknown one: its own and those of its dialect."""
    shape = shape_of_model(getattr(recipe, "TrainOptions", TrainOptions))
    dialect = getattr(recipe, "DialectOptions", None)
    if dialect is not None:
        shape.keys |= shape_of_model(dialect).keys
    return shape


def shape_of_typed_dict(target: type) -> Shape:
    """The keys of a TypedDict."""
    hints = get_type_hints(target, include_extras=True)
    total = getattr(target, "__total__", True)
    keys = {}
    for name, hint in hints.items():
        marker = get_origin(hint)
        required = marker is Required or (total and marker is not NotRequired)
        keys[name] = KeySpec(get_args(hint)[0] if marker in (Required, NotRequired) else hint, required)
    return Shape(keys)


def shape_of_callable(target: Callable[..., Any], given: Collection[str] = ()) -> Shape:
    """The parameters of a class's constructor or of a function, but for those that the framework gives.

    A parameter without an annotation, or with one that cannot be resolved, takes anything.
    """
    shape = Shape()
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # some built-in classes have none
        return Shape(takes_any=True)
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    names = getattr(function, "__globals__", {})
    for parameter in parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            shape.takes_any = True
        elif parameter.kind not in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            if parameter.name in given:
                continue
            required = parameter.default is parameter.empty
            annotation = _resolve(parameter.annotation, names)
            if parameter.default is None and annotation is not Any:
                annotation = annotation | None
            shape.keys[parameter.name] = KeySpec(annotation, required)
    return shape


def _resolve(annotation: Any, names: dict[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return get_type_hints(holder, globalns=names, include_extras=True)["it"]
    except Exception:  # a name imported for type checkers only, or an annotation that is not a type
        return Any


_REGISTRIES = {
    registry.name: registry
    for registry in (
        ARCH_REGISTRY,
        DATASET_REGISTRY,
        KD_REGISTRY,
        LOSS_REGISTRY,
        METRIC_REGISTRY,
        MODEL_REGISTRY,
    )
}
_GIVEN = {"metric": ("img", "img2"), "optimizer": ("params",), "scheduler": ("optimizer", "last_epoch")}


def find_registered(kind: str, name: str) -> Any:
    """The class or function that ``type: name`` means in a section of this kind.

    Raises:
        KeyError: If there is none; its argument is a sentence with the nearest name.
    """
    if kind in _REGISTRIES:
        return _REGISTRIES[kind].get(name)
    known = all_registered(kind)
    if name not in known:
        nearest = get_close_matches(str(name), known, n=1)
        hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
        raise KeyError(f"There is no {kind} '{name}'.{hint} Known: {', '.join(sorted(known))}.")
    return known[name]


def all_registered(kind: str) -> dict[str, Any]:
    """Everything that ``type`` may name in a section of this kind."""
    if kind in _REGISTRIES:
        return dict(iter(_REGISTRIES[kind]))
    import torch

    if kind == "optimizer":
        return _subclasses(torch.optim, torch.optim.Optimizer)
    assert kind == "scheduler", kind
    base = torch.optim.lr_scheduler.LRScheduler
    ours = importlib.import_module("basicsr.models.lr_scheduler")
    return _subclasses(torch.optim.lr_scheduler, base) | _subclasses(ours, base)


def _subclasses(module: types.ModuleType, base: type) -> dict[str, type]:
    members = inspect.getmembers(module, inspect.isclass)
    return {name: cls for name, cls in members if issubclass(cls, base) and cls is not base and name[0] != "_"}


def shape_of_registered(kind: str, target: Any, own: type[Section]) -> Shape:
    """The keys of a section that names a class: the section's own ones and the class's parameters."""
    shape = shape_of_callable(target, _GIVEN.get(kind, ()))
    shape.keys |= shape_of_model(own).keys
    return shape
