"""Build for trial what a section names, to find values that fit their type and yet cannot work.

A network, or a distillation term, is built on PyTorch's meta device, which takes no memory and milliseconds; an
optimiser and a schedule are built for a single number. So a width that does not divide into its heads is told before
data are looked for.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .option_yaml import Key

_LARGEST = 100_000
"""No network has a count or a width above this; one that is mistyped would be built for hours."""


class Refused(Exception):
    """A trial failed.

    Attributes:
        keys: The way from the section to each option that is to blame; none where that cannot be told.
    """

    def __init__(self, keys: Iterable[Key], reason: str) -> None:
        super().__init__(reason)
        self.keys = list(dict.fromkeys(keys))


def try_to_build(kind: str, target: Any, section: Mapping[str, Any]) -> None:
    """Build what a section of known keys and types describes; nothing is kept.

    Of networks and distillation terms only this package's own are tried: a plug-in's constructor may do anything.

    Args:
        kind: ``arch``, ``distillation term``, ``optimizer`` or ``scheduler``; others are not tried.
        target: The class.
        section: The section; keys that are not the constructor's are left out.

    Raises:
        Refused: If it cannot be built; says why.
    """
    modules = kind in ("arch", "distillation term")
    if modules and not target.__module__.startswith("basicsr."):
        return
    parameters = inspect.signature(target).parameters
    if modules:
        section = {name: value for name, value in section.items() if name in parameters}
        _refuse_unlikely_integers(section, parameters)
    reason = _failure(kind, target, section)
    if reason is None:
        return
    optional = {name for name, parameter in parameters.items() if parameter.default is not parameter.empty}
    guilty = [(n,) for n in section if n in optional and _failure(kind, target, _without(section, n)) is None]
    if not guilty:
        guilty = [key for key, number in _integers(section) if number < 1]
    raise Refused(guilty, reason)


def _refuse_unlikely_integers(section: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Counts and widths that a constructor takes without complaint: fewer than no blocks, or a million of them."""
    integers = list(_integers(section))
    huge = [key for key, number in integers if number > _LARGEST]
    if huge:
        raise Refused(huge, f"no network has a number above {_LARGEST:,}")
    signed = {name for name, parameter in parameters.items() if any(n < 0 for _, n in _integers(parameter.default))}
    negative = [key for key, number in integers if number < 0 and key[0] not in signed]
    if negative:
        raise Refused(negative, "it must not be negative")


def _failure(kind: str, target: Any, section: Mapping[str, Any]) -> str | None:
    """Why a class cannot be built from a section; None if it can, or is of a kind that is not tried."""
    import torch

    number = torch.nn.Parameter(torch.zeros(1, 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="Initializing zero-element tensors")  # a layer of no channels
            if kind in ("arch", "distillation term"):
                with torch.device("meta"):
                    target(**section)
            elif kind == "optimizer":
                target([number], **{name: _as_floats(value) for name, value in section.items()})
            elif kind == "scheduler":
                target(torch.optim.Adam([number]), **section)
    except Exception as error:  # whatever a constructor raises, the user is told
        if "meta" in str(error):
            return None  # it computes with values already, which the meta device has none of
        text = str(error).partition("\n")[0]
        return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
    return None


def _as_floats(value: Any) -> Any:
    """Numbers of a list as floats where one is: ``betas: [0, 0.99]`` is BasicSR's spelling, and not PyTorch's."""
    return [float(v) for v in value] if isinstance(value, list) and any(isinstance(v, float) for v in value) else value


def _without(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != name}


def _integers(value: Any, key: Key = ()) -> Iterator[tuple[Key, int]]:
    """The integers of a value and of the sections in it, each with the way to it; those of a list with the list's."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _integers(item, (*key, name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _integers(item, key)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value
