"""Reads and writes image files, and converts between NumPy images and tensors.

In files and in NumPy an image is BGR, ``(H, W, C)`` or ``(H, W)``; as a tensor it is RGB, ``(C, H, W)``. Floats lie
in [0, 1], uint8 in [0, 255].
"""

from __future__ import annotations

import contextlib
import math
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from .files import read_file
from .image_check import is_jpeg, require_pixels, require_sound_jpeg

T = TypeVar("T")

_READ_FLAGS = {
    "color": cv2.IMREAD_COLOR,
    "grayscale": cv2.IMREAD_GRAYSCALE,
    "unchanged": cv2.IMREAD_UNCHANGED,
    "oriented": cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR,
}
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_GRID_GAP = 2  # black pixels around each image of a batch


def img2tensor(
    imgs: np.ndarray | list[np.ndarray], bgr2rgb: bool = True, float32: bool = True
) -> torch.Tensor | list[torch.Tensor]:
    """Turn images into tensors; values are not rescaled.

    Args:
        imgs: An image ``(H, W, C)`` or ``(H, W)``, or a list of images.
        bgr2rgb: Whether to swap the first and third channel of three-channel images.
        float32: Whether to convert to float32; otherwise the dtype is kept.

    Returns:
        A contiguous tensor ``(C, H, W)``, or a list of them.

    Raises:
        ValueError: If an image has neither two nor three dimensions.
    """
    if isinstance(imgs, list):
        return [_to_tensor(img, bgr2rgb, float32) for img in imgs]
    return _to_tensor(imgs, bgr2rgb, float32)


def _to_tensor(img: np.ndarray, bgr2rgb: bool, float32: bool) -> torch.Tensor:
    if img.ndim not in (2, 3):
        raise ValueError(f"an image must have the shape (H, W, C) or (H, W), not {img.shape}")
    planes = img[None] if img.ndim == 2 else img.transpose(2, 0, 1)
    if bgr2rgb and planes.shape[0] == 3:
        planes = planes[::-1]
    return torch.from_numpy(np.array(planes, dtype=np.float32 if float32 else None, order="C"))


def tensor2img(
    tensor: torch.Tensor | list[torch.Tensor],
    rgb2bgr: bool = True,
    out_type: type = np.uint8,
    min_max: tuple[float, float] = (0, 1),
) -> np.ndarray | list[np.ndarray]:
    """Turn tensors into images: clamp to ``min_max``, map that range to [0, 1], and for uint8 round to [0, 255].

    Args:
        tensor: A tensor ``(B, C, H, W)``, ``(C, H, W)`` or ``(H, W)``, or a list of tensors. A batch of more than one
            becomes one picture, a grid of ``floor(sqrt(B))`` columns with black gaps.
        rgb2bgr: Whether to swap the first and third channel of three-channel images.
        out_type: ``np.uint8`` or a floating type.
        min_max: The values that become black and white.

    Returns:
        An image ``(H, W, C)``, or ``(H, W)`` where there is one channel; a list of them if several were given.

    Raises:
        ValueError: For another type than tensors, another number of dimensions, or another ``out_type``.
    """
    tensors = [tensor] if torch.is_tensor(tensor) else tensor
    if not isinstance(tensors, (list, tuple)) or not all(torch.is_tensor(item) for item in tensors):
        raise ValueError(f"a tensor or a list of tensors is expected, not {type(tensor).__name__}")
    if out_type != np.uint8 and not np.issubdtype(out_type, np.floating):
        raise ValueError(f"out_type must be np.uint8 or a floating type, not {np.dtype(out_type).name}")
    imgs = [_to_img(item, rgb2bgr, out_type, min_max) for item in tensors]
    return imgs[0] if len(imgs) == 1 else imgs


def _to_img(tensor: torch.Tensor, rgb2bgr: bool, out_type: type, min_max: tuple[float, float]) -> np.ndarray:
    if tensor.dim() not in (2, 3, 4):
        raise ValueError(
            f"to become an image a tensor must be (B, C, H, W), (C, H, W) or (H, W), not {tuple(tensor.shape)}"
        )
    low, high = min_max
    values = (tensor.detach().float().clamp(low, high) - low) / (high - low)
    if out_type == np.uint8:
        # Rounded where the tensor lives, so that a quarter of the bytes leave the device.
        values = (values * 255.0).round().to(torch.uint8)
    if values.dim() == 4:
        values = values[0] if values.shape[0] == 1 else _grid(values)
    img = values.cpu().numpy()
    if img.ndim == 3:
        if rgb2bgr and img.shape[0] == 3:
            img = img[::-1]
        img = img[0] if img.shape[0] == 1 else img.transpose(1, 2, 0)
    return np.ascontiguousarray(img, dtype=out_type)


def tensor2img_fast(tensor: torch.Tensor, rgb2bgr: bool = True, min_max: tuple[float, float] = (0, 1)) -> np.ndarray:
    """Turn one tensor into a uint8 image like BasicSR's function of this name, which rounds down.

    Args:
        tensor: ``(1, C, H, W)``.
        rgb2bgr: Whether to swap the first and third channel.
        min_max: The values that become black and white.

    Returns:
        An image ``(H, W, C)``.
    """
    low, high = min_max
    values = (tensor.detach().squeeze(0).clamp(low, high) - low) / (high - low) * 255
    img = values.to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(img[..., ::-1] if rgb2bgr else img)


def _grid(batch: torch.Tensor) -> torch.Tensor:
    """Lay a batch ``(B, C, H, W)`` out as one black picture ``(C, rows·(H+2)+2, columns·(W+2)+2)``."""
    count, channels, height, width = batch.shape
    columns = math.isqrt(count)
    rows = math.ceil(count / columns)
    step_y, step_x = height + _GRID_GAP, width + _GRID_GAP
    grid = batch.new_zeros(channels, rows * step_y + _GRID_GAP, columns * step_x + _GRID_GAP)
    for index, img in enumerate(batch):
        top = index // columns * step_y + _GRID_GAP
        left = index % columns * step_x + _GRID_GAP
        grid[:, top : top + height, left : left + width] = img
    return grid


def imfrombytes(content: bytes, flag: str = "color", float32: bool = False) -> np.ndarray:
    """Decode an image file held in memory, whatever the extension of its name was.

    Of an animation (GIF, WebP, PNG) or a file of several pages the first picture is taken. But for ``unchanged``,
    alpha is dropped, keeping the colours below it, and a picture is turned upright where its EXIF data say how
    (for WebP not by OpenCV 4). CMYK and palettes become BGR.

    Args:
        content: The bytes of the file.
        flag: ``color`` (always BGR), ``grayscale`` (always one channel), ``unchanged`` (channels, alpha and depth
            as stored) or ``oriented`` (channels and depth as stored).
        float32: Whether to return float32. Integers are divided by the largest value of the depth they are stored
            in, 255 or 65535. Without it ``color`` and ``grayscale`` reduce 16-bit files to uint8.

    Returns:
        An image ``(H, W, C)``, or ``(H, W)`` where there is one channel.

    Raises:
        ValueError: If the flag is unknown or the bytes are not a complete image; with ``float32`` also for pixels that
            :func:`~basicsr.utils.image_check.require_pixels` refuses.
    """
    if flag not in _READ_FLAGS:
        raise ValueError(f"unknown flag '{flag}' for reading an image: expected one of {', '.join(_READ_FLAGS)}")
    read_flag = _READ_FLAGS[flag]
    if float32 and flag != "unchanged":
        read_flag |= cv2.IMREAD_ANYDEPTH
    img = decode_image(content, read_flag)
    if float32:
        require_pixels(img)
        return img.astype(np.float32) / np.float32(np.iinfo(img.dtype).max if img.dtype.kind in "iu" else 1)
    return img


def decode_image(content: bytes, read_flag: int) -> np.ndarray:
    """Decode an image file with OpenCV's flags, in the type it is stored in.

    Raises:
        ValueError: If the bytes are not a complete image.
    """
    img, reason = None, "they are damaged, incomplete or of an unknown format"
    try:
        if content and not _is_cut_jpeg(content):
            img = cv2.imdecode(np.frombuffer(content, np.uint8), read_flag)
    except cv2.error as error:  # such as a header that promises more pixels than OpenCV takes
        reason = error.err or str(error)
    if img is None:
        raise ValueError(f"{len(content)} bytes cannot be decoded as an image: {reason}")
    return img


def _is_cut_jpeg(content: bytes) -> bool:
    """Whether a JPEG file ends within its picture. OpenCV 4 fills up what is missing with grey, in silence.

    A thumbnail has an end mark of its own, before the picture; the picture's data hold no mark but their end.
    """
    return is_jpeg(content) and content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN)


def imread(path: str | os.PathLike[str], flag: str = "color", float32: bool = False) -> np.ndarray:
    """Read an image file, whatever characters its name has; for the arguments see ``imfrombytes``.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a complete image, its JPEG data are damaged, or its pixels are not those of an image;
            the message names it.
    """
    content = read_file(path)
    try:
        img = imfrombytes(content, flag, float32)
        require_sound_jpeg(content)
        require_pixels(img)
        return img
    except ValueError as error:
        raise ValueError(f"cannot read the image {os.fspath(path)}: {error}") from None


def imwrite(
    img: np.ndarray, file_path: str | os.PathLike[str], params: Sequence[int] | None = None, auto_mkdir: bool = True
) -> None:
    """Write an image file in the format of its extension; a complete file appears, or none.

    Args:
        img: An image ``(H, W, C)`` or ``(H, W)``, as a rule uint8.
        file_path: Where to; an existing file is replaced.
        params: OpenCV's encoder settings, as in ``[cv2.IMWRITE_PNG_COMPRESSION, 1]``.
        auto_mkdir: Whether to make the folders above the file.

    Raises:
        OSError: If the image cannot be encoded or the file cannot be written; the message names it, ``errno`` is the
            system's.
    """
    path = Path(file_path)
    try:
        encoded_ok, encoded = cv2.imencode(path.suffix, img, list(params or []))
    except cv2.error as error:
        raise OSError(f"cannot write the image {path}: {error.err}") from None
    if not encoded_ok:
        raise OSError(f"cannot write the image {path}: OpenCV cannot encode {img.shape} {img.dtype} as {path.suffix}")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if auto_mkdir:
            path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(encoded.tobytes())
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        failure = OSError(f"cannot write the image {path}: {error.strerror or error}")
        failure.errno = error.errno
        raise failure from error


def crop_border(imgs: T, crop_border: int) -> T:
    """Cut the same number of pixels off all four sides.

    Args:
        imgs: An image ``(H, W, ...)`` or a list of images.
        crop_border: How many pixels; 0 changes nothing.

    Returns:
        What was given, cropped (a view).

    Raises:
        ValueError: If it is negative, or leaves nothing of an image.
    """
    if isinstance(imgs, list):
        return [_crop(img, crop_border) for img in imgs]
    return _crop(imgs, crop_border)


def _crop(img: Any, border: int) -> Any:
    height, width = img.shape[:2]
    if border < 0 or min(height, width) <= 2 * border:
        raise ValueError(f"crop_border {border} leaves nothing of an image of {height}×{width} pixels (height×width)")
    return img[border : height - border, border : width - border]
