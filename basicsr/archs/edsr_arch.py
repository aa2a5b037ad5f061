"""EDSR: Enhanced Deep Residual Networks for Single Image Super-Resolution (Lim et al., CVPRW 2017, arXiv 1707.02921).

State-dict keys are BasicSR's.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY

from .arch_util import ResidualBlockNoBN, Upsample, make_layer, rgb_mean_buffer


@ARCH_REGISTRY.register()
class EDSR(nn.Module):
    """Residual blocks without batch norm at low resolution, then sub-pixel upsampling.

    Args:
        num_in_ch: Input channels.
        num_out_ch: Output channels.
        num_feat: Channels of the features: 64, or 256 in the large model.
        num_block: Residual blocks: 16, or 32 in the large model.
        upscale: 3 or a power of two.
        res_scale: Factor on each residual branch; 0.1 keeps the large model stable.
        img_range: What the input, in [0, 1], is multiplied by inside.
        rgb_mean: Mean colour, subtracted from the input and added to the output.

    Raises:
        ValueError: If the upscaling factor or the number of means does not fit.
    """

    def __init__(
        self,
        num_in_ch: PositiveInt,
        num_out_ch: PositiveInt,
        num_feat: PositiveInt = 64,
        num_block: PositiveInt = 16,
        upscale: PositiveInt = 4,
        res_scale: float = 1,
        img_range: PositiveFloat = 255.0,
        rgb_mean: Sequence[float] = (0.4488, 0.4371, 0.4040),
    ) -> None:
        super().__init__()
        self.img_range = img_range
        self.register_buffer("mean", rgb_mean_buffer(rgb_mean, num_in_ch, num_out_ch), persistent=False)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = make_layer(ResidualBlockNoBN, num_block, num_feat=num_feat, res_scale=res_scale, pytorch_init=True)
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.upsample = Upsample(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to (B, C, upscale·H, upscale·W)."""
        shallow = self.conv_first((x - self.mean) * self.img_range)
        deep = self.conv_after_body(self.body(shallow)) + shallow
        return self.conv_last(self.upsample(deep)) / self.img_range + self.mean
