"""Reads the images of a dataset from files, LMDB or decoded storage; datasets see decoded images only."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from basicsr.data.memmap.images import Index, MemmapImages, is_memmap
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.file_client import FileClient
from basicsr.utils.image_check import is_jpeg, require_pixels, require_sound_jpeg
from basicsr.utils.image_header import size_in_header
from basicsr.utils.img_util import decode_image

from .data_util import image_names
from .image_folders import Folders, folder_list

BACKENDS = ("disk", "lmdb", "memmap")


class ImageStorage:
    """Reads images from files, from LMDB databases, or from decoded storage.

    Each process checks a JPEG file for damaged data when it reads it for the first time, and the range of stored floats
    likewise; see :mod:`basicsr.utils.image_check`.

    Args:
        io_backend: ``{type: disk}`` (also when None), ``{type: lmdb}`` or ``{type: memmap}``, with the backend's
            options. ``strict: false`` takes JPEG files as they are.
        folders: The role of the images (``lq``, ``gt``) → folder, database or storage, or a list of them.

    Raises:
        ValueError: If there is no such backend, it has no such option, or a folder is of another backend; for
            ``memmap`` also if the storage is damaged.
        FileNotFoundError: If there is no such decoded storage.
    """

    def __init__(self, io_backend: dict[str, Any] | None, folders: Mapping[str, Folders]) -> None:
        options = dict(io_backend or {})
        self._backend = options.pop("type", "disk")
        self._strict = options.pop("strict", True)
        self._checked: dict[str, set[str]] = {role: set() for role in folders}  # JPEG files and stored floats
        self._folders = {role: folder_list(root) for role, root in folders.items()}
        places = [
            (f"{role}_{i}" if len(own) > 1 else role, folder)
            for role, own in self._folders.items()
            for i, folder in enumerate(own)
        ]
        if self._backend not in BACKENDS:
            raise ValueError(f"unknown storage '{self._backend}': io_backend.type is one of {', '.join(BACKENDS)}")
        if self._backend == "lmdb":
            options |= {"db_paths": [folder for _, folder in places], "client_keys": [key for key, _ in places]}
        self._options = options
        try:
            if self._backend == "memmap":
                self._decoded = {key: MemmapImages(folder, **options) for key, folder in places}
            else:
                self._client = FileClient(self._backend, **options)
        except TypeError as error:
            raise ValueError(
                f"io_backend of type '{self._backend}' cannot have the options {options}: {error}"
            ) from None
        for key, folder in places:
            if self._backend == "memmap" and get_dist_info()[0] == 0:
                _warn_if_stale(folder, self._decoded[key].index)
            if self._backend == "disk" and is_memmap(folder):
                raise ValueError(f"{folder} holds decoded images; read it with io_backend: {{type: memmap}}")

    def client_options(self) -> dict[str, Any]:
        """The arguments of a `FileClient` for the same files, with its backend as ``type``; a new dict."""
        return {"type": self._backend, **self._options}

    def read(self, path: str, role: str) -> np.ndarray:
        """An image ``(H, W, 3)``, BGR, in the type and range of its file: uint8, uint16 or float32.

        From decoded storage it is a read-only view of the mapped file, of which only the parts used are read.

        Args:
            path: Its path; in an LMDB its key, after its database where there are several.
            role: ``lq`` or ``gt``.

        Raises:
            OSError: If the file does not exist or cannot be read.
            KeyError: If the LMDB or the decoded storage has no such image.
            ValueError: If it is not a whole image, its JPEG data are damaged, or its pixels are not those of an image.
                All messages name the file.
        """
        try:
            if self._backend == "memmap":
                key, name = self._locate(path, role)
                img = self._decoded[key].image(name)
                if img.dtype.kind == "f" and path not in self._checked[role]:  # to compare them reads the whole image
                    require_pixels(img)
                    self._checked[role].add(path)
                return img
            content = self._client.get(*reversed(self._locate(path, role)))
            if not (self._strict and is_jpeg(content)) or path in self._checked[role]:
                return decode(content, strict=False)
            img = decode(content)
            self._checked[role].add(path)
            return img
        except ValueError as error:
            is_key = self._backend == "lmdb" and len(self._folders[role]) == 1
            where = os.path.join(self._folders[role][0], path) if is_key else path
            raise ValueError(f"cannot read the {role} image {where}: {error}") from None

    def size(self, path: str, role: str) -> tuple[int, int] | None:
        """Height and width of an image, where no pixel need be read to know them: of decoded storage, and of PNG and
        JPEG files (as stored, before they are turned by their EXIF orientation); None for others.

        Args:
            path: As for :meth:`read`.
            role: As for :meth:`read`.
        """
        if self._backend == "memmap":
            key, name = self._locate(path, role)
            return self._decoded[key].image(name).shape[:2]
        return size_in_header(path) if self._backend == "disk" else None

    def require_room_for(self, side: int, paths: Sequence[str], role: str, remedy: str) -> None:
        """Refuse images that are known to be smaller than the largest patch, which may come late in a training.

        Raises:
            ValueError: If there are any; the message counts them and names the first.
        """
        sizes = {path: self.size(path, role) for path in paths}
        small = {path: size for path, size in sizes.items() if size is not None and min(size) < side}
        if small:
            path, (height, width) = next(iter(small.items()))
            raise ValueError(
                f"{len(small)} of {len(sizes)} GT images are smaller than the largest patch of gt_sizes, "
                f"{side}×{side}; the first of them is {path}, {height}×{width} pixels (height×width). Reduce "
                f"gt_sizes, remove the images{remedy and ', ' + remedy}"
            )

    def _locate(self, path: str, role: str) -> tuple[str, str]:
        """The client of an image, and what the client calls it."""
        folders = self._folders[role]
        if self._backend == "disk" or (self._backend == "lmdb" and len(folders) == 1):
            return role, path
        if len(folders) == 1:
            return role, path.removeprefix(os.path.join(folders[0], ""))
        inside = [i for i, folder in enumerate(folders) if path.startswith(os.path.join(folder, ""))]
        nearest = max(inside, key=lambda i: len(folders[i]))
        return f"{role}_{nearest}", path.removeprefix(os.path.join(folders[nearest], ""))


def _warn_if_stale(folder: str, index: Index) -> None:
    """Warn if the image files still exist and are not those that were decoded."""
    try:
        names = image_names(index.source, recursive=True)
    except (OSError, ValueError):
        return
    if differences := index.differences(index.source, names):
        logging.getLogger("basicsr").warning(
            f"{folder} is not what {index.source} holds now: {', '.join(differences)}. The stored images are used; to "
            "use the current ones, remove it and create it again with scripts/data_preparation/create_memmap.py."
        )


def decode(content: bytes, strict: bool = True) -> np.ndarray:
    """Decode an image file as datasets see it: ``(H, W, 3)``, BGR, turned by its EXIF orientation, alpha left out.

    Divided by the largest value of its type it is what ``imfrombytes(content, float32=True)`` gives.

    Args:
        content: The bytes of the file.
        strict: Whether to refuse a JPEG file with damaged data, which takes half as long again.

    Raises:
        ValueError: If the bytes are not a complete image, or its pixels are not those of an image.
    """
    img = decode_image(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    require_pixels(img)
    if strict:
        require_sound_jpeg(content)
    return img
