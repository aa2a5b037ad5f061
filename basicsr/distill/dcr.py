"""DCKD's dynamic contrastive regularisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from basicsr.data.degradations import Degradation
from basicsr.engine.compute.precision import PrecisionOption, resolve_precision
from basicsr.engine.compute.runtime import NetworkRuntime
from basicsr.utils.logger import get_root_logger
from basicsr.utils.ranges import Probability
from basicsr.utils.registry import KD_REGISTRY

from .context import KDContext
from .contrast import ContrastTerm, FeatureDistance, contrast
from .encoders import InputRange, PassOutput
from .networks import Networks

STEP_SPAN = 100_000  # iterations for which one number of `step` holds


@KD_REGISTRY.register()
class DCR(ContrastTerm):
    """Pulls the student's output towards the teacher's and away from an older student's, as an encoder sees them.

    The negatives are the outputs of a history network, a moving copy of the student, for the input and for degraded
    copies of it. Source: DCKD (arXiv 2412.08939), Eq. 4-6, and its release. The history network is kept in the training
    state.

    Args:
        encoder: The suffix of the frozen encoder's ``network_<encoder>``: a VQGAN, or a VGGFeatureExtractor.
        teacher: The suffix of the teacher's.
        weights: One for each level of the encoder.
        distance: Between features: ``L1`` (the paper's) or ``L2``.
        input_range: What images in [0, 1] are mapped to for the encoder. ``[0,1]`` is what the release does;
            ``[-1,1]`` is what VQGANs are trained on.
        num_neg: Degraded copies; with the input itself there is one negative more.
        history_source: The network that the history network follows: the student's average (release) or the student
            (paper).
        history_precision: The history network's precision; memory format and compilation are the student's. See
            :class:`~basicsr.engine.compute.runtime.NetworkRuntime`.
        update_decay: ``history = update_decay · history + (1 − update_decay) · source`` at an update.
        step: Iterations between updates, for each 100,000 iterations of the training; the last one applies to the end.
        gaussian_blur_prob: See :class:`~basicsr.data.degradations.Degradation`, as the three that follow.
        resize_prob: Probability of a resize.
        gaussian_noise_prob: Probability of noise.
        gray_noise_prob: Probability that noise is grey.
    """

    def __init__(
        self,
        encoder: str = "vqgan",
        teacher: str = "t",
        weights: Sequence[NonNegativeFloat] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0),
        distance: FeatureDistance = "L1",
        input_range: InputRange = "[0,1]",
        num_neg: NonNegativeInt = 4,
        history_source: Literal["ema", "student"] = "ema",
        history_precision: PrecisionOption = "fp32",
        update_decay: Probability = 0.1,
        step: Annotated[Sequence[PositiveInt], MinLen(1)] = (1000, 2000, 3000),
        gaussian_blur_prob: Probability = 0.0,
        resize_prob: Probability = 0.0,
        gaussian_noise_prob: Probability = 1.0,
        gray_noise_prob: Probability = 0.5,
    ) -> None:
        super().__init__(encoder, teacher, weights, distance, input_range)
        self.num_neg = num_neg
        self.history_source = history_source
        self.history_precision = history_precision
        self.history_runtime = NetworkRuntime()  # until setup, which knows the device
        self.update_decay = update_decay
        self.step = list(step)
        self.degrade = Degradation(gaussian_blur_prob, resize_prob, gaussian_noise_prob, gray_noise_prob)

    def setup(self, networks: Networks) -> None:
        """Copy the student into the history network, and check that encoder and teacher are there.

        Raises:
            ValueError: If a network is missing or does not fit, or there is no average to follow.
        """
        if self.history_source == "ema" and "g_ema" not in networks:
            raise ValueError("history_source: ema follows the student's average; set train.ema_decay above 0")
        total_iter = networks.total_iter
        if total_iter > STEP_SPAN * len(self.step):
            get_root_logger().warning(
                f"train.kd_opt.{self.name}.step has {len(self.step)} numbers, one for each {STEP_SPAN:,} iterations, "
                f"and the run is {total_iter:,} long: its last, {self.step[-1]}, applies to the end"
            )
        super().setup(networks)
        self.history = networks.copy_of(self.history_source)
        label = f"train.kd_opt.{self.name}.history_precision"
        precision = resolve_precision(self.history_precision, networks.device, label)
        self.history_runtime = replace(networks.runtime, precision=precision)
        self.history_runtime.compile_in_place(self.history)

    def train(self, mode: bool = True) -> DCR:
        """Set the mode; the history network stays in eval mode."""
        super().train(mode)
        if hasattr(self, "history"):
            self.history.eval()
        return self

    @property
    def _sources(self) -> tuple[PassOutput, PassOutput, PassOutput]:
        return PassOutput("g"), PassOutput(self.teacher), PassOutput(self.name, "negatives")

    def prepare(self, ctx: KDContext) -> None:
        ctx.want(self.name, "negatives", ctx.lq)
        ctx.want_encoding(self._encoder, *self._sources)

    @torch.no_grad()
    def as_network(self, ctx: KDContext, key: str, image: Tensor) -> Tensor:
        """The history network's output. The pass ``negatives`` appends those for degraded copies of the image:
        ``((1 + num_neg)·B, C, H, W)``."""
        with ctx.part("history"):
            if key == "negatives":
                image = torch.cat([image, *(self.degrade(image) for _ in range(self.num_neg))])
            chunks = self.history_runtime.chunks(image)
            return torch.cat([self.history_runtime.run(self.history, chunk) for chunk in chunks])

    def forward(self, ctx: KDContext) -> Tensor:
        student, teacher, negatives = (ctx.encoding(self._encoder, source) for source in self._sources)
        others = (level.split(len(ctx.lq)) for level in negatives.levels)
        return contrast(student, teacher.detached(), others, self.weights, self.distance)

    @torch.no_grad()
    def after_step(self, networks: Networks, iteration: int) -> None:
        """Move the history network towards its source, where an update is due.

        Parameters move as in the release; buffers, such as the statistics of batch norm, are copied [ours].
        """
        if iteration % self.step[min((iteration - 1) // STEP_SPAN, len(self.step) - 1)] == 0:
            source = networks.source(self.history_source)
            own, theirs = list(self.history.parameters()), [p.detach() for p in source.parameters()]
            torch._foreach_lerp_(own, theirs, 1 - self.update_decay)
            for buffer, other in zip(self.history.buffers(), source.buffers()):
                buffer.copy_(other)
