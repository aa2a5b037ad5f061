"""An image-level contrastive term: away from the degraded input, towards the teacher's image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import MinLen
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from basicsr.utils.registry import KD_REGISTRY

from .context import KDContext
from .contrast import ContrastTerm, FeatureDistance, contrast
from .encoders import BatchImage, InputRange, PassOutput
from .networks import Networks

LAYERS = tuple(f"relu{stage}_1" for stage in range(1, 6))


@KD_REGISTRY.register()
class ContrastKD(ContrastTerm):
    """``Σ_i w_i · d(φ_i(S), φ_i(P)) / Σ_j d(φ_i(S), φ_i(N_j))``: pulls the student's output S towards a positive image
    P and away from negative ones N, as the layers φ_i of an encoder see them.

    SKD (arXiv 2501.09321) names an image-level contrastive loss L_CL without its form; this one is ours, in the ratio
    of CSD (IJCAI 2021) and of DCKD's :class:`~basicsr.distill.dcr.DCR`. With ``negatives: batch`` it is CSD's. The
    negatives are inputs, bicubically enlarged to the size of the output and clipped to [0, 1].

    Args:
        encoder: The suffix of the frozen encoder's ``network_<encoder>``, such as a VGGFeatureExtractor.
        teacher: The suffix of the teacher's.
        positive: The teacher's output, or the ground truth (then no teacher is used).
        negatives: Of an image, its own ``input``; or ``batch``, the inputs of other images of the batch.
        num_neg: With ``batch``, of how many others, at most: those that follow it in the batch.
        layers: The encoder's layers.
        weights: One for each layer.
        distance: Between features: ``L1``, the mean absolute difference, or ``L2``, the mean square.
        input_range: What images in [0, 1] are mapped to for the encoder; a VGGFeatureExtractor normalises them itself.

    Raises:
        ValueError: If there is not one weight for each layer, a network is missing or lacks a layer, there is no ground
            truth to be the positive, or no other image in the batch.
    """

    def __init__(
        self,
        encoder: str = "vgg",
        teacher: str = "t",
        positive: Literal["teacher", "gt"] = "teacher",
        negatives: Literal["input", "batch"] = "input",
        num_neg: PositiveInt = 4,
        layers: Annotated[Sequence[str], MinLen(1)] = LAYERS,
        weights: Sequence[NonNegativeFloat] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0),
        distance: FeatureDistance = "L1",
        input_range: InputRange = "[0,1]",
    ) -> None:
        super().__init__(
            encoder, teacher if positive == "teacher" else None, weights, distance, input_range, tuple(layers)
        )
        self.negatives = negatives
        self.num_neg = num_neg
        self.needs_whole_batch = negatives == "batch"
        self._scale = 1

    def setup(self, networks: Networks) -> None:
        super().setup(networks)
        self._scale = networks.output_shape("g")[-1] // networks.patch_size[-1]

    @property
    def _positive(self) -> PassOutput | BatchImage:
        return PassOutput(self.teacher) if self.teacher else BatchImage("gt")

    @property
    def _inputs(self) -> PassOutput:
        return PassOutput(self.name, "enlarged")

    def prepare(self, ctx: KDContext) -> None:
        if not self.teacher and ctx.gt is None:
            raise ValueError("positive: gt, but the training data give no ground truth; take positive: teacher")
        ctx.want(*self._inputs, ctx.lq)
        ctx.want_encoding(self._encoder, PassOutput("g"), self._positive, self._inputs)

    @torch.no_grad()
    def as_network(self, ctx: KDContext, key: str, image: Tensor) -> Tensor:
        """The image in the size of the output."""
        if self._scale == 1:
            return image
        # The kernel of MATLAB and Pillow, a = −1/2, is PyTorch's with antialiasing, which changes nothing else here.
        return F.interpolate(image, scale_factor=self._scale, mode="bicubic", antialias=True).clamp(0, 1)

    def forward(self, ctx: KDContext) -> Tensor:
        sources = PassOutput("g"), self._positive, self._inputs
        anchor, positive, inputs = (self.levels_of(ctx.encoding(self._encoder, source)) for source in sources)
        if not self.teacher:
            rows = ctx.batch.rows_of("gt")
            anchor, inputs = anchor[rows], inputs[rows]
        others = map(partial(_others, count=self.num_neg), inputs.levels) if self.negatives == "batch" else None
        negatives = others or ([level] for level in inputs.levels)
        return contrast(anchor, positive.detached(), negatives, self.weights, self.distance)


def _others(level: Tensor, count: int) -> Iterator[Tensor]:
    """The features of each image's successors in the batch: of the next one, of the one after it …"""
    if len(level) < 2:
        raise ValueError("negatives: batch needs a batch of two images or more; raise batch_size_per_gpu")
    for distance in range(1, min(count, len(level) - 1) + 1):
        yield level.roll(-distance, 0)
