"""Writes images to LMDB in BasicSR's layout.

A database is a folder ending in ``.lmdb`` with ``data.mdb``, ``lock.mdb`` and ``meta_info.txt``. A value is a PNG
file; its key is the image's name without extension. A line of meta_info.txt is
``name.png (h,w,c) <PNG compression level>``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

import cv2
import lmdb
import numpy as np

from .img_util import imread
from .parallel import parallel_map

_MAX_KEY_BYTES = 511  # LMDB's own limit
_EXIF_MARKS = (b"eXIf", b"EXIF")  # of PNG and WebP


class LmdbMaker:
    """Writes a database under another name and renames it when closed; a context manager, or call ``close()``.

    An unfinished database of an earlier, killed run is replaced.

    Args:
        lmdb_path: The folder to make; ends in ``.lmdb``.
        map_size: Size limit of the database in bytes. It costs address space only, not disk.
        batch: After how many images to commit.
        compress_level: PNG compression level noted in meta_info.txt.

    Raises:
        ValueError: If the path does not end in ``.lmdb``.
        FileExistsError: If there is something at the path.
    """

    def __init__(self, lmdb_path: str, map_size: int = 1024**4, batch: int = 5000, compress_level: int = 1) -> None:
        self._path = Path(lmdb_path)
        if self._path.suffix != ".lmdb":
            raise ValueError(f"the folder of an LMDB must end in .lmdb: {lmdb_path}")
        if self._path.exists():
            raise FileExistsError(f"{lmdb_path} exists already; remove it to create it again")
        self._aside = self._path.with_name(f".{self._path.name}.unfinished")
        self._batch = batch
        self._compress_level = compress_level
        self._keys: set[str] = set()
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir(parents=True)
        self._environment = lmdb.open(str(self._aside), map_size=map_size)
        self._transaction = self._environment.begin(write=True)
        self._meta_info = open(self._aside / "meta_info.txt", "w", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def put(self, img_byte: bytes, key: str, img_shape: Sequence[int]) -> None:
        """Add an image.

        Args:
            img_byte: A PNG file.
            key: The image's name without extension.
            img_shape: (h, w, c).

        Raises:
            ValueError: If the key is there already, or too long.
        """
        if key in self._keys:
            raise ValueError(f"two images would have the key '{key}' in {self._path}")
        encoded_key = key.encode()
        if not 0 < len(encoded_key) <= _MAX_KEY_BYTES:
            raise ValueError(f"an LMDB key has 1 to {_MAX_KEY_BYTES} bytes; '{key}' has {len(encoded_key)}")
        self._transaction.put(encoded_key, img_byte)
        height, width, channels = img_shape
        self._meta_info.write(f"{key}.png ({height},{width},{channels}) {self._compress_level}\n")
        self._keys.add(key)
        if len(self._keys) % self._batch == 0:
            self._transaction.commit()
            self._transaction = self._environment.begin(write=True)

    def close(self) -> None:
        """Complete the database and move it to its path."""
        self._transaction.commit()
        self._close_files()
        os.replace(self._aside, self._path)

    def discard(self) -> None:
        """Delete the unfinished database."""
        self._transaction.abort()
        self._close_files()
        shutil.rmtree(self._aside, ignore_errors=True)

    def _close_files(self) -> None:
        self._environment.sync(True)
        self._environment.close()
        self._meta_info.close()

    def __enter__(self) -> LmdbMaker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def make_lmdb_from_imgs(
    data_path: str,
    lmdb_path: str,
    img_path_list: Sequence[str],
    keys: Sequence[str],
    batch: int = 5000,
    compress_level: int = 1,
    multiprocessing_read: bool = False,
    n_thread: int = 40,
    map_size: int | None = None,
) -> None:
    """Make a database from image files.

    Args:
        data_path: Folder of the images.
        lmdb_path: The folder to make; ends in ``.lmdb``.
        img_path_list: Paths of the images relative to ``data_path``.
        keys: A key for each: its name without extension.
        batch: After how many images to commit.
        compress_level: PNG compression level, 0 to 9.
        multiprocessing_read: Whether several processes read and encode.
        n_thread: How many, at most the number of cores.
        map_size: Size limit of the database in bytes; ample when None.

    Raises:
        ValueError: If paths and keys differ in number, a key occurs twice, or a file is not a whole image.
        FileExistsError: If there is something at ``lmdb_path``.
    """
    if len(img_path_list) != len(keys):
        raise ValueError(f"{len(img_path_list)} images but {len(keys)} keys")
    jobs = [(os.path.join(data_path, name), key) for name, key in zip(img_path_list, keys)]
    encode = partial(_encode, compress_level=compress_level)
    limits = {} if map_size is None else {"map_size": map_size}
    failures = []
    with LmdbMaker(lmdb_path, batch=batch, compress_level=compress_level, **limits) as maker:
        for (path, _), result in parallel_map(encode, jobs, n_thread if multiprocessing_read else 1, "LMDB"):
            if isinstance(result, Exception):
                failures.append(f"{path}: {result}")
            else:
                key, content, shape = result
                maker.put(content, key, shape)
        if failures:
            raise ValueError("\n".join([f"{lmdb_path} was not made, since images cannot be read:", *failures]))


def read_img_worker(path: str, key: str, compress_level: int) -> tuple[str, bytes, tuple[int, int, int]]:
    """Read an image file, and encode it as PNG.

    Returns:
        The key, the PNG file, and the shape (h, w, c).

    Raises:
        OSError: If the file cannot be read, or not be encoded as PNG.
        ValueError: If it is not a whole image; the message names it.
    """
    img = read_source(path)
    encoded_ok, content = cv2.imencode(".png", img, [cv2.IMWRITE_PNG_COMPRESSION, compress_level])
    if not encoded_ok:
        raise OSError(f"cannot encode {path} ({img.shape} {img.dtype}) as PNG")
    height, width, channels = (*img.shape, 1)[:3]
    return key, content.tobytes(), (height, width, channels)


def _encode(job: tuple[str, str], compress_level: int) -> tuple[str, bytes, tuple[int, int, int]]:
    return read_img_worker(*job, compress_level)


def read_source(path: str) -> np.ndarray:
    """Read an image that is to be written as PNG, as :func:`read_as_stored` does.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If :func:`read_as_stored` refuses it, or its pixels are floats; the message names it.
    """
    img = read_as_stored(path)
    if img.dtype.kind == "f":
        raise ValueError(
            f"the image {path} has pixels of type {img.dtype}, which PNG files cannot hold; save it with 16 bits, or "
            "use decoded storage (scripts/data_preparation/create_memmap.py)"
        )
    return img


def read_as_stored(path: str) -> np.ndarray:
    """Read an image for a preparation step: channels and depth as stored, oriented as datasets read it.

    JPEG files become BGR. Files of other formats with EXIF data, which may rotate the image, lose their alpha.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If :func:`~basicsr.utils.img_util.imread` refuses it; the message names it.
    """
    content = Path(path).read_bytes()
    if content.startswith(b"\xff\xd8"):
        return imread(path, "color")
    return imread(path, "oriented" if any(mark in content for mark in _EXIF_MARKS) else "unchanged")
