"""The common part of terms that compare pairs of features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from typing_extensions import NotRequired, TypedDict

from .adapters import AdapterKind, build_adapter, channels, same_layout
from .context import KDContext
from .term import KDTerm

if TYPE_CHECKING:
    from basicsr.models.kd_model import KDModel


class FeaturePair(TypedDict):
    """Modules of the student and of a teacher whose outputs meet; globs are paired in order.

    Attributes:
        student: Path or glob in ``network_g``.
        teacher: Path or glob in the teacher.
        network: The teacher's suffix; ``t`` by default.
    """

    student: str
    teacher: str
    network: NotRequired[str]


class FeatureTerm(KDTerm):
    """A term over pairs of features, each brought to the teacher's width by an adapter.

    Args:
        pairs: Which modules meet.
        adapter: See :func:`basicsr.distill.adapters.build_adapter`.
    """

    def __init__(self, pairs: list[FeaturePair], adapter: AdapterKind = "auto") -> None:
        super().__init__()
        if not pairs:
            raise ValueError("pairs is empty; give at least one {student: …, teacher: …}")
        self.pairs = pairs
        self.adapter = adapter
        self.adapters = nn.ModuleList()
        self._matched: list[tuple[str, str, str]] = []
        self._rows: list[dict[str, Any]] = []

    def setup(self, model: KDModel) -> None:
        """Tap the modules, pair them, and build an adapter for each pair.

        Raises:
            ValueError: If a path matches nothing, or the two sides of a pair do not fit.
        """
        for pair in self.pairs:
            network = pair.get("network", "t")
            student = model.tap("g", pair["student"])
            teacher = model.tap(network, pair["teacher"])
            if len(student) != len(teacher):
                raise ValueError(
                    f"'{pair['student']}' matches {len(student)} modules of network_g ({', '.join(student)}) but "
                    f"'{pair['teacher']}' matches {len(teacher)} of network_{network} ({', '.join(teacher)})"
                )
            for (own, own_shape), (other, other_shape) in zip(student.items(), teacher.items()):
                self._check_positions(own, own_shape, f"network_{network}", other, other_shape)
                adapter = build_adapter(self.adapter, own_shape, channels(other_shape)).to(model.device)
                self.adapters.append(adapter)
                self._matched.append((own, network, other))
                self._rows.append(
                    {
                        "student": own,
                        "student_shape": own_shape,
                        "network": network,
                        "module": other,
                        "module_shape": other_shape,
                        "adapter": "–" if isinstance(adapter, nn.Identity) else type(adapter).__name__,
                    }
                )

    @staticmethod
    def _check_positions(
        own: str, own_shape: tuple[int, ...], network: str, other: str, other_shape: tuple[int, ...]
    ) -> None:
        def positions(shape: tuple[int, ...]) -> tuple[int, ...]:
            if len(shape) == 4:
                return shape[2:] if len(own_shape) == len(other_shape) else (shape[2] * shape[3],)
            return shape[1:-1]

        for path, shape in ((f"network_g '{own}'", own_shape), (f"{network} '{other}'", other_shape)):
            if len(shape) not in (3, 4):
                raise ValueError(f"{path} gives {shape}; expected a map (B, C, H, W) or tokens (B, L, C)")
        if positions(own_shape) != positions(other_shape):
            raise ValueError(
                f"the features of network_g '{own}' {own_shape} and of {network} '{other}' {other_shape} differ in "
                f"height and width; choose modules at the same resolution"
            )

    def prepare(self, ctx: KDContext) -> None:
        for _, network, _ in self._matched:
            ctx.want(network)

    def matched_features(self, ctx: KDContext) -> Iterator[tuple[Tensor, Tensor]]:
        """The pairs of this batch, (adapted student feature, teacher feature), of the same shape."""
        for adapter, (own, network, other) in zip(self.adapters, self._matched):
            yield same_layout(adapter(ctx.run("g").features[own]), ctx.run(network).features[other])

    def wiring(self) -> list[dict[str, Any]]:
        return self._rows
