"""The input sizes that a network accepts, as the network declares them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from basicsr.utils.installation import require_own_files

require_own_files()  # here, since PyPI's basicsr, installed over ours, still imports our networks, and they import this


@dataclass(frozen=True)
class SizeRequirement:
    """The input sizes that a network accepts.

    A network declares it in its attribute ``size_requirement``. A network without one accepts every size. Validation
    and ``basicsr upscale`` pad images, and choose tiles, accordingly.

    Attributes:
        multiple_of: Both sides are multiples of it, in pixels. A network that pads internally declares it, too,
            if its computation has such a grid, so that tiles start on the grid.
        minimum: Both sides have at least this many pixels.
        square: Both sides are equal.

    Raises:
        ValueError: If a number is below 1.
    """

    multiple_of: int = 1
    minimum: int = 1
    square: bool = False

    def __post_init__(self) -> None:
        if self.multiple_of < 1 or self.minimum < 1:
            raise ValueError(f"multiple_of and minimum must be at least 1, not {self.multiple_of} and {self.minimum}")

    def round_up(self, size: int) -> int:
        """The smallest accepted side that is at least ``size``."""
        return math.ceil(max(size, self.minimum) / self.multiple_of) * self.multiple_of

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The smallest accepted size that an image of ``height × width`` fits into."""
        if self.square:
            height = width = max(height, width)
        return self.round_up(height), self.round_up(width)


def size_requirement_of(net: nn.Module) -> SizeRequirement:
    """What a network declares; no requirement where it declares nothing.

    Raises:
        ValueError: If its ``size_requirement`` is not a :class:`SizeRequirement`.
    """
    requirement = getattr(net, "size_requirement", SizeRequirement())
    if not isinstance(requirement, SizeRequirement):
        raise ValueError(
            f"{type(net).__name__}.size_requirement must be a basicsr.archs.size_requirement.SizeRequirement, "
            f"not {requirement!r}"
        )
    return requirement
