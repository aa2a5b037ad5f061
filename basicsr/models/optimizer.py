"""Optimisers by name: those of ``torch.optim``, in their fused form."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch


def find_optimizer(name: str) -> type[torch.optim.Optimizer]:
    """The optimiser that ``type: name`` means.

    Raises:
        ValueError: If torch.optim has no such optimiser.
    """
    found = getattr(torch.optim, name, None)
    if not (inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)):
        raise ValueError(f"optimizer type '{name}': torch.optim has no optimiser of that name")
    return found


def build_optimizer(optim_type: str, params: Iterable, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
    """An optimiser by name, in its fused form where it has one.

    Args:
        optim_type: The class's name: ``Adam``, ``AdamW``, ``SGD`` …
        params: Parameters, or parameter groups.
        lr: Initial learning rate.
        **kwargs: The optimiser's other arguments; ``fused`` or ``foreach`` override the default.

    Raises:
        ValueError: If torch.optim has no such optimiser.
    """
    optimizer_class = find_optimizer(optim_type)
    accepted = inspect.signature(optimizer_class).parameters
    if "betas" in kwargs:  # BasicSR's files write 0 for 0.0, which torch refuses
        kwargs["betas"] = tuple(float(beta) for beta in kwargs["betas"])
    if "fused" in accepted and not {"fused", "foreach", "capturable", "differentiable"} & kwargs.keys():
        kwargs["fused"] = True
    return optimizer_class(params, lr=lr, **kwargs)
