"""DRSformer: Learning A Sparse Transformer Network for Effective Image Deraining (Chen et al., CVPR 2023,
arXiv 2303.11950).

State-dict keys are those of the authors' release (github.com/cschenxiang/DRSformer); what the paper leaves open is as
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY

from .arch_util import pad_to_multiple
from .channel_attention import channel_scores
from .mixture_of_experts import FeatureCompensator
from .restormer_block import Attention, FourLevelTransformer, TransformerBlock

KEPT = (1 / 2, 2 / 3, 3 / 4, 4 / 5)  # shares of the channels that each channel attends to, one for each weight


class TopKSparseAttention(Attention):
    """Top-k sparse attention (TKSA): Restormer's, of each channel to the k channels that are most like it.

    The weighted sum of four such attentions, with k = 1/2, 2/3, 3/4 and 4/5 of a head's channels (equation 4; the
    number of them and the shares are the release's).

    Raises:
        ValueError: If a head has one channel only, so that the smallest k is 0.
    """

    def __init__(self, dim: int, num_heads: int, bias: bool) -> None:
        super().__init__(dim, num_heads, bias)
        if dim // num_heads < 2:
            raise ValueError(f"DRSformer's heads need at least 2 channels: {num_heads} `heads` have {dim} together.")
        self.attn1 = nn.Parameter(torch.tensor([0.2]))
        self.attn2 = nn.Parameter(torch.tensor([0.2]))
        self.attn3 = nn.Parameter(torch.tensor([0.2]))
        self.attn4 = nn.Parameter(torch.tensor([0.2]))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = channel_scores(q, k, self.temperature)
        channels = scores.shape[-1]
        # One sort serves all four, and the attention is linear in its weights, so that v is multiplied once.
        order = scores.argsort(dim=-1, descending=True)
        rank = torch.empty_like(order).scatter_(-1, order, torch.arange(channels, device=q.device).expand_as(order))
        total = torch.zeros_like(scores)
        for share, weight in zip(KEPT, (self.attn1, self.attn2, self.attn3, self.attn4), strict=True):
            kept = scores.masked_fill(rank >= int(channels * share), -torch.inf)
            total = total + weight * kept.softmax(dim=-1)
        return total.to(v.dtype) @ v


class MixedScaleFeedForward(nn.Module):
    """Mixed-scale feed-forward network (MSFN): depthwise 3×3 and 5×5 convolutions, which exchange halves between
    two steps (equation 5).

    Args:
        dim: Channels.
        ffn_expansion_factor: Ratio of the hidden width to ``dim``.
        bias: Give the convolutions a bias.
    """

    def __init__(self, dim: int, ffn_expansion_factor: float, bias: bool) -> None:
        super().__init__()
        hidden = int(dim * ffn_expansion_factor)
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=bias)
        self.dwconv3x3 = nn.Conv2d(hidden * 2, hidden * 2, 3, 1, 1, groups=hidden * 2, bias=bias)
        self.dwconv5x5 = nn.Conv2d(hidden * 2, hidden * 2, 5, 1, 2, groups=hidden * 2, bias=bias)
        self.dwconv3x3_1 = nn.Conv2d(hidden * 2, hidden, 3, 1, 1, groups=hidden, bias=bias)
        self.dwconv5x5_1 = nn.Conv2d(hidden * 2, hidden, 5, 1, 2, groups=hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden * 2, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        x = self.project_in(x)
        fine, coarse = F.relu(self.dwconv3x3(x)), F.relu(self.dwconv5x5(x))
        first, second = (torch.cat(halves, dim=1) for halves in zip(fine.chunk(2, 1), coarse.chunk(2, 1)))
        return self.project_out(torch.cat([F.relu(self.dwconv3x3_1(first)), F.relu(self.dwconv5x5_1(second))], dim=1))


@ARCH_REGISTRY.register()
class DRSformer(FourLevelTransformer):
    """Restormer's U-Net with top-k sparse attention and mixed-scale feed-forward parts, between mixtures of experts.

    Inputs of any size are accepted: they are reflect-padded at the bottom and right to a multiple of 8, and the output
    is cropped.

    Args:
        inp_channels: Input channels.
        out_channels: Output channels, as many.
        dim: Channels of the features at full resolution, an even number.
        num_blocks: Blocks on each of the four levels.
        heads: Attention heads on each level.
        ffn_expansion_factor: Ratio of the feed-forward parts' hidden width to their channels.
        bias: Give the convolutions of the blocks a bias.
        LayerNorm_type: ``WithBias``, or ``BiasFree``, which does not subtract the mean either.
        use_mefc: Have the two mixtures of experts (MEFC). The release's models for Rain200L and SPA-Data, from a file
            of its own, have none. This name is ours.

    Raises:
        ValueError: If the arguments do not fit together.
    """

    def __init__(
        self,
        inp_channels: PositiveInt = 3,
        out_channels: PositiveInt = 3,
        dim: PositiveInt = 48,
        num_blocks: Sequence[PositiveInt] = (4, 6, 6, 8),
        heads: Sequence[PositiveInt] = (1, 2, 4, 8),
        ffn_expansion_factor: PositiveFloat = 2.66,
        bias: bool = False,
        LayerNorm_type: Literal["WithBias", "BiasFree"] = "WithBias",
        use_mefc: bool = True,
    ) -> None:
        def make_block(channels: int, number: int) -> TransformerBlock:
            attn = TopKSparseAttention(channels, number, bias)
            ffn = MixedScaleFeedForward(channels, ffn_expansion_factor, bias)
            return TransformerBlock(channels, attn, ffn, LayerNorm_type)

        super().__init__(inp_channels, dim, num_blocks, heads, bias, make_block)
        if inp_channels != out_channels:
            raise ValueError(
                f"DRSformer adds its input to its output, so `inp_channels` {inp_channels} and `out_channels` "
                f"{out_channels} must be equal."
            )
        self.encoder_level0 = FeatureCompensator(dim) if use_mefc else nn.Identity()
        self.refinement = FeatureCompensator(dim * 2) if use_mefc else nn.Identity()
        self.output = nn.Conv2d(dim * 2, out_channels, 3, 1, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to the same shape."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.size_requirement.multiple_of)
        features = self.refinement(self.unet(self.encoder_level0(self.patch_embed(x))))
        return (self.output(features) + x)[..., :height, :width]
