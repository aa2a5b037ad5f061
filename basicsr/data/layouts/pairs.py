"""Pairs of LQ and GT images, put together by their names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Picture = str | np.ndarray
"""An image file, or an image ``(H, W, 3)``, BGR, uint8."""

_NAMED = 5


class Pair(NamedTuple):
    """An LQ image, its GT, and the name, without extension, that both get."""

    name: str
    lq: Picture
    gt: Picture


@dataclass
class Part:
    """A part of a data set: training, validation or test.

    Attributes:
        pairs: Its pairs. Several may share a GT.
        spare_gt: Paths of GT images that no LQ image belongs to, where the set allows that.
    """

    pairs: list[Pair]
    spare_gt: list[str]


def match(
    lq: Iterable[tuple[str, str]],
    gt: Iterable[tuple[str, str]],
    key: Callable[[str], str],
    where: str,
    *,
    spare_gt: bool = False,
) -> Part:
    """Find the GT of each LQ image by a key that both names have in common.

    Args:
        lq: Name of the pair → path, for each LQ image.
        gt: The same of GT; only their keys matter.
        key: The key from a name.
        where: The folder, for messages.
        spare_gt: Whether GT images may be without LQ.

    Raises:
        ValueError: If images are without partner, or names or keys occur twice; the message names and counts them.
    """
    lq, gt = list(lq), list(gt)
    _require_unique(((name, path) for name, path in lq), f"{where}: two LQ images would get the same name")
    by_key = _require_unique(((key(name), path) for name, path in gt), f"{where}: two GT images are of the same LQ")
    missing = [path for name, path in lq if key(name) not in by_key]
    if missing:
        raise ValueError(f"{where}: {_some(missing, 'LQ image')} without GT: {_names(missing)}")
    pairs = [Pair(name, path, by_key[key(name)]) for name, path in lq]
    used = {pair.gt for pair in pairs}
    spare = [path for _, path in gt if path not in used]
    if spare and not spare_gt:
        raise ValueError(f"{where}: {_some(spare, 'GT image')} without LQ: {_names(spare)}")
    return Part(pairs, spare)


def merge(parts: Iterable[Part]) -> Part:
    """One part from several, such as the scenes of a video set.

    Raises:
        ValueError: If two pairs have the same name.
    """
    parts = list(parts)
    pairs = [pair for part in parts for pair in part.pairs]
    _require_unique(((pair.name, pair.lq) for pair in pairs), "two LQ images would get the same name")
    return Part(pairs, [path for part in parts for path in part.spare_gt])


def _require_unique(named: Iterable[tuple[str, str]], problem: str) -> dict[str, str]:
    known: dict[str, str] = {}
    for name, path in named:
        if name in known:
            raise ValueError(f"{problem} ({name}): {known[name]} and {path}")
        known[name] = path
    return known


def _some(paths: list[str], noun: str) -> str:
    return f"1 {noun} is" if len(paths) == 1 else f"{len(paths)} {noun}s are"


def _names(paths: list[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(os.path.basename(path) for path in paths[:_NAMED]) + more
