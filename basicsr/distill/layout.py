"""The layouts of features, and the two canonical ones: maps ``(B, C, H, W)`` and tokens ``(B, L, C)``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Layout = Literal["auto", "nchw", "nhwc", "tokens"]


@dataclass(frozen=True)
class FeatureLayout:
    """The layout of one module's output.

    Attributes:
        label: The module's name in messages: ``network_g 'layers.0'``.
        kind: ``nchw``, ``nhwc`` or ``tokens``; never ``auto``.
        shape: Of the output for one training patch. The first dimension is 1, or the number of windows that the module
            cuts an image into.
        patch_size: Height and width of the training patch.
    """

    label: str
    kind: Layout
    shape: tuple[int, ...]
    patch_size: tuple[int, int]

    @property
    def windowed(self) -> bool:
        """Whether an image is several rows of the feature, so that its positions are ordered by window."""
        return self.shape[0] > 1

    @property
    def is_map(self) -> bool:
        """Whether the canonical form is a map, not tokens."""
        return self.kind != "tokens" and not self.windowed

    @property
    def channels(self) -> int:
        return self.shape[1] if self.kind == "nchw" else self.shape[-1]

    @property
    def positions(self) -> tuple[int, ...]:
        """The axes of the positions of one patch; ``(windows, positions in a window)`` for windows."""
        inner = self.shape[2:] if self.kind == "nchw" else self.shape[1:-1] or (1,)
        return (self.shape[0], math.prod(inner)) if self.windowed else inner

    def canonical(self, feature: Tensor, images: int) -> Tensor:
        """Bring the module's output into its canonical form, one row for each image.

        Args:
            feature: The output for ``images`` images.
            images: B.

        Returns:
            A map ``(B, C, H, W)``, or tokens ``(B, L, C)`` in the order in which the module has them.

        Raises:
            ValueError: If an image is several rows where it was one at the start, as when the patch grows to more than
                one window: the order of positions would then be another.
        """
        if len(feature) != images and not self.windowed:
            raise ValueError(
                f"{self.label} gives {tuple(feature.shape)} for {images} images, and gave {self.shape} for one at the "
                f"start; its windows can only be compared where there are several from the start"
            )
        if self.kind == "nhwc" and self.is_map:
            return feature.movedim(-1, 1)
        if self.kind == "nchw":
            if self.is_map:
                return feature
            feature = feature.movedim(1, -1)
        return feature.reshape(images, -1, feature.shape[-1])

    def grid(self, length: int) -> tuple[int, int]:
        """Height and width of a grid of ``length`` tokens in row order, with the patch's aspect ratio.

        Raises:
            ValueError: If there are none.
        """
        height, width = self.patch_size
        rows = math.isqrt(length * height // width)
        if rows == 0 or length % rows or rows * width != length // rows * height:
            raise ValueError(
                f"the {length} tokens of {self.label} do not make a grid of the patch's aspect ratio {height}×{width}, "
                f"so that their height and width, which resize needs, are not known"
            )
        return rows, length // rows


def find_layout(
    layout: Layout,
    label: str,
    shape: tuple[int, ...],
    patch_size: tuple[int, int],
    shape_of_larger: Callable[[], tuple[int, ...]],
) -> FeatureLayout:
    """Determine the layout of a module's output.

    ``auto`` takes outputs of two and three dimensions for tokens. Of four dimensions, the two neighbouring axes that
    are equal, or have the patch's aspect ratio, are height and width. Where both orders or none would fit, a larger
    patch decides: the axis that it leaves as it is holds the channels.

    Args:
        layout: The value of the option.
        label: The module's name in messages.
        shape: Of the output for one training patch; the first dimension is the number of windows.
        patch_size: Height and width of the training patch.
        shape_of_larger: Returns the shape for a patch of twice the height and width.

    Raises:
        ValueError: If the output cannot have that layout, or ``auto`` finds the shape ambiguous.
    """
    dims = len(shape)
    if layout == "auto":
        if dims in (2, 3):
            layout = "tokens"
        elif dims == 4:
            layout = _find_order(label, shape, patch_size, shape_of_larger)
        else:
            raise ValueError(
                f"{label} gives {shape}; expected a map (B, C, H, W) or (B, H, W, C), or tokens (B, L, C). If its last "
                f"axis holds the channels, set layout: tokens"
            )
    elif dims != 4 and layout != "tokens" or dims < 2:
        raise ValueError(f"layout: {layout} does not fit {label}, which gives {shape}")
    return FeatureLayout(label, layout, shape, patch_size)


def _find_order(
    label: str,
    shape: tuple[int, ...],
    patch_size: tuple[int, int],
    shape_of_larger: Callable[[], tuple[int, ...]],
) -> Layout:
    height, width = patch_size

    def is_plane(rows: int, columns: int) -> bool:
        return rows == columns or rows * width == columns * height

    last, middle = is_plane(shape[2], shape[3]), is_plane(shape[1], shape[2])
    if last == middle:
        unknown = f"whether {label}, which gives {shape}, is (B, C, H, W) or (B, H, W, C) is ambiguous; set layout"
        try:
            larger = shape_of_larger()
        except ValueError as error:  # such as a network with a position embedding for one size
            raise ValueError(f"{unknown} ({error})") from error
        last = shape[1] == larger[1] and shape[2:] != larger[2:]
        middle = shape[3] == larger[3] and shape[1:3] != larger[1:3]
        if last == middle:
            raise ValueError(unknown)
    return "nchw" if last else "nhwc"
