"""The base class of terms that compare pairs of features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from annotated_types import MinLen
from torch import Tensor, nn

from .adapters import AdapterKind, build_adapter
from .context import KDContext
from .layout import Layout
from .matching import Match, Resize, describe_layouts
from .networks import Networks
from .pairs import Feature, PairOption, PairPattern, SideLayouts
from .term import KDTerm


class FeatureTerm(KDTerm):
    """A term over pairs of features, which it brings to one layout, size and width.

    Args:
        pairs: The modules that are compared; see :class:`~basicsr.distill.pairs.FeaturePair`.
        adapter: See :func:`~basicsr.distill.adapters.build_adapter`. With ``raw``, the term gets each feature in its
            canonical form, with its own width and size, and reduces it itself.
        resize: The side that is interpolated if the sizes differ; see :class:`~basicsr.distill.matching.Match`.
        layout: How features are laid out; see :func:`~basicsr.distill.layout.find_layout`.

    Attributes:
        same_width: Whether the term compares channel by channel. If not, ``auto`` builds no adapter.

    Raises:
        ValueError: If the options contradict each other.
    """

    same_width: bool = True

    def __init__(
        self,
        pairs: Annotated[list[PairOption], MinLen(1)],
        adapter: AdapterKind = "auto",
        resize: Resize = "none",
        layout: Layout | SideLayouts = "auto",
    ) -> None:
        super().__init__()
        if adapter == "raw" and resize != "none":
            raise ValueError(f"resize: {resize} has no effect on features that adapter: raw returns unchanged")
        self.adapter = adapter
        self.resize = resize
        self.adapters = nn.ModuleList()
        self._patterns = [PairPattern.read(pair, layout) for pair in pairs]
        self._pairs: list[tuple[Feature, Feature, Match | None]] = []

    def taps(self) -> Iterator[tuple[str, str]]:
        """The modules that the term reads: (network, path or glob)."""
        for pattern in self._patterns:
            yield from pattern.taps()

    def setup(self, networks: Networks) -> None:
        """Pair the modules and build an adapter for each pair.

        Raises:
            ValueError: If a path matches nothing, or the two sides of a pair do not fit.
        """
        for own, other in (pair for pattern in self._patterns for pair in pattern.match(networks)):
            match = None if self.adapter == "raw" else Match(own.layout, other.layout, self.resize)
            student, teacher = own.layout, other.layout
            adapter = build_adapter(self.adapter, student.is_map, student.channels, teacher.channels, self.same_width)
            self.adapters.append(adapter.to(networks.device))
            self._pairs.append((own, other, match))

    def prepare(self, ctx: KDContext) -> None:
        for network in dict.fromkeys(pattern.network for pattern in self._patterns):
            ctx.want(network)

    def matched_features(self, ctx: KDContext) -> Iterator[tuple[Tensor, Tensor]]:
        """The pairs of this batch, (student feature, teacher feature), one row for each image.

        Yields:
            Maps ``(B, C, H, W)`` or tokens ``(B, L, C)`` of one shape, the student's adapted, the teacher's without
            gradients; of one shape but for C where the term does not compare channel by channel and there is no
            adapter. With ``adapter: raw``, each in its own canonical form.
        """
        for adapter, (own, other, match) in zip(self.adapters, self._pairs):
            student, teacher = own.read(ctx), other.read(ctx).detach()
            yield match.align(student, teacher, adapter) if match else (student, teacher)

    def wiring(self) -> list[dict[str, Any]]:
        rows = []
        for adapter, (own, other, match) in zip(self.adapters, self._pairs):
            notes = [] if isinstance(adapter, nn.Identity) else [type(adapter).__name__]
            notes += match.notes() if match else ["raw", *describe_layouts(own.layout, other.layout)]
            rows.append(
                {
                    "student": own.name,
                    "student_shape": own.layout.shape,
                    "network": other.network,
                    "module": other.name,
                    "module_shape": other.layout.shape,
                    "adapter": ", ".join(notes) or "–",
                }
            )
        return rows
