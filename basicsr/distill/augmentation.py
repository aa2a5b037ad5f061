"""Invertible augmentations of images."""

from __future__ import annotations

import torch
from torch import Tensor


def _invert(x: Tensor) -> Tensor:
    return 1 - x


def _flip_rows(x: Tensor) -> Tensor:
    return x.flip(-2)


def _flip_columns(x: Tensor) -> Tensor:
    return x.flip(-1)


def _transpose(x: Tensor) -> Tensor:
    return x.transpose(-2, -1)


OPERATIONS = (_invert, _flip_rows, _flip_columns, _transpose)  # each is its own inverse


class InvertibleAugmentation:
    """For each image a random subset of: invert, flip vertically, flip horizontally, transpose.

    Args:
        chosen: ``(4, B)`` bool, in the order of :data:`OPERATIONS`.
    """

    def __init__(self, chosen: Tensor) -> None:
        self.chosen = chosen

    @classmethod
    def draw(cls, batch: int, probability: float, device: torch.device) -> InvertibleAugmentation:
        """Choose each operation for each image with the given probability."""
        return cls((torch.rand(len(OPERATIONS), batch) < probability).to(device))

    def apply(self, images: Tensor) -> Tensor:
        """Augment square images ``(B, C, H, H)`` in [0, 1]."""
        return self._run(images, zip(OPERATIONS, self.chosen))

    def undo(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`apply`: the inverse operations in reverse order; gradients pass."""
        return self._run(images, zip(OPERATIONS[::-1], self.chosen.flip(0)))

    @staticmethod
    def _run(images: Tensor, steps: zip) -> Tensor:
        if images.shape[-2] != images.shape[-1]:
            raise ValueError(f"patches are transposed, so they must be square; they are {tuple(images.shape[-2:])}")
        for operation, chosen in steps:
            images = torch.where(chosen.view(-1, 1, 1, 1), operation(images), images)
        return images
