"""Distillation of outputs: the student imitates the teacher's output."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from basicsr.utils.registry import KD_REGISTRY

from .context import KDContext
from .networks import Networks
from .term import KDTerm
from .wiring import output_rows


def charbonnier(x: Tensor, y: Tensor, eps: float = 1e-12) -> Tensor:
    return torch.sqrt((x - y) ** 2 + eps).mean()


CRITERIA = {"l1": F.l1_loss, "l2": F.mse_loss, "charbonnier": charbonnier}


@KD_REGISTRY.register()
class LogitsKD(KDTerm):
    """``mean |S(lq) − T(lq)|``, or another distance; Eq. 3 of DCKD (arXiv 2412.08939).

    Args:
        teacher: The suffix of the teacher's ``network_<teacher>``, or a term that is a network.
        criterion: The distance: ``l1``, ``l2`` (mean square) or ``charbonnier``.
    """

    def __init__(self, teacher: str = "t", criterion: Literal["l1", "l2", "charbonnier"] = "l1") -> None:
        super().__init__()
        self.teacher = teacher
        self.criterion = CRITERIA[criterion]
        self._rows: list[dict[str, Any]] = []

    def setup(self, networks: Networks) -> None:
        """Look up the teacher.

        Raises:
            ValueError: If it is not defined, or its output has another shape than the student's.
        """
        self._rows = output_rows(networks, self.teacher)

    def prepare(self, ctx: KDContext) -> None:
        ctx.want(self.teacher)

    def forward(self, ctx: KDContext) -> Tensor:
        return self.criterion(ctx.output, ctx.run(self.teacher).output.detach())

    def wiring(self) -> list[dict[str, Any]]:
        return self._rows
