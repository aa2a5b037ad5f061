"""Types of numbers that several sections use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ..finding import Finding


def whole(value: Any) -> Any:
    """``5e3`` is a whole number, as BasicSR's files write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Iterations = Annotated[int, Field(ge=1), BeforeValidator(whole)]
"""A positive number of iterations; ``!!float 5e3`` is one."""

FromZero = Annotated[int, Field(ge=0), BeforeValidator(whole)]
"""A number of iterations that may be 0."""

Positive = Annotated[int, Field(ge=1)]
"""A count or a size."""

NonNegative = Annotated[int, Field(ge=0)]
"""A count that may be 0."""


def normalisation_rules(values: Mapping[Any, Any]) -> Iterable[Finding]:
    """``mean`` and ``std`` of a section belong together."""
    if (values.get("mean") is None) != (values.get("std") is None):
        yield Finding((), "mean and std are given together or not at all")
