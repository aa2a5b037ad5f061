"""Uformer: A General U-Shaped Transformer for Image Restoration (Wang et al., CVPR 2022, arXiv 2106.03106).

State-dict keys are those of the authors' release (github.com/ZhendongWang6/Uformer), misspelt ones included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from basicsr.utils.ranges import Probability
from basicsr.utils.registry import ARCH_REGISTRY

from .arch_util import init_linear, pad_to_multiple
from .lewin_block import LeWinTransformerBlock
from .size_requirement import SizeRequirement

ENCODERS = 4
STAGES = 2 * ENCODERS + 1  # with the bottleneck


class BasicUformerLayer(nn.Module):
    """Blocks in a row, optionally recomputed in the backward pass to save memory."""

    def __init__(self, blocks: Sequence[LeWinTransformerBlock], use_checkpoint: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        for block in self.blocks:
            recomputed = self.use_checkpoint and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if recomputed else block(x)
        return x


class _TokenConv(nn.Module):
    """A convolution, under its published name, of tokens (B, H, W, C) seen as an image."""

    def __init__(self, name: str, *layers: nn.Module) -> None:
        super().__init__()
        self.add_module(name, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        (layers,) = self.children()
        return layers(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@ARCH_REGISTRY.register()
class Uformer(nn.Module):
    """A U-Net of transformer blocks with attention within windows, on four levels and a bottleneck.

    The release's models, all with ``modulator: true``: T ``embed_dim 16`` and S ``embed_dim 32`` with two blocks in
    each stage, B ``embed_dim 32, depths [1, 2, 8, 8, 2, 8, 8, 2, 1]``. Inputs of any size are accepted: they are
    reflect-padded at the bottom and right to a multiple of 16 windows (128 pixels), and the output is cropped. The
    release's test scripts put the image into the middle of a black square instead.

    Args:
        img_size: Side of the training patches. As published, a level on which they are no larger than the window gets
            windows of that size, which are not shifted.
        in_chans: Channels of the output.
        dd_in: Channels of the input. With 3 the network predicts a residual, as published.
        embed_dim: Channels of the features at full resolution; doubled by each level.
        depths: Blocks in each of the nine stages: four encoders, the bottleneck, four decoders.
        num_heads: Attention heads in each stage.
        win_size: Side of an attention window.
        mlp_ratio: Ratio of the feed-forward parts' hidden width to their channels.
        qkv_bias: Give the query, key and value projections a bias.
        qk_scale: Factor on the attention scores instead of ``head_dim ** -0.5``.
        drop_rate: Dropout of the projections.
        attn_drop_rate: Dropout of attention weights.
        drop_path_rate: Stochastic depth of the last encoder block and of the bottleneck; it grows linearly from 0.
        use_checkpoint: Recompute the blocks in the backward pass to save memory.
        token_projection: Must be ``linear``, as in all released models.
        token_mlp: ``leff``: with a depthwise convolution; ``ffn`` or ``mlp``: without.
        shift_flag: Shift the windows of every other block.
        modulator: Add a learnt vector to each position of the decoder's windows.

    Raises:
        ValueError: If the arguments do not fit together.
    """

    def __init__(
        self,
        img_size: PositiveInt = 256,
        in_chans: PositiveInt = 3,
        dd_in: PositiveInt = 3,
        embed_dim: PositiveInt = 32,
        depths: Sequence[PositiveInt] = (2, 2, 2, 2, 2, 2, 2, 2, 2),
        num_heads: Sequence[PositiveInt] = (1, 2, 4, 8, 16, 16, 8, 4, 2),
        win_size: PositiveInt = 8,
        mlp_ratio: PositiveFloat = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: Probability = 0.0,
        attn_drop_rate: Probability = 0.0,
        drop_path_rate: Probability = 0.1,
        use_checkpoint: bool = False,
        token_projection: Literal["linear"] = "linear",
        token_mlp: Literal["leff", "ffn", "mlp"] = "leff",
        shift_flag: bool = True,
        modulator: bool = False,
    ) -> None:
        super().__init__()
        if len(depths) != STAGES or len(num_heads) != STAGES:
            raise ValueError(
                f"Uformer has {STAGES} stages: `depths` and `num_heads` must have as many numbers, not {len(depths)} "
                f"and {len(num_heads)}."
            )
        if img_size % 2**ENCODERS:
            raise ValueError(f"Uformer's `img_size` must be a multiple of {2**ENCODERS}, not {img_size}.")
        if token_projection != "linear":
            raise ValueError(f"Uformer's `token_projection` must be 'linear', not '{token_projection}'.")
        if dd_in == 3 and in_chans != 3:
            raise ValueError(
                f"Uformer adds its input to its output if `dd_in` is 3, so `in_chans` must be 3, too, not {in_chans}."
            )
        encoder_paths = torch.linspace(0, drop_path_rate, sum(depths[:ENCODERS]), device="cpu").tolist()
        if sum(depths[ENCODERS + 1 :]) > len(encoder_paths):
            raise ValueError(f"Uformer's decoder has more blocks (`depths` {list(depths)}) than its encoder.")
        drop_paths = iter([*encoder_paths, *[drop_path_rate] * depths[ENCODERS], *reversed(encoder_paths)])
        windows = []

        def stage(index: int, channels: int) -> BasicUformerLayer:
            level = min(index, STAGES - 1 - index)
            window = min(win_size, img_size >> level)
            windows.append(window << level)
            in_decoder = index > ENCODERS
            if modulator and in_decoder and window < win_size:
                raise ValueError(
                    f"Uformer's `modulator` needs windows of {win_size} (`win_size`) in the decoder, and `img_size` "
                    f"{img_size} has {window} pixels on its level {level + 1}."
                )
            if channels % num_heads[index]:
                raise ValueError(
                    f"Uformer's `num_heads` {num_heads[index]} of stage {index + 1} do not divide its {channels} "
                    f"channels."
                )
            shift = window // 2 if shift_flag and img_size >> level > win_size else 0
            blocks = [
                LeWinTransformerBlock(
                    channels,
                    num_heads[index],
                    window,
                    shift_size=shift if block % 2 else 0,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    qk_scale=qk_scale,
                    drop=drop_rate,
                    attn_drop=attn_drop_rate,
                    drop_path=next(drop_paths),
                    token_mlp=token_mlp,
                    modulator=modulator and in_decoder,
                )
                for block in range(depths[index])
            ]
            return BasicUformerLayer(blocks, use_checkpoint)

        self.residual = dd_in == 3
        self.pos_drop = nn.Dropout(drop_rate)
        self.input_proj = _TokenConv("proj", nn.Conv2d(dd_in, embed_dim, 3, 1, 1), nn.LeakyReLU(inplace=True))
        for level in range(ENCODERS):  # the release has no containers, and writes "dowsample"
            channels = embed_dim << level
            self.add_module(f"encoderlayer_{level}", stage(level, channels))
            self.add_module(f"dowsample_{level}", _TokenConv("conv", nn.Conv2d(channels, 2 * channels, 4, 2, 1)))
        self.conv = stage(ENCODERS, embed_dim << ENCODERS)
        channels = embed_dim << ENCODERS
        for index in range(ENCODERS):
            skip = embed_dim << ENCODERS - 1 - index
            self.add_module(f"upsample_{index}", _TokenConv("deconv", nn.ConvTranspose2d(channels, skip, 2, 2)))
            channels = 2 * skip
            self.add_module(f"decoderlayer_{index}", stage(ENCODERS + 1 + index, channels))
        self.output_proj = _TokenConv("proj", nn.Conv2d(channels, in_chans, 3, 1, 1))
        self.size_requirement = SizeRequirement(multiple_of=math.lcm(*windows))
        self.apply(init_linear)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dd_in, H, W) in [0, 1] to (B, in_chans, H, W)."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.size_requirement.multiple_of)
        tokens, skips = self.pos_drop(self.input_proj(x.permute(0, 2, 3, 1))), []
        for level in range(ENCODERS):
            tokens = self.get_submodule(f"encoderlayer_{level}")(tokens)
            skips.append(tokens)
            tokens = self.get_submodule(f"dowsample_{level}")(tokens)
        tokens = self.conv(tokens)
        for index in range(ENCODERS):
            tokens = torch.cat([self.get_submodule(f"upsample_{index}")(tokens), skips.pop()], dim=-1)
            tokens = self.get_submodule(f"decoderlayer_{index}")(tokens)
        out = self.output_proj(tokens).permute(0, 3, 1, 2)
        return (x + out if self.residual else out)[..., :height, :width]
