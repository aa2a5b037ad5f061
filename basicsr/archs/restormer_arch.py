"""Restormer: Efficient Transformer for High-Resolution Image Restoration (Zamir et al., CVPR 2022, arXiv 2111.09881).

State-dict keys are those of the authors' release (github.com/swz30/Restormer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY

from .arch_util import pad_to_multiple
from .restormer_block import Attention, FeedForward, FourLevelTransformer, TransformerBlock


@ARCH_REGISTRY.register()
class Restormer(FourLevelTransformer):
    """A U-Net of blocks with attention between channels, whose cost grows linearly with the image.

    The release uses ``LayerNorm_type: WithBias`` for deraining and deblurring and ``BiasFree`` for denoising. Inputs of
    any size are accepted: they are reflect-padded at the bottom and right to a multiple of 8, as the release's test
    scripts do, and the output is cropped.

    Args:
        inp_channels: Input channels: 3, 1 for grey denoising, 6 for the two views of a dual-pixel camera.
        out_channels: Output channels; without ``dual_pixel_task`` those of the input.
        dim: Channels of the features at full resolution, an even number.
        num_blocks: Blocks on each of the four levels.
        num_refinement_blocks: Blocks after the decoder.
        heads: Attention heads on each level.
        ffn_expansion_factor: Ratio of the feed-forward parts' hidden width to their channels.
        bias: Give the convolutions a bias.
        LayerNorm_type: ``WithBias``, or ``BiasFree``, which does not subtract the mean either.
        dual_pixel_task: For defocus deblurring with two views: the skip connection goes around the features, since
            there is no single image to add to.

    Raises:
        ValueError: If the arguments do not fit together.
    """

    def __init__(
        self,
        inp_channels: PositiveInt = 3,
        out_channels: PositiveInt = 3,
        dim: PositiveInt = 48,
        num_blocks: Sequence[PositiveInt] = (4, 6, 6, 8),
        num_refinement_blocks: PositiveInt = 4,
        heads: Sequence[PositiveInt] = (1, 2, 4, 8),
        ffn_expansion_factor: PositiveFloat = 2.66,
        bias: bool = False,
        LayerNorm_type: Literal["WithBias", "BiasFree"] = "WithBias",
        dual_pixel_task: bool = False,
    ) -> None:
        def make_block(channels: int, number: int) -> TransformerBlock:
            attn = Attention(channels, number, bias)
            return TransformerBlock(channels, attn, FeedForward(channels, ffn_expansion_factor, bias), LayerNorm_type)

        super().__init__(inp_channels, dim, num_blocks, heads, bias, make_block)
        if not dual_pixel_task and inp_channels != out_channels:
            raise ValueError(
                f"Restormer adds its input to its output, so `inp_channels` {inp_channels} and `out_channels` "
                f"{out_channels} must be equal without `dual_pixel_task`."
            )
        self.refinement = nn.Sequential(*(make_block(dim * 2, heads[0]) for _ in range(num_refinement_blocks)))
        self.dual_pixel_task = dual_pixel_task
        if dual_pixel_task:
            self.skip_conv = nn.Conv2d(dim, dim * 2, 1, bias=bias)
        self.output = nn.Conv2d(dim * 2, out_channels, 3, 1, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inp_channels, H, W) in [0, 1] to (B, out_channels, H, W)."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.size_requirement.multiple_of)
        embedded = self.patch_embed(x)
        features = self.refinement(self.unet(embedded))
        if self.dual_pixel_task:
            out = self.output(features + self.skip_conv(embedded))
        else:
            out = self.output(features) + x
        return out[..., :height, :width]
