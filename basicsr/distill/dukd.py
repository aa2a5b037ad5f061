"""Data upcycling: distillation on images made from the batch by zooming in and out."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from basicsr.utils.matlab_functions import imresize
from basicsr.utils.ranges import Probability
from basicsr.utils.registry import KD_REGISTRY

from .augmentation import InvertibleAugmentation
from .context import KDContext
from .networks import Networks
from .term import KDTerm
from .wiring import output_rows


@KD_REGISTRY.register()
class DUKD(KDTerm):
    """Distillation on images x zoomed in (crops of the ground truth, fed as inputs) and zoomed out (inputs shrunk by
    the scale), under random invertible augmentations A of each image.

    Source: Zhang et al., "Data Upcycling Knowledge Distillation for Image Super-Resolution" (DUKD, later AugKD, ICLR
    2025) and its released code. ``LogitsKD`` and the pixel loss stand beside it. All parts have equal weight.

    ``form: release``: for x a cell of the s×s grid over the ground truth, mean |A⁻¹(S(A(x))) − T(x)| (``in``); zoomed
    out, without augmentation, mean |S(x) − T(x)| (``out``) and the supervised mean |S(x) − lq| (``out_gt``). That a
    cell is drawn for each image is ours.

    ``form: symmetric`` [ours]: the sum of mean |S(x) − A⁻¹(T(A(x)))| for x a crop anywhere in the ground truth, and for
    x zoomed out.

    Args:
        teacher: The suffix of the teacher's ``network_<teacher>``.
        form: Which of the two.
        zoom_in: Whether to use crops of the ground truth; needs a ground truth.
        zoom_out: Whether to use shrunk inputs. The release leaves it out for SwinIR.
        prob: Probability of each operation of A for each image; 0.3 in most of the released files.
    """

    def __init__(
        self,
        teacher: str = "t",
        form: Literal["release", "symmetric"] = "symmetric",
        zoom_in: bool = True,
        zoom_out: bool = True,
        prob: Probability = 0.5,
    ) -> None:
        super().__init__()
        if not (zoom_in or zoom_out):
            raise ValueError("zoom_in and zoom_out are both false; nothing would be computed")
        if form not in ("release", "symmetric"):
            raise ValueError(f"form must be release or symmetric, not {form}")
        self.teacher = teacher
        self.form = form
        self.zoom_in = zoom_in
        self.zoom_out = zoom_out
        self.prob = prob

    def setup(self, networks: Networks) -> None:
        """Check the teacher.

        Raises:
            ValueError: If it is missing, or its output has another shape than the student's.
        """
        self._rows = output_rows(networks, self.teacher)

    def prepare(self, ctx: KDContext) -> None:
        inputs: dict[str, Tensor] = {}
        size = ctx.lq.shape[-2:]
        if self.zoom_in:
            if ctx.gt is None:
                raise ValueError("zoom_in crops the ground truth, but datasets.train gives none; set zoom_in to false")
            inputs["in"] = grid_cells(ctx.gt, size) if self.form == "release" else random_crops(ctx.gt, size)
        if self.zoom_out:
            inputs["out"] = imresize(ctx.lq, ctx.lq.shape[-1] / ctx.output.shape[-1]).clamp(0, 1)
        for kind, image in inputs.items():
            key = f"{self.name}.{kind}"
            released = self.form == "release"
            prob = 0.0 if released and kind == "out" else self.prob
            augmentation = ctx.scratch[key] = InvertibleAugmentation.draw(len(image), prob, image.device)
            turned = augmentation.apply(image)
            ctx.want("g", key, turned if released else image)
            ctx.want(self.teacher, key, image if released else turned)

    def forward(self, ctx: KDContext) -> Tensor | dict[str, Tensor]:
        kinds = [kind for kind, used in (("in", self.zoom_in), ("out", self.zoom_out)) if used]
        distances = {kind: self._distance(ctx, f"{self.name}.{kind}") for kind in kinds}
        if self.form == "release" and self.zoom_out:
            distances["out_gt"] = F.l1_loss(ctx.run("g", f"{self.name}.out").output, ctx.lq)
        return distances if self.form == "release" else sum(distances.values())

    def _distance(self, ctx: KDContext, key: str) -> Tensor:
        student, teacher = ctx.run("g", key).output, ctx.run(self.teacher, key).output.detach()
        undo = ctx.scratch[key].undo
        return F.l1_loss(undo(student), teacher) if self.form == "release" else F.l1_loss(student, undo(teacher))

    def wiring(self) -> list[dict[str, Any]]:
        return self._rows


def random_crops(images: Tensor, size: torch.Size) -> Tensor:
    """A crop of each image ``(B, C, H, W)``, ``size`` high and wide, at a random position."""
    height, width = size
    tops = torch.randint(images.shape[-2] - height + 1, (len(images),))
    lefts = torch.randint(images.shape[-1] - width + 1, (len(images),))
    return _crops(images, tops, lefts, size)


def grid_cells(images: Tensor, size: torch.Size) -> Tensor:
    """A random cell of each image ``(B, C, H, W)``, of those of ``size`` that tile the image."""
    height, width = size
    tops = torch.randint(images.shape[-2] // height, (len(images),)) * height
    lefts = torch.randint(images.shape[-1] // width, (len(images),)) * width
    return _crops(images, tops, lefts, size)


def _crops(images: Tensor, tops: Tensor, lefts: Tensor, size: torch.Size) -> Tensor:
    height, width = size
    places = zip(images, tops.tolist(), lefts.tolist())
    return torch.stack([image[:, top : top + height, left : left + width] for image, top, left in places])
