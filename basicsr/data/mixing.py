"""Mixing the samples of a training batch with each other: Mixup and CutMix of pairs of LQ and GT.

LQ and GT are mixed alike, so that the pair stays one: degradations that are linear in the image commute with Mixup, and
every degradation that is local with CutMix, but for the border of the box.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from basicsr.utils.options.sections import MixingOptions

from .seeding import mix_seed

_PAIR = ("lq", "gt")


class Mixing:
    """Mixes batches; what it draws is a function of (seed, iteration, rank).

    Of Mixup, CutMix and leaving the batch as it is, those that the options switch on are equally likely. As in
    Restormer's training, one ratio λ ~ Beta(β, β) and one partner for each sample are drawn for the whole batch.

    Args:
        options: Which there are.
        seed: The training set's seed.
        rank: This process's rank; each mixes its own part of the batch.
    """

    def __init__(self, options: MixingOptions, seed: int, rank: int) -> None:
        self._options, self._seed, self._rank = options, seed, rank
        self._kinds = [name for name in ("mixup", "cutmix", "use_identity") if getattr(options, name)]

    def __call__(self, batch: Mapping[str, Any], iteration: int) -> Mapping[str, Any]:
        """Mix a batch.

        Args:
            batch: ``lq`` (B, C, h, w) and, where there is one, ``gt`` (B, C, s·h, s·w). Other images of the size of one
                of them are mixed with them; what is not a tensor, such as a path, stays.
            iteration: The iteration that the batch is for.

        Raises:
            ValueError: If the batch holds something else for each sample, which would not be that of the mixed one.
        """
        images = mixable_images(batch)
        count = len(batch["lq"])
        rng = random.Random(mix_seed(self._seed, "mixing", iteration, self._rank))
        kind = rng.choice(self._kinds)
        if kind == "use_identity" or count < 2:
            return batch
        partners = list(range(count))
        if kind == "mixup":
            ratio = rng.betavariate(self._options.mixup_beta, self._options.mixup_beta)
            rng.shuffle(partners)
            mixed = {name: mixup(image, partners, ratio) for name, image in images.items()}
        else:
            ratio = rng.betavariate(self._options.cutmix_alpha, self._options.cutmix_alpha)
            box = draw_box(batch["lq"].shape[-2], batch["lq"].shape[-1], ratio, rng)
            rng.shuffle(partners)
            width = batch["lq"].shape[-1]
            mixed = {name: cutmix(image, partners, box, image.shape[-1] // width) for name, image in images.items()}
        return {**batch, **mixed}


def mixable_images(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The images of a batch that mixing changes.

    Raises:
        ValueError: If there is no ``lq``, or another tensor has a value for each sample that is not an image of the
            size of ``lq`` or ``gt``.
    """
    lq = batch.get("lq") if isinstance(batch, Mapping) else None
    if not isinstance(lq, Tensor) or lq.dim() != 4:
        raise ValueError("train.mixing_augs mixes images `lq` (B, C, h, w), which the batches of this data set lack")
    sizes = {tuple(batch[name].shape[-2:]) for name in _PAIR if name in batch}
    images = {}
    for name, value in batch.items():
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != len(lq):
            continue
        if value.dim() != 4 or not value.is_floating_point() or tuple(value.shape[-2:]) not in sizes:
            raise ValueError(
                f"train.mixing_augs cannot mix the key '{name}' of the batch, {tuple(value.shape)}: it is not an image "
                f"of the size of lq or gt, and would belong to one of the mixed samples only; remove mixing_augs"
            )
        images[name] = value
    return images


def mixup(image: Tensor, partners: Sequence[int], ratio: float) -> Tensor:
    """λ·x + (1 − λ)·x[partners] (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, equation 1).

    Args:
        image: ``(B, …)``.
        partners: For each sample the one that it is mixed with.
        ratio: λ.
    """
    return ratio * image + (1 - ratio) * image[list(partners)]


def draw_box(height: int, width: int, ratio: float, rng: random.Random) -> tuple[int, int, int, int]:
    """A box of CutMix (Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features", ICCV 2019, section 3.1): its sides are √(1 − λ) of the image's, its centre is anywhere, and what lies
    outside of the image is cut off.

    Args:
        height: Of the image.
        width: Of the image.
        ratio: λ.
        rng: Draws the centre.

    Returns:
        Top, bottom, left and right; rows from top up to, and not including, bottom.
    """
    side = math.sqrt(1 - ratio)
    edges = []
    for length in (height, width):
        centre, half = rng.randrange(length), int(length * side) // 2
        edges += [max(centre - half, 0), min(centre + half, length)]
    top, bottom, left, right = edges
    return top, bottom, left, right


def cutmix(image: Tensor, partners: Sequence[int], box: tuple[int, int, int, int], factor: int) -> Tensor:
    """The image with a box from its partner. CutMix mixes labels by the area of the box; of a restoration pair the box
    of GT is that of LQ, scaled (ours).

    Args:
        image: ``(B, C, H, W)``.
        partners: For each sample the one that its box comes from.
        box: Top, bottom, left and right in LQ pixels.
        factor: The image's size ÷ LQ's.
    """
    top, bottom, left, right = (edge * factor for edge in box)
    mixed = image.clone(memory_format=torch.contiguous_format)
    mixed[..., top:bottom, left:right] = image[list(partners)][..., top:bottom, left:right]
    return mixed
