"""NAFNet: Simple Baselines for Image Restoration (Chen et al., ECCV 2022, arXiv 2204.04676), and its form with local
statistics at test time (TLC; Chu et al., ECCV 2022, arXiv 2112.04491).

State-dict keys are those of the authors' release (github.com/megvii-research/NAFNet).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY

from .channel_norm import LayerNorm2d
from .local_average import LocalAverage, LocalStatistics
from .size_requirement import SizeRequirement


class SimpleGate(nn.Module):
    """The product of the two halves of the channels: (B, 2C, H, W) to (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return first * second


class NAFBlock(nn.Module):
    """A gated depthwise convolution with simplified channel attention, then a gated feed-forward part (figure 3c).

    Args:
        c: Channels.
        pool: Makes the average that the channel attention starts from; (B, C, H, W) to (B, C, 1, 1), or to a map.
    """

    def __init__(self, c: int, pool: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.norm1 = LayerNorm2d(c)
        self.conv1 = nn.Conv2d(c, 2 * c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, 1, 1, groups=2 * c)
        self.sca = nn.Sequential(pool(), nn.Conv2d(c, c, 1))
        self.conv3 = nn.Conv2d(c, c, 1)
        self.norm2 = LayerNorm2d(c)
        self.conv4 = nn.Conv2d(c, 2 * c, 1)
        self.conv5 = nn.Conv2d(c, c, 1)
        self.sg = SimpleGate()

    def forward(self, x: Tensor) -> Tensor:
        gated = self.sg(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.conv3(gated * self.sca(gated)) * self.beta
        return x + self.conv5(self.sg(self.conv4(self.norm2(x)))) * self.gamma


@ARCH_REGISTRY.register()
class NAFNet(LocalStatistics, nn.Module):
    """A U-Net of blocks without activation functions, with a skip connection around the whole.

    ``width 32, enc_blk_nums [1, 1, 1, 28], middle_blk_num 1, dec_blk_nums [1, 1, 1, 1]`` is the release's GoPro model;
    ``enc_blk_nums [2, 2, 4, 8], middle_blk_num 12, dec_blk_nums [2, 2, 2, 2]`` its SIDD model. Inputs of any size are
    accepted: they are padded with zeros at the bottom and right, as published, and the output is cropped.

    Args:
        img_channel: Input and output channels.
        width: Channels of the features at full resolution; doubled by each level.
        middle_blk_num: Blocks at the lowest resolution.
        enc_blk_nums: Blocks before each halving of the resolution.
        dec_blk_nums: Blocks after each doubling of it, lowest resolution first.

    Raises:
        ValueError: If encoder and decoder do not have equally many levels.
    """

    def __init__(
        self,
        img_channel: PositiveInt = 3,
        width: PositiveInt = 16,
        middle_blk_num: NonNegativeInt = 1,
        enc_blk_nums: Sequence[NonNegativeInt] = (),
        dec_blk_nums: Sequence[NonNegativeInt] = (),
    ) -> None:
        super().__init__()
        if len(enc_blk_nums) != len(dec_blk_nums):
            raise ValueError(
                f"{type(self).__name__}'s `enc_blk_nums` has {len(enc_blk_nums)} levels and its `dec_blk_nums` "
                f"{len(dec_blk_nums)}; the two must be equal."
            )
        levels = len(enc_blk_nums)
        self.padder_size = 2**levels
        self.size_requirement = SizeRequirement(multiple_of=self.padder_size)
        self.intro = nn.Conv2d(img_channel, width, 3, 1, 1)
        self.ending = nn.Conv2d(width, img_channel, 3, 1, 1)
        self.encoders = nn.ModuleList(self._blocks(number, width, level) for level, number in enumerate(enc_blk_nums))
        self.downs = nn.ModuleList(nn.Conv2d(width << level, width << level + 1, 2, 2) for level in range(levels))
        self.middle_blks = self._blocks(middle_blk_num, width, levels)
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        for level, number in zip(reversed(range(levels)), dec_blk_nums, strict=True):
            channels = width << level + 1
            self.ups.append(nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2)))
            self.decoders.append(self._blocks(number, width, level))

    def _blocks(self, number: int, width: int, level: int) -> nn.Sequential:
        return nn.Sequential(*(NAFBlock(width << level, partial(self._pool, level)) for _ in range(number)))

    def _pool(self, level: int) -> nn.Module:
        """What averages the features of a level for the channel attention."""
        return nn.AdaptiveAvgPool2d(1)

    def averages(self) -> Iterator[tuple[nn.Sequential, int, int]]:
        levels = len(self.encoders)
        stages = [*enumerate(self.encoders), (levels, self.middle_blks)]
        stages += [(levels - 1 - index, decoder) for index, decoder in enumerate(self.decoders)]
        return ((block.sca, 0, 2**level) for level, blocks in stages for block in blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to the same shape."""
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.padder_size, 0, -height % self.padder_size))
        features, skips = self.intro(x), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)
        features = self.middle_blks(features)
        for decoder, up in zip(self.decoders, self.ups, strict=True):
            features = decoder(up(features) + skips.pop())
        return (self.ending(features) + x)[..., :height, :width]


@ARCH_REGISTRY.register()
class NAFNetLocal(NAFNet):
    """NAFNet whose channel attention averages over a window of 1.5 times the training patch instead of the image.

    It has NAFNet's keys and is what the release tests with: training sees patches only, so averages over a whole image
    have another distribution than those it has learnt from. On images up to 1.5 times ``train_size`` it is NAFNet.

    Args:
        img_channel: See :class:`NAFNet`.
        width: Likewise.
        middle_blk_num: Likewise.
        enc_blk_nums: Likewise.
        dec_blk_nums: Likewise.
        train_size: Shape of a training batch, (B, C, H, W); only the height and the width matter.
        fast_imp: Compute the averages on a subsampled grid, as the release does under this name. Faster, not equal.

    Raises:
        ValueError: If encoder and decoder do not have equally many levels, or ``train_size`` is not four numbers.
    """

    def __init__(
        self,
        img_channel: PositiveInt = 3,
        width: PositiveInt = 16,
        middle_blk_num: NonNegativeInt = 1,
        enc_blk_nums: Sequence[NonNegativeInt] = (),
        dec_blk_nums: Sequence[NonNegativeInt] = (),
        train_size: Sequence[PositiveInt] = (1, 3, 256, 256),
        fast_imp: bool = False,
    ) -> None:
        if len(train_size) != 4:
            raise ValueError(f"NAFNetLocal's `train_size` must be (B, C, H, W), not {tuple(train_size)}.")
        self._train_size = (train_size[2], train_size[3])
        self._fast = fast_imp
        super().__init__(img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums)

    def _pool(self, level: int) -> nn.Module:
        return LocalAverage(self._train_size, (self.padder_size, 2**level), self._fast)
