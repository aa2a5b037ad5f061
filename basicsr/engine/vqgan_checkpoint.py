"""Reducing the checkpoint of a whole VQGAN to what distillation needs: encoder, ``quant_conv`` and codebook."""

from __future__ import annotations

import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from basicsr.archs.vqgan_arch import ENCODER_KEYS

from .checkpoint import atomic_save, extract_state_dict, load_file


@dataclass(frozen=True)
class StripReport:
    """What :func:`strip_checkpoint` did.

    Attributes:
        kept: Parameters kept, by the part of the VQGAN.
        dropped: Parameters dropped, likewise; optimiser states and the like are not counted.
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
    state = extract_state_dict(load_with_stand_ins(source), None, str(source))
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


def load_with_stand_ins(path: str | os.PathLike) -> Any:
    """:func:`load_file`, but objects of other libraries in the file do not prevent it.

    Lightning's checkpoints hold some of its own (and need not hold them for us). Each is replaced by an empty object
    of a stand-in class, so that no code is run and the library need not be installed.
    """
    stand_ins: dict[str, type] = {}
    while True:
        try:
            with torch.serialization.safe_globals(list(stand_ins.values())):
                return load_file(path)
        except ValueError as error:
            foreign = re.search(r"GLOBAL (\S+)", str(error.__cause__))
            if not isinstance(error.__cause__, pickle.UnpicklingError) or not foreign or foreign[1] in stand_ins:
                raise
            stand_ins[foreign[1]] = _stand_in(foreign[1])


def _stand_in(full_name: str) -> type:
    """A class of that name whose objects take anything and are nothing."""
    module, _, name = full_name.rpartition(".")

    def take(self: Any, *args: Any, **kwargs: Any) -> None:
        """Take what the real class would be given."""

    return type(name, (), {"__module__": module, "__init__": take, "__setstate__": take})


def _save_safetensors(state: dict[str, Tensor], target: Path) -> None:
    from safetensors.torch import save_file

    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
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
