"""The size of an image from the beginning of its file, without decoding it."""

from __future__ import annotations

import struct

_BYTES = 1 << 16  # a JPEG's frame header comes after its metadata, most of which fit in one segment of this size
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_NO_FRAMES = (0xC4, 0xC8, 0xCC)  # the markers C0 to CF begin a frame, but for these (ITU-T T.81, table B.1)


def size_in_header(path: str) -> tuple[int, int] | None:
    """Height and width in the header of a PNG or JPEG file, as stored, before EXIF turns the image.

    Returns:
        None of another file, and where the header is not found; whoever reads the image says what is wrong with it.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_BYTES)
        if head.startswith(_PNG) and head[12:16] == b"IHDR":
            width, height = struct.unpack(">II", head[16:24])
            return height, width
        return _size_of_jpeg(head) if head.startswith(_JPEG) else None
    except (OSError, struct.error, IndexError):
        return None


def _size_of_jpeg(head: bytes) -> tuple[int, int] | None:
    """Walk from segment to segment to the frame header: marker, length, precision, height, width."""
    place = len(_JPEG)
    while head[place] == 0xFF:
        marker = head[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES:
            return struct.unpack(">HH", head[place + 5 : place + 9])
        if marker == 0xFF:  # filling
            place += 1
            continue
        place += 2 + struct.unpack(">H", head[place + 2 : place + 4])[0]
    return None
