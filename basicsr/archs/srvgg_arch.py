"""SRVGGNetCompact: the compact VGG-style network of Real-ESRGAN (Wang et al., ICCVW 2021, arXiv 2107.10833), used by
its anime-video and general-x4v3 models.

State-dict keys are BasicSR's.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY


def _activation(act_type: str, num_feat: PositiveInt) -> nn.Module:
    if act_type == "relu":
        return nn.ReLU(inplace=True)
    if act_type == "prelu":
        return nn.PReLU(num_parameters=num_feat)
    if act_type == "leakyrelu":
        return nn.LeakyReLU(0.1, inplace=True)
    raise ValueError(f"SRVGGNetCompact's `act_type` must be 'relu', 'prelu' or 'leakyrelu', not '{act_type}'.")


@ARCH_REGISTRY.register()
class SRVGGNetCompact(nn.Module):
    """Plain convolutions and activations at low resolution, one sub-pixel layer, and a nearest-neighbour skip.

    Args:
        num_in_ch: Input channels.
        num_out_ch: Output channels, equal to the input's.
        num_feat: Channels of the features.
        num_conv: Convolutions between the first and the last.
        upscale: Any integer factor.
        act_type: The activation after each convolution but the last.

    Raises:
        ValueError: If the activation is unknown.
    """

    def __init__(
        self,
        num_in_ch: PositiveInt = 3,
        num_out_ch: PositiveInt = 3,
        num_feat: PositiveInt = 64,
        num_conv: PositiveInt = 16,
        upscale: PositiveInt = 4,
        act_type: Literal["relu", "prelu", "leakyrelu"] = "prelu",
    ) -> None:
        super().__init__()
        self.upscale = upscale
        layers: list[nn.Module] = [nn.Conv2d(num_in_ch, num_feat, 3, 1, 1), _activation(act_type, num_feat)]
        for _ in range(num_conv):
            layers += [nn.Conv2d(num_feat, num_feat, 3, 1, 1), _activation(act_type, num_feat)]
        layers.append(nn.Conv2d(num_feat, num_out_ch * upscale * upscale, 3, 1, 1))
        self.body = nn.Sequential(*layers)
        self.upsampler = nn.PixelShuffle(upscale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to (B, C, upscale·H, upscale·W)."""
        return self.upsampler(self.body(x)) + F.interpolate(x, scale_factor=self.upscale, mode="nearest")
