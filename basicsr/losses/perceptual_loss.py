"""The perceptual and style losses (Johnson et al., ECCV 2016, arXiv 1603.08155) over VGG's features."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from basicsr.archs.vgg_arch import VGGFeatureExtractor, VGGType
from basicsr.losses.loss_util import check_shapes
from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class PerceptualLoss(nn.Module):
    """``Σ_k w_k · d(φ_k(x), φ_k(gt))`` over VGG layers k, and the same of their Gram matrices.

    Args:
        layer_weights: Layer name, such as ``conv5_4``, to its weight w_k; names are those of
            :class:`~basicsr.archs.vgg_arch.VGGFeatureExtractor`.
        vgg_type: Which VGG.
        use_input_norm: Normalise images in [0, 1] with ImageNet's mean and standard deviation.
        range_norm: Take images in [−1, 1] to [0, 1] first.
        perceptual_weight: Factor of the perceptual loss; 0 leaves it out.
        style_weight: Factor of the style loss; 0 leaves it out.
        criterion: d: ``l1`` or ``l2``, the mean absolute or squared difference, or ``fro``, the Frobenius norm of it.
        weights: Of VGG: a file in torchvision's layout, its URL, or ``random``; torchvision's own when absent.
        encoder: The suffix of a frozen ``network_<encoder>`` whose features are compared, in place of a VGG of the
            loss's own: a recipe encodes an image once for this loss and all terms that name the same encoder. Which
            VGG it is and how it normalises are that network's options. Such a loss has :meth:`compare` alone.

    Raises:
        ValueError: If a layer does not exist, both losses are left out, or options of a VGG are given with ``encoder``.
    """

    def __init__(
        self,
        layer_weights: dict[str, NonNegativeFloat],
        vgg_type: VGGType = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        perceptual_weight: NonNegativeFloat = 1.0,
        style_weight: NonNegativeFloat = 0.0,
        criterion: Literal["l1", "l2", "fro"] = "l1",
        weights: str | None = None,
        encoder: str | None = None,
    ) -> None:
        super().__init__()
        if criterion not in ("l1", "l2", "fro"):
            raise ValueError(f"PerceptualLoss's `criterion` must be l1, l2 or fro, not '{criterion}'")
        if perceptual_weight <= 0 and style_weight <= 0:
            raise ValueError(
                "PerceptualLoss: perceptual_weight and style_weight are both 0; there is nothing to compute"
            )
        self.layer_weights = dict(layer_weights)
        self.perceptual_weight = perceptual_weight
        self.style_weight = style_weight
        self.criterion = criterion
        self.encoder = encoder
        if encoder is None:
            self.vgg = VGGFeatureExtractor(list(layer_weights), vgg_type, use_input_norm, range_norm, weights=weights)
        elif (vgg_type, use_input_norm, range_norm, weights) != ("vgg19", True, False, None):
            raise ValueError(
                f"PerceptualLoss: vgg_type, use_input_norm, range_norm and weights are options of network_{encoder}, "
                f"whose features are compared; give them there"
            )

    def forward(self, x: Tensor, gt: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The two losses of images ``(B, 3, H, W)``; None for one that is left out.

        Args:
            x: With gradients.
            gt: Without.

        Raises:
            ValueError: If the shapes differ.
        """
        check_shapes(x, gt)
        own = self.vgg(x)
        with torch.no_grad():
            target = self.vgg(gt)
        return self.compare(own, target)

    def compare(self, own: dict[str, Tensor], target: dict[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """The two losses of images whose features ``(B, C, h, w)`` are given by layer.

        Args:
            own: With gradients; further layers are ignored.
            target: Without.
        """
        own, target = ({k: _full_precision(f[k]) for k in self.layer_weights} for f in (own, target))
        perceptual = style = None
        if self.perceptual_weight > 0:
            perceptual = self.perceptual_weight * self._sum(own, target)
        if self.style_weight > 0:
            own, target = ({k: gram_matrix(feature) for k, feature in f.items()} for f in (own, target))
            style = self.style_weight * self._sum(own, target)
        return perceptual, style

    def _sum(self, own: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
        return sum(weight * self._distance(own[k] - target[k]) for k, weight in self.layer_weights.items())

    def _distance(self, difference: Tensor) -> Tensor:
        if self.criterion == "fro":
            return torch.linalg.vector_norm(difference)
        return (difference.abs() if self.criterion == "l1" else difference.square()).mean()


def _full_precision(features: Tensor) -> Tensor:
    return features.float() if features.dtype in (torch.bfloat16, torch.float16) else features


def gram_matrix(features: Tensor) -> Tensor:
    """``F Fᵀ / (C·H·W)`` of each image's features (B, C, H, W), with F of shape (C, H·W): (B, C, C)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])
