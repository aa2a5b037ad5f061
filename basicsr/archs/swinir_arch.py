"""SwinIR: Image Restoration Using Swin Transformer (Liang et al., ICCVW 2021, arXiv 2108.10257).

State-dict keys are those of the authors' release (github.com/JingyunLiang/SwinIR), which are also BasicSR's. All of
its variants are here: classical, lightweight and real-world super-resolution, denoising, and JPEG artefact removal.

Inside the transformer, images are tokens (B, H·W, C) in row order (:mod:`~basicsr.archs.swin_layers`), whose memory is
that of channels-last images. The reconstruction part, of which images are larger, is in the layout that is fastest
(:mod:`~basicsr.archs.conv_layout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from basicsr.utils.ranges import Probability
from basicsr.utils.registry import ARCH_REGISTRY

from .arch_util import DropPath, Upsample, init_linear, pad_to_multiple, to_2tuple, trunc_normal_
from .attention import shift_mask
from .conv_layout import to_fastest_layout
from .size_requirement import SizeRequirement
from .swin_block import Mlp, SwinTransformerBlock, WindowAttention, window_partition, window_reverse
from .swin_layers import RSTB, BasicLayer, PatchEmbed, PatchMerging, PatchUnEmbed, UpsampleOneStep, residual_conv

__all__ = [  # plug-ins import the parts from here, as from BasicSR
    "RSTB",
    "BasicLayer",
    "DropPath",
    "Mlp",
    "PatchEmbed",
    "PatchMerging",
    "PatchUnEmbed",
    "SwinIR",
    "SwinTransformerBlock",
    "Upsample",
    "UpsampleOneStep",
    "WindowAttention",
    "trunc_normal_",
    "window_partition",
    "window_reverse",
]

RGB_MEAN = (0.4488, 0.4371, 0.4040)
NUM_FEAT = 64  # channels of the reconstruction part, fixed in the release


@ARCH_REGISTRY.register()
class SwinIR(nn.Module):
    """Residual Swin Transformer blocks between two convolutions, then one of four reconstruction heads.

    Inputs of any size are accepted: they are reflect-padded to a multiple of the window, and the output is cropped.

    Args:
        img_size: Side of the training patches, or height and width. It fixes the size of ``ape``; and, as published,
            a size no larger than the window makes the window as small and its shift zero.
        patch_size: Must be 1: a token is a pixel.
        in_chans: Input and output channels. With 3, ImageNet-like RGB means are subtracted and added back.
        embed_dim: Channels of the features.
        depths: Swin Transformer blocks in each residual block.
        num_heads: Attention heads in each residual block, divisors of ``embed_dim``.
        window_size: Side of an attention window.
        mlp_ratio: Ratio of the MLPs' hidden width to ``embed_dim``.
        qkv_bias: Give the query, key and value projections a bias.
        qk_scale: Factor on the attention scores instead of ``head_dim ** -0.5``.
        drop_rate: Dropout of tokens and projections.
        attn_drop_rate: Dropout of attention weights.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        norm_layer: Makes a normalisation from the number of channels.
        ape: Add a learnt absolute position embedding. Inputs must then be of ``img_size``.
        patch_norm: Normalise the tokens first.
        use_checkpoint: Recompute the blocks in the backward pass to save memory.
        upscale: Upscaling factor; 1 with the empty ``upsampler``.
        img_range: What the input, in [0, 1], is multiplied by inside.
        upsampler: ``pixelshuffle`` (classical), ``pixelshuffledirect`` (lightweight), ``nearest+conv`` (real-world,
            ×2 or ×4), or empty for denoising and JPEG artefact removal, where the network predicts a residual.
        resi_connection: One convolution at the end of each residual block, or three in a bottleneck.

    Raises:
        ValueError: If the arguments do not fit together.
    """

    def __init__(
        self,
        img_size: PositiveInt | Sequence[PositiveInt] = 64,
        patch_size: PositiveInt = 1,
        in_chans: PositiveInt = 3,
        embed_dim: PositiveInt = 96,
        depths: Sequence[PositiveInt] = (6, 6, 6, 6),
        num_heads: Sequence[PositiveInt] = (6, 6, 6, 6),
        window_size: PositiveInt = 7,
        mlp_ratio: PositiveFloat = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: Probability = 0.0,
        attn_drop_rate: Probability = 0.0,
        drop_path_rate: Probability = 0.1,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        ape: bool = False,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: PositiveInt = 2,
        img_range: PositiveFloat = 1.0,
        upsampler: Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv", ""] | None = "",
        resi_connection: Literal["1conv", "3conv"] = "1conv",
    ) -> None:
        super().__init__()
        if patch_size != 1:
            raise ValueError(f"SwinIR's `patch_size` must be 1, not {patch_size}: its tokens are pixels.")
        if len(depths) != len(num_heads):
            raise ValueError(f"SwinIR's `depths` has {len(depths)} entries, but `num_heads` has {len(num_heads)}.")
        for heads in num_heads:
            if embed_dim % heads:
                raise ValueError(f"SwinIR's `embed_dim` {embed_dim} does not divide into {heads} heads (`num_heads`).")
        self.img_size = to_2tuple(img_size)
        self.upscale = upscale
        self.upsampler = upsampler or ""
        self.img_range = img_range
        self.window_size = min(window_size, *self.img_size)
        self.shift_size = window_size // 2 if min(self.img_size) > window_size else 0
        if self.shift_size and (self.img_size[0] % window_size or self.img_size[1] % window_size):
            raise ValueError(
                f"SwinIR's `img_size` {self.img_size} must be a multiple of its `window_size` {window_size}."
            )
        self.size_requirement = SizeRequirement(multiple_of=self.window_size)  # so that tiles start where windows do
        mean = torch.tensor(RGB_MEAN if in_chans == 3 else (0.0,)).view(1, -1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)

        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, 1, 1)
        norm = norm_layer if patch_norm else None
        self.patch_embed = PatchEmbed(self.img_size, patch_size, embed_dim, embed_dim, norm)
        self.patch_unembed = PatchUnEmbed(self.img_size, patch_size, embed_dim, embed_dim)
        self.absolute_pos_embed = None
        if ape:
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, self.img_size[0] * self.img_size[1], embed_dim))
            trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)
        drop_paths = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        self.layers = nn.ModuleList()
        for index, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            first = sum(depths[:index])
            self.layers.append(
                RSTB(
                    embed_dim,
                    self.img_size,
                    depth,
                    heads,
                    window_size,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    qk_scale=qk_scale,
                    drop=drop_rate,
                    attn_drop=attn_drop_rate,
                    drop_path=drop_paths[first : first + depth],
                    norm_layer=norm_layer,
                    use_checkpoint=use_checkpoint,
                    img_size=self.img_size,
                    patch_size=patch_size,
                    resi_connection=resi_connection,
                )
            )
        self.norm = norm_layer(embed_dim)
        self.conv_after_body = residual_conv(resi_connection, embed_dim)
        self._build_reconstruction(embed_dim, in_chans)
        self.apply(init_linear)

    def _build_reconstruction(self, embed_dim: int, out_chans: int) -> None:
        if self.upsampler == "pixelshuffle":
            self.conv_before_upsample = nn.Sequential(
                nn.Conv2d(embed_dim, NUM_FEAT, 3, 1, 1), nn.LeakyReLU(inplace=True)
            )
            self.upsample = Upsample(self.upscale, NUM_FEAT)
            self.conv_last = nn.Conv2d(NUM_FEAT, out_chans, 3, 1, 1)
        elif self.upsampler == "pixelshuffledirect":
            self.upsample = UpsampleOneStep(self.upscale, embed_dim, out_chans)
        elif self.upsampler == "nearest+conv":
            if self.upscale not in (2, 4):
                raise ValueError(f"SwinIR's `upsampler` 'nearest+conv' upscales by 2 or 4, not by {self.upscale}.")
            self.conv_before_upsample = nn.Sequential(
                nn.Conv2d(embed_dim, NUM_FEAT, 3, 1, 1), nn.LeakyReLU(inplace=True)
            )
            self.conv_up1 = nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, 1, 1)
            if self.upscale == 4:
                self.conv_up2 = nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, 1, 1)
            self.conv_hr = nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, 1, 1)
            self.conv_last = nn.Conv2d(NUM_FEAT, out_chans, 3, 1, 1)
            self.lrelu = nn.LeakyReLU(0.2, inplace=True)
        elif self.upsampler == "":
            if self.upscale != 1:
                raise ValueError(
                    f"SwinIR without an `upsampler` keeps the size, so its `upscale` must be 1, not {self.upscale}; "
                    f"to upscale, give an `upsampler` such as 'pixelshuffle'."
                )
            self.conv_last = nn.Conv2d(embed_dim, out_chans, 3, 1, 1)
        else:
            raise ValueError(
                f"SwinIR's `upsampler` must be 'pixelshuffle', 'pixelshuffledirect', 'nearest+conv' or '', "
                f"not '{self.upsampler}'."
            )

    def forward_features(self, x: Tensor) -> Tensor:
        """The transformer: (B, C, H, W) to the same shape, sides multiples of the window's."""
        x_size = (x.shape[2], x.shape[3])
        mask = shift_mask(*x_size, self.window_size, self.shift_size, x.device) if self.shift_size else None
        # Under autocast the convolution gives bf16; sums over dozens of blocks keep the weights' precision.
        tokens = self.patch_embed(x.to(self.norm.weight.dtype))
        if self.absolute_pos_embed is not None:
            if x_size != self.img_size:
                raise ValueError(
                    f"SwinIR with `ape` has a position embedding for images of {self.img_size} pixels (`img_size`), "
                    f"but was given one of {x_size} after padding."
                )
            tokens = tokens + self.absolute_pos_embed
        tokens = self.pos_drop(tokens)
        for layer in self.layers:
            tokens = layer(tokens, x_size, mask)
        return self.patch_unembed(self.norm(tokens), x_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1], of any size, to (B, C, upscale·H, upscale·W)."""
        height, width = x.shape[-2:]
        x = (pad_to_multiple(x, self.window_size) - self.mean) * self.img_range
        shallow = self.conv_first(x)
        deep = self.conv_after_body(self.forward_features(shallow)) + shallow
        if self.upsampler == "pixelshuffle":
            out = self.conv_last(self.upsample(to_fastest_layout(self.conv_before_upsample(deep))))
        elif self.upsampler == "pixelshuffledirect":
            out = self.upsample(deep)
        elif self.upsampler == "nearest+conv":
            feat = to_fastest_layout(self.conv_before_upsample(deep))
            for conv in [self.conv_up1, self.conv_up2] if self.upscale == 4 else [self.conv_up1]:
                feat = self.lrelu(conv(F.interpolate(feat, scale_factor=2, mode="nearest")))
            out = self.conv_last(self.lrelu(self.conv_hr(feat)))
        else:
            out = x + self.conv_last(deep)
        out = out / self.img_range + self.mean
        return out[..., : height * self.upscale, : width * self.upscale]
