"""The locally-enhanced window (LeWin) transformer block of Uformer (Wang et al., CVPR 2022, arXiv 2106.03106)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .arch_util import DropPath
from .attention import shift_mask
from .swin_block import Mlp, WindowAttention
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


class LeWinAttention(WindowAttention):
    """Window attention whose queries have a linear layer of their own."""

    def _make_qkv(self, dim: int, bias: bool) -> nn.Module:
        return LinearProjection(dim, bias)


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
        self.attn = LeWinAttention(dim, win_size, num_heads, qkv_bias, qk_scale, attn_drop, drop)
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
