"""RCAN: Image Super-Resolution Using Very Deep Residual Channel Attention Networks (Zhang et al., ECCV 2018,
arXiv 1807.02758).

State-dict keys are BasicSR's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY

from .arch_util import Upsample, make_layer, rgb_mean_buffer


class ChannelAttention(nn.Module):
    """Multiply each channel by a gate computed from the channels' global averages (equations 5-8 of the paper).

    Args:
        num_feat: Channels.
        squeeze_factor: Ratio of ``num_feat`` to the gate's hidden width.
    """

    def __init__(self, num_feat: int, squeeze_factor: int = 16) -> None:
        super().__init__()
        hidden = num_feat // squeeze_factor
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(num_feat, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, num_feat, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class RCAB(nn.Module):
    """Residual block whose branch ends in channel attention."""

    def __init__(self, num_feat: int, squeeze_factor: int = 16, res_scale: float = 1) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.rcab = nn.Sequential(
            nn.Conv2d(num_feat, num_feat, 3, 1, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(num_feat, num_feat, 3, 1, 1),
            ChannelAttention(num_feat, squeeze_factor),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.rcab(x), alpha=self.res_scale)


class ResidualGroup(nn.Module):
    """Several RCABs and a convolution, with a short skip connection."""

    def __init__(self, num_feat: int, num_block: int, squeeze_factor: int = 16, res_scale: float = 1) -> None:
        super().__init__()
        self.residual_group = make_layer(
            RCAB, num_block, num_feat=num_feat, squeeze_factor=squeeze_factor, res_scale=res_scale
        )
        self.conv = nn.Conv2d(num_feat, num_feat, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.residual_group(x)) + x


@ARCH_REGISTRY.register()
class RCAN(nn.Module):
    """Residual in residual: groups of channel-attention blocks at low resolution, then sub-pixel upsampling.

    Args:
        num_in_ch: Input channels.
        num_out_ch: Output channels.
        num_feat: Channels of the features.
        num_group: Residual groups.
        num_block: Channel-attention blocks in each group; 20 in the paper.
        squeeze_factor: Channel reduction inside the attention.
        upscale: 3 or a power of two.
        res_scale: Factor on each block's residual branch.
        img_range: What the input, in [0, 1], is multiplied by inside.
        rgb_mean: Mean colour, subtracted from the input and added to the output.

    Raises:
        ValueError: If the upscaling factor, the squeeze factor or the number of means does not fit.
    """

    def __init__(
        self,
        num_in_ch: PositiveInt,
        num_out_ch: PositiveInt,
        num_feat: PositiveInt = 64,
        num_group: PositiveInt = 10,
        num_block: PositiveInt = 16,
        squeeze_factor: PositiveInt = 16,
        upscale: PositiveInt = 4,
        res_scale: float = 1,
        img_range: PositiveFloat = 255.0,
        rgb_mean: Sequence[float] = (0.4488, 0.4371, 0.4040),
    ) -> None:
        super().__init__()
        if num_feat < squeeze_factor:
            raise ValueError(
                f"RCAN's `squeeze_factor` {squeeze_factor} leaves no channel of `num_feat` {num_feat}: lower it."
            )
        self.img_range = img_range
        self.register_buffer("mean", rgb_mean_buffer(rgb_mean, num_in_ch, num_out_ch), persistent=False)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = make_layer(
            ResidualGroup,
            num_group,
            num_feat=num_feat,
            num_block=num_block,
            squeeze_factor=squeeze_factor,
            res_scale=res_scale,
        )
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.upsample = Upsample(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to (B, C, upscale·H, upscale·W)."""
        shallow = self.conv_first((x - self.mean) * self.img_range)
        deep = self.conv_after_body(self.body(shallow)) + shallow
        return self.conv_last(self.upsample(deep)) / self.img_range + self.mean
