"""Creates decoded storage (see :mod:`basicsr.data.memmap.images`) from a folder of images."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from basicsr.data.data_util import image_names
from basicsr.data.memmap.images import (
    DTYPES,
    INDEX_FILE,
    PIXELS_FILE,
    SUFFIX,
    Index,
    StoredImage,
    checksum,
    next_offset,
    read_index,
    stat_of,
    verify_pixels,
)
from basicsr.data.storage import decode
from basicsr.utils.misc import sizeof_fmt
from basicsr.utils.parallel import parallel_map

_PLAN_FILE = "plan.jsonl"
_JOURNAL_FILE = "journal.txt"  # a line per stored image: its number and its checksum


def create_memmap(folder: str, output: str, num_workers: int = 1, verify: bool = False) -> list[str]:
    """Decode the images of a folder, and of its sub-folders, into one file.

    Every image is decoded twice: first for its size, so that damaged images and a disk too small are found before any
    pixels are written. The storage is written under another name and renamed when complete. When the command is
    stopped and started again, stored images are kept unless the files have changed.

    Args:
        folder: The images.
        output: The folder to make; ends in ``.memmap``. One that has these images already is left alone.
        num_workers: Number of processes.
        verify: Whether to compare the finished file with its checksums.

    Returns:
        For each damaged image a line with its name, where ``verify`` found some.

    Raises:
        FileExistsError: If the output is there and has other images.
        ValueError: If images cannot be read (all are named). Nothing is made.
        OSError: If the disk is too small.
    """
    target = Path(output)
    if target.suffix != SUFFIX:
        raise ValueError(f"the folder of decoded images must end in {SUFFIX}: {output}")
    names, source = image_names(folder, recursive=True), os.path.abspath(folder)
    if target.exists():
        index = read_index(output)
        if differences := index.differences(source, names):
            raise FileExistsError(
                f"{output} exists, and {folder} has other images: {', '.join(differences)}; remove it first"
            )
    else:
        aside = target.with_name(f".{target.name}.unfinished")
        plan = _unfinished_plan(aside, source, names) or _new_plan(aside, source, names, num_workers)
        index = _store(aside, plan, num_workers)
        os.replace(aside, target)
        _sync(target.parent)
    damaged = verify_pixels(output, index, num_workers) if verify else []
    return [f"{name}: its pixels in {output} are damaged; remove the folder and create it again" for name in damaged]


def _unfinished_plan(aside: Path, source: str, names: list[str]) -> Index | None:
    """The plan of an earlier run that was stopped, if it is for these very images."""
    with contextlib.suppress(OSError, ValueError):
        plan = Index.read(aside / _PLAN_FILE)
        if plan.source == source and not plan.differences(source, names):
            return plan
    return None


def _new_plan(aside: Path, source: str, names: list[str], num_workers: int) -> Index:
    """Assign each image its position."""
    images, failures, offset = [], [], 0
    for name, result in parallel_map(partial(_measure, folder=source), names, num_workers, "sizes"):
        if isinstance(result, Exception):
            failures.append(f"{os.path.join(source, name)}: {result}")
            continue
        image = replace(result, offset=offset)
        images.append(image)
        offset = next_offset(image.end)
    if failures:
        raise ValueError("\n".join(["nothing was stored, since images cannot be used:", *failures]))
    plan = Index(source, images)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    with open(aside / PIXELS_FILE, "wb") as file:
        file.truncate(plan.nbytes)
    plan.write(aside / _PLAN_FILE)
    return plan


def _measure(name: str, folder: str) -> StoredImage:
    size, mtime = stat_of(folder, name)
    img = decode(Path(folder, name).read_bytes())
    if img.dtype.name not in DTYPES:
        raise ValueError(f"pixels of type {img.dtype} cannot be stored, only {', '.join(DTYPES)}")
    return StoredImage(name, img.shape, img.dtype.name, offset=0, source_size=size, source_mtime_ns=mtime)


def _require_space(pixels: Path, plan: Index) -> None:
    """Refuse to start if the images do not fit on the disk; what is stored already is not counted."""
    needed = plan.nbytes - pixels.stat().st_blocks * 512
    free = shutil.disk_usage(pixels.parent).free
    if needed > free:
        raise OSError(
            f"{len(plan.images)} decoded images need {sizeof_fmt(needed)}, and the disk of {pixels.parent.parent} has "
            f"{sizeof_fmt(free)} free; make room and start again, or choose another disk"
        )


def _store(aside: Path, plan: Index, num_workers: int) -> Index:
    """Decode what is not stored yet, and complete the index."""
    _require_space(aside / PIXELS_FILE, plan)
    checksums = dict(_stored_already(aside, plan, num_workers))
    rows = [row for row in range(len(plan.images)) if row not in checksums]
    jobs = [plan.images[row] for row in rows]
    store = partial(_store_image, folder=plan.source, path=str(aside / PIXELS_FILE))
    with open(aside / _JOURNAL_FILE, "a", encoding="ascii") as journal:
        for row, (image, result) in zip(rows, parallel_map(store, jobs, num_workers, "pixels")):
            if isinstance(result, OSError) and result.errno == errno.ENOSPC:
                raise OSError(f"the disk of {aside.parent} is full; make room and start again: what is stored is kept")
            if isinstance(result, Exception):
                raise ValueError(f"{os.path.join(plan.source, image.name)}: {result}")
            checksums[row] = result
            journal.write(f"{row} {result}\n")
            journal.flush()
    index = replace(plan, images=[replace(image, crc32=checksums[row]) for row, image in enumerate(plan.images)])
    _sync(aside / PIXELS_FILE)
    index.write(aside / INDEX_FILE)
    (aside / _PLAN_FILE).unlink()
    (aside / _JOURNAL_FILE).unlink()
    _sync(aside)
    return index


def _stored_already(aside: Path, plan: Index, num_workers: int) -> Iterator[tuple[int, int]]:
    """Numbers and checksums of the images whose pixels are what the journal says: not all may have reached the disk."""
    journal = aside / _JOURNAL_FILE
    if not journal.is_file():
        return
    # The last line may be torn.
    lines = [line.split() for line in journal.read_text(encoding="ascii").splitlines(keepends=True) if line[-1] == "\n"]
    noted = {int(row): int(crc) for row, crc in lines}
    check = partial(checksum, path=str(aside / PIXELS_FILE))
    jobs = [plan.images[row] for row in noted]
    for (row, crc), (_, result) in zip(noted.items(), parallel_map(check, jobs, num_workers, "stored already")):
        if result == crc:
            yield row, crc


def _store_image(image: StoredImage, folder: str, path: str) -> int:
    """Decode an image and write it at its position.

    Returns:
        The checksum of its pixels.
    """
    img = decode(Path(folder, image.name).read_bytes(), strict=False)  # measuring has checked it
    if (img.shape, img.dtype.name) != (image.shape, image.dtype):
        raise ValueError("the file was changed while it was being stored; start again")
    content = np.ascontiguousarray(img, dtype=img.dtype.newbyteorder("<")).tobytes()
    with open(path, "r+b") as file:
        file.seek(image.offset)
        file.write(content)
    return zlib.crc32(content)


def _sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
