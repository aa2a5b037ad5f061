"""Crops, flips and rotations that keep LQ and GT aligned. They draw from Python's global ``random``."""

from __future__ import annotations

import random
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import torch

from .pair_advice import advice_on_sizes

Image = TypeVar("Image", np.ndarray, torch.Tensor)


def mod_crop(img: np.ndarray, scale: int) -> np.ndarray:
    """Cut the bottom and right so that height and width are multiples of ``scale``.

    Args:
        img: Image ``(H, W)`` or ``(H, W, C)``.
        scale: The divisor.

    Returns:
        A copy.

    Raises:
        ValueError: For another number of dimensions.
    """
    if img.ndim not in (2, 3):
        raise ValueError(f"mod_crop takes an image (H, W) or (H, W, C), not the shape {img.shape}")
    height, width = img.shape[:2]
    return img[: height - height % scale, : width - width % scale].copy()


def paired_padding(
    gt: np.ndarray, lq: np.ndarray, gt_patch_size: int, scale: int, gt_path: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Extend LQ and GT that are smaller than a patch at the bottom and right, by reflection with the edge repeated.

    So they stay aligned at any scale: a reflected GT pixel lies over the reflected LQ pixel.

    Args:
        gt: Image ``(H, W, C)``.
        lq: The same ``scale`` times smaller.
        gt_patch_size: Least height and width of GT, a multiple of ``scale``.
        scale: GT's size ÷ LQ's.
        gt_path: Names the image in messages.

    Returns:
        GT and LQ, as they were where they are large enough.

    Raises:
        ValueError: If the sizes do not fit each other.
    """
    _require_scale(gt, lq, scale, gt_path or "the image")
    return _padded(gt, gt_patch_size), _padded(lq, gt_patch_size // scale)


def _padded(img: np.ndarray, size: int) -> np.ndarray:
    bottom, right = (max(size - length, 0) for length in img.shape[:2])
    return cv2.copyMakeBorder(img, 0, bottom, 0, right, cv2.BORDER_REFLECT) if bottom or right else img


def _require_scale(gt: Image, lq: Image, scale: int, name: str) -> None:
    """Refuse a pair in which GT is not ``scale`` times as large as LQ."""
    (gt_height, gt_width), (lq_height, lq_width) = _size(gt), _size(lq)
    if (gt_height, gt_width) != (lq_height * scale, lq_width * scale):
        raise ValueError(
            f"{name}: GT is {gt_height}×{gt_width} and LQ {lq_height}×{lq_width} pixels (height×width); "
            f"at scale {scale} GT must be {lq_height * scale}×{lq_width * scale}. "
            f"{advice_on_sizes((gt_height, gt_width), (lq_height, lq_width), scale)}"
        )


def paired_random_crop(
    img_gts: Image | list[Image],
    img_lqs: Image | list[Image],
    gt_patch_size: int,
    scale: int,
    gt_path: str | None = None,
) -> tuple[Image | list[Image], Image | list[Image]]:
    """Cut the same random square out of LQ and GT.

    Args:
        img_gts: One or several GT images of one size: arrays ``(H, W, ...)`` or tensors ``(..., H, W)``.
        img_lqs: One or several LQ images ``scale`` times smaller.
        gt_patch_size: Side of the square in GT, a multiple of ``scale``.
        scale: GT's size ÷ LQ's.
        gt_path: Names the image in messages.

    Returns:
        GT and LQ patches (views), each a list if there are several.

    Raises:
        ValueError: If the sizes do not fit each other, or the patch does not fit the image.
    """
    gts = img_gts if isinstance(img_gts, list) else [img_gts]
    lqs = img_lqs if isinstance(img_lqs, list) else [img_lqs]
    (gt_height, gt_width), (lq_height, lq_width) = _size(gts[0]), _size(lqs[0])
    name = gt_path or "the image"
    if gt_patch_size % scale:
        raise ValueError(f"gt_size {gt_patch_size} is not a multiple of the scale {scale}")
    _require_scale(gts[0], lqs[0], scale, name)
    lq_patch_size = gt_patch_size // scale
    if min(lq_height, lq_width) < lq_patch_size:
        raise ValueError(
            f"{name}: GT of {gt_height}×{gt_width} pixels (height×width) is smaller than a crop of "
            f"{gt_patch_size}×{gt_patch_size}; reduce gt_size or remove the image (pad_small: true extends it)"
        )
    top = random.randint(0, lq_height - lq_patch_size)
    left = random.randint(0, lq_width - lq_patch_size)
    gts = [_crop(img, top * scale, left * scale, gt_patch_size) for img in gts]
    lqs = [_crop(img, top, left, lq_patch_size) for img in lqs]
    return _unwrap_single(gts), _unwrap_single(lqs)


def _size(img: np.ndarray | torch.Tensor) -> tuple[int, int]:
    height, width = img.shape[-2:] if torch.is_tensor(img) else img.shape[:2]
    return height, width


def _crop(img: Image, top: int, left: int, size: int) -> Image:
    rows, columns = slice(top, top + size), slice(left, left + size)
    return img[..., rows, columns] if torch.is_tensor(img) else img[rows, columns]


def _unwrap_single(items: list[Any]) -> Any:
    return items[0] if len(items) == 1 else items


class Augmentation(NamedTuple):
    """One of the eight combinations of flips and a transposition, applied in this order."""

    hflip: bool
    vflip: bool
    transpose: bool

    @classmethod
    def draw(cls, hflip: bool, rotation: bool, geometric: bool = False) -> Augmentation:
        """Draw a horizontal flip, a vertical flip and a transposition, each with probability 1/2 if it is enabled.

        Args:
            hflip: Whether to flip horizontally.
            rotation: Whether to flip vertically, and to transpose.
            geometric: Enables all three, so that the eight combinations are equally likely.
        """
        hflip, rotation = hflip or geometric, rotation or geometric
        return cls(
            hflip and random.random() < 0.5, rotation and random.random() < 0.5, rotation and random.random() < 0.5
        )

    def apply(self, img: np.ndarray) -> np.ndarray:
        """The augmented image ``(H, W)`` or ``(H, W, C)``, as a view."""
        img = img[:, ::-1] if self.hflip else img
        img = img[::-1] if self.vflip else img
        return img.swapaxes(0, 1) if self.transpose else img


def augment(
    imgs: np.ndarray | list[np.ndarray],
    hflip: bool = True,
    rotation: bool = True,
    flows: np.ndarray | list[np.ndarray] | None = None,
    return_status: bool = False,
) -> Any:
    """Flip and transpose images at random, all in the same way.

    Args:
        imgs: One or several images ``(H, W)`` or ``(H, W, C)``; they are not changed.
        hflip: Whether to flip horizontally, with probability 1/2.
        rotation: Whether to flip vertically, and to transpose, each with probability 1/2. With both options all eight
            combinations are equally likely.
        flows: One or several optical flows ``(H, W, 2)`` of (x, y) displacements, transformed likewise.
        return_status: Whether to return what was done, if there are no flows.

    Returns:
        The images, a list if there are several; with flows (images, flows); with ``return_status``
        (images, (flipped horizontally, flipped vertically, transposed)).
    """
    augmentation = Augmentation.draw(hflip, rotation)

    def turn(img: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(augmentation.apply(img))

    def turn_flow(flow: np.ndarray) -> np.ndarray:
        signs = np.array([-1 if augmentation.hflip else 1, -1 if augmentation.vflip else 1], dtype=flow.dtype)
        flow = turn(flow) * signs
        return flow[..., ::-1].copy() if augmentation.transpose else flow

    turned = _unwrap_single([turn(img) for img in (imgs if isinstance(imgs, list) else [imgs])])
    if flows is not None:
        return turned, _unwrap_single([turn_flow(flow) for flow in (flows if isinstance(flows, list) else [flows])])
    return (turned, tuple(augmentation)) if return_status else turned


def img_rotate(
    img: np.ndarray, angle: float, center: tuple[float, float] | None = None, scale: float = 1.0
) -> np.ndarray:
    """Rotate an image within its frame, bilinearly; what comes from outside is black.

    Args:
        img: Image ``(H, W)`` or ``(H, W, C)``.
        angle: Degrees, counter-clockwise.
        center: (x, y) of the fixed point; the middle, ``(W // 2, H // 2)``, when None.
        scale: Magnification.
    """
    height, width = img.shape[:2]
    matrix = cv2.getRotationMatrix2D(center or (width // 2, height // 2), angle, scale)
    return cv2.warpAffine(img, matrix, (width, height))


def normalize(img: torch.Tensor, mean: list[float] | None, std: list[float] | None) -> torch.Tensor:
    """``(img − mean) / std`` per channel.

    Args:
        img: Tensor ``(C, H, W)``.
        mean: A value per channel, or one for all; 0 when None.
        std: A value per channel, or one for all; 1 when None.

    Raises:
        ValueError: If the number of values does not fit the channels.
    """
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) not in (1, img.shape[0]):
            raise ValueError(f"{name} has {len(values)} values for an image of {img.shape[0]} channels: {values}")
    if mean is not None:
        img = img - img.new_tensor(mean)[:, None, None]
    if std is not None:
        img = img / img.new_tensor(std)[:, None, None]
    return img
