"""The images and pairs of one folder, database or decoded storage, or of several."""

from __future__ import annotations

import os
from typing import Annotated

from annotated_types import MinLen

from .data_util import (
    paired_paths_from_folder,
    paired_paths_from_lmdb,
    paired_paths_from_meta_info_file,
    paths_from_folder,
    paths_from_lmdb,
    paths_from_meta_info_file,
)

Folders = str | Annotated[list[str], MinLen(1)]
"""What an option ``dataroot…`` names: one, or a list."""


def folder_list(root: Folders) -> list[str]:
    """The folders that an option names."""
    return [root] if isinstance(root, str) else list(root)


def image_paths(root: Folders, backend: str, meta_info_file: str | None = None) -> list[str]:
    """The images of a data set.

    Args:
        root: Where they are.
        backend: How they are stored: ``disk``, ``lmdb`` or ``memmap``.
        meta_info_file: Lists the images to use; all when None. Not for LMDB, and not for several folders.

    Returns:
        Paths, or of one LMDB its keys. A key of one of several LMDBs follows its database: ``a.lmdb/0001``.

    Raises:
        ValueError: If there are no images, listed ones are missing, or a folder is named twice.
        FileNotFoundError: If a folder or the meta_info file does not exist.
    """
    folders = folder_list(root)
    _require_different([(folder,) for folder in folders])
    if backend == "lmdb":
        keys = [paths_from_lmdb(folder) for folder in folders]
        return keys[0] if len(folders) == 1 else [os.path.join(f, key) for f, own in zip(folders, keys) for key in own]
    if meta_info_file:
        _require_single(folders)
        return paths_from_meta_info_file(folders[0], meta_info_file)
    return [path for folder in folders for path in paths_from_folder(folder)]


def image_pairs(
    lq: Folders, gt: Folders, backend: str, meta_info_file: str | None = None, filename_tmpl: str = "{}"
) -> list[dict[str, str]]:
    """The pairs of a data set, matched folder by folder: the first LQ folder with the first GT folder, and so on.

    Args:
        lq: Where the LQ images are.
        gt: Where the GT images are; as many folders.
        backend: How they are stored: ``disk``, ``lmdb`` or ``memmap``.
        meta_info_file: Lists the GT images to use; all when None. Not for LMDB, and not for several folders.
        filename_tmpl: LQ's name from GT's, both without extension.

    Returns:
        A dict for each pair: ``lq_path``, ``gt_path``, as in :func:`image_paths`.

    Raises:
        ValueError: If an image lacks its partner, the lists differ in length, or two folders are paired twice.
        FileNotFoundError: If a folder or the meta_info file does not exist.
    """
    lq_folders, gt_folders = folder_list(lq), folder_list(gt)
    if len(lq_folders) != len(gt_folders):
        raise ValueError(
            f"dataroot_gt names {_count(gt_folders)} and dataroot_lq {_count(lq_folders)}; pairs are matched folder "
            "by folder, so there must be as many of both"
        )
    _require_different(list(zip(lq_folders, gt_folders)))
    roles = ["lq", "gt"]
    if backend == "lmdb":
        found = [paired_paths_from_lmdb(list(pair), roles, filename_tmpl) for pair in zip(lq_folders, gt_folders)]
        if len(found) == 1:
            return found[0]
        return [
            {"lq_path": os.path.join(lq_folder, pair["lq_path"]), "gt_path": os.path.join(gt_folder, pair["gt_path"])}
            for lq_folder, gt_folder, pairs in zip(lq_folders, gt_folders, found)
            for pair in pairs
        ]
    if meta_info_file:
        _require_single(gt_folders)
        return paired_paths_from_meta_info_file([*lq_folders, *gt_folders], roles, meta_info_file, filename_tmpl)
    return [
        pair
        for folders in zip(lq_folders, gt_folders)
        for pair in paired_paths_from_folder(list(folders), roles, filename_tmpl)
    ]


def common_folder(root: Folders) -> str:
    """The folder below which the images' names are unique: the only one, or what several have in common."""
    folders = folder_list(root)
    return folders[0] if len(folders) == 1 else os.path.commonpath(list(map(os.path.abspath, folders)))


def _count(folders: list[str]) -> str:
    return "1 folder" if len(folders) == 1 else f"{len(folders)} folders"


def _require_single(folders: list[str]) -> None:
    if len(folders) > 1:
        raise ValueError(
            f"meta_info_file lists the images of one folder, and there are {len(folders)}; leave it out, or use "
            "type: MixedDataset with a set for each folder"
        )


def _require_different(folders: list[tuple[str, ...]]) -> None:
    normal = [tuple(map(os.path.abspath, entry)) for entry in folders]
    twice = next((entry for entry, one in zip(folders, normal) if normal.count(one) > 1), None)
    if twice is not None:
        raise ValueError(f"{' with '.join(twice)} is listed twice; name each folder once")
