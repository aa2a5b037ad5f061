"""Prepares a data set: finds its parts in the folder as downloaded, and writes ``<target>/<part>/{lq,gt}``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from basicsr.data.memmap.writer import create_memmap
from basicsr.data.preparation import create_lmdb, prepare_output

from .sets import RestorationSet
from .sources import require_same_sources
from .tree import Tree
from .writer import Cut, write_part


@dataclass(frozen=True)
class Prepared:
    """What was made of a part.

    Attributes:
        part: ``train``, ``val``, ``test`` or ``test/<name>``.
        storage: ``disk``, ``lmdb`` or ``memmap``.
        roots: ``lq`` and ``gt`` → folder, LMDB or decoded storage.
        cut: What was done with the images.
        pairs: Pairs in the source.
        images: Images in each of the two folders: patches, or as many as pairs.
        nbytes: ``lq`` and ``gt`` → what the folder's files take on the disk, in bytes.
        spare_gt: GT images of the source that no LQ image belongs to.
        failures: A line for each image that could not be used; no LMDB or decoded storage is made then.
    """

    part: str
    storage: str
    roots: dict[str, str]
    cut: Cut
    pairs: int
    images: int
    nbytes: dict[str, int]
    spare_gt: int
    failures: list[str]


def prepare_set(
    which: RestorationSet,
    source: str,
    target: str,
    *,
    variant: str | None = None,
    patch_size: int | None = None,
    overlap: int | None = None,
    storage: Literal["disk", "lmdb", "memmap"] = "disk",
    num_workers: int = 1,
) -> Iterator[Prepared]:
    """Prepare all parts of a data set that a folder holds, the training part in patches.

    Args:
        which: The set.
        source: The folder as downloaded; it is not written to.
        target: Where to: ``<target>/train/lq`` …
        variant: One of the set's variants, the first by default.
        patch_size: Side of a training patch in pixels, 0 for whole images; by default the set's.
        overlap: Pixels that neighbouring patches share at least; by default the set's, or half a patch of another size.
        storage: Whether to make an LMDB or decoded storage from the folders as well.
        num_workers: Number of processes.

    Yields:
        What was made, part by part. All parts are found, and all images have their partner, before one is written.

    Raises:
        ValueError: If the source does not look like the set, images lack partners, the target lies in the source or
            was made with other settings or from other files, or the overlap is not smaller than a patch.
        OSError: If the source is not there, or the disk is full.
    """
    size = which.patch_size if patch_size is None else patch_size
    if overlap is None:
        overlap = which.overlap if size == which.patch_size else size // 2
    if size < 0 or overlap < 0 or overlap >= max(size, 1):
        raise ValueError(f"patch size {size} and overlap {overlap}: the overlap must be smaller, neither negative")
    if _lies_in(target, source):
        raise ValueError(f"the target {target} lies in the source {source}, which is not written to; name another")
    tree = Tree(source)
    unusable = tree.unusable
    chosen = variant or next(iter(which.variants), None)
    for name, part in which.find(tree, variant).items():
        cut = Cut(size, overlap, which.gt_margin) if name == "train" else Cut(gt_margin=which.gt_margin)
        folder = os.path.join(target, *name.split("/"))
        settings = {"made": f"{which.name} {name}", "patch_size": cut.patch_size, "overlap": cut.overlap}
        prepare_output(folder, {**settings, "variant": chosen} if chosen else settings)
        require_same_sources(folder, part)
        images, failures = write_part(part, folder, cut, num_workers)
        roots = {role: os.path.join(folder, role) for role in ("lq", "gt")}
        nbytes = {role: _size(root) for role, root in roots.items()}
        kind = "disk" if failures else storage
        roots = {role: _store(root, kind, num_workers) for role, root in roots.items()}
        failures, unusable = unusable + failures, []
        yield Prepared(name, kind, roots, cut, len(part.pairs), images, nbytes, len(part.spare_gt), failures)


def _lies_in(path: str, folder: str) -> bool:
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return path == folder or path.startswith(os.path.join(folder, ""))


def _store(folder: str, storage: str, num_workers: int) -> str:
    if storage == "disk":
        return folder
    output = f"{folder}.{storage}"
    if storage == "lmdb":
        create_lmdb(folder, output, num_workers=num_workers)
    else:
        create_memmap(folder, output, num_workers)
    return output


def _size(folder: str) -> int:
    """Bytes of a folder's files; those of hard links once."""
    stats = (entry.stat() for entry in os.scandir(folder))
    return sum({stat.st_ino: stat.st_size for stat in stats}.values())
