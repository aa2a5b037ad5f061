"""MSRResNet: the modified SRResNet of BasicSR and ESRGAN (Wang et al., ECCVW 2018, arXiv 1809.00219), after SRResNet
(Ledig et al., CVPR 2017, arXiv 1609.04802): no batch norm, and a bilinear skip connection from input to output.

State-dict keys are BasicSR's.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY

from .arch_util import ResidualBlockNoBN, default_init_weights, make_layer


@ARCH_REGISTRY.register()
class MSRResNet(nn.Module):
    """Residual blocks at low resolution that predict what bilinear upsampling leaves out.

    Args:
        num_in_ch: Input channels.
        num_out_ch: Output channels.
        num_feat: Channels of the features.
        num_block: Residual blocks.
        upscale: 2, 3 or 4.

    Raises:
        ValueError: If the upscaling factor is another.
    """

    def __init__(
        self,
        num_in_ch: PositiveInt = 3,
        num_out_ch: PositiveInt = 3,
        num_feat: PositiveInt = 64,
        num_block: PositiveInt = 16,
        upscale: PositiveInt = 4,
    ) -> None:
        super().__init__()
        if upscale not in (2, 3, 4):
            raise ValueError(f"MSRResNet's `upscale` must be 2, 3 or 4, not {upscale}.")
        self.upscale = upscale
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = make_layer(ResidualBlockNoBN, num_block, num_feat=num_feat)
        step = 3 if upscale == 3 else 2
        self.upconv1 = nn.Conv2d(num_feat, num_feat * step * step, 3, 1, 1)
        if upscale == 4:
            self.upconv2 = nn.Conv2d(num_feat, num_feat * 4, 3, 1, 1)
        self.pixel_shuffle = nn.PixelShuffle(step)
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)
        self.lrelu = nn.LeakyReLU(0.1, inplace=True)
        upsampling = [self.upconv1, self.upconv2] if upscale == 4 else [self.upconv1]
        default_init_weights([self.conv_first, *upsampling, self.conv_hr, self.conv_last], 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to (B, C, upscale·H, upscale·W)."""
        feat = self.body(self.lrelu(self.conv_first(x)))
        feat = self.lrelu(self.pixel_shuffle(self.upconv1(feat)))
        if self.upscale == 4:
            feat = self.lrelu(self.pixel_shuffle(self.upconv2(feat)))
        residual = self.conv_last(self.lrelu(self.conv_hr(feat)))
        return residual + F.interpolate(x, scale_factor=self.upscale, mode="bilinear", align_corners=False)
