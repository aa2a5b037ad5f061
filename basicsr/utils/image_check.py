"""What is refused although it can be decoded: pixels that are not those of an image, and damaged JPEG data.

Training, validation, ``basicsr upscale`` and the preparation of data share these rules. An image has pixels of one of
three kinds: uint8 in [0, 255], uint16 in [0, 65535], or floats in [0, 1].
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import numpy as np

INTEGERS = (np.dtype(np.uint8), np.dtype(np.uint16))
# Floats may lie outside [0, 1] by a step of 8 bits, as resizing and rounding leave them.
TOLERANCE = 1 / 255
_JPEG_START = b"\xff\xd8\xff"


def require_pixels(img: np.ndarray) -> None:
    """Refuse pixels whose meaning is not known, or that are not numbers.

    Args:
        img: A decoded image, in the type of its file.

    Raises:
        ValueError: If the type is another than uint8, uint16 or float, or a float is not finite or not in [0, 1].
    """
    if img.dtype in INTEGERS:
        return
    low, high = (img.min(), img.max()) if img.size else (0, 0)
    if img.dtype.kind != "f":
        raise ValueError(
            f"its pixels are of type {img.dtype}, from {low} to {high}; an image has pixels of type uint8, uint16, or "
            "float in [0, 1]"
        )
    if not (np.isfinite(low) and np.isfinite(high)):
        count = img.size - np.count_nonzero(np.isfinite(img))
        raise ValueError(f"{count} of its {img.size} values ({img.dtype}) are NaN or infinite")
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise ValueError(
            f"its pixels, of type {img.dtype}, reach from {low:.6g} to {high:.6g}, and floats must be in [0, 1]; "
            "divide them by their white, and clip them"
        )


def is_jpeg(content: bytes) -> bool:
    """Whether bytes start like a JPEG file."""
    return content.startswith(_JPEG_START)


def require_sound_jpeg(content: bytes) -> None:
    """Refuse a JPEG file of which the decoder complains.

    OpenCV passes over what libjpeg warns of, and fills the rest of the picture with garbage. Here the file is decoded
    once more, strictly, at an eighth of its size, which takes about half of the time that reading it takes. JPEG has no
    checksums: damage that leaves a valid stream of codes is not found by any decoder.

    Args:
        content: The file; one of another format passes.

    Raises:
        ValueError: If its data are damaged.
    """
    if not is_jpeg(content) or (simplejpeg := _strict_decoder()) is None:
        return
    try:
        simplejpeg.decode_jpeg(content, colorspace="GRAY", min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        if str(error).startswith("tj"):  # what this decoder does not take, such as an odd subsampling; not damage
            return
        raise ValueError(
            f"its JPEG data are damaged (the decoder says: {error}); copy the file again, or, if the picture is good, "
            "save it again with another program"
        ) from None


@cache
def _strict_decoder() -> Any:
    """The package simplejpeg, or None with a warning where it cannot be imported."""
    try:
        import simplejpeg
    except ImportError as error:
        logging.getLogger("basicsr").warning(
            f"JPEG files are not checked for damaged data, since simplejpeg cannot be imported ({error}): "
            "pip install simplejpeg"
        )
        return None
    return simplejpeg
