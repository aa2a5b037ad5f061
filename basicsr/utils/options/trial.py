"""Build for trial what a section names, to find values that fit their type and yet cannot work.

A network or a distillation term is built on PyTorch's meta device, which takes no memory and milliseconds; an optimiser
and a schedule are built for a single number. So a width that does not divide into its heads is reported, with its place
in the file, together with everything else that is wrong.
"""

from __future__ import annotations

import inspect
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from basicsr.utils.registry import belongs_to_package

_LONGEST = 10.0
"""Seconds of computing. The largest published networks take one."""


def failure(kind: str, target: Any, section: Mapping[str, Any]) -> str | None:
    """Why a class cannot be built from a section; None if it can.

    Of networks and distillation terms only this package's own are tried: a plug-in's constructor may do anything. Other
    kinds than these, optimisers and schedules are not tried.

    Args:
        kind: ``arch``, ``distillation term``, ``optimizer`` or ``scheduler``.
        target: The class.
        section: Its keys; those that are not the constructor's are passed over.
    """
    if kind not in ("arch", "distillation term", "optimizer", "scheduler"):
        return None
    if kind in ("arch", "distillation term") and not belongs_to_package(target):
        return None
    import torch

    parameters = inspect.signature(target).parameters
    options = {name: value for name, value in section.items() if name in parameters}
    number = torch.nn.Parameter(torch.zeros(1, 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="Initializing zero-element tensors")  # a layer of no channels
            if kind == "optimizer":
                target([number], **{name: _as_floats(value) for name, value in options.items()})
            elif kind == "scheduler":
                target(torch.optim.Adam([number]), **options)
            else:
                with torch.device("meta"), _within_reason():
                    target(**options)
    except Exception as error:  # a constructor may raise anything; all of it is the user's to know
        if "meta" in str(error):
            return None  # it computes with values already, which the meta device has none of
        text = str(error).partition("\n")[0]
        return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
    return None


def _as_floats(value: Any) -> Any:
    """Numbers of a list as floats where one is: ``betas: [0, 0.99]`` is BasicSR's spelling, and not PyTorch's."""
    return [float(v) for v in value] if isinstance(value, list) and any(isinstance(v, float) for v in value) else value


@contextmanager
def _within_reason() -> Iterator[None]:
    """Stop the construction of a network that this machine cannot hold, or that would go on for hours."""
    from torch.nn.modules.module import register_module_parameter_registration_hook

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else float("inf")
    started, size = time.process_time(), 0

    def count(module: Any, name: str, parameter: Any) -> None:
        nonlocal size
        size += parameter.nbytes if parameter is not None else 0
        if size > memory:
            raise ValueError(f"its weights need more than the {memory / 2**30:.0f} GiB of this machine")
        if time.process_time() - started > _LONGEST:
            raise ValueError(f"it is not complete after {_LONGEST:.0f} s and {size / 2**30:.1f} GiB of weights")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
