"""Degradations that a dataset applies to its images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ..finding import Finding, Setting
from ..registered_section import Registered
from ..words import shown


class DegradationOptions(Registered):
    """A degradation: ``type`` and the function's parameters, each a fixed value or a range [low, high]."""

    kind = "degradation"
    given: ClassVar[tuple[str, ...]] = ("image", "rng")

    @classmethod
    def rules(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        for key, value in values.items():
            numbers = isinstance(value, list) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value)
            if numbers and value[0] > value[1]:
                yield Finding((key,), f"a range goes from low to high, such as {value[::-1]}, not {shown(value)}")
