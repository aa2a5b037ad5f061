"""SKD's multi-dimensional cross-net attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from basicsr.utils.registry import KD_REGISTRY

from .cross_attention import SoftmaxAxis, cross_attention
from .gaussian_kernel import ChannelAdapter, Distance, GaussianKernel
from .layout import Layout
from .matching import Resize
from .pairs import PairOption, SideLayouts

SHORTEST = 1e-2  # of the root mean square of the norms: the direction of shorter vectors says little


def channel_attention(
    student: Tensor, teacher: Tensor, temperature: float, normalize: bool = True, softmax_axis: SoftmaxAxis = "keys"
) -> Tensor:
    """``S_fc = softmax(T Sᵀ / λ) S`` of features written as (C, HW): the student's channels, mixed as the teacher's
    channels attend to them. Source: SKD (arXiv 2501.09321).

    Args:
        student: ``(B, L, C)`` of L positions.
        teacher: ``(B, L, C)``.
        temperature: λ.
        normalize: Whether the scores are cosines: of channels as vectors over the positions.
        softmax_axis: ``keys``: the student's channels, over which the product that follows sums; ``queries``: the
            teacher's.

    Returns:
        ``(B, L, C)`` in float32 or float64.
    """
    student, teacher = student.mT, teacher.mT
    query, key = (_direction(x) if normalize else x for x in (teacher, student))
    return cross_attention(query, key, student, temperature, softmax_axis, form="blocks").mT


def spatial_attention(
    student: Tensor, teacher: Tensor, temperature: float, normalize: bool = True, softmax_axis: SoftmaxAxis = "keys"
) -> Tensor:
    """``S_ft = S softmax(Tᵀ S / λ)`` of features written as (C, HW): each position of the student attends to the
    teacher's positions, and gathers what the student has there. Source: SKD (arXiv 2501.09321).

    The matrix of HW × HW scores is never held as a whole.

    Args:
        student: ``(B, L, C)`` of L positions.
        teacher: ``(B, L, C)``.
        temperature: λ.
        normalize: Whether the scores are cosines: of positions as vectors over the channels.
        softmax_axis: ``keys``: the teacher's positions, over which the product that follows sums (the columns of the
            matrix sum to 1); ``queries``: the student's (the rows do).

    Returns:
        ``(B, L, C)`` in float32 or float64.
    """
    query, key = (_direction(x) if normalize else x for x in (student, teacher))
    return cross_attention(query, key, student, temperature, softmax_axis)


def _direction(x: Tensor) -> Tensor:
    """Vectors ``(B, N, C)`` divided by their norm. Zero, without gradient, where that is almost zero beside those of
    the image's other vectors, as after a ReLU: the gradient of a direction grows as the inverse of the norm."""
    x = x.to(torch.float64 if x.dtype is torch.float64 else torch.float32)
    squares = x.square().sum(2, keepdim=True)
    is_long = squares > SHORTEST**2 * squares.detach().mean(1, keepdim=True)
    return x * squares.where(is_long, 1.0).rsqrt() * is_long


@KD_REGISTRY.register()
class MCA(GaussianKernel):
    """``Σ_i GK(S, T) + α1 · (GK(S_fc, T) + GK(S_ft, T))`` over pairs of features: Gaussian kernels between the
    teacher's feature and the student's, as it is, and mixed by cross-net attention over channels and over positions.

    Source: SKD, "Soft Knowledge Distillation with Multi-dimensional Cross-net Attention" (arXiv 2501.09321). It gives
    the formulas, not the values of the options, which are ours.

    Args:
        pairs: The modules that are compared; see :class:`~basicsr.distill.feature_term.FeatureTerm`.
        attention: Which attention is used: over channels, over positions (``spatial``), or ``both``, the paper's.
        attention_weight: α1 (ours).
        temperature: λ of the softmaxes (ours). The journal version of the paper (Computers 14(11):459, 2025) names a
            temperature of 1e-6, without saying of what: it makes the softmax a choice of the maximum.
        normalize: Whether the scores are cosines, in [−1, 1], so that one λ serves features of any size and scale
            (ours). The formula has plain products, which ``false`` gives.
        softmax_axis: The axis over which the weights sum to 1 (ours). ``keys``: that over which the product with S
            sums, as in other attention. ``queries``: the other one.
        sigma: σ of the kernels; this and the following options are those of
            :class:`~basicsr.distill.gaussian_kernel.GaussianKernel`.
        distance: d of the kernels.
        adapter: What brings the student's feature to the teacher's width.
        resize: The side that is interpolated if the sizes differ.
        layout: How features are laid out.
    """

    def __init__(
        self,
        pairs: Annotated[list[PairOption], MinLen(1)],
        attention: Literal["both", "channel", "spatial"] = "both",
        attention_weight: NonNegativeFloat = 1.0,
        temperature: PositiveFloat = 0.1,
        normalize: bool = True,
        softmax_axis: SoftmaxAxis = "keys",
        sigma: PositiveFloat = 1.0,
        distance: Distance = "mean",
        adapter: ChannelAdapter = "auto",
        resize: Resize = "none",
        layout: Layout | SideLayouts = "auto",
    ) -> None:
        super().__init__(pairs, sigma, distance, adapter, resize, layout)
        attentions = {"channel": channel_attention, "spatial": spatial_attention}
        self.attentions = [attend for name, attend in attentions.items() if attention in ("both", name)]
        self.compared = ("feature", *(name for name in attentions if attention in ("both", name)))
        self.attention_weight = attention_weight
        self.temperature = temperature
        self.normalize = normalize
        self.softmax_axis = softmax_axis

    def candidates(self, student: Tensor, teacher: Tensor) -> Iterator[tuple[float, Tensor]]:
        yield from super().candidates(student, teacher)
        for attend in self.attentions:
            mixed = attend(student, teacher, self.temperature, self.normalize, self.softmax_axis)
            yield self.attention_weight, mixed
