"""What the machine computes natively, according to PyTorch and the operating system."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")  # Linux only


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """The instruction sets that Linux lists for the first core, in lower case; empty elsewhere."""
    return frozenset(word for name in ("flags", "Features") for word in _cpuinfo(name).lower().split())


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The processor's name, such as ``AMD EPYC``; the architecture's where the name cannot be read."""
    return _cpuinfo("model name") or platform.processor() or platform.machine() or "CPU"


@lru_cache(maxsize=1)
def cpu_capability() -> str:
    """The widest vector instructions that PyTorch uses: ``AVX2``, ``AVX512``, ``DEFAULT``, ``SVE256`` …"""
    return torch.backends.cpu.get_cpu_capability()


@lru_cache(maxsize=2)
def cpu_unit(dtype: torch.dtype) -> str | None:
    """The unit of the CPU that multiplies numbers of 16 bits without converting them to float32 first.

    Args:
        dtype: ``torch.bfloat16`` or ``torch.float16``.

    Returns:
        Its name, such as ``AMX`` or ``AVX-512-bf16``; None if there is none, or if it is not known.
    """
    amx, avx512, arm = {
        torch.bfloat16: ("amx_bf16", "avx512_bf16", "bf16"),
        torch.float16: ("amx_fp16", "avx512_fp16", "asimdhp"),
    }[dtype]
    flags, bf16 = cpu_flags(), dtype is torch.bfloat16
    if amx in flags or (bf16 and _torch_supports("_is_amx_tile_supported")):
        return "AMX"
    if avx512 in flags or (bf16 and _torch_supports("_is_avx512_bf16_supported")):
        return "AVX-512-bf16" if bf16 else "AVX-512-fp16"
    if arm in flags and platform.machine().lower() in ("aarch64", "arm64"):
        return f"ARM's {arm}"
    return None


def machine_name() -> str:
    """A name for this kind of machine and this PyTorch, fit for a folder: what a measurement of speed holds for."""
    words = f"{cpu_name()} {cpu_capability()} torch {torch.__version__}"
    return "-".join("".join(c if c.isalnum() or c in ".+" else " " for c in words.lower()).split())


def _torch_supports(name: str) -> bool:
    question = getattr(torch.cpu, name, None)  # private, and not in every version
    return question is not None and bool(question())


def _cpuinfo(name: str) -> str:
    """The first entry of that name in /proc/cpuinfo, or ''."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    entries = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in entries if key.strip() == name), "")
