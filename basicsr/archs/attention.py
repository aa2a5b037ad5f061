"""Attention within windows with a relative position bias, in the form that is fastest where it runs.

Swin Transformer (Liu et al., ICCV 2021, arXiv 2103.14030), equation 4: ``softmax(scale · q kᵀ + bias + mask) v``.
Shape suffixes: B images, W windows of an image, H heads, N tokens of a window, D channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from basicsr.utils.fastest import Forms, measurable, power_of_two
from basicsr.utils.machine import cpu_unit

AttentionForm = Literal["matmul", "sdpa"]

FORMS = Forms("attention", "matmul", "sdpa")
TIMED_WINDOWS = 64  # more make no form relatively faster
EMULATED = tuple(dtype for dtype in (torch.bfloat16, torch.float16) if cpu_unit(dtype) is None)  # on this CPU
MASKED = -100.0  # the published constant: exp(−100) vanishes beside exp(0) in every precision, and bf16 holds it


def relative_position_index(height: int, width: int | None = None) -> Tensor:
    """For each pair of tokens of a window, the row of the bias table for their offset.

    Args:
        height: Height of the window.
        width: Its width; the height when absent.

    Returns:
        (N, N) int64 with N = height·width, entries in [0, (2·height − 1)·(2·width − 1)).
    """
    width = height if width is None else width
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    row_offset = rows.flatten()[:, None] - rows.flatten()[None] + height - 1
    column_offset = columns.flatten()[:, None] - columns.flatten()[None] + width - 1
    return row_offset * (2 * width - 1) + column_offset


def relative_position_bias(table: Tensor, index: Tensor) -> Tensor:
    """Look up the bias of each pair of tokens.

    It is not cached, even for frozen weights: it costs little beside the attention itself, and no cache can notice
    every way in which a parameter's data may be replaced.

    Args:
        table: ((2·height − 1)·(2·width − 1), H).
        index: (N, N), from :func:`relative_position_index`.

    Returns:
        (H, N, N).
    """
    return table.t().index_select(1, index.flatten()).view(-1, *index.shape)


def shift_mask(
    height: int, width: int, window_size: int, shift_size: int, device: torch.device | None = None
) -> Tensor:
    """The mask that separates tokens that only the cyclic shift has made neighbours.

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


def fastest_form(qkv: Tensor, dropout_p: float = 0.0) -> AttentionForm:
    """The form to use for such tokens (3, B, W, H, N, D).

    On a CPU it is measured (:mod:`basicsr.utils.fastest`). Unless it is, it is matrix products, which
    ``scripts/benchmark/attention.py`` shows to be as fast as the fused kernel forward in float32 and 1.3 to 2 times as
    fast with the backward pass (the fused kernel has no gradient for the bias and falls back to a slower path); but the
    fused kernel where the CPU only emulates the dtype, since PyTorch's batched products are then ten times slower than
    its fused kernel. On CUDA the fused kernel is meant to keep the scores out of memory. Dropout of attention weights
    is left to PyTorch.
    """
    if qkv.is_cuda or dropout_p > 0:
        return "sdpa"
    default: AttentionForm = "sdpa" if qkv.dtype in EMULATED else "matmul"
    if not measurable(qkv):
        return default
    windows = min(power_of_two(qkv.shape[1] * qkv.shape[2]), TIMED_WINDOWS)
    shape = (3, 1, windows, *qkv.shape[3:])
    grad = torch.is_grad_enabled() and qkv.requires_grad
    case = (*(f"{size}{name}" for size, name in zip(shape[2:], "WHND")), "grad" if grad else "forward")
    return FORMS.fastest(qkv.dtype, case, default, partial(_computations, shape, qkv.dtype, grad))  # type: ignore[return-value]


def _computations(shape: tuple[int, ...], dtype: torch.dtype, grad: bool) -> dict[str, Callable[[], Any]]:
    """Attention in each form, on made-up tokens of such a shape, to be timed."""
    qkv = torch.linspace(-1, 1, math.prod(shape)).view(shape).to(dtype).requires_grad_(grad)
    bias = torch.zeros(shape[3], shape[4], shape[4], dtype=dtype, requires_grad=grad)
    grad_out = qkv[0].detach()

    def compute(form: AttentionForm) -> None:
        out = window_attention(qkv, bias, form=form)
        if grad:
            torch.autograd.grad(out, (qkv, bias), grad_out)

    return {form: partial(compute, form) for form in FORMS.forms}


def window_attention(
    qkv: Tensor,
    bias: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    form: AttentionForm | None = None,
) -> Tensor:
    """Attention of each window's tokens to one another, ``softmax(scale · q kᵀ + bias + mask) v``.

    Args:
        qkv: Queries, keys and values (3, B, W, H, N, D).
        bias: (H, N, N), added to the scores of every window.
        mask: (W, N, N), added to the scores of every head, or None.
        scale: Factor on ``q kᵀ``; ``D ** -0.5`` if None.
        dropout_p: Probability with which an attention weight is dropped; only for the form ``sdpa``.
        form: How it is computed; the fastest if None. The results agree to rounding.

    Returns:
        (B, W, H, N, D), not necessarily contiguous.
    """
    scale = qkv.shape[-1] ** -0.5 if scale is None else scale
    form = fastest_form(qkv, dropout_p) if form is None else form
    bias = bias.to(qkv.dtype)
    mask = None if mask is None else mask.to(qkv.dtype)
    if form == "sdpa":
        return _sdpa(qkv, bias, mask, scale, dropout_p)
    assert dropout_p == 0
    with torch.autocast(qkv.device.type, enabled=False):  # the dtype has been chosen: it is that of the tokens
        if torch.is_grad_enabled() and (qkv.requires_grad or bias.requires_grad):
            return _MatmulAttention.apply(qkv, bias, mask, scale)
        return _attend(qkv, bias, mask, scale)[0]


def _sdpa(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float, dropout_p: float) -> Tensor:
    """PyTorch's fused attention. It broadcasts its mask over one leading axis only, so windows are taken together with
    the heads where they differ in their mask, and with the batch where they do not."""
    if mask is None:
        merge, additive = (0, 1), bias
    else:
        merge, additive = (1, 2), (bias + mask[:, None]).flatten(0, 1)
    q, k, v = (x.flatten(*merge) for x in qkv.unbind(0))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=additive[None], dropout_p=dropout_p, scale=scale)
    return out.view(qkv.shape[1:])


def _attend(qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Two batched matrix products: the output (B, W, H, N, D) and the attention weights (B·W·H, N, N).

    The second product is computed transposed, ``vᵀ pᵀ``: with rows of D numbers only (10 or 30 in SwinIR) it leaves the
    vector units half empty and takes up to three times as long.
    """
    q, k, v = qkv.flatten(1, 3)
    scores = bias.expand(*qkv.shape[1:4], *bias.shape[1:])  # start as the additive mask, to which the product is added
    scores = scores.clone(memory_format=torch.contiguous_format) if mask is None else scores + mask[:, None]
    weights = scores.flatten(0, 2).baddbmm_(q, k.transpose(1, 2), alpha=scale).softmax(dim=-1)
    out = torch.bmm(v.transpose(1, 2), weights.transpose(1, 2))
    return out.transpose(1, 2).view(qkv.shape[1:]), weights


class _MatmulAttention(torch.autograd.Function):
    """:func:`_attend` with a backward pass that also keeps the short axis from being the last, sums the gradient of
    the bias at once over images and windows, and writes those of q, k and v into one tensor."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        out, weights = _attend(qkv, bias, mask, scale)
        ctx.save_for_backward(qkv, weights)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        qkv, weights = ctx.saved_tensors
        q, k, v = qkv.flatten(1, 3)
        grad_out = grad_out.transpose(-2, -1).flatten(0, 2)  # (B·W·H, D, N)
        grad_weights = torch.bmm(grad_out.transpose(1, 2), v.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        grad_bias = None
        if ctx.needs_input_grad[1]:
            grad_bias = grad_scores.unflatten(0, (-1, qkv.shape[3])).sum(dim=0)
        grad_qkv = qkv.new_empty(3, *grad_out.shape)
        torch.bmm(k.transpose(1, 2), grad_scores.transpose(1, 2), out=grad_qkv[0])
        torch.bmm(q.transpose(1, 2), grad_scores, out=grad_qkv[1])
        grad_qkv[:2].mul_(ctx.scale)
        torch.bmm(grad_out, weights, out=grad_qkv[2])
        return grad_qkv.transpose(2, 3).view(qkv.shape), grad_bias, None, None
