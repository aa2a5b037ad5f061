"""Label consistency: the teacher's output must not depend on how its input is turned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from basicsr.utils.registry import KD_REGISTRY

from .context import KDContext
from .term import KDTerm

if TYPE_CHECKING:
    from basicsr.models.kd_model import KDModel


def _invert(x: Tensor) -> Tensor:
    return 1 - x


def _flip_rows(x: Tensor) -> Tensor:
    return x.flip(-2)


def _flip_columns(x: Tensor) -> Tensor:
    return x.flip(-1)


def _transpose(x: Tensor) -> Tensor:
    return x.transpose(-2, -1)


OPERATIONS = (_invert, _flip_rows, _flip_columns, _transpose)  # each is its own inverse


class InvertibleAugmentation:
    """For each image a random subset of: invert, flip vertically, flip horizontally, transpose.

    Args:
        chosen: ``(4, B)`` bool, in the order of :data:`OPERATIONS`.
    """

    def __init__(self, chosen: Tensor) -> None:
        self.chosen = chosen

    @classmethod
    def draw(cls, batch: int, probability: float, device: torch.device) -> InvertibleAugmentation:
        """Choose each operation for each image with the given probability."""
        return cls((torch.rand(len(OPERATIONS), batch) < probability).to(device))

    def apply(self, images: Tensor) -> Tensor:
        """Augment square images ``(B, C, H, H)`` in [0, 1]."""
        return self._run(images, zip(OPERATIONS, self.chosen))

    def undo(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`apply`: the inverse operations in reverse order; gradients pass."""
        return self._run(images, zip(OPERATIONS[::-1], self.chosen.flip(0)))

    @staticmethod
    def _run(images: Tensor, steps: zip) -> Tensor:
        for operation, chosen in steps:
            images = torch.where(chosen.view(-1, 1, 1, 1), operation(images), images)
        return images


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
        self.prob = prob

    def setup(self, model: KDModel) -> None:
        """Check the teacher.

        Raises:
            ValueError: If it is missing, or its output has another shape than the student's.
        """
        if model.output_shape("g") != model.output_shape(self.teacher):
            raise ValueError(f"network_{self.teacher} gives images of another shape than network_g")

    def prepare(self, ctx: KDContext) -> None:
        if ctx.lq.shape[-2] != ctx.lq.shape[-1]:
            raise ValueError(f"LCR transposes patches, so they must be square; they are {tuple(ctx.lq.shape[-2:])}")
        self._augmentation = InvertibleAugmentation.draw(len(ctx.lq), self.prob, ctx.lq.device)
        ctx.want_view(self.teacher, self.name, self._augmentation.apply(ctx.lq))

    def forward(self, ctx: KDContext) -> Tensor:
        return F.l1_loss(ctx.output, self._augmentation.undo(ctx.view(self.teacher, self.name)))
