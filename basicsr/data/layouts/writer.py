"""Writes pairs to ``<folder>/{lq,gt}`` with equal names, whole or in patches.

Writing can be stopped and started again: files appear complete, and those that exist are kept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from basicsr.data.data_util import image_names
from basicsr.data.preparation import crop_starts
from basicsr.utils.atomic_file import remove_leftovers, temporary_name
from basicsr.utils.full_disk import is_disk_full
from basicsr.utils.img_util import imwrite
from basicsr.utils.lmdb_util import read_source
from basicsr.utils.parallel import parallel_map

from .pairs import Part, Picture

_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3]
_NAMED = 5


@dataclass(frozen=True)
class Cut:
    """What is done with the images of a part.

    Attributes:
        patch_size: Side of a patch in pixels; 0 for whole images.
        overlap: Pixels that neighbouring patches share at least.
        gt_margin: Pixels that GT may have beyond LQ on each side, which are then cut off.
    """

    patch_size: int = 0
    overlap: int = 0
    gt_margin: int = 0


class _Group(NamedTuple):
    """A GT and the LQ images that share it, with their names."""

    gt: Picture
    lqs: list[tuple[str, Picture]]


def write_part(part: Part, folder: str, cut: Cut, num_workers: int = 1) -> tuple[int, list[str]]:
    """Write the pairs of a part to ``<folder>/lq`` and ``<folder>/gt``.

    Whole images are copied byte for byte; GT that may have a margin, and arrays, become PNG files. Patches are PNG
    files ``<name>_s001.png`` …, and cover every pixel; a side of an image that is shorter than a patch is taken whole.
    Where LQ images share a GT, its files are written once and the others are hard links to them.

    Returns:
        The number of images in each folder, and for each that could not be made a line with its name and the reason.

    Raises:
        OSError: If the disk is full.
    """
    groups: dict[object, _Group] = {}
    for pair in part.pairs:
        key = pair.gt if isinstance(pair.gt, str) else id(pair.gt)
        groups.setdefault(key, _Group(pair.gt, [])).lqs.append((pair.name, pair.lq))
    for role in ("lq", "gt"):
        os.makedirs(os.path.join(folder, role), exist_ok=True)
        remove_leftovers(os.path.join(folder, role))
    stems: set[str] = set()
    failures: list[str] = []
    write = partial(_write_group, folder=Path(folder), cut=cut)
    for _, result in parallel_map(write, list(groups.values()), num_workers, folder):
        if isinstance(result, Exception):
            if not is_disk_full(result):
                raise result
            raise OSError(f"the disk of {folder} is full; make room and start again: what is made is kept") from result
        stems.update(result[0])
        failures += result[1]
    return len(stems), failures or _foreign(folder, stems)


def _foreign(folder: str, stems: set[str]) -> list[str]:
    """A line for each of the two folders that holds images which the source does not give."""
    lines = []
    for role in ("lq", "gt"):
        root = os.path.join(folder, role)
        foreign = [name for name in image_names(root) if os.path.splitext(name)[0] not in stems]
        if foreign:
            more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
            lines.append(f"{root}: not made from this source: {', '.join(foreign[:_NAMED])}{more}; remove them")
    return lines


def _write_group(group: _Group, folder: Path, cut: Cut) -> tuple[list[str], list[str]]:
    """Write a GT and its LQ images.

    Returns:
        The names of the images that are now there, without extension, and a line for each that is not.
    """
    stems: list[str] = []
    failures: list[str] = []
    gt: np.ndarray | None = None
    first: dict[tuple[int, int], list[Path]] = {}  # size → GT files of the first pair of that size
    reencode = cut.gt_margin > 0
    for name, lq in group.lqs:
        if not cut.patch_size:
            whole = folder / "lq" / _file_name(name, lq), folder / "gt" / _file_name(name, group.gt, reencode)
            if all(path.exists() for path in whole):
                stems.append(name)
                continue
        if gt is None:
            try:
                gt = _read(group.gt)
            except (OSError, ValueError) as error:
                failures.append(f"{error} (the GT of {len(group.lqs)} images)")
                break
        try:
            image = _read(lq)
            view = _matching(gt, image, lq, group.gt, cut.gt_margin)
            files = _outputs(name, group.gt, view, cut, reencode)
            paths = [folder / "gt" / file for file, _ in files]
            for file, content in _outputs(name, lq, image, cut):
                _write(content, folder / "lq" / file)
            for (_, content), path, earlier in zip(files, paths, first.get(view.shape[:2], [None] * len(paths))):
                _write(content if earlier is None else earlier, path)
            first.setdefault(view.shape[:2], paths)
            stems += [path.stem for path in paths]
        except (OSError, ValueError) as error:
            if is_disk_full(error):  # the errno of another error is lost on the way from a worker
                raise OSError(errno.ENOSPC, str(error)) from error
            failures.append(str(error))
    return stems, failures


def _read(picture: Picture) -> np.ndarray:
    return read_source(picture) if isinstance(picture, str) else picture


def _matching(gt: np.ndarray, lq: np.ndarray, lq_path: Picture, gt_path: Picture, margin: int) -> np.ndarray:
    """GT, without its margin where it has one and LQ has not."""
    (gt_height, gt_width), (height, width) = gt.shape[:2], lq.shape[:2]
    if (gt_height, gt_width) == (height, width):
        return gt
    if (gt_height, gt_width) == (height + 2 * margin, width + 2 * margin):
        return gt[margin:-margin, margin:-margin]
    raise ValueError(
        f"{lq_path} is {height}×{width} pixels (height×width) and its GT {gt_path} {gt_height}×{gt_width}; they must "
        "be equal"
    )


def _file_name(name: str, picture: Picture, reencode: bool = False) -> str:
    """The name of a whole image's file: with its own extension where its bytes are copied."""
    copied = isinstance(picture, str) and not reencode
    return name + (os.path.splitext(picture)[1] if copied else ".png")


def _outputs(
    name: str, picture: Picture, image: np.ndarray, cut: Cut, reencode: bool = False
) -> list[tuple[str, Picture]]:
    """The files that are made of an image: their names, and a file to copy or the pixels."""
    if not cut.patch_size:
        copied = isinstance(picture, str) and not reencode
        return [(_file_name(name, picture, reencode), picture if copied else image)]
    height, width = (min(cut.patch_size, side) for side in image.shape[:2])
    corners = [
        (top, left)
        for top in crop_starts(image.shape[0], height, cut.patch_size - cut.overlap, 0)
        for left in crop_starts(image.shape[1], width, cut.patch_size - cut.overlap, 0)
    ]
    return [
        (f"{name}_s{number:03d}.png", image[top : top + height, left : left + width])
        for number, (top, left) in enumerate(corners, 1)
    ]


def _write(content: Picture | Path, path: Path) -> None:
    """Write a file unless it exists: a copy of a file, a hard link to a file of ours, or pixels as PNG."""
    if path.exists():
        return
    if isinstance(content, np.ndarray):
        imwrite(np.ascontiguousarray(content), path, _PNG)
        return
    if isinstance(content, Path):
        with contextlib.suppress(OSError):  # a file system without hard links
            os.link(content, path)
            return
    aside = temporary_name(path)
    try:
        shutil.copyfile(content, aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
