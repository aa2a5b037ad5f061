"""Parameters of degradations of single images: fixed values, or ranges from which each image draws."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

Rng = np.random.Generator | np.random.RandomState
"""What a degradation draws from. Only ``uniform`` and ``normal`` are used, which both kinds have."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Fractions = Fraction | tuple[Fraction, Fraction]
"""A number in [0, 1], or a range."""

Level = Annotated[float, Field(ge=0, le=255)]
Levels = Level | tuple[Level, Level]
"""A standard deviation of noise, in [0, 255], or a range."""

Quality = Annotated[int, Field(ge=1, le=100)]
Qualities = Quality | tuple[Quality, Quality]
"""A JPEG quality, or a range."""

Length = Annotated[float, Field(gt=0, le=500)]
Lengths = Length | tuple[Length, Length]
"""A length in pixels, or a range."""

Angle = Annotated[float, Field(ge=-90, le=90)]
Angles = Angle | tuple[Angle, Angle]
"""An angle in degrees from the vertical, or a range."""

Thickness = Annotated[float, Field(ge=0, le=20)]
Thicknesses = Thickness | tuple[Thickness, Thickness]
"""A scattering coefficient β of haze, where the farthest point has depth 1, or a range."""


def draw(value: Any, rng: Rng) -> float:
    """A fixed value as it is, without drawing; from a range [low, high] a uniform draw."""
    if not isinstance(value, (list, tuple)):
        return float(value)
    low, high = value
    return float(rng.uniform(low, high))


def draw_integer(value: Any, rng: Rng) -> int:
    """A fixed integer as it is, without drawing; from a range [low, high] a uniform draw, both ends included."""
    if not isinstance(value, (list, tuple)):
        return int(value)
    low, high = value
    return min(low + int(rng.uniform(0, high - low + 1)), high)
