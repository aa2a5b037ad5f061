"""Weighting and reduction of element-wise losses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")


def check_reduction(reduction: str, allowed: tuple[str, ...] = REDUCTIONS) -> str:
    """Return the reduction if it is allowed.

    Raises:
        ValueError: If not.
    """
    if reduction not in allowed:
        raise ValueError(f"reduction: {reduction} is not supported here; expected {' or '.join(allowed)}")
    return reduction


def reduce_loss(loss: Tensor, reduction: str) -> Tensor:
    """Reduce an element-wise loss by ``none``, ``mean`` or ``sum``.

    Raises:
        ValueError: For another reduction.
    """
    check_reduction(reduction)
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def weight_reduce_loss(loss: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """Weight an element-wise loss, then reduce it.

    Args:
        loss: ``(B, C, H, W)``.
        weight: Broadcastable to ``loss``, as in ``(B, 1, H, W)``, or None. The mean is then the weighted mean, the
            weighted sum over the sum of the weights; it is 0 where all weights are 0.
        reduction: ``none``, ``mean`` or ``sum``.

    Raises:
        ValueError: For another reduction, or a weight that does not fit.
    """
    if weight is None:
        return reduce_loss(loss, reduction)
    try:
        weight = weight.expand_as(loss)
    except RuntimeError:
        raise ValueError(
            f"a weight of the shape {tuple(weight.shape)} does not fit a loss of the shape {tuple(loss.shape)}"
        ) from None
    if check_reduction(reduction) != "mean":
        return reduce_loss(loss * weight, reduction)
    total = weight.sum()
    return (loss * weight).sum() / torch.where(total == 0, torch.ones_like(total), total)


def weighted_loss(loss_func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Give an element-wise ``loss_func(pred, target, **kwargs)`` the arguments ``weight`` and ``reduction``.

    The result is called as ``loss_func(pred, target, weight=None, reduction='mean', **kwargs)``.
    """

    @functools.wraps(loss_func)
    def wrapper(
        pred: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean", **kwargs: Any
    ) -> Tensor:
        return weight_reduce_loss(loss_func(pred, target, **kwargs), weight, reduction)

    return wrapper


def check_shapes(pred: Tensor, target: Tensor) -> None:
    """Require equal shapes: broadcasting would compare pixels that do not correspond."""
    if pred.shape != target.shape:
        raise ValueError(
            f"a loss compares tensors of one shape, not a prediction {tuple(pred.shape)} with a target "
            f"{tuple(target.shape)}"
        )
