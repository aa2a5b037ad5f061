"""Encoder and decoder of VQGAN, with the state-dict keys of taming-transformers' release."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .vqgan_config import NUM_GROUPS, DDConfig, levels_of


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(NUM_GROUPS, width, eps=1e-6)


def _swish(x: Tensor) -> Tensor:
    """``x · sigmoid(x)`` of a temporary: overwritten where no gradient needs it."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ResnetBlock(nn.Module):
    """Two 3×3 convolutions, each after normalisation and swish, and a skip connection.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; where they differ, a 1×1 convolution is in the skip connection.
        dropout: Probability, before the second convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = _norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, 1, 1)
        self.norm2 = _norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        deep = self.conv1(_swish(self.norm1(x)))
        deep = self.conv2(self.dropout(_swish(self.norm2(deep))))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + deep


class AttnBlock(nn.Module):
    """Attention of every position to every other, with one head, and a skip connection.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        normed = self.norm(x)
        q, k, v = (project(normed).flatten(2) for project in (self.q, self.k, self.v))
        return x + self.proj_out(attend(q, k, v).unflatten(2, size))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(qᵀ k / √C)`` applied to ``v``, for tokens in columns.

    On CUDA it is the fused kernel, which keeps the N×N weights out of memory. On a CPU, with one head of hundreds of
    channels, two matrix products are as fast in float32 and two to four times as fast in bfloat16.

    Args:
        q: Queries (B, C, N).
        k: Keys, likewise.
        v: Values, likewise.

    Returns:
        (B, C, N).
    """
    if q.is_cuda:
        return _fused(q, k, v)
    weights = torch.bmm(q.transpose(1, 2) * q.shape[1] ** -0.5, k).softmax(dim=-1)
    return torch.bmm(v, weights.transpose(1, 2))


def _fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    rows = (tokens.transpose(1, 2).unsqueeze(1) for tokens in (q, k, v))
    return F.scaled_dot_product_attention(*rows).squeeze(1).transpose(1, 2)


class Downsample(nn.Module):
    """Half the size, rounded down: a 3×3 convolution of stride 2, zeros at the bottom and right only.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size: each pixel repeated, then a 3×3 convolution.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class _Level(nn.Module):
    """The blocks of one resolution; an attention block follows each residual block, or none."""

    def __init__(self, in_width: int, width: int, num_blocks: int, has_attention: bool, dropout: float) -> None:
        super().__init__()
        widths = [in_width] + [width] * num_blocks
        self.block = nn.ModuleList(ResnetBlock(*pair, dropout) for pair in zip(widths, widths[1:]))
        self.attn = nn.ModuleList(AttnBlock(width) for _ in self.block if has_attention)

    def after_first_block(self, x: Tensor) -> Tensor:
        """The blocks after the first residual block, applied to its output."""
        for index, block in enumerate(self.block):
            x = block(x) if index else x
            x = self.attn[index](x) if self.attn else x
        return x


class _Middle(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(width, width, dropout)
        self.attn_1 = AttnBlock(width)
        self.block_2 = ResnetBlock(width, width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """From an image to its latent, by way of one feature per level.

    Args:
        config: See :class:`DDConfig`.
    """

    def __init__(self, config: DDConfig) -> None:
        super().__init__()
        levels, dropout = levels_of(config), config.get("dropout", 0.0)
        self.stride = 2 ** (len(levels) - 1)
        self.conv_in = nn.Conv2d(config.get("in_channels", 3), config["ch"], 3, 1, 1)
        self.down = nn.ModuleList()
        width = config["ch"]
        for level in levels:
            down = _Level(width, level.width, config["num_res_blocks"], level.has_attention, dropout)
            width = level.width
            if len(self.down) < len(levels) - 1:
                down.downsample = Downsample(width)
            self.down.append(down)
        self.mid = _Middle(width, dropout)
        self.norm_out = _norm(width)
        self.conv_out = nn.Conv2d(width, config["z_channels"], 3, 1, 1)

    def features(self, x: Tensor) -> list[Tensor]:
        """Each level's feature, the output of its first residual block; blocks after the last do not run.

        Args:
            x: (B, C, H, W), both sides at least ``stride``.

        Returns:
            (B, C_i, ⌊H/2^i⌋, ⌊W/2^i⌋) for the levels i = 0, 1, …

        Raises:
            ValueError: If the image is too small.
        """
        if min(x.shape[-2:]) < self.stride:
            raise ValueError(
                f"an image of {x.shape[-2]}×{x.shape[-1]} pixels is smaller than the VQGAN encoder's stride of "
                f"{self.stride}: it would have no token; use larger crops (gt_size) or an encoder of fewer levels"
            )
        features: list[Tensor] = []
        hidden = self.conv_in(x)
        for level in self.down:
            if features:
                previous = self.down[len(features) - 1]
                hidden = previous.downsample(previous.after_first_block(features[-1]))
            features.append(level.block[0](hidden))
        return features

    def latent(self, last_feature: Tensor) -> Tensor:
        """The latent (B, z_channels, h, w) from the last level's feature (B, C, h, w)."""
        hidden = self.mid(self.down[-1].after_first_block(last_feature))
        return self.conv_out(_swish(self.norm_out(hidden)))


class Decoder(nn.Module):
    """From a latent to an image, the encoder's mirror image.

    Args:
        config: See :class:`DDConfig`.
    """

    def __init__(self, config: DDConfig) -> None:
        super().__init__()
        levels, dropout = levels_of(config), config.get("dropout", 0.0)
        width = levels[-1].width
        self.conv_in = nn.Conv2d(config["z_channels"], width, 3, 1, 1)
        self.mid = _Middle(width, dropout)
        ups = []
        for index, level in reversed(list(enumerate(levels))):
            up = _Level(width, level.width, config["num_res_blocks"] + 1, level.has_attention, dropout)
            width = level.width
            if index > 0:
                up.upsample = Upsample(width)
            ups.append(up)
        self.up = nn.ModuleList(reversed(ups))  # the keys count levels as the encoder's do, from the finest
        self.norm_out = _norm(width)
        self.conv_out = nn.Conv2d(width, config.get("out_ch", 3), 3, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, z_channels, h, w) to (B, out_ch, f·h, f·w)."""
        hidden = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            hidden = level.after_first_block(level.block[0](hidden))
            if hasattr(level, "upsample"):
                hidden = level.upsample(hidden)
        return self.conv_out(_swish(self.norm_out(hidden)))
