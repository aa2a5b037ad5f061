"""Reduces the checkpoint of a whole VQGAN to the parts for distillation: encoder, ``quant_conv`` and codebook."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from basicsr.archs.vqgan_arch import ENCODER_KEYS
from basicsr.utils.atomic_file import atomic_save, temporary_name
from basicsr.utils.weights import extract_state_dict, load_with_stand_ins, strip_prefixes


@dataclass(frozen=True)
class StripReport:
    """What :func:`strip_checkpoint` did.

    Attributes:
        kept: Parameters kept, by the part of the VQGAN.
        dropped: Parameters dropped, likewise, without optimiser states.
        bytes_before: Size of the source.
        bytes_after: Size of the result.
    """

    kept: dict[str, int]
    dropped: dict[str, int]
    bytes_before: int
    bytes_after: int

    def __str__(self) -> str:
        def parts(counts: dict[str, int]) -> str:
            return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "nothing"

        return (
            f"kept: {parts(self.kept)} parameters\ndropped: {parts(self.dropped)} parameters\n"
            f"{self.bytes_before / 1e6:,.1f} MB → {self.bytes_after / 1e6:,.1f} MB"
        )


def strip_checkpoint(source: str | os.PathLike, target: str | os.PathLike) -> StripReport:
    """Write a VQGAN's encoder, ``quant_conv`` and codebook to a file of their own.

    Args:
        source: A checkpoint of taming-transformers' (Lightning's ``.ckpt``) or of our VQGANAutoEncoder, of which the
            averaged weights are taken where there are any.
        target: A ``.safetensors`` or ``.pth`` file; the latter holds the weights under the key ``state_dict``.

    Raises:
        FileNotFoundError: If there is no such source.
        ValueError: If it is damaged or holds no VQGAN with a codebook, or the target is of another kind.
    """
    source, target = Path(source), Path(target)
    if target.suffix not in (".pth", ".safetensors"):
        raise ValueError(f"{target}: the result is written as .pth or .safetensors, not as '{target.suffix}'")
    found = extract_state_dict(load_with_stand_ins(source), None, str(source))
    state = {strip_prefixes(key): value for key, value in found.items()}
    absent = [part for part in (*ENCODER_KEYS[:2], "quantize.embedding.") if not any(k.startswith(part) for k in state)]
    if absent:
        raise ValueError(f"{source} holds no VQGAN with a codebook: it has no key that begins with {', '.join(absent)}")
    # copies, because a tensor that is a part of a larger one would be written with all of it
    kept = {key: value.clone() for key, value in state.items() if key.startswith(ENCODER_KEYS)}
    dropped = {key: value for key, value in state.items() if key not in kept}
    if target.suffix == ".safetensors":
        _save_safetensors(kept, target)
    else:
        atomic_save({"state_dict": kept}, target)
    return StripReport(_count(kept), _count(dropped), source.stat().st_size, target.stat().st_size)


def _save_safetensors(state: dict[str, Tensor], target: Path) -> None:
    from safetensors.torch import save_file

    target.parent.mkdir(parents=True, exist_ok=True)
    aside = temporary_name(target)
    try:
        save_file({key: value.contiguous() for key, value in state.items()}, aside)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _count(state: dict[str, Tensor]) -> dict[str, int]:
    """Parameters by the first part of their key."""
    counts: dict[str, int] = {}
    for key, value in state.items():
        part = key.partition(".")[0]
        counts[part] = counts.get(part, 0) + value.numel()
    return counts
