"""The Swin Transformer block (Liu et al., ICCV 2021, arXiv 2103.14030) as SwinIR uses it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .arch_util import DropPath, to_2tuple, trunc_normal_
from .attention import relative_position_bias, relative_position_index, shift_mask, window_attention
from .token_linear import TokenLinear


def window_partition(x: Tensor, window_size: int) -> Tensor:
    """Cut an image into windows.

    Args:
        x: (B, H, W, C), sides multiples of the window's.
        window_size: Side of a window.

    Returns:
        (B·windows, window_size, window_size, C), the windows of an image in row order.
    """
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window_size, window_size, width // window_size, window_size, channels)
    return x.transpose(2, 3).reshape(-1, window_size, window_size, channels)


def window_reverse(windows: Tensor, window_size: int, h: int, w: int) -> Tensor:
    """Put windows together again, the inverse of :func:`window_partition`.

    Args:
        windows: (B·windows, window_size, window_size, C).
        window_size: Side of a window.
        h: Height of the image.
        w: Its width.

    Returns:
        (B, h, w, C).
    """
    x = windows.view(-1, h // window_size, w // window_size, window_size, window_size, windows.shape[-1])
    return x.transpose(2, 3).reshape(-1, h, w, windows.shape[-1])


class Mlp(nn.Module):
    """Two linear layers with an activation between.

    Args:
        in_features: Channels.
        hidden_features: Channels between the layers; ``in_features`` when absent.
        out_features: Channels of the output; ``in_features`` when absent.
        act_layer: Makes the activation.
        drop: Dropout after each layer.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = TokenLinear(in_features, hidden_features or in_features)
        self.act = act_layer()
        self.fc2 = TokenLinear(hidden_features or in_features, out_features or in_features)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learnt bias for each relative position.

    Args:
        dim: Channels.
        window_size: Height and width of a window in tokens, or its side.
        num_heads: Heads, a divisor of ``dim``.
        qkv_bias: Give the query, key and value projections a bias.
        qk_scale: Factor on the scores instead of ``head_dim ** -0.5``.
        attn_drop: Dropout of attention weights.
        proj_drop: Dropout of the output.
    """

    def __init__(
        self,
        dim: int,
        window_size: int | Sequence[int],
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.window_size = height, width = to_2tuple(window_size)
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.attn_drop = nn.Dropout(attn_drop)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * height - 1) * (2 * width - 1), num_heads))
        trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(height, width))
        self.qkv = self._make_qkv(dim, qkv_bias)
        self.proj = TokenLinear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend within windows.

        Args:
            x: Images (B, H, W, C), sides multiples of the window's; or windows (B·windows, N, C).
            mask: (windows, N, N), or None.

        Returns:
            The same shape as ``x``.
        """
        if x.dim() == 3:
            return self._attend_in_windows(x, mask)
        batch, height, width, dim = x.shape
        (window_height, window_width), heads = self.window_size, self.num_heads
        rows, columns, head_dim = height // window_height, width // window_width, dim // heads
        # The projection acts on single tokens, so it comes first, and one copy then makes both windows and heads.
        qkv = self.qkv(x).view(batch, rows, window_height, columns, window_width, 3, heads, head_dim)
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, batch, rows * columns, heads, -1, head_dim)
        out = self._attend(qkv, mask)
        out = out.view(batch, rows, columns, heads, window_height, window_width, head_dim)
        return self.proj_drop(self.proj(out.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, dim)))

    def _make_qkv(self, dim: int, bias: bool) -> nn.Module:
        """The projection of tokens (…, C) to queries, keys and values (…, 3·C), or (…, 3, C)."""
        return TokenLinear(dim, dim * 3, bias=bias)

    def _attend_in_windows(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within (B·windows, N, C), the windows that a network written for BasicSR has cut itself."""
        count, tokens, dim = x.shape
        windows = 1 if mask is None else len(mask)
        qkv = self.qkv(x).view(count // windows, windows, tokens, 3, self.num_heads, dim // self.num_heads)
        out = self._attend(qkv.permute(3, 0, 1, 4, 2, 5), mask)
        return self.proj_drop(self.proj(out.transpose(2, 3).reshape(count, tokens, dim)))

    def _attend(self, qkv: Tensor, mask: Tensor | None) -> Tensor:
        bias = relative_position_bias(self.relative_position_bias_table, self.relative_position_index)
        dropout_p = self.attn_drop.p if self.training else 0.0
        return window_attention(qkv, bias, mask, scale=self.scale, dropout_p=dropout_p)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, window_size={self.window_size}, num_heads={self.num_heads}"


class SwinTransformerBlock(nn.Module):
    """Window attention and an MLP, each with layer norm before and a residual connection around.

    Args:
        dim: Channels.
        input_resolution: Height and width that the stored attention mask is for. Any other size may be processed. As
            published, one no larger than the window makes the window as small and the shift zero.
        num_heads: Heads.
        window_size: Side of a window.
        shift_size: Tokens by which the windows are displaced, less than ``window_size``.
        mlp_ratio: Ratio of the MLP's hidden width to ``dim``.
        qkv_bias: Give the query, key and value projections a bias.
        qk_scale: Factor on the scores instead of ``head_dim ** -0.5``.
        drop: Dropout of the projections.
        attn_drop: Dropout of attention weights.
        drop_path: Probability of dropping a residual branch.
        act_layer: Makes the MLP's activation.
        norm_layer: Makes a normalisation from the number of channels.

    Raises:
        ValueError: If the shift is not less than the window.
    """

    def __init__(
        self,
        dim: int,
        input_resolution: Sequence[int],
        num_heads: int,
        window_size: int = 7,
        shift_size: int = 0,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        if min(input_resolution) <= window_size:
            window_size, shift_size = min(input_resolution), 0
        if not 0 <= shift_size < window_size:
            raise ValueError(f"shift_size must be at least 0 and less than window_size {window_size}, not {shift_size}")
        self.dim = dim
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.input_resolution = tuple(input_resolution)
        self.window_size = window_size
        self.shift_size = shift_size
        self.norm1 = norm_layer(dim)
        self.attn = WindowAttention(dim, window_size, num_heads, qkv_bias, qk_scale, attn_drop, drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drop)

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
