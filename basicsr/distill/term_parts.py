"""Checks what a term returns: its optimisers and parameter groups. Adds its name to its errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .networks import Networks
from .term import KDTerm


@contextmanager
def errors_naming(name: str) -> Iterator[None]:
    """Context manager that adds a term's name to the errors raised in it."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith("train.kd_opt."):
            raise
        raise ValueError(f"train.kd_opt.{name}: {error}") from error
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        if sys.version_info >= (3, 11):
            error.add_note(f"This happened in the distillation term train.kd_opt.{name}.")
        raise


def optimizers_of(term: KDTerm, networks: Networks) -> list[torch.optim.Optimizer]:
    """A term's own optimisers.

    Raises:
        ValueError: If it returns anything else.
    """
    found = term.optimizers(networks)
    optimizers = [found] if isinstance(found, torch.optim.Optimizer) else list(found)
    for optimizer in optimizers:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ValueError(
                f"optimizers() returns a {type(optimizer).__name__}; return a list of torch.optim's optimisers"
            )
    return optimizers


def groups_of(term: KDTerm) -> list[dict[str, Any]]:
    """A term's parameter groups, each with a list of parameters.

    Raises:
        ValueError: If it returns anything else.
    """
    groups = list(term.parameter_groups())
    for group in groups:
        if not isinstance(group, Mapping) or "params" not in group:
            raise ValueError(
                f"parameter_groups() returns a {type(group).__name__}; return a list of groups, as in "
                f"[{{'params': self.parameters(), 'lr': 1e-3}}]"
            )
    one = [isinstance(group["params"], Tensor) for group in groups]
    return [
        {**group, "params": [group["params"]] if alone else list(group["params"])} for group, alone in zip(groups, one)
    ]


def own_attributes(term: KDTerm) -> dict[str, Any]:
    """A term's attributes, without those that every term has."""
    return {key: value for key, value in vars(term).items() if key not in ("name", "schedule")}
