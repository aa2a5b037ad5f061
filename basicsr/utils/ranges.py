"""Ranges of numbers in the signatures of networks, losses and terms, which options are checked against.

Counts and widths are :class:`pydantic.PositiveInt`, weights :class:`pydantic.NonNegativeFloat`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Probability = Annotated[float, Field(ge=0, le=1)]
"""A number in [0, 1]."""
