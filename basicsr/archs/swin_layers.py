"""SwinIR's stages, built of Swin Transformer blocks (Liang et al., ICCVW 2021, arXiv 2108.10257).

Tokens are (B, H·W, C) in row order. Seen as (B, C, H, W) the same memory is channels-last, so that going from tokens to
image and back copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .arch_util import to_2tuple
from .swin_block import SwinTransformerBlock


def residual_conv(resi_connection: str, dim: int) -> nn.Module:
    """What follows the blocks before a residual connection: one convolution, or a bottleneck of three.

    Raises:
        ValueError: For another ``resi_connection`` than ``1conv`` and ``3conv``.
    """
    if resi_connection == "1conv":
        return nn.Conv2d(dim, dim, 3, 1, 1)
    if resi_connection == "3conv":
        return nn.Sequential(
            nn.Conv2d(dim, dim // 4, 3, 1, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(dim // 4, dim // 4, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(dim // 4, dim, 3, 1, 1),
        )
    raise ValueError(f"SwinIR's `resi_connection` must be '1conv' or '3conv', not '{resi_connection}'.")


class _Patches(nn.Module):
    """How images are divided into patches; the arguments are those of the published class.

    Args:
        img_size: Side of an image, or height and width.
        patch_size: Side of a patch, or height and width.
        in_chans: Not used.
        embed_dim: Channels.
        norm_layer: Makes a normalisation from the number of channels; only for :class:`PatchEmbed`.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.img_size = to_2tuple(img_size)
        self.patch_size = to_2tuple(patch_size)
        self.patches_resolution = [size // patch for size, patch in zip(self.img_size, self.patch_size)]
        self.num_patches = self.patches_resolution[0] * self.patches_resolution[1]
        self.in_chans = in_chans
        self.embed_dim = embed_dim


class PatchEmbed(_Patches):
    """Image to tokens, with an optional normalisation."""

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim)
        self.norm = None if norm_layer is None else norm_layer(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, H·W, C)."""
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)
        return tokens if self.norm is None else self.norm(tokens)


class PatchUnEmbed(_Patches):
    """Tokens to image."""

    def forward(self, x: Tensor, x_size: Sequence[int]) -> Tensor:
        """(B, H·W, C) to (B, C, H, W), a view; ``x_size`` is (H, W)."""
        return x.unflatten(1, tuple(x_size)).permute(0, 3, 1, 2)


class PatchMerging(nn.Module):
    """Halve the resolution: each 2×2 tokens become one of twice the channels (Swin Transformer, figure 3).

    Args:
        input_resolution: Height and width in tokens, both even.
        dim: Channels.
        norm_layer: Makes a normalisation from the number of channels.
    """

    def __init__(
        self, input_resolution: Sequence[int], dim: int, norm_layer: Callable[[int], nn.Module] = nn.LayerNorm
    ) -> None:
        super().__init__()
        self.input_resolution = input_resolution
        self.dim = dim
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = norm_layer(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H·W, C) to (B, H/2·W/2, 2·C).

        Raises:
            ValueError: If the tokens are not those of an image of ``input_resolution``, or a side is odd.
        """
        height, width = self.input_resolution
        if x.shape[1] != height * width or height % 2 or width % 2:
            raise ValueError(
                f"PatchMerging takes the tokens of an image of even sides, its input_resolution {height}×{width}, not "
                f"{x.shape[1]} tokens"
            )
        # The order of the four tokens is column by column, as published.
        parts = x.view(x.shape[0], height // 2, 2, width // 2, 2, x.shape[2]).permute(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(parts.flatten(3).flatten(1, 2)))

    def extra_repr(self) -> str:
        return f"input_resolution={self.input_resolution}, dim={self.dim}"


class BasicLayer(nn.Module):
    """Swin Transformer blocks in a row; the windows of every second one are shifted.

    Args:
        dim: Channels.
        input_resolution: Height and width in tokens of the training patches.
        depth: Blocks.
        num_heads: Attention heads, a divisor of ``dim``.
        window_size: Side of an attention window.
        mlp_ratio: Ratio of the MLPs' hidden width to ``dim``.
        qkv_bias: Give the query, key and value projections a bias.
        qk_scale: Factor on the attention scores instead of ``head_dim ** -0.5``.
        drop: Dropout of the projections.
        attn_drop: Dropout of attention weights.
        drop_path: Probability of dropping a residual branch, for all blocks or for each.
        norm_layer: Makes a normalisation from the number of channels.
        downsample: Makes a layer that follows the blocks, such as :class:`PatchMerging`.
        use_checkpoint: Recompute the blocks in the backward pass to save memory.
    """

    def __init__(
        self,
        dim: int,
        input_resolution: Sequence[int],
        depth: int,
        num_heads: int,
        window_size: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float | Sequence[float] = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        downsample: Callable[..., nn.Module] | None = None,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.input_resolution = input_resolution
        self.depth = depth
        self.use_checkpoint = use_checkpoint
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(
                dim,
                input_resolution,
                num_heads,
                window_size,
                shift_size=window_size // 2 if index % 2 else 0,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                drop=drop,
                attn_drop=attn_drop,
                drop_path=drop_path[index] if isinstance(drop_path, Sequence) else drop_path,
                norm_layer=norm_layer,
            )
            for index in range(depth)
        )
        self.downsample = None if downsample is None else downsample(input_resolution, dim=dim, norm_layer=norm_layer)

    def forward(self, x: Tensor, x_size: Sequence[int], mask: Tensor | None = None) -> Tensor:
        """Process tokens (B, H·W, C) of an image of ``x_size``; ``mask`` as in the blocks."""
        for block in self.blocks:
            if self.use_checkpoint and torch.is_grad_enabled():
                x = checkpoint(block, x, x_size, mask, use_reentrant=False)
            else:
                x = block(x, x_size, mask)
        return x if self.downsample is None else self.downsample(x)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, input_resolution={self.input_resolution}, depth={self.depth}"


class RSTB(nn.Module):
    """Residual Swin Transformer block: blocks, a convolution, and a skip connection (figure 2a of the paper).

    Args:
        dim: Channels.
        input_resolution: Height and width in tokens of the training patches.
        depth: Blocks.
        num_heads: Attention heads, a divisor of ``dim``.
        window_size: Side of an attention window.
        mlp_ratio: As in :class:`BasicLayer`, and so are the following up to ``use_checkpoint``.
        qkv_bias: See there.
        qk_scale: See there.
        drop: See there.
        attn_drop: See there.
        drop_path: See there.
        norm_layer: See there.
        downsample: See there.
        use_checkpoint: See there.
        img_size: Side of the training patches.
        patch_size: Side of a token.
        resi_connection: The convolution before the skip connection, ``1conv`` or ``3conv``.
    """

    def __init__(
        self,
        dim: int,
        input_resolution: Sequence[int],
        depth: int,
        num_heads: int,
        window_size: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float | Sequence[float] = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        downsample: Callable[..., nn.Module] | None = None,
        use_checkpoint: bool = False,
        img_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 4,
        resi_connection: str = "1conv",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.input_resolution = input_resolution
        self.residual_group = BasicLayer(
            dim,
            input_resolution,
            depth,
            num_heads,
            window_size,
            mlp_ratio,
            qkv_bias,
            qk_scale,
            drop,
            attn_drop,
            drop_path,
            norm_layer,
            downsample,
            use_checkpoint,
        )
        self.conv = residual_conv(resi_connection, dim)
        self.patch_embed = PatchEmbed(img_size, patch_size, in_chans=0, embed_dim=dim)
        self.patch_unembed = PatchUnEmbed(img_size, patch_size, in_chans=0, embed_dim=dim)

    def forward(self, x: Tensor, x_size: Sequence[int], mask: Tensor | None = None) -> Tensor:
        """Process tokens (B, H·W, C) of an image of ``x_size``; ``mask`` as in the blocks."""
        deep = self.residual_group(x, x_size, mask)
        return self.patch_embed(self.conv(self.patch_unembed(deep, x_size))) + x


class UpsampleOneStep(nn.Sequential):
    """Sub-pixel upsampling by one convolution, as in the lightweight variant.

    Args:
        scale: The factor.
        num_feat: Channels of the input.
        num_out_ch: Channels of the output.
        input_resolution: Not used.
    """

    def __init__(
        self, scale: int, num_feat: int, num_out_ch: int, input_resolution: Sequence[int] | None = None
    ) -> None:
        super().__init__(nn.Conv2d(num_feat, scale**2 * num_out_ch, 3, 1, 1), nn.PixelShuffle(scale))
        self.num_feat = num_feat
        self.input_resolution = input_resolution
