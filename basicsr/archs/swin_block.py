"""The Swin Transformer block (Liu et al., ICCV 2021, arXiv 2103.14030) as SwinIR uses it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .arch_util import DropPath, trunc_normal_
from .attention import relative_position_bias, relative_position_index, shift_mask, window_attention
from .token_linear import TokenLinear


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, in_features: int, hidden_features: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = TokenLinear(in_features, hidden_features)
        self.act = nn.GELU()
        self.fc2 = TokenLinear(hidden_features, in_features)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learnt bias for each relative position.

    Args:
        dim: Channels.
        window_size: Side of a window in tokens.
        num_heads: Heads, a divisor of ``dim``.
        qkv_bias: Give the query, key and value projections a bias.
        qk_scale: Factor on the scores instead of ``head_dim ** -0.5``.
        attn_drop: Dropout of attention weights.
        proj_drop: Dropout of the output.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.attn_drop = attn_drop
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window_size))
        self.qkv = TokenLinear(dim, dim * 3, bias=qkv_bias)
        self.proj = TokenLinear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend within the windows of an image.

        Args:
            x: (B, H, W, C), sides multiples of the window's.
            mask: (windows, N, N), or None.

        Returns:
            (B, H, W, C).
        """
        batch, height, width, dim = x.shape
        side, heads = self.window_size, self.num_heads
        rows, columns, head_dim = height // side, width // side, dim // heads
        # The projection acts on single tokens, so it comes first, and one copy then makes both windows and heads.
        qkv = self.qkv(x).view(batch, rows, side, columns, side, 3, heads, head_dim)
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, batch, rows * columns, heads, side * side, head_dim)
        bias = relative_position_bias(self.relative_position_bias_table, self.relative_position_index)
        dropout_p = self.attn_drop if self.training else 0.0
        out = window_attention(qkv, bias, mask, scale=self.scale, dropout_p=dropout_p)
        out = out.view(batch, rows, columns, heads, side, side, head_dim).permute(0, 1, 4, 2, 5, 3, 6)
        return self.proj_drop(self.proj(out.reshape(batch, height, width, dim)))


class SwinTransformerBlock(nn.Module):
    """Window attention and an MLP, each with layer norm before and a residual connection around.

    Args:
        dim: Channels.
        input_resolution: Height and width that the stored attention mask is for. Any other size may be processed.
        num_heads: Heads.
        window_size: Side of a window.
        shift_size: Tokens by which the windows are displaced.
        mlp_ratio: Ratio of the MLP's hidden width to ``dim``.
        qkv_bias: Give the query, key and value projections a bias.
        qk_scale: Factor on the scores instead of ``head_dim ** -0.5``.
        drop: Dropout of the projections.
        attn_drop: Dropout of attention weights.
        drop_path: Probability of dropping a residual branch.
        norm_layer: Makes a normalisation from the number of channels.
    """

    def __init__(
        self,
        dim: int,
        input_resolution: tuple[int, int],
        num_heads: int,
        window_size: int = 7,
        shift_size: int = 0,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.input_resolution = input_resolution
        self.window_size = window_size
        self.shift_size = shift_size
        self.norm1 = norm_layer(dim)
        self.attn = WindowAttention(dim, window_size, num_heads, qkv_bias, qk_scale, attn_drop, drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)

    def forward(self, x: Tensor, x_size: tuple[int, int], mask: Tensor | None = None) -> Tensor:
        """Process tokens (B, H·W, C).

        Args:
            x: The tokens.
            x_size: (H, W), multiples of the window's side.
            mask: :func:`shift_mask` for this size; made here if a shifted block is not given it.
        """
        height, width = x_size
        batch, _, dim = x.shape
        tokens = self.norm1(x).view(batch, height, width, dim)
        if self.shift_size == 0:
            tokens = self.attn(tokens)
        else:
            if mask is None:
                mask = shift_mask(height, width, self.window_size, self.shift_size, x.device)
            tokens = torch.roll(tokens, (-self.shift_size, -self.shift_size), (1, 2))
            tokens = torch.roll(self.attn(tokens, mask), (self.shift_size, self.shift_size), (1, 2))
        x = x + self.drop_path(tokens.view(batch, -1, dim))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    # Published checkpoints hold, for each shifted block, the mask for the size of their training patches. It follows
    # from the sizes alone: we write it as they do, and take any (or none) when loading, so that neither memory nor
    # the choice of `img_size` depends on it.

    def _save_to_state_dict(self, destination: OrderedDict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.shift_size > 0:
            device = self.attn.relative_position_index.device
            mask = shift_mask(*self.input_resolution, self.window_size, self.shift_size, device)
            destination[f"{prefix}attn_mask"] = mask

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if self.shift_size > 0:
            state_dict.pop(f"{prefix}attn_mask", None)
        super()._load_from_state_dict(state_dict, prefix, *args)
