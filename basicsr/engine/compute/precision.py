"""The precision that a network computes in, chosen by what the device computes natively."""

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

NATIVE_CUDA = (8, 0)  # the first compute capability whose tensor cores compute bf16
CHANNELS, SIDE = 64, 24  # of the layer that is timed


def resolve_precision(wanted: PrecisionOption, device: torch.device, label: str) -> PrecisionName:
    """The precision to compute in. Logs the reason, and warns if the precision is slow on this device.

    ``auto`` is bf16 if the device computes it natively: CUDA from compute capability 8.0 on, and CPUs with AMX,
    AVX-512-bf16 or ARM's bf16. Otherwise, or if that is not known, it is fp32.

    Args:
        wanted: The value of the option. Any value but ``auto`` is returned unchanged.
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
    """Whether a device computes bf16 natively, and the reason as text."""
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
    """The time of a 3×3 convolution of a 24×24 image on this CPU, divided by its time in float32.

    The measurement runs once and takes milliseconds to tenths of a second.
    """

    def make() -> dict:
        image = torch.ones(1, CHANNELS, SIDE, SIDE)
        weight = torch.full((CHANNELS, CHANNELS, 3, 3), 0.01)
        low = image.to(dtype), weight.to(dtype)
        return {
            "float32": lambda: F.conv2d(image, weight, padding=1),
            "low": lambda: F.conv2d(*low, padding=1),
        }

    seconds = time_each(make)
    return seconds["low"] / seconds["float32"]
