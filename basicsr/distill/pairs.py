"""The pairs of features of student and teacher: as the options name them, and the modules that they match."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor
from typing_extensions import NotRequired, TypedDict

from .context import KDContext
from .layout import FeatureLayout, Layout, find_layout
from .networks import Networks


class SideLayouts(TypedDict, total=False):
    """The layouts of the two sides of a pair, where they differ; ``auto`` for one that is left out."""

    student: Layout
    teacher: Layout


class FeaturePair(TypedDict):
    """Modules of the student and of a teacher whose outputs are compared, paired in order.

    Attributes:
        student: Path or glob in ``network_g``, or a list of them.
        teacher: Path or glob in the teacher, or a list of them.
        network: The teacher's suffix; ``t`` by default.
        layout: The layout of both, or of each; that of the term by default.
    """

    student: str | list[str]
    teacher: str | list[str]
    network: NotRequired[str]
    layout: NotRequired[Layout | SideLayouts]


PairOption = FeaturePair | tuple[str | list[str], str | list[str]]
"""A pair in the options: a section, or a list of the student's and the teacher's modules."""


@dataclass(frozen=True)
class Feature:
    """One tapped output: its network, its name, its layout."""

    network: str
    name: str
    layout: FeatureLayout

    def read(self, ctx: KDContext) -> Tensor:
        """Its value in a step, in its canonical form: a map ``(B, C, H, W)`` or tokens ``(B, L, C)``."""
        found = ctx.run(self.network)
        return self.layout.canonical(found.features[self.name], len(found.output))


@dataclass(frozen=True)
class PairPattern:
    """A pair as the options name it, before the modules are looked up."""

    student: list[str]
    teacher: list[str]
    network: str
    student_layout: Layout
    teacher_layout: Layout

    @classmethod
    def read(cls, pair: PairOption, layout: Layout | SideLayouts) -> PairPattern:
        """Read a pair of the options.

        Args:
            pair: The pair.
            layout: Of the pairs that do not say theirs.

        Raises:
            ValueError: If a list is not of two elements, or a side names nothing.
        """
        if not isinstance(pair, dict):
            if isinstance(pair, str) or len(pair) != 2:
                raise ValueError(f"a pair is {{student: …, teacher: …}} or [student, teacher], not {pair!r}")
            pair = {"student": pair[0], "teacher": pair[1]}
        student, teacher = (_listed(pair[side]) for side in ("student", "teacher"))
        if not (student and teacher):
            raise ValueError(f"a side of the pair {pair!r} names no module")
        layout = pair.get("layout", layout)
        sides = layout if isinstance(layout, dict) else {"student": layout, "teacher": layout}
        return cls(
            student, teacher, pair.get("network", "t"), sides.get("student", "auto"), sides.get("teacher", "auto")
        )

    def taps(self) -> Iterator[tuple[str, str]]:
        """The taps that the pair needs: (network, path or glob)."""
        yield from (("g", pattern) for pattern in self.student)
        yield from ((self.network, pattern) for pattern in self.teacher)

    def match(self, networks: Networks) -> list[tuple[Feature, Feature]]:
        """Look up the modules, and pair each of the student's with the teacher's.

        Raises:
            ValueError: If a path matches nothing, the sides match different numbers of modules, or a layout does not
                fit.
        """
        own = self._find(networks, "g", self.student, self.student_layout)
        other = self._find(networks, self.network, self.teacher, self.teacher_layout)
        if len(own) != len(other):
            raise ValueError(
                f"'{', '.join(self.student)}' matches {len(own)} modules of network_g ({_names(own)}) but "
                f"'{', '.join(self.teacher)}' matches {len(other)} of network_{self.network} ({_names(other)})"
            )
        return list(zip(own, other))

    @staticmethod
    def _find(networks: Networks, network: str, patterns: list[str], layout: Layout) -> list[Feature]:
        found = []
        for pattern in patterns:
            for name, shape in networks.tap(network, pattern).items():
                label = f"network_{network} '{name}'"
                larger = partial(networks.shape_at, network, name, scale=2)
                found.append(Feature(network, name, find_layout(layout, label, shape, networks.patch_size, larger)))
        return found


def _listed(modules: str | list[str]) -> list[str]:
    return [modules] if isinstance(modules, str) else modules


def _names(features: Iterable[Feature]) -> str:
    return ", ".join(feature.name for feature in features)
