"""What a distillation term may look at in one iteration; everything costly is computed once and shared."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from basicsr.engine.timing import StepTimer

from .frozen import FrozenNetwork


@dataclass
class Pass:
    """One forward pass: the output, and the tapped features by module path."""

    output: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)


class KDContext:
    """One batch as the terms see it.

    Args:
        iteration: From 1.
        lq: Input, ``(B, C, h, w)``.
        gt: Target, ``(B, C, H, W)``, or None.
        student: The student's pass, with gradients.
        frozen: The frozen networks by name.
        timer: Counts the teachers' time, when given.

    Attributes:
        output: The student's output, ``(B, C, H, W)``.
    """

    def __init__(
        self,
        iteration: int,
        lq: Tensor,
        gt: Tensor | None,
        student: Pass,
        frozen: Mapping[str, FrozenNetwork],
        timer: StepTimer | None = None,
    ) -> None:
        self.iteration = iteration
        self.lq = lq
        self.gt = gt
        self.student = student
        self._frozen = frozen
        self._timer = timer
        self._passes: dict[str, Pass] = {}

    def _teacher_time(self) -> AbstractContextManager:
        return self._timer.part("teacher") if self._timer else nullcontext()

    @property
    def output(self) -> Tensor:
        return self.student.output

    def teacher(self, name: str = "t") -> Pass:
        """A teacher's pass over ``lq``, without gradients; run when first asked for.

        Args:
            name: The suffix of its ``network_<name>``.
        """
        if name not in self._passes:
            network = self._frozen[name]
            with self._teacher_time(), torch.no_grad(), network.taps.recording() as features:
                output = network(self.lq)
            self._passes[name] = Pass(output, {path: feature.float() for path, feature in features.items()})
        return self._passes[name]

    def features(self, network: str) -> dict[str, Tensor]:
        """The tapped features of the student (``'g'``) or of a teacher, by module path."""
        return self.student.features if network == "g" else self.teacher(network).features
