"""Geometric self-ensemble, "+" in tables of results (Lim et al., EDSR, CVPRW 2017, arXiv 1707.02921, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


def run_self_ensemble(net: Callable[[Tensor], Tensor], lq: Tensor) -> Tensor:
    """The mean of ``net``'s outputs for the eight flips and rotations of the input, each transformed back.

    Args:
        net: Maps ``(B, C, h, w)`` to ``(B, C', s·h, s·w)``, also with height and width exchanged.
        lq: ``(B, C, h, w)``.
    """
    total = None
    for transposed in (False, True):
        for axes in FLIPS:
            variant = lq.flip(axes)
            output = net(variant.mT.contiguous() if transposed else variant)
            output = (output.mT if transposed else output).flip(axes)
            total = output if total is None else total + output
    return total / 8
