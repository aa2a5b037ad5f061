"""Where a dataset's images come from. Datasets ask for decoded images and know nothing of files."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from basicsr.utils.file_client import FileClient
from basicsr.utils.img_util import imfrombytes


class ImageStorage:
    """Reads images from files, or from LMDB databases.

    Args:
        io_backend: ``{type: disk}`` (also when None) or ``{type: lmdb}``, with the backend's options.
        folders: The role of the images (``lq``, ``gt``) → folder or database.

    Raises:
        ValueError: If there is no such backend, or it has no such option.
    """

    def __init__(self, io_backend: dict[str, Any] | None, folders: dict[str, str]) -> None:
        options = dict(io_backend or {})
        self._backend = options.pop("type", "disk")
        self._folders = folders
        if self._backend == "lmdb":
            options |= {"db_paths": list(folders.values()), "client_keys": list(folders)}
        try:
            self._client = FileClient(self._backend, **options)
        except TypeError as error:
            raise ValueError(
                f"io_backend of type '{self._backend}' cannot have the options {options}: {error}"
            ) from None

    def read(self, path: str, role: str) -> np.ndarray:
        """An image ``(H, W, 3)``, BGR, float32 in [0, 1].

        Args:
            path: Its path; in an LMDB its key.
            role: ``lq`` or ``gt``.

        Raises:
            OSError: If the file does not exist or cannot be read.
            KeyError: If the LMDB has no such key.
            ValueError: If it is not a whole image. All messages name the file.
        """
        content = self._client.get(path, role)
        try:
            return imfrombytes(content, float32=True)
        except ValueError as error:
            where = os.path.join(self._folders[role], path) if self._backend == "lmdb" else path
            raise ValueError(f"cannot read the {role} image {where}: {error}") from None

    def file_name(self, path: str) -> str:
        """The path with an extension: an LMDB's key has none, and a dot in it must not be taken for one."""
        return f"{path}.png" if self._backend == "lmdb" else path
