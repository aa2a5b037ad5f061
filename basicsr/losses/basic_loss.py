"""Pixel losses: L1, MSE, Charbonnier, total variation, PSNR."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from basicsr.losses.loss_util import REDUCTIONS, check_reduction, check_shapes, weighted_loss
from basicsr.losses.perceptual_loss import PerceptualLoss  # noqa: F401  (BasicSR has it here)
from basicsr.utils.color_util import rgb2ycbcr_pt
from basicsr.utils.registry import LOSS_REGISTRY

_reduction_modes = list(REDUCTIONS)  # BasicSR's name


@weighted_loss
def l1_loss(pred: Tensor, target: Tensor) -> Tensor:
    """``|pred - target|``, element by element; weighted and reduced."""
    check_shapes(pred, target)
    return F.l1_loss(pred, target, reduction="none")


@weighted_loss
def mse_loss(pred: Tensor, target: Tensor) -> Tensor:
    """``(pred - target)²``, element by element; weighted and reduced."""
    check_shapes(pred, target)
    return F.mse_loss(pred, target, reduction="none")


@weighted_loss
def charbonnier_loss(pred: Tensor, target: Tensor, eps: PositiveFloat = 1e-12) -> Tensor:
    """``sqrt((pred - target)² + eps)``, element by element; weighted and reduced."""
    check_shapes(pred, target)
    return torch.sqrt((pred - target) ** 2 + eps)


@LOSS_REGISTRY.register()
class L1Loss(nn.Module):
    """Mean absolute error.

    Args:
        loss_weight: Factor of the result.
        reduction: ``none``, ``mean`` or ``sum`` over all elements.
    """

    def __init__(self, loss_weight: NonNegativeFloat = 1.0, reduction: Literal["none", "mean", "sum"] = "mean") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = check_reduction(reduction)

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **kwargs: Any) -> Tensor:
        """The loss of ``pred`` and ``target``, both ``(B, C, H, W)``, times ``loss_weight``.

        Args:
            pred: The network's output.
            target: What it should be.
            weight: Weight of each element, broadcastable to ``pred``; ``mean`` is then the weighted mean.
            **kwargs: Ignored, so that a recipe can pass every loss the same arguments.
        """
        return self.loss_weight * l1_loss(pred, target, weight, reduction=self.reduction)


@LOSS_REGISTRY.register()
class MSELoss(nn.Module):
    """Mean squared error.

    Args:
        loss_weight: Factor of the result.
        reduction: ``none``, ``mean`` or ``sum`` over all elements.
    """

    def __init__(self, loss_weight: NonNegativeFloat = 1.0, reduction: Literal["none", "mean", "sum"] = "mean") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = check_reduction(reduction)

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **kwargs: Any) -> Tensor:
        """As ``L1Loss.forward``."""
        return self.loss_weight * mse_loss(pred, target, weight, reduction=self.reduction)


@LOSS_REGISTRY.register()
class CharbonnierLoss(nn.Module):
    """Charbonnier loss, L1 made smooth at zero.

    Lai et al., "Deep Laplacian pyramid networks for fast and accurate super-resolution", CVPR 2017, eq. 2, where
    ``eps`` stands for their ε².

    Args:
        loss_weight: Factor of the result.
        reduction: ``none``, ``mean`` or ``sum`` over all elements.
        eps: Added to the squared difference.
    """

    def __init__(
        self,
        loss_weight: NonNegativeFloat = 1.0,
        reduction: Literal["none", "mean", "sum"] = "mean",
        eps: PositiveFloat = 1e-12,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = check_reduction(reduction)
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **kwargs: Any) -> Tensor:
        """As ``L1Loss.forward``."""
        return self.loss_weight * charbonnier_loss(pred, target, weight, eps=self.eps, reduction=self.reduction)


@LOSS_REGISTRY.register()
class WeightedTVLoss(L1Loss):
    """Anisotropic total variation: L1 between vertical neighbours plus L1 between horizontal ones.

    Args:
        loss_weight: Factor of the result.
        reduction: ``mean`` or ``sum`` over all pairs, of either direction by itself.
    """

    def __init__(self, loss_weight: NonNegativeFloat = 1.0, reduction: Literal["mean", "sum"] = "mean") -> None:
        # The two directions have different numbers of pairs, so that there is no element-wise sum of them.
        super().__init__(loss_weight, check_reduction(reduction, ("mean", "sum")))

    def forward(self, pred: Tensor, weight: Tensor | None = None) -> Tensor:
        """The variation of ``pred`` ``(B, C, H, W)``, times ``loss_weight``.

        Args:
            pred: The network's output, 2×2 pixels or more.
            weight: ``(B, 1, H, W)`` or ``(B, C, H, W)``; a pair has the weight of its upper or left pixel.

        Raises:
            ValueError: If the image has a single row or column, and so no neighbours.
        """
        if min(pred.shape[-2:]) < 2:
            raise ValueError(f"WeightedTVLoss needs 2×2 pixels or more, not the shape {tuple(pred.shape)}")
        weight_y = None if weight is None else weight[..., :-1, :]
        weight_x = None if weight is None else weight[..., :-1]
        vertical = super().forward(pred[..., :-1, :], pred[..., 1:, :], weight=weight_y)
        horizontal = super().forward(pred[..., :-1], pred[..., 1:], weight=weight_x)
        return vertical + horizontal


@LOSS_REGISTRY.register()
class PSNRLoss(nn.Module):
    """The negative PSNR of images in [0, 1], averaged over the batch: ``10·log10(MSE + 1e-8)``.

    Chen et al., "HINet: half instance normalization network for image restoration", CVPRW 2021, section 3.2; the
    loss NAFNet is trained with. It is negative, and -80 for a perfect prediction.

    Args:
        loss_weight: Factor of the result.
        reduction: ``mean`` only.
        toY: Whether to compare MATLAB's luma of RGB images.
    """

    def __init__(
        self, loss_weight: NonNegativeFloat = 1.0, reduction: Literal["mean"] = "mean", toY: bool = False
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = check_reduction(reduction, ("mean",))
        self.to_y = toY

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss of ``pred`` and ``target``, both ``(B, C, H, W)``, times ``loss_weight``."""
        check_shapes(pred, target)
        if pred.dim() != 4:
            raise ValueError(f"PSNRLoss takes batches (B, C, H, W), not the shape {tuple(pred.shape)}")
        if self.to_y:
            pred, target = rgb2ycbcr_pt(pred, y_only=True), rgb2ycbcr_pt(target, y_only=True)
        mse = ((pred - target) ** 2).mean(dim=(1, 2, 3))
        return self.loss_weight * 10.0 * torch.log10(mse + 1e-8).mean()
