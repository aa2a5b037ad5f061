"""The locally-enhanced window (LeWin) transformer block of Uformer (Wang et al., CVPR 2022, arXiv 2106.03106)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .arch_util import DropPath, trunc_normal_
from .attention import relative_position_bias, relative_position_index, shift_mask, window_attention
from .swin_block import Mlp
from .token_linear import TokenLinear


class LinearProjection(nn.Module):
    """Queries by one linear layer, keys and values by another."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.to_q = TokenLinear(dim, dim, bias=bias)
        self.to_kv = TokenLinear(dim, dim * 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) to (…, 3, C)."""
        kv = self.to_kv(x).unflatten(-1, (2, -1))
        return torch.cat([self.to_q(x).unsqueeze(-2), kv], dim=-2)


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
        self.qkv = LinearProjection(dim, qkv_bias)
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
        qkv = self.qkv(x).view(batch, rows, side, columns, side, 3, heads, head_dim)
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, batch, rows * columns, heads, side * side, head_dim)
        bias = relative_position_bias(self.relative_position_bias_table, self.relative_position_index)
        dropout_p = self.attn_drop if self.training else 0.0
        out = window_attention(qkv, bias, mask, scale=self.scale, dropout_p=dropout_p)
        out = out.view(batch, rows, columns, heads, side, side, head_dim).permute(0, 1, 4, 2, 5, 3, 6)
        return self.proj_drop(self.proj(out.reshape(batch, height, width, dim)))


class LeFF(nn.Module):
    """Locally-enhanced feed-forward network: a depthwise 3×3 convolution between two linear layers.

    Args:
        dim: Channels.
        hidden_dim: Channels between.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Sequential(TokenLinear(dim, hidden_dim), nn.GELU())
        self.dwconv = nn.Sequential(nn.Conv2d(hidden_dim, hidden_dim, 3, 1, 1, groups=hidden_dim), nn.GELU())
        self.linear2 = nn.Sequential(TokenLinear(hidden_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        hidden = self.dwconv(self.linear1(x).permute(0, 3, 1, 2))
        return self.linear2(hidden.permute(0, 2, 3, 1))


class LeWinTransformerBlock(nn.Module):
    """Window attention and a feed-forward part, each with layer norm before and a residual connection around.

    Args:
        dim: Channels.
        num_heads: Heads.
        win_size: Side of a window.
        shift_size: Tokens by which the windows are displaced, in [0, win_size).
        mlp_ratio: Ratio of the feed-forward part's hidden width to ``dim``.
        qkv_bias: Give the query, key and value projections a bias.
        qk_scale: Factor on the scores instead of ``head_dim ** -0.5``.
        drop: Dropout of the projections.
        attn_drop: Dropout of attention weights.
        drop_path: Probability of dropping a residual branch.
        token_mlp: ``leff`` or, for a plain MLP, ``ffn`` or ``mlp``.
        modulator: Add a learnt vector to each position of a window before the attention.

    Raises:
        ValueError: If ``token_mlp`` is none of these.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        win_size: int,
        shift_size: int,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop: float,
        attn_drop: float,
        drop_path: float,
        token_mlp: str,
        modulator: bool,
    ) -> None:
        super().__init__()
        self.win_size = win_size
        self.shift_size = shift_size
        self.modulator = nn.Embedding(win_size * win_size, dim) if modulator else None
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, win_size, num_heads, qkv_bias, qk_scale, attn_drop, drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        if token_mlp == "leff":
            self.mlp = LeFF(dim, int(dim * mlp_ratio))
        elif token_mlp in ("ffn", "mlp"):
            self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)
        else:
            raise ValueError(f"Uformer's `token_mlp` must be 'leff', 'ffn' or 'mlp', not '{token_mlp}'.")

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C), sides multiples of the window's, to the same shape."""
        shift, mask = self.shift_size, None
        tokens = self.norm1(x)
        if shift > 0:
            mask = shift_mask(*x.shape[1:3], self.win_size, shift, x.device)
            tokens = torch.roll(tokens, (-shift, -shift), (1, 2))
        if self.modulator is not None:
            side, rows, columns = self.win_size, x.shape[1] // self.win_size, x.shape[2] // self.win_size
            pattern = self.modulator.weight.view(side, side, -1).repeat(rows, columns, 1)
            tokens = tokens + pattern
        tokens = self.attn(tokens, mask)
        if shift > 0:
            tokens = torch.roll(tokens, (shift, shift), (1, 2))
        x = x + self.drop_path(tokens)
        return x + self.drop_path(self.mlp(self.norm2(x)))
