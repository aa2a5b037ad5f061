"""Decoded storage: all images of a folder, decoded, in one file that is mapped into memory.

Nothing is decoded in training, a crop touches only its own rows, and all workers and ranks of a machine share one copy
in the system's page cache. The storage is a folder ending in ``.memmap``:

- ``pixels.bin``: the images one after the other, ``(H, W, 3)``, BGR, little-endian, each starting at a multiple of 64
  bytes;
- ``index.jsonl``: a line that describes the storage, with the checksum of the lines after it, then a line per image.

Nothing in an index is believed: whoever changes it can write its checksum, too. Types, shapes and positions are checked
before anything is mapped, since a wrong position would make other memory of the process the pixels of an image.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import zlib
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from basicsr.utils.parallel import parallel_map
from basicsr.utils.paths import stays_inside

SUFFIX = ".memmap"
PIXELS_FILE = "pixels.bin"
INDEX_FILE = "index.jsonl"
VERSION = 1
ALIGNMENT = 64  # bytes; a cache line, and a multiple of every pixel's size
DTYPES = ("uint8", "uint16", "float32")

_HOW_TO_MAKE = "scripts/data_preparation/create_memmap.py makes one from a folder of images"
_NAMED_IN_MESSAGES = 5


@dataclass(frozen=True)
class StoredImage:
    """The position of an image in the file of pixels, and its source.

    Attributes:
        name: The file's path relative to the folder, with forward slashes.
        shape: (H, W, 3).
        dtype: One of :data:`DTYPES`, as the file stores it.
        offset: Its first byte.
        source_size: Bytes of the image file.
        source_mtime_ns: Its time of modification.
        crc32: Checksum of the pixels; None while they are not stored.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: str
    offset: int
    source_size: int
    source_mtime_ns: int
    crc32: int | None = None

    @classmethod
    def parse(cls, line: bytes) -> StoredImage:
        """Read a line of an index.

        Raises:
            ValueError: If it does not describe an image.
        """
        try:
            record = json.loads(line)
            image = cls(**record | {"shape": tuple(record["shape"])})
        except (ValueError, LookupError, TypeError, RecursionError):
            raise ValueError("it does not describe an image") from None
        if not isinstance(image.name, str) or not image.name or not stays_inside(image.name):
            raise ValueError(f"{image.name!r} is not the name of a file below the folder")
        if image.dtype not in DTYPES:
            raise ValueError(f"{image.name} has pixels of type {image.dtype!r}, not {', '.join(DTYPES)}")
        if len(image.shape) != 3 or not all(_is_count(n, 1) for n in image.shape) or image.shape[2] != 3:
            raise ValueError(f"{image.name} has the shape {image.shape}, not (height, width, 3)")
        numbers = [image.offset, image.source_size] + ([] if image.crc32 is None else [image.crc32])
        if not all(_is_count(number) for number in numbers) or type(image.source_mtime_ns) is not int:
            raise ValueError(f"offset, source_size, source_mtime_ns or crc32 of {image.name} is not a whole number")
        return image

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def end(self) -> int:
        """The byte after its last."""
        return self.offset + self.nbytes


def next_offset(end: int) -> int:
    """Where the next image starts, after one that ends at ``end``."""
    return -(-end // ALIGNMENT) * ALIGNMENT


def _is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and value >= least


@dataclass(frozen=True)
class Index:
    """The content of an index file: the folder the images come from, and the images in the order of their names."""

    source: str
    images: list[StoredImage]

    @classmethod
    def read(cls, path: Path) -> Index:
        """Read an index file.

        Raises:
            ValueError: If it is damaged, of another version, or describes images that do not lie one after the other.
        """
        head_line, _, body = path.read_bytes().partition(b"\n")
        try:
            head = json.loads(head_line)
            version, sha256, source = head["version"], head["sha256"], head["source"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise ValueError(f"{path} is damaged: its first line cannot be read; create {path.parent} again") from None
        if version != VERSION:
            raise ValueError(
                f"{path.parent} has version {version} of the format, and this release reads version {VERSION}; "
                "create it again with scripts/data_preparation/create_memmap.py"
            )
        if hashlib.sha256(body).hexdigest() != sha256:
            raise ValueError(f"{path} is damaged: its checksum is wrong; create {path.parent} again")
        images: list[StoredImage] = []
        names: set[str] = set()
        try:
            for line in body.splitlines():
                image = StoredImage.parse(line)
                expected = next_offset(images[-1].end) if images else 0
                if image.offset != expected:
                    raise ValueError(f"{image.name} is said to start at byte {image.offset}, and starts at {expected}")
                if image.name in names:
                    raise ValueError(f"{image.name} is in it twice")
                names.add(image.name)
                images.append(image)
            if not images or not isinstance(source, str):
                raise ValueError("it describes no images" if not images else "its source is not a folder's name")
        except ValueError as error:
            raise ValueError(f"{path} cannot be used: {error}; create {path.parent} again") from None
        return cls(source, images)

    @property
    def nbytes(self) -> int:
        """Size of the file of pixels."""
        return self.images[-1].end

    def write(self, path: Path) -> None:
        body = "".join(json.dumps(asdict(image)) + "\n" for image in self.images).encode()
        head = {"version": VERSION, "source": self.source, "sha256": hashlib.sha256(body).hexdigest()}
        with open(path, "wb") as file:
            file.write(json.dumps(head).encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())

    def differences(self, source: str, names: list[str]) -> list[str]:
        """How image files differ from what was stored, in words.

        Args:
            source: A folder of image files.
            names: Its images.
        """
        present, stored = set(names), {image.name for image in self.images}
        changed = [
            image.name
            for image in self.images
            if image.name in present and (image.source_size, image.source_mtime_ns) != stat_of(source, image.name)
        ]
        kinds = {"changed": changed, "new": sorted(present - stored), "gone": sorted(stored - present)}
        return [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]


def stat_of(folder: str, name: str) -> tuple[int, int]:
    """Size and time of modification of an image file."""
    stat = os.stat(os.path.join(folder, name))
    return stat.st_size, stat.st_mtime_ns


def is_memmap(folder: str) -> bool:
    """Whether a folder is, by its name, decoded storage."""
    return os.path.normpath(folder).endswith(SUFFIX)


def read_index(folder: str) -> Index:
    """The index of a storage, after checking that both files are whole. The pixels are not read.

    Raises:
        FileNotFoundError: If the folder is not there, or not decoded storage.
        ValueError: If its name does not end in ``.memmap``, it was made by another version, or it is damaged.
    """
    if not is_memmap(folder):
        raise ValueError(
            f"the folder of decoded images ends in {SUFFIX}, and {folder} does not; for image files use type: disk"
        )
    path = Path(folder, INDEX_FILE)
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no decoded images: it has no {INDEX_FILE}; {_HOW_TO_MAKE}")
    index = Index.read(path)
    pixels = Path(folder, PIXELS_FILE)
    size = pixels.stat().st_size if pixels.is_file() else 0
    if size != index.nbytes:
        raise ValueError(
            f"{pixels} has {size} bytes and should have {index.nbytes}: it is incomplete or was replaced; "
            f"create {folder} again"
        )
    return index


def verify_pixels(folder: str, index: Index, num_workers: int = 1) -> list[str]:
    """Compare the pixels with their checksums, which reads the whole file.

    Returns:
        The names of the images that are damaged.
    """
    check = partial(checksum, path=os.path.join(folder, PIXELS_FILE))
    results = parallel_map(check, index.images, num_workers, "checksums")
    return [image.name for image, result in results if result != image.crc32]


def checksum(image: StoredImage, path: str) -> int:
    """The checksum of an image's bytes in a file of pixels."""
    with open(path, "rb") as file:
        file.seek(image.offset)
        return zlib.crc32(file.read(image.nbytes))


class MemmapImages:
    """The images of a decoded storage, read-only.

    The index is read at once. The pixels are mapped on first use, in each process that was not forked from one that has
    mapped them.

    Args:
        folder: The storage, a folder ending in ``.memmap``.
        verify: Whether to compare all pixels with their checksums first.

    Raises:
        FileNotFoundError: If there is no such storage.
        ValueError: If it is damaged, or of another version.

    Attributes:
        index: What is stored.
    """

    def __init__(self, folder: str, verify: bool = False) -> None:
        self._folder = folder
        self.index = read_index(folder)
        self._places = {
            image.name: (image.shape, np.dtype(image.dtype).newbyteorder("<"), image.offset)
            for image in self.index.images
        }
        self._pixels: mmap.mmap | None = None
        if verify and (damaged := verify_pixels(folder, self.index)):
            raise ValueError(f"{folder} is damaged: {len(damaged)} images ({_some(damaged)}); create it again")

    def image(self, name: str) -> np.ndarray:
        """An image ``(H, W, 3)``, BGR, in the depth of its file: a view of the mapped file, of which nothing is read.

        Raises:
            KeyError: If there is no image of that name.
            OSError: If the file of pixels has become shorter since it was mapped. Reading beyond its end would end the
                process by SIGBUS; a file that is cut while a view is read still does.
        """
        if name not in self._places:
            raise KeyError(f"{self._folder} has no image '{name}'")
        if self._pixels is None:
            with open(os.path.join(self._folder, PIXELS_FILE), "rb") as file:
                self._pixels = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        size = self._pixels.size()  # of the file as it is now
        if size < self.index.nbytes:
            raise OSError(
                f"{os.path.join(self._folder, PIXELS_FILE)} has {size} bytes and had {self.index.nbytes} when it was "
                f"opened: it was cut short while it was in use; create {self._folder} again"
            )
        shape, dtype, offset = self._places[name]
        return np.ndarray(shape, dtype, self._pixels, offset)

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is spawned maps the file itself.
        return self.__dict__ | {"_pixels": None}


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_IN_MESSAGES
    return ", ".join(names[:_NAMED_IN_MESSAGES]) + (f" and {more} more" if more > 0 else "")
