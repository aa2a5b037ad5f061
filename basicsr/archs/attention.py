"""Attention within windows with a relative position bias, in the form that is fastest where it runs.

Swin Transformer (Liu et al., ICCV 2021, arXiv 2103.14030), equation 4: ``softmax(scale · q kᵀ + bias + mask) v``.
Shape suffixes: B images, W windows of an image, H heads, N tokens of a window, D channels of a head.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AttentionForm = Literal["matmul", "sdpa"]

MASKED = -100.0  # the published constant: exp(−100) vanishes beside exp(0) in every precision, and bf16 holds it


def relative_position_index(window_size: int) -> Tensor:
    """For each pair of tokens of a window, the row of the bias table that holds their offset.

    Returns:
        (N, N) int64 with N = window_size², entries in [0, (2·window_size − 1)²).
    """
    steps = torch.arange(window_size)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    row_offset = rows.flatten()[:, None] - rows.flatten()[None] + window_size - 1
    column_offset = columns.flatten()[:, None] - columns.flatten()[None] + window_size - 1
    return row_offset * (2 * window_size - 1) + column_offset


def relative_position_bias(table: Tensor, index: Tensor) -> Tensor:
    """Look up the bias of each pair of tokens.

    It is not cached, even for frozen weights: it costs little beside the attention itself, and no cache can notice
    every way in which a parameter's data may be replaced.

    Args:
        table: ((2·window_size − 1)², H).
        index: (N, N), from :func:`relative_position_index`.

    Returns:
        (H, N, N).
    """
    return table.t().index_select(1, index.flatten()).view(-1, *index.shape)


def shift_mask(
    height: int, width: int, window_size: int, shift_size: int, device: torch.device | None = None
) -> Tensor:
    """The mask that separates, in a cyclically shifted image, what the shift has brought together.

    Args:
        height: Height of the image in tokens, a multiple of ``window_size``.
        width: Width, likewise.
        window_size: Side of a window.
        shift_size: Tokens by which the image was rolled up and left, in [1, window_size).
        device: Where to make it.

    Returns:
        (W, N, N) float32, 0 where two tokens were neighbours before the shift and −100 elsewhere.
    """

    def region(length: int) -> Tensor:
        position = torch.arange(length, device=device)
        return (position >= length - window_size).int() + (position >= length - shift_size).int()

    regions = 3 * region(height)[:, None] + region(width)[None]
    regions = regions.view(height // window_size, window_size, width // window_size, window_size)
    regions = regions.transpose(1, 2).reshape(-1, window_size * window_size)
    return (regions[:, :, None] != regions[:, None, :]).float() * MASKED


def fastest_form(q: Tensor) -> AttentionForm:
    """The form to use for such a query, as measured by ``scripts/benchmark/attention.py``.

    The fused kernel saves memory traffic on an accelerator. On a CPU two batched matrix products win for the small
    windows of restoration networks, in float32 and more so in bfloat16, because the fused kernel gives no gradient to
    the bias and falls back to a slower path.
    """
    return "sdpa" if q.is_cuda else "matmul"


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    form: AttentionForm | None = None,
) -> Tensor:
    """Attention of each window's tokens to one another.

    Args:
        q: Queries (B, W, H, N, D).
        k: Keys (B, W, H, N, D).
        v: Values (B, W, H, N, D).
        bias: (H, N, N), added to every window's scores.
        mask: (W, N, N), added to every head's scores, or None.
        scale: Factor on ``q kᵀ``; ``D ** -0.5`` if None.
        dropout_p: Probability with which an attention weight is dropped.
        form: How it is computed; the fastest for the device and dtype if None. The results agree to rounding.

    Returns:
        (B, W, H, N, D).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    form = fastest_form(q) if form is None else form
    bias = bias.to(q.dtype)
    mask = None if mask is None else mask.to(q.dtype)
    compute = _sdpa if form == "sdpa" else _matmul
    return compute(q, k, v, bias, mask, scale, dropout_p)


def _matmul(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, scale: float, dropout_p: float
) -> Tensor:
    """Two batched matrix products. The scores are freshly made and the backward pass does not need them, so bias and
    mask are added in place."""
    scores = (q * scale) @ k.transpose(-2, -1)
    scores += bias
    if mask is not None:
        scores += mask[:, None]
    weights = scores.softmax(dim=-1)
    if dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    return weights @ v


def _sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, scale: float, dropout_p: float) -> Tensor:
    """PyTorch's fused attention, with bias and mask folded into one additive mask. It broadcasts over one leading axis
    only, so windows are taken together with the heads if they differ in their mask, and with the batch if not."""
    if mask is None:
        merge, additive = (0, 1), bias
    else:
        merge, additive = (1, 2), (bias + mask[:, None]).flatten(0, 1)
    merged = (x.flatten(*merge) for x in (q, k, v))
    out = F.scaled_dot_product_attention(*merged, attn_mask=additive[None], dropout_p=dropout_p, scale=scale)
    return out.view_as(q)
