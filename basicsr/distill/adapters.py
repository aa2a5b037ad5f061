"""Adapters: small trained modules that bring a student's feature to the width of a teacher's."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

AdapterKind = Literal["auto", "conv", "linear", "none", "raw"]


def build_adapter(kind: AdapterKind, is_map: bool, own: int, width: int, same_width: bool = True) -> nn.Module:
    """An adapter for a student's feature.

    Args:
        kind: ``conv`` is a 1×1 convolution of maps, ``linear`` a linear map of tokens, ``none`` and ``raw`` nothing;
            ``auto`` is nothing where the widths agree or need not agree, else what fits the feature's layout.
        is_map: Whether the feature is a map ``(B, C, H, W)`` or tokens ``(B, L, C)``.
        own: The student's number of channels.
        width: The teacher's.
        same_width: Whether the term compares channel by channel, so that the widths must agree.

    Raises:
        ValueError: If the kind does not fit the layout, or ``none`` meets different widths that must agree.
    """
    if kind == "auto":
        kind = "none" if own == width or not same_width else "conv" if is_map else "linear"
    if kind == "raw":
        return nn.Identity()
    if kind == "none":
        if own != width and same_width:
            raise ValueError(f"adapter: none, but the student's feature has {own} channels and the teacher's {width}")
        return nn.Identity()
    if (kind == "conv") != is_map:
        layout = "a map (B, C, H, W)" if is_map else "tokens (B, L, C)"
        raise ValueError(f"adapter: {kind} does not fit {layout}; use {'conv' if is_map else 'linear'} or auto")
    return nn.Conv2d(own, width, 1) if kind == "conv" else nn.Linear(own, width)


def adapt(adapter: nn.Module, feature: Tensor) -> Tensor:
    """Apply an adapter; a linear one also to tokens that were reshaped to a map for resizing."""
    if isinstance(adapter, nn.Linear) and feature.dim() == 4:
        return adapter(feature.movedim(1, -1)).movedim(-1, 1)
    return adapter(feature)
