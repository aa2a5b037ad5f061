"""What is probably wrong with a folder of LQ and a folder of GT images that do not make pairs."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]

_TRIED = 20  # file names from which a template is read off
_FLAT = 0.02  # standard deviation of an image with nothing to compare, where its range is 1
_UNLIKE = 0.3  # correlation of an image and its reduction, which is above 0.9 unless LQ is degraded very much


def advice_on_sizes(gt: Size, lq: Size, scale: int) -> str:
    """A sentence on why an LQ image is not ``scale`` times smaller than its GT image.

    Args:
        gt: Height and width of GT.
        lq: Height and width of LQ.
        scale: What the options say.
    """
    factor = _factor(gt, lq)
    if gt[0] < lq[0] and gt[1] < lq[1]:
        return "LQ is the larger one: dataroot_gt and dataroot_lq look swapped"
    if factor is not None:
        return (
            f"LQ is {factor} times smaller: set dataroot_lq to the images of scale {scale}, or `scale` (and `upscale` "
            f"of the networks) to {factor}"
            if factor > 1
            else f"LQ is as large as GT: set dataroot_lq to the images of scale {scale}, or `scale` to 1"
        )
    return "The sizes are those of different images: check that dataroot_gt and dataroot_lq are of the same data set"


def _factor(gt: Size, lq: Size) -> int | None:
    """How many times larger GT is, where it is the same number for height and width; less than one LQ pixel's worth
    may have been cut off."""
    factors = {round(large / small) for large, small in zip(gt, lq)}
    fits = all(abs(large - round(large / small) * small) < max(round(large / small), 1) for large, small in zip(gt, lq))
    return factors.pop() if len(factors) == 1 and fits and min(factors, default=1) >= 1 else None


def advice_on_names(gt_names: Sequence[str], lq_names: Sequence[str], template: str) -> str:
    """A sentence on why not every image has a partner, to go after the sentence that says so; maybe empty.

    Args:
        gt_names: The GT images' names.
        lq_names: The LQ images' names.
        template: The options' ``filename_tmpl``.
    """
    gt, lq = _stems(gt_names), _stems(lq_names)
    found = _template(gt, lq)
    if found is not None and found != template:
        return f" Set filename_tmpl to '{found}', with which they make pairs."
    swapped = _template(lq, gt)
    if swapped is not None:
        also = "" if swapped == template else f" (with filename_tmpl '{swapped}')"
        return f" dataroot_gt and dataroot_lq look swapped: the other way round they make pairs{also}."
    if not set(gt) & set(lq) and found is None:
        return f" There are {len(gt)} GT and {len(lq)} LQ images; check that both are of the same data set."
    return f" There are {len(gt)} GT and {len(lq)} LQ images; remove those without a partner, or add it."


def _stems(names: Sequence[str]) -> list[str]:
    return [os.path.splitext(name)[0] for name in names]


def _template(gt: Sequence[str], lq: Sequence[str]) -> str | None:
    """The ``filename_tmpl`` with which each LQ image has a GT image and the other way round; None if there is none."""
    first, present = gt[0], set(lq)
    if "{" in first or "}" in first:
        return None
    for name in [name for name in lq if first in name][:_TRIED]:
        template = name.replace(first, "{}", 1)
        if template.count("{}") == 1 and "/" not in template and {template.format(stem) for stem in gt} == present:
            return template
    return None


def look_unlike(lq: Tensor, gt: Tensor) -> bool:
    """Whether LQ (C, h, w) is clearly not made of GT (C, H, W): their grey values hardly correlate."""
    reduced = F.interpolate(gt[None].float(), lq.shape[-2:], mode="area")[0]
    grey = torch.stack([image.float().mean(0).flatten() for image in (lq, reduced)])
    if min(lq.shape[-2:]) < 16 or grey.std(dim=1).min() < _FLAT:
        return False
    return bool(torch.corrcoef(grey)[0, 1] < _UNLIKE)
