"""What the ``type`` of a section can name: registered classes, and PyTorch's optimisers and schedules."""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from ..registry import REGISTRIES, belongs_to_package


def find_registered(kind: str, name: str) -> Any:
    """The class or function that ``type: name`` means in a section of this kind.

    Raises:
        KeyError: If there is none; its argument is a sentence with the nearest name.
    """
    if kind in REGISTRIES:
        return REGISTRIES[kind].get(name)
    known = all_registered(kind)
    if name not in known:
        nearest = get_close_matches(str(name), known, n=1)
        hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
        raise KeyError(f"There is no {kind} '{name}'.{hint} Known: {', '.join(sorted(known))}.")
    return known[name]


def all_registered(kind: str) -> dict[str, Any]:
    """Everything that ``type`` may name in a section of this kind."""
    if kind in REGISTRIES:
        return dict(iter(REGISTRIES[kind]))
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


def find_or_none(kind: str, name: Any) -> Any:
    """The class or function that ``type: name`` means, or None where there is none."""
    try:
        return find_registered(kind, name)
    except (KeyError, TypeError):
        return None


def is_ours(kind: str, section: Any) -> bool:
    """Whether a section names a class of this package, whose keys mean what we take them to mean."""
    target = find_or_none(kind, section.get("type", "")) if isinstance(section, Mapping) else None
    return target is not None and belongs_to_package(target)
