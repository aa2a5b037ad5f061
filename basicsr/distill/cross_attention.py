"""Attention between two sets of vectors that never holds the whole matrix of scores.

Shape suffixes: B images, N queries, M keys, C channels of queries and keys, D channels of values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from basicsr.utils.fastest import Forms, measurable, power_of_two

SoftmaxAxis = Literal["keys", "queries"]
Form = Literal["blocks", "sdpa"]

FORMS = Forms("cross_attention", "blocks", "sdpa")
BLOCK_SCORES = 2**20  # scores that are held at once: larger blocks leave the cache
BLOCK_ROWS = 128  # at least so many rows in a block, since shorter products of matrices are slow
TIMED_POSITIONS = 1024  # more make no form relatively faster


def cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    temperature: float,
    softmax_axis: SoftmaxAxis = "keys",
    form: Form | None = None,
) -> Tensor:
    """``softmax(q kᵀ / temperature) v``, with gradients, in memory that grows linearly with N and with M.

    Args:
        query: ``(B, N, C)``.
        key: ``(B, M, C)``.
        value: ``(B, M, D)``.
        temperature: Above 0.
        softmax_axis: The axis over which the softmax of the scores ``(B, N, M)`` sums to 1. ``keys``: the usual one,
            each output is a weighted mean of values. ``queries``: each value is distributed over the outputs.
        form: ``blocks``, which computes some rows of scores at a time, and once more in the backward pass, or ``sdpa``,
            PyTorch's fused attention, for ``keys`` alone; the fastest if None. The results agree to rounding.

    Returns:
        ``(B, N, D)`` in float64 if the queries are, else in float32, also under autocast.
    """
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.float64 if query.dtype is torch.float64 else torch.float32
        query, key, value = (x.to(dtype) for x in (query, key, value))
        if softmax_axis == "queries":
            return _BlockAttention.apply(key, query, value, 1 / temperature, False)
        if (form or _fastest_form(query, key, value)) == "sdpa":
            return _fused(query, key, value, temperature)
        return _BlockAttention.apply(query, key, value, 1 / temperature, True)


def _fused(query: Tensor, key: Tensor, value: Tensor, temperature: float) -> Tensor:
    # Without a fused kernel there is an error, where PyTorch would otherwise fall back to the whole matrix.
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        heads = (x[:, None].contiguous() for x in (query, key, value))
        return F.scaled_dot_product_attention(*heads, scale=1 / temperature)[:, 0]


def _fastest_form(query: Tensor, key: Tensor, value: Tensor) -> Form:
    """The fused kernel on a CPU, unless blocks are measured to be faster there (:mod:`basicsr.utils.fastest`).

    Blocks on other devices, in float64, and where values have another width, which the fused kernel does not take.
    """
    if query.device.type != "cpu" or query.dtype is torch.float64 or query.shape[2] != value.shape[2]:
        return "blocks"
    if not measurable(query):
        return "sdpa"
    positions = min(power_of_two(max(query.shape[1], key.shape[1])), TIMED_POSITIONS)
    shape, trains_key = (1, positions, query.shape[2]), key.requires_grad
    case = (f"{positions}N", f"{query.shape[2]}C", "allgrad" if trains_key else "grad")
    return FORMS.fastest(query.dtype, case, "sdpa", partial(_computations, shape, query.dtype, trains_key))  # type: ignore[return-value]


def _computations(shape: tuple[int, ...], dtype: torch.dtype, trains_key: bool) -> dict[str, Callable[[], Any]]:
    """Attention in each form, on made-up vectors of such a shape, to be timed."""
    vectors = torch.linspace(-1, 1, shape[1] * shape[2]).view(shape).to(dtype)
    query, key, value = (vectors.clone().requires_grad_(trained) for trained in (True, trains_key, True))

    def compute(form: Form) -> None:
        out = cross_attention(query, key, value, 1.0, form=form)
        torch.autograd.grad(out, [x for x in (query, key, value) if x.requires_grad], vectors)

    return {form: partial(compute, form) for form in FORMS.forms}


def _blocks(rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, slice]]:
    """The images and the rows of each block of scores ``rows · columnsᵀ``."""
    images, count, width = len(rows), rows.shape[1], columns.shape[1]
    together = min(max(BLOCK_SCORES // (count * width), 1), images)
    height = max(BLOCK_SCORES // (together * width), BLOCK_ROWS)
    for image in range(0, images, together):
        for row in range(0, count, height):
            yield slice(image, image + together), slice(row, row + height)


class _BlockAttention(torch.autograd.Function):
    """Weights ``W = softmax(scale · rows · columnsᵀ)`` over the columns, times values: ``W · value`` where the values
    belong to the columns (``gathers``), ``Wᵀ · value`` where they belong to the rows.

    The backward pass computes each block of weights once more, from the highest score and the sum of each row. The two
    are kept apart: with a low temperature, scores are so large that their sum's logarithm would be lost beside them.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, value: Tensor, scale: float, gathers: bool) -> Tensor:
        out = value.new_zeros(len(rows), (rows if gathers else columns).shape[1], value.shape[2])
        highest, sums = rows.new_empty(2, *rows.shape[:2], 1)
        for image, row in _blocks(rows, columns):
            scores = scale * rows[image, row] @ columns[image].mT
            torch.amax(scores, 2, keepdim=True, out=highest[image, row])
            weights = scores.sub_(highest[image, row]).exp_()  # times the sum, by which vectors are divided instead
            torch.sum(weights, 2, keepdim=True, out=sums[image, row])
            if gathers:
                out[image, row] = (weights @ value[image]).div_(sums[image, row])
            else:
                out[image].baddbmm_(weights.mT, value[image, row] / sums[image, row])
        ctx.save_for_backward(rows, columns, value, highest, sums, out if gathers else None)
        ctx.scale, ctx.gathers = scale, gathers
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        rows, columns, value, highest, sums, out = ctx.saved_tensors
        needs_rows, needs_columns, needs_value = ctx.needs_input_grad[:3]
        grad_rows = torch.empty_like(rows) if needs_rows else None
        grad_columns = torch.zeros_like(columns) if needs_columns else None
        grad_value = torch.zeros_like(value) if needs_value else None
        for image, row in _blocks(rows, columns):
            scaled, row_sums = ctx.scale * rows[image, row], sums[image, row]
            weights = (scaled @ columns[image].mT).sub_(highest[image, row]).exp_()
            if ctx.gathers:
                own, other = grad_out[image, row] / row_sums, value[image]
                inner = (own * out[image, row]).sum(2, keepdim=True)
                if needs_value:
                    grad_value[image].baddbmm_(weights.mT, own)
            else:
                own, other = value[image, row] / row_sums, grad_out[image]
                spread = (weights @ other).div_(row_sums)
                inner = (own * spread).sum(2, keepdim=True)
                if needs_value:
                    grad_value[image, row] = spread
            if not (needs_rows or needs_columns):
                continue
            # Of the softmax: W ∘ (dW − Σ_columns W ∘ dW), where dW = own · otherᵀ and `inner` is the sum.
            grad_scores = torch.baddbmm(inner, own, other.mT, beta=-1).mul_(weights)
            if needs_rows:
                grad_rows[image, row] = (grad_scores @ columns[image]).mul_(ctx.scale)
            if needs_columns:
                grad_columns[image].baddbmm_(grad_scores.mT, scaled)
        return grad_rows, grad_columns, grad_value, None, None
