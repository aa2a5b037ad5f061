"""Adapters: small trained modules that bring a student's feature to the width of a teacher's."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

AdapterKind = Literal["auto", "conv", "linear", "none"]


def channels(shape: tuple[int, ...]) -> int:
    """The width of a feature map ``(B, C, H, W)`` or of tokens ``(B, L, C)``."""
    return shape[1] if len(shape) == 4 else shape[-1]


def build_adapter(kind: AdapterKind, student_shape: tuple[int, ...], width: int) -> nn.Module:
    """An adapter for a student's feature.

    Args:
        kind: ``conv`` is a 1×1 convolution, ``linear`` a linear map of tokens, ``none`` nothing; ``auto`` is nothing
            where the widths agree, else what fits the feature's layout.
        student_shape: ``(B, C, H, W)`` or ``(B, L, C)``.
        width: The teacher's number of channels.

    Raises:
        ValueError: If the kind does not fit the layout, or ``none`` meets different widths.
    """
    own = channels(student_shape)
    is_map = len(student_shape) == 4
    if kind == "auto":
        kind = "none" if own == width else "conv" if is_map else "linear"
    if kind == "none":
        if own != width:
            raise ValueError(f"adapter: none, but the student's feature has {own} channels and the teacher's {width}")
        return nn.Identity()
    if (kind == "conv") != is_map:
        layout = "a map (B, C, H, W)" if is_map else "tokens (B, L, C)"
        raise ValueError(f"adapter: {kind} does not fit {layout}; use {'conv' if is_map else 'linear'} or auto")
    return nn.Conv2d(own, width, 1) if kind == "conv" else nn.Linear(own, width)


def same_layout(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two features in one layout: where one is a map and the other tokens, the map is flattened to ``(B, H·W, C)``."""
    if student.dim() == teacher.dim():
        return student, teacher
    return _tokens(student), _tokens(teacher)


def _tokens(feature: Tensor) -> Tensor:
    return feature.flatten(2).transpose(1, 2) if feature.dim() == 4 else feature
