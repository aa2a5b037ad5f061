"""Refuses recipes of plug-ins, written for BasicSR, that leave out distillation terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from basicsr.distill.distillation import Distillation


def require_no_terms(recipe: str, train: Mapping[str, Any]) -> None:
    """Refuse distillation terms for a recipe whose own ``init_training_settings`` calls none of ours.

    Args:
        recipe: Its class.
        train: The training options.

    Raises:
        ValueError: If the options name terms, which it has not built.
    """
    if any((train.get("kd_opt") or {}).values()):
        raise ValueError(
            f"train.kd_opt: {recipe} prepares the training itself (init_training_settings) and so builds no "
            f"distillation terms; call super().init_training_settings() there, or remove kd_opt"
        )


def require_trained_terms(
    recipe: str,
    distillation: Distillation,
    balance: nn.Module | None,
    optimizer_g: torch.optim.Optimizer | None,
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """Refuse a recipe whose own ``setup_optimizers`` leaves out the terms' parameters or optimisers.

    Args:
        recipe: Its class.
        distillation: The terms.
        balance: What weighs the losses, where that is learnt.
        optimizer_g: The student's optimiser, which trains the terms' parameters.
        optimizers: All optimisers, which are saved and scheduled.

    Raises:
        ValueError: If so.
    """
    groups = optimizer_g.param_groups if optimizer_g is not None else []
    trained = {id(p) for group in groups for p in group["params"]}
    wanted = [p for group in distillation.parameter_groups() for p in group["params"]]
    wanted += balance.parameters() if balance is not None else ()
    left_out = [p for p in wanted if id(p) not in trained]
    if left_out or any(optimizer not in optimizers for optimizer in distillation.optimizers):
        raise ValueError(
            f"train.kd_opt: {recipe} makes its optimisers itself (setup_optimizers) and leaves out what the terms "
            f"train; build optim_g from self.trained_groups() there and add self.distillation.optimizers"
        )


def require_used_terms(recipe: str, distillation: Distillation) -> None:
    """Refuse a recipe whose own ``optimize_parameters`` leaves out the distillation terms.

    Raises:
        ValueError: If there are terms, and an iteration has been trained without them.
    """
    if distillation.terms and not distillation.used:
        raise ValueError(
            f"train.kd_opt: {recipe} trains with an optimize_parameters of its own, which leaves out the distillation "
            f"terms; compute the losses with self.compute_losses there, or remove kd_opt"
        )
