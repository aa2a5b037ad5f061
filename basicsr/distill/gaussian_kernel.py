"""SKD's Gaussian kernel between features."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from pydantic import PositiveFloat
from torch import Tensor

from basicsr.utils.logger import get_root_logger
from basicsr.utils.registry import KD_REGISTRY

from .context import KDContext
from .feature_term import FeatureTerm
from .layout import Layout
from .matching import Resize
from .networks import Networks
from .pairs import PairOption, SideLayouts
from .saturation import PATIENCE, SaturationWatch

Distance = Literal["mean", "position", "sum"]
ChannelAdapter = Literal["auto", "conv", "linear", "none"]


def squared_distance(x: Tensor, y: Tensor, distance: Distance) -> Tensor:
    """The squared distance of two features ``(B, L, C)`` of L positions.

    Args:
        x: In any floating-point type; computed in float32, or in float64.
        y: Likewise.
        distance: ``mean``: the mean square over positions and channels; ``sum``: the sum instead; ``position``: the
            mean square over the channels, for each position.

    Returns:
        ``(B,)``, or ``(B, L)`` for each position.
    """
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    squares = (x.to(dtype) - y.to(dtype)).square()
    if distance == "position":
        return squares.mean(2)
    return squares.sum((1, 2)) if distance == "sum" else squares.mean((1, 2))


def gaussian_kernel(squares: Tensor, sigma: float) -> Tensor:
    """``1 − exp(−d / 2σ²)`` of squared distances d, the mean over them. Source: SKD (arXiv 2501.09321).

    Args:
        squares: d, of any shape.
        sigma: Above 0.

    Returns:
        A scalar in [0, 1]: 0 where all are 0.
    """
    return -torch.expm1(squares / (-2 * sigma**2)).mean()


@KD_REGISTRY.register()
class GaussianKernel(FeatureTerm):
    """``Σ_i GK(F_S,i, F_T,i)`` over pairs of features, ``GK(x, y) = 1 − exp(−d(x, y) / 2σ²)``.

    Source: SKD, "Soft Knowledge Distillation with Multi-dimensional Cross-net Attention" (arXiv 2501.09321), which has
    ``‖x − y‖²`` for d. Its sum over a feature map leaves the kernel at 1 with a gradient of 0, so d is by default the
    mean square (ours). The kernel is computed for each image, and averaged over them (ours). The log warns where it
    stays above 0.999.

    Args:
        pairs: The modules that are compared; see :class:`~basicsr.distill.feature_term.FeatureTerm`.
        sigma: σ, in the unit of the features (ours: the paper does not give it). The gradient is largest where the
            root of d is σ.
        distance: d: ``mean``, the mean square over a feature; ``position``, a kernel for each position, of the mean
            square over its channels, and the mean of these kernels; ``sum``, the paper's sum. See
            :func:`squared_distance`.
        adapter: What brings the student's feature to the teacher's width; see
            :func:`~basicsr.distill.adapters.build_adapter`. (Ours: a learnable 1×1 convolution where they differ.)
        resize: The side that is interpolated if the sizes differ.
        layout: How features are laid out.

    Raises:
        ValueError: If a pair's sizes differ and ``resize`` does not bridge them, or the layouts do not fit.
    """

    compared: tuple[str, ...] = ("feature",)
    """The names of what is compared with the teacher's feature."""

    def __init__(
        self,
        pairs: Annotated[list[PairOption], MinLen(1)],
        sigma: PositiveFloat = 1.0,
        distance: Distance = "mean",
        adapter: ChannelAdapter = "auto",
        resize: Resize = "none",
        layout: Layout | SideLayouts = "auto",
    ) -> None:
        super().__init__(pairs, adapter, resize, layout)
        self.sigma = sigma
        self.distance = distance

    def setup(self, networks: Networks) -> None:
        super().setup(networks)
        pairs = [f"{row['student']} ↔ {row['module']}" for row in self.wiring()]
        self.saturation = SaturationWatch([f"{pair} ({what})" for pair in pairs for what in self.compared])

    def candidates(self, student: Tensor, teacher: Tensor) -> Iterator[tuple[float, Tensor]]:
        """What is compared with the teacher's feature, in the order of :attr:`compared`, each with its weight.

        Args:
            student: ``(B, L, C)``, adapted.
            teacher: ``(B, L, C)``.
        """
        yield 1.0, student

    def forward(self, ctx: KDContext) -> Tensor:
        total, values, squares = 0.0, [], []
        for student, teacher in self.matched_features(ctx):
            if student.dim() == 4:
                student, teacher = (feature.flatten(2).mT for feature in (student, teacher))
            for weight, candidate in self.candidates(student, teacher):
                squares.append(squared_distance(candidate, teacher, self.distance))
                values.append(gaussian_kernel(squares[-1], self.sigma))
                total = total + weight * values[-1]
        self.saturation.add(values, [square.mean() for square in squares])
        return total

    def after_step(self, networks: Networks, iteration: int) -> None:
        """Warn, at print iterations, of kernels that have been saturated for long."""
        if self.saturation.end_iteration() and iteration % networks.print_interval == 0:
            for label, root in self.saturation.found(networks.print_interval):
                get_root_logger().warning(
                    f"train.kd_opt.{self.name}: the Gaussian kernel of {label} has been above 0.999 for {PATIENCE} "
                    f"iterations, where it has almost no gradient; raise sigma, which is {self.sigma:g}, towards "
                    f"{_rounded(root)}, the root of the squared distance"
                    + ("; or set distance: mean" if self.distance == "sum" else "")
                )


def _rounded(value: float) -> str:
    """With two digits."""
    return f"{value:.2g}" if math.isfinite(value) else "a finite value"
