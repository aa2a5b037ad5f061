"""Contrast of images as an encoder sees them: near to a positive image, far from negative ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .encoders import Encoding, FrozenEncoder, InputRange
from .networks import Networks
from .term import KDTerm

EPSILON = 1e-7  # DCKD's release's; keeps the ratio finite where all negatives equal the anchor

FeatureDistance = Literal["L1", "L2"]


def contrast(
    anchor: Encoding,
    positive: Encoding,
    negatives: Iterable[Iterable[Tensor]],
    weights: Sequence[float],
    distance: FeatureDistance,
) -> Tensor:
    """``Σ_i w_i · d(anchor_i, positive_i) / (Σ_j d(anchor_i, negative_ij) + 1e-7)`` over encoder levels i.

    Source: DCKD (arXiv 2412.08939), Eq. 4-6, as CSD (IJCAI 2021) before it.

    Args:
        anchor: Of B images, with gradients.
        positive: Of B images.
        negatives: For each level, the features of one negative after the other, each of B images.
        weights: One for each level.
        distance: ``L1``, the mean absolute difference, or ``L2``, the mean square.
    """
    total = anchor.levels[0].new_zeros((), dtype=torch.float32)
    for weight, a, p, others in zip(weights, anchor.levels, positive.levels, negatives):
        # One negative at a time: all differences at once would be the step's largest tensors.
        negative_distance = torch.stack([_mean_distance(a - negative, distance) for negative in others]).sum()
        total = total + weight * _mean_distance(a - p, distance) / (negative_distance + EPSILON)
    return total


def _mean_distance(difference: Tensor, distance: FeatureDistance) -> Tensor:
    magnitude = difference.abs() if distance == "L1" else difference.square()
    return magnitude.mean(dtype=torch.float64 if difference.dtype is torch.float64 else torch.float32)


class ContrastTerm(KDTerm):
    """The base class of terms that contrast images.

    Args:
        encoder: The suffix of the frozen encoder's ``network_<encoder>``.
        teacher: The suffix of the teacher's; None for none.
        weights: One for each level.
        distance: Between features: ``L1`` or ``L2``, the mean square.
        input_range: What images in [0, 1] are mapped to for the encoder.
        layers: The encoder's layers that are the levels; all of them if None.
    """

    def __init__(
        self,
        encoder: str,
        teacher: str | None,
        weights: Sequence[float],
        distance: FeatureDistance,
        input_range: InputRange,
        layers: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if layers is not None and len(layers) != len(weights):
            raise ValueError(f"there are {len(layers)} layers, but {len(weights)} weights; give one for each layer")
        self.encoder = encoder
        self.teacher = teacher
        self.weights = list(weights)
        self.distance = distance
        self.input_range = input_range
        self.layers = layers
        self._encoder: FrozenEncoder | None = None
        self._rows: list[dict[str, Any]] = []

    def setup(self, networks: Networks) -> None:
        """Look up teacher and encoder.

        Raises:
            ValueError: If a network is missing or does not fit, or there is not one weight for each level.
        """
        if self.teacher:
            shape = networks.require_same_output(self.teacher)
            row = {"student": "output", "student_shape": shape, "network": self.teacher, "module": "output"}
            self._rows = [{**row, "module_shape": shape, "adapter": "–"}]
        self._encoder = networks.encoder(self.encoder, self.input_range, layers=self.layers or ())
        levels = [layer for layer in networks.encoding_shapes(self._encoder) if layer != "latent"]
        if self.layers is None and len(levels) != len(self.weights):
            raise ValueError(
                f"network_{self.encoder} has {len(levels)} levels, but there are {len(self.weights)} weights"
            )

    def levels_of(self, encoding: Encoding) -> Encoding:
        """The levels that are compared."""
        return encoding if self.layers is None else Encoding({name: encoding.features[name] for name in self.layers})

    def wiring(self) -> list[dict[str, Any]]:
        return self._rows
