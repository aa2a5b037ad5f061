"""Data upcycling: distillation on images made from the batch by zooming in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import KD_REGISTRY

from .augmentation import InvertibleAugmentation
from .context import KDContext
from .negatives import check_probabilities
from .term import KDTerm

if TYPE_CHECKING:
    from basicsr.models.kd_model import KDModel


@KD_REGISTRY.register()
class DUKD(KDTerm):
    """``mean |S(x) − A⁻¹(T(A(x)))|`` for x zoomed in (crops of the ground truth, fed as inputs) and zoomed out (inputs
    shrunk by the scale), A a random invertible augmentation of each image.

    Source: Zhang et al., "Data Upcycling Knowledge Distillation for Image Super-Resolution" (DUKD, later AugKD, ICLR
    2025). With ``LogitsKD`` beside it the paper's sum is complete. That both kinds have equal weight is ours.

    Args:
        teacher: The suffix of the teacher's ``network_<teacher>``.
        zoom_in: Whether to use crops of the ground truth; needs a ground truth.
        zoom_out: Whether to use shrunk inputs.
        prob: Probability of each operation of A for each image.
    """

    def __init__(self, teacher: str = "t", zoom_in: bool = True, zoom_out: bool = True, prob: float = 0.5) -> None:
        super().__init__()
        if not (zoom_in or zoom_out):
            raise ValueError("zoom_in and zoom_out are both false; nothing would be computed")
        self.teacher = teacher
        self.zoom_in = zoom_in
        self.zoom_out = zoom_out
        check_probabilities(prob=prob)
        self.prob = prob

    def setup(self, model: KDModel) -> None:
        """Check the teacher.

        Raises:
            ValueError: If it is missing, or its output has another shape than the student's.
        """
        model.check_teacher(self.teacher)

    def prepare(self, ctx: KDContext) -> None:
        self._inputs: dict[str, Tensor] = {}
        if self.zoom_in:
            if ctx.gt is None:
                raise ValueError("zoom_in crops the ground truth, but datasets.train gives none; set zoom_in to false")
            self._inputs["in"] = random_crops(ctx.gt, ctx.lq.shape[-2:])
        if self.zoom_out:
            self._inputs["out"] = imresize(ctx.lq, ctx.lq.shape[-1] / ctx.output.shape[-1]).clamp(0, 1)
        self._augmentations = {
            key: InvertibleAugmentation.draw(len(image), self.prob, image.device) for key, image in self._inputs.items()
        }
        for key, image in self._inputs.items():
            ctx.want_view(self.teacher, f"{self.name}.{key}", self._augmentations[key].apply(image))

    def forward(self, ctx: KDContext) -> Tensor:
        return sum(
            F.l1_loss(
                ctx.run_student(image),
                self._augmentations[key].undo(ctx.view(self.teacher, f"{self.name}.{key}")),
            )
            for key, image in self._inputs.items()
        )


def random_crops(images: Tensor, size: torch.Size) -> Tensor:
    """A crop of each image ``(B, C, H, W)``, ``size`` high and wide, at a place drawn for it."""
    height, width = size
    tops = torch.randint(images.shape[-2] - height + 1, (len(images),)).tolist()
    lefts = torch.randint(images.shape[-1] - width + 1, (len(images),)).tolist()
    return torch.stack(
        [image[:, top : top + height, left : left + width] for image, top, left in zip(images, tops, lefts)]
    )
