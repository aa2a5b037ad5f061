"""IMDN: Lightweight Image Super-Resolution with Information Multi-distillation Network (Hui et al., ACM MM 2019,
arXiv 1909.11856).

State-dict keys are those of the authors' release (github.com/Zheng222/IMDN).
"""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY


class ContrastAwareChannelAttention(nn.Module):
    """Channel attention on the standard deviation plus the mean of each channel (equation 6 of the paper).

    Args:
        num_feat: Channels.
        squeeze_factor: Ratio of ``num_feat`` to the gate's hidden width.
    """

    def __init__(self, num_feat: PositiveInt, squeeze_factor: PositiveInt = 16) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(
            nn.Conv2d(num_feat, num_feat // squeeze_factor, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(num_feat // squeeze_factor, num_feat, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        contrast = (x - mean).pow(2).mean(dim=(2, 3), keepdim=True).sqrt()
        return x * self.conv_du(contrast + mean)


class IMDBlock(nn.Module):
    """Information multi-distillation block: after each convolution a quarter of the channels is set aside, the rest
    is refined further, and all the parts are fused at the end.

    Args:
        num_feat: Channels, a multiple of 4.
    """

    def __init__(self, num_feat: PositiveInt) -> None:
        super().__init__()
        distilled = num_feat // 4
        self.split = [distilled, num_feat - distilled]
        remaining = self.split[1]
        self.c1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.c2 = nn.Conv2d(remaining, num_feat, 3, 1, 1)
        self.c3 = nn.Conv2d(remaining, num_feat, 3, 1, 1)
        self.c4 = nn.Conv2d(remaining, distilled, 3, 1, 1)
        self.act = nn.LeakyReLU(0.05, inplace=True)
        self.c5 = nn.Conv2d(num_feat, num_feat, 1)
        self.cca = ContrastAwareChannelAttention(num_feat)

    def forward(self, x: Tensor) -> Tensor:
        kept1, rest = self.act(self.c1(x)).split(self.split, dim=1)
        kept2, rest = self.act(self.c2(rest)).split(self.split, dim=1)
        kept3, rest = self.act(self.c3(rest)).split(self.split, dim=1)
        fused = torch.cat([kept1, kept2, kept3, self.c4(rest)], dim=1)
        return self.c5(self.cca(fused)) + x


@ARCH_REGISTRY.register()
class IMDN(nn.Module):
    """Information multi-distillation network.

    Args:
        num_in_ch: Input channels.
        num_out_ch: Output channels.
        num_feat: Channels of the features, a multiple of 16.
        num_block: Multi-distillation blocks.
        upscale: Any integer factor: one sub-pixel convolution.

    Raises:
        ValueError: If ``num_feat`` is not a multiple of 16.
    """

    def __init__(
        self,
        num_in_ch: PositiveInt = 3,
        num_out_ch: PositiveInt = 3,
        num_feat: PositiveInt = 64,
        num_block: PositiveInt = 6,
        upscale: PositiveInt = 4,
    ) -> None:
        super().__init__()
        if num_feat % 16:
            raise ValueError(f"IMDN's `num_feat` must be a multiple of 16, not {num_feat}.")
        self.num_block = num_block
        self.fea_conv = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        for index in range(1, num_block + 1):  # the release names its blocks IMDB1 … IMDB6, without a container
            self.add_module(f"IMDB{index}", IMDBlock(num_feat))
        self.c = nn.Sequential(nn.Conv2d(num_feat * num_block, num_feat, 1), nn.LeakyReLU(0.05, inplace=True))
        self.LR_conv = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.upsampler = nn.Sequential(
            nn.Conv2d(num_feat, num_out_ch * upscale * upscale, 3, 1, 1), nn.PixelShuffle(upscale)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to (B, C, upscale·H, upscale·W)."""
        shallow = self.fea_conv(x)
        outputs = [shallow]
        for index in range(1, self.num_block + 1):
            outputs.append(self.get_submodule(f"IMDB{index}")(outputs[-1]))
        deep = self.LR_conv(self.c(torch.cat(outputs[1:], dim=1))) + shallow
        return self.upsampler(deep)
