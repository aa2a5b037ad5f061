"""RRDBNet: the generator of ESRGAN (Wang et al., ECCVW 2018, arXiv 1809.00219) and of Real-ESRGAN.

State-dict keys are BasicSR's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY

from .arch_util import default_init_weights, make_layer, pixel_unshuffle
from .size_requirement import SizeRequirement


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each of which sees the block's input and all outputs before its own.

    Args:
        num_feat: Channels of the input and the output.
        num_grow_ch: Channels that each of the first four convolutions adds.
    """

    def __init__(self, num_feat: PositiveInt = 64, num_grow_ch: PositiveInt = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_grow_ch, 3, 1, 1)
        self.conv2 = nn.Conv2d(num_feat + num_grow_ch, num_grow_ch, 3, 1, 1)
        self.conv3 = nn.Conv2d(num_feat + 2 * num_grow_ch, num_grow_ch, 3, 1, 1)
        self.conv4 = nn.Conv2d(num_feat + 3 * num_grow_ch, num_grow_ch, 3, 1, 1)
        self.conv5 = nn.Conv2d(num_feat + 4 * num_grow_ch, num_feat, 3, 1, 1)
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)
        default_init_weights([self.conv1, self.conv2, self.conv3, self.conv4, self.conv5], 0.1)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            features.append(self.lrelu(conv(torch.cat(features, dim=1))))
        return torch.add(x, self.conv5(torch.cat(features, dim=1)), alpha=0.2)


class RRDB(nn.Module):
    """Residual in residual dense block: three dense blocks and a skip connection.

    Args:
        num_feat: Channels of the input and the output.
        num_grow_ch: Channels that each dense convolution adds.
    """

    def __init__(self, num_feat: PositiveInt, num_grow_ch: PositiveInt = 32) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb2 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb3 = ResidualDenseBlock(num_feat, num_grow_ch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=0.2)


@ARCH_REGISTRY.register()
class RRDBNet(nn.Module):
    """RRDBs at low resolution, then two nearest-neighbour upsamplings by two with convolutions.

    The upsampling is always by four. For a scale of 2 or 1, the input is first unshuffled by 2 or 4, so its sides must
    divide by that number.

    Args:
        num_in_ch: Input channels.
        num_out_ch: Output channels.
        scale: 1, 2 or 4.
        num_feat: Channels of the features.
        num_block: RRDBs.
        num_grow_ch: Channels that each dense convolution adds.
    """

    def __init__(
        self,
        num_in_ch: PositiveInt,
        num_out_ch: PositiveInt,
        scale: PositiveInt = 4,
        num_feat: PositiveInt = 64,
        num_block: PositiveInt = 23,
        num_grow_ch: PositiveInt = 32,
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 4):
            raise ValueError(f"RRDBNet's `scale` must be 1, 2 or 4, not {scale}.")
        self.scale = scale
        self.unshuffle = 4 // scale
        self.size_requirement = SizeRequirement(multiple_of=self.unshuffle)
        self.conv_first = nn.Conv2d(num_in_ch * self.unshuffle**2, num_feat, 3, 1, 1)
        self.body = make_layer(RRDB, num_block, num_feat=num_feat, num_grow_ch=num_grow_ch)
        self.conv_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_up1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_up2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to (B, C, scale·H, scale·W)."""
        if self.unshuffle > 1:
            x = pixel_unshuffle(x, self.unshuffle)
        shallow = self.conv_first(x)
        feat = shallow + self.conv_body(self.body(shallow))
        for conv in (self.conv_up1, self.conv_up2):
            feat = self.lrelu(conv(F.interpolate(feat, scale_factor=2, mode="nearest")))
        return self.conv_last(self.lrelu(self.conv_hr(feat)))
