"""What Restormer (Zamir et al., CVPR 2022, arXiv 2111.09881) and networks after its model are built from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .channel_attention import channel_attention
from .channel_norm import channel_norm
from .size_requirement import SizeRequirement

LEVELS = 4
NormType = Literal["WithBias", "BiasFree"]


class _NormParameters(nn.Module):
    """The weight and, ``WithBias``, the bias of a norm."""

    def __init__(self, dim: int, norm_type: NormType) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if norm_type == "WithBias" else None

    def forward(self, x: Tensor) -> Tensor:
        return channel_norm(x, self.weight, self.bias, eps=1e-5)


class LayerNorm(nn.Module):
    """Layer norm over the channels of each pixel; ``BiasFree`` without a bias and without subtracting the mean.

    Raises:
        ValueError: If the type is neither.
    """

    def __init__(self, dim: int, norm_type: NormType) -> None:
        super().__init__()
        if norm_type not in ("WithBias", "BiasFree"):
            raise ValueError(f"`LayerNorm_type` must be 'WithBias' or 'BiasFree', not '{norm_type}'.")
        self.body = _NormParameters(dim, norm_type)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.body(x)


class Attention(nn.Module):
    """Multi-Dconv head transposed attention (MDTA): attention between channels, after 1×1 and 3×3 convolutions.

    Args:
        dim: Channels.
        num_heads: Heads, a divisor of ``dim``.
        bias: Give the convolutions a bias.
    """

    def __init__(self, dim: int, num_heads: int, bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Conv2d(dim, dim * 3, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(dim * 3, dim * 3, 3, 1, 1, groups=dim * 3, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        batch, dim, height, width = x.shape
        qkv = self.qkv_dwconv(self.qkv(x))
        qkv = qkv.reshape(batch, 3, self.num_heads, dim // self.num_heads, height * width)
        out = self.attend(*qkv.unbind(1))
        return self.project_out(out.reshape(batch, dim, height, width))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Three tensors (B, heads, C / heads, H·W) to one."""
        return channel_attention(q, k, v, self.temperature)


class FeedForward(nn.Module):
    """Gated-Dconv feed-forward network (GDFN): one half of the hidden channels, through GELU, gates the other.

    Args:
        dim: Channels.
        ffn_expansion_factor: Ratio of the hidden width to ``dim``.
        bias: Give the convolutions a bias.
    """

    def __init__(self, dim: int, ffn_expansion_factor: float, bias: bool) -> None:
        super().__init__()
        hidden = int(dim * ffn_expansion_factor)
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=bias)
        self.dwconv = nn.Conv2d(hidden * 2, hidden * 2, 3, 1, 1, groups=hidden * 2, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        gate, values = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * values)


class TransformerBlock(nn.Module):
    """Attention and a feed-forward part, each with a layer norm before and a residual connection around.

    Args:
        dim: Channels.
        attn: The attention.
        ffn: The feed-forward part.
        norm_type: Of the layer norms.
    """

    def __init__(self, dim: int, attn: nn.Module, ffn: nn.Module, norm_type: NormType) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, norm_type)
        self.attn = attn
        self.norm2 = LayerNorm(dim, norm_type)
        self.ffn = ffn

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class PatchEmbed(nn.Module):
    """The first 3×3 convolution, under its published name."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Downsample(nn.Module):
    """(B, C, H, W) to (B, 2C, H/2, W/2) by a convolution and a pixel unshuffle."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, dim // 2, 3, 1, 1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Upsample(nn.Module):
    """(B, C, H, W) to (B, C/2, 2H, 2W) by a convolution and a pixel shuffle."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, dim * 2, 3, 1, 1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class FourLevelTransformer(nn.Module):
    """A U-Net of transformer blocks on four levels, each of half the resolution and twice the channels (figure 2).

    Args:
        inp_channels: Channels of the input.
        dim: Channels of the features at full resolution, an even number.
        num_blocks: Blocks on each level, from full resolution down; in the encoder and again in the decoder.
        heads: Attention heads on each level.
        bias: Give the 1×1 convolutions that merge skip connections a bias.
        make_block: Makes a block from its channels and heads.

    Raises:
        ValueError: If there are not four levels, or the channels cannot be halved or divided into the heads.
    """

    size_requirement = SizeRequirement(multiple_of=2 ** (LEVELS - 1))

    def __init__(
        self,
        inp_channels: int,
        dim: int,
        num_blocks: Sequence[int],
        heads: Sequence[int],
        bias: bool,
        make_block: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        self._check(dim, num_blocks, heads)
        dims = [dim << level for level in range(LEVELS)]

        def blocks(level: int, channels: int) -> nn.Sequential:
            return nn.Sequential(*(make_block(channels, heads[level]) for _ in range(num_blocks[level])))

        self.patch_embed = PatchEmbed(inp_channels, dim)
        self.encoder_level1 = blocks(0, dims[0])
        self.down1_2 = Downsample(dims[0])
        self.encoder_level2 = blocks(1, dims[1])
        self.down2_3 = Downsample(dims[1])
        self.encoder_level3 = blocks(2, dims[2])
        self.down3_4 = Downsample(dims[2])
        self.latent = blocks(3, dims[3])
        self.up4_3 = Upsample(dims[3])
        self.reduce_chan_level3 = nn.Conv2d(dims[3], dims[2], 1, bias=bias)
        self.decoder_level3 = blocks(2, dims[2])
        self.up3_2 = Upsample(dims[2])
        self.reduce_chan_level2 = nn.Conv2d(dims[2], dims[1], 1, bias=bias)
        self.decoder_level2 = blocks(1, dims[1])
        self.up2_1 = Upsample(dims[1])
        self.decoder_level1 = blocks(0, dims[1])

    def _check(self, dim: int, num_blocks: Sequence[int], heads: Sequence[int]) -> None:
        name = type(self).__name__
        if len(num_blocks) != LEVELS or len(heads) != LEVELS:
            raise ValueError(
                f"{name} has {LEVELS} levels: `num_blocks` and `heads` must have as many numbers, not "
                f"{len(num_blocks)} and {len(heads)}."
            )
        if dim % 2:
            raise ValueError(f"{name}'s `dim` must be even, not {dim}.")
        for level, number in enumerate(heads):
            if (dim << level) % number:
                raise ValueError(
                    f"{name}'s `heads` {number} of level {level + 1} do not divide its {dim << level} channels."
                )

    def unet(self, embedded: Tensor) -> Tensor:
        """Encoder, latent and decoder: (B, dim, H, W), sides multiples of 8, to (B, 2·dim, H, W)."""
        level1 = self.encoder_level1(embedded)
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        features = self.up4_3(self.latent(self.down3_4(level3)))
        features = self.decoder_level3(self.reduce_chan_level3(torch.cat([features, level3], dim=1)))
        features = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(features), level2], dim=1)))
        return self.decoder_level1(torch.cat([self.up2_1(features), level1], dim=1))
