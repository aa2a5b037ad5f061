"""Label consistency: the teacher's output must not depend on how its input is turned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from basicsr.utils.registry import KD_REGISTRY

from .augmentation import InvertibleAugmentation
from .context import KDContext
from .negatives import check_probabilities
from .term import KDTerm

if TYPE_CHECKING:
    from basicsr.models.kd_model import KDModel


@KD_REGISTRY.register()
class LCR(KDTerm):
    """``mean |S(lq) − A⁻¹(T(A(lq)))|`` for a random invertible augmentation A of each image.

    Source: an ingredient of DUKD (Data Upcycling Knowledge Distillation), part of DCKD's release though not of its
    paper. The teacher sees both inputs in one pass.

    Args:
        teacher: The suffix of the teacher's ``network_<teacher>``.
        prob: Probability of each operation for each image.
    """

    def __init__(self, teacher: str = "t", prob: float = 0.5) -> None:
        super().__init__()
        self.teacher = teacher
        check_probabilities(prob=prob)
        self.prob = prob

    def setup(self, model: KDModel) -> None:
        """Check the teacher.

        Raises:
            ValueError: If it is missing, or its output has another shape than the student's.
        """
        model.check_teacher(self.teacher)

    def prepare(self, ctx: KDContext) -> None:
        self._augmentation = InvertibleAugmentation.draw(len(ctx.lq), self.prob, ctx.lq.device)
        ctx.want_view(self.teacher, self.name, self._augmentation.apply(ctx.lq))

    def forward(self, ctx: KDContext) -> Tensor:
        return F.l1_loss(ctx.output, self._augmentation.undo(ctx.view(self.teacher, self.name)))
