"""Label consistency: the teacher's output should not depend on flips and transpositions of its input."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from basicsr.utils.ranges import Probability
from basicsr.utils.registry import KD_REGISTRY

from .augmentation import InvertibleAugmentation
from .context import KDContext
from .networks import Networks
from .term import KDTerm
from .wiring import output_rows


@KD_REGISTRY.register()
class LCR(KDTerm):
    """``mean |S(lq) − A⁻¹(T(A(lq)))|`` for a random invertible augmentation A of each image.

    Source: an ingredient of DUKD (Data Upcycling Knowledge Distillation), part of DCKD's release though not of its
    paper. The teacher sees both inputs in one pass.

    Args:
        teacher: The suffix of the teacher's ``network_<teacher>``.
        prob: Probability of each operation for each image.
    """

    def __init__(self, teacher: str = "t", prob: Probability = 0.5) -> None:
        super().__init__()
        self.teacher = teacher
        self.prob = prob

    def setup(self, networks: Networks) -> None:
        """Check the teacher.

        Raises:
            ValueError: If it is missing, or its output has another shape than the student's.
        """
        self._rows = output_rows(networks, self.teacher)

    def prepare(self, ctx: KDContext) -> None:
        augmentation = InvertibleAugmentation.draw(len(ctx.lq), self.prob, ctx.lq.device)
        ctx.scratch[self.name] = augmentation
        ctx.want(self.teacher, self.name, augmentation.apply(ctx.lq))

    def forward(self, ctx: KDContext) -> Tensor:
        return F.l1_loss(ctx.output, ctx.scratch[self.name].undo(ctx.run(self.teacher, self.name).output.detach()))

    def wiring(self) -> list[dict[str, Any]]:
        return self._rows
