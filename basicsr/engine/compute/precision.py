"""Which precision a network computes in, by what the device computes natively."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F

from basicsr.utils.logger import get_root_logger
from basicsr.utils.machine import cpu_capability, cpu_name, cpu_unit
from basicsr.utils.stopwatch import time_each

PrecisionName = Literal["fp32", "tf32", "bf16", "fp16"]
PrecisionOption = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

NATIVE_CUDA = (8, 0)  # the compute capability from which on tensor cores take bf16
CHANNELS, SIDE = 64, 24  # of the layer that is timed


def resolve_precision(wanted: PrecisionOption, device: torch.device, label: str) -> PrecisionName:
    """The precision to compute in; the log says why, or warns where it is slow.

    ``auto`` is bf16 where the device computes it natively: CUDA from compute capability 8.0 on, and CPUs with AMX,
    AVX-512-bf16 or ARM's bf16. Elsewhere, and where that cannot be found out, it is fp32.

    Args:
        wanted: What the options say. Anything but ``auto`` is taken as it is.
        device: Where the network is.
        label: The option's path, for the log: ``runtime.g.precision``.
    """
    logger = get_root_logger()
    if wanted == "auto":
        native, reason = native_bf16(device)
        precision: PrecisionName = "bf16" if native else "fp32"
        logger.info(f"{label}: auto is {precision}, since {reason}")
        return precision
    if wanted in AUTOCAST and device.type == "cpu" and cpu_unit(AUTOCAST[wanted]) is None:
        logger.warning(
            f"{label}: this CPU ({cpu_name()}, {cpu_capability()}) emulates {wanted}: a 3×3 convolution of {CHANNELS} "
            f"channels takes {slowdown(AUTOCAST[wanted]):.1f} times as long as in fp32; `auto` takes the faster one"
        )
    return wanted


def native_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether a device computes bf16 natively, and what shows it."""
    if device.type == "cpu":
        unit, name = cpu_unit(torch.bfloat16), f"this CPU ({cpu_name()}, {cpu_capability()})"
        return unit is not None, f"{name} has {unit}" if unit else f"{name} has neither AMX nor AVX-512-bf16"
    if device.type == "cuda" and torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
        native = capability >= NATIVE_CUDA
        text = "{} has compute capability {}.{}".format(torch.cuda.get_device_name(device), *capability)
        return native, text if native else f"{text}, and bf16 needs 8.0"
    return False, f"whether {device.type} computes bf16 natively is not known"


@lru_cache(maxsize=2)
def slowdown(dtype: torch.dtype) -> float:
    """How many times as long one layer takes on this CPU as in float32: a 3×3 convolution on a 24×24 image.

    It is measured once, in milliseconds to tenths of a second, the longer the slower ``dtype`` is.
    """

    def make() -> dict:
        image = torch.ones(1, CHANNELS, SIDE, SIDE)
        weight = torch.full((CHANNELS, CHANNELS, 3, 3), 0.01)
        rough = image.to(dtype), weight.to(dtype)
        return {
            "float32": lambda: F.conv2d(image, weight, padding=1),
            "rough": lambda: F.conv2d(*rough, padding=1),
        }

    seconds = time_each(make)
    return seconds["rough"] / seconds["float32"]
