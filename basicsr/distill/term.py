"""The interface of a distillation term, and its schedule."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from basicsr.models.kd_model import KDModel

    from .context import KDContext


@dataclass(frozen=True)
class Schedule:
    """When a term counts, and how much. Iterations are numbered from 1.

    Attributes:
        loss_weight: The factor of the term in the sum that is minimised.
        start: The first iteration at which it counts.
        end: The last one; None for no end.
        ramp: Over this many iterations from ``start`` on, the weight grows linearly to ``loss_weight``.
        log_grad: Whether to log, at print iterations, the norm of the term's gradient in the student and its
            cosine with the gradient of the supervised losses.
    """

    loss_weight: float = 1.0
    start: int = 1
    end: int | None = None
    ramp: int = 0
    log_grad: bool = False

    @classmethod
    def keys(cls) -> set[str]:
        return {field.name for field in fields(cls)}

    def weight(self, iteration: int) -> float:
        """The factor at an iteration; 0 when the term does not count."""
        if iteration < self.start or (self.end is not None and iteration > self.end):
            return 0.0
        if self.ramp > 0:
            return self.loss_weight * min(1.0, (iteration - self.start + 1) / self.ramp)
        return self.loss_weight


class KDTerm(nn.Module):
    """One term of the distillation loss: a subclass in a file of its own, decorated ``@KD_REGISTRY.register()``.

    The constructor's signature is the schema of its options. Parameters it holds (adapters) train with the student;
    its state dict is kept in the training state; neither reaches the exported student.

    Attributes:
        name: The section of ``train.kd_opt`` it was built from.
        schedule: When and how much it counts.
    """

    name: str = ""
    schedule: Schedule = Schedule()

    def setup(self, model: KDModel) -> None:
        """Called once, before the optimiser is made: look up teachers, tap features, build adapters."""

    def prepare(self, ctx: KDContext) -> None:
        """Called before any term of the batch is computed: announce views of the teacher and images to encode."""

    def forward(self, ctx: KDContext) -> Tensor | dict[str, Tensor]:
        """The term's value on one batch, a scalar before weighting, or several by name (logged ``l_<term>_<name>``)."""
        raise NotImplementedError

    def after_step(self, model: KDModel, iteration: int) -> None:
        """Called after the optimiser and the average have been updated, also when the term does not count."""

    def wiring(self) -> list[dict[str, Any]]:
        """Rows of the table in the start-up log: which part of the student meets which part of which network.

        Each row has ``student``, ``student_shape``, ``network``, ``module``, ``module_shape`` and ``adapter``.
        """
        return []
