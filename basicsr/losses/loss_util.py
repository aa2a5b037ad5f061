"""Weighting and reduction of element-wise losses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
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


def get_local_weights(residual: Tensor, ksize: int) -> Tensor:
    """The variance of a residual in the window around each pixel (LDL, eq. 4).

    Liang, Zeng and Zhang, "Details or artifacts: a locally discriminative learning approach to realistic image
    super-resolution", CVPR 2022.

    Args:
        residual: ``(B, C, H, W)``.
        ksize: Side of the window, odd. The border is mirrored.

    Returns:
        The unbiased variances, ``(B, C, H, W)``.
    """
    padded = F.pad(residual, [(ksize - 1) // 2] * 4, mode="reflect")
    return padded.unfold(2, ksize, 1).unfold(3, ksize, 1).var(dim=(-1, -2), unbiased=True)


def get_refined_artifact_map(img_gt: Tensor, img_output: Tensor, img_ema: Tensor, ksize: int) -> Tensor:
    """How likely each pixel of an output is an artefact (LDL, eq. 3 to 7; see :func:`get_local_weights`).

    Args:
        img_gt: Ground truth, ``(B, C, H, W)``.
        img_output: The network's output.
        img_ema: The output of the network's moving average.
        ksize: Side of the window in which variances are computed.

    Returns:
        ``(B, 1, H, W)``; 0 where the output is closer to the ground truth than the average's.
    """
    residual = (img_gt - img_output).abs().sum(dim=1, keepdim=True)
    residual_ema = (img_gt - img_ema).abs().sum(dim=1, keepdim=True)
    of_image = residual.var(dim=(-1, -2, -3), keepdim=True) ** 0.2
    weight = of_image * get_local_weights(residual, ksize)
    return weight.masked_fill(residual < residual_ema, 0.0)


def check_shapes(pred: Tensor, target: Tensor) -> None:
    """Require equal shapes: broadcasting would compare pixels that do not correspond."""
    if pred.shape != target.shape:
        raise ValueError(
            f"a loss compares tensors of one shape, not a prediction {tuple(pred.shape)} with a target "
            f"{tuple(target.shape)}"
        )
