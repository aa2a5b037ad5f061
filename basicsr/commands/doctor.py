"""``basicsr doctor``: versions, devices, extras and failed imports, for problem reports."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
from pathlib import Path

import basicsr
from basicsr.utils.installation import find_conflict
from basicsr.utils.registry import REGISTRIES

EXTRAS = {
    "iqa": ("torchvision", "lpips"),
    "diffusion": ("diffusers", "transformers"),
    "export": ("onnx",),
    "wandb": ("wandb",),
    "test": ("pytest", "ruff"),
}
"""The modules of each optional extra in pyproject.toml."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(args: argparse.Namespace) -> int:
    """Print versions, devices and extras.

    Returns:
        1 if a module of the package fails to import, or another distribution has files in its folder or comes before
        it.
    """
    import torch

    print(f"basicsr      {basicsr.__version__} from {Path(basicsr.__file__).parent}")
    print(f"Python       {platform.python_version()} on {platform.platform()}")
    for name in ("torch", "numpy", "cv2", "pydantic"):
        print(f"{name:<12} {_version(name)}")
    print(f"CPU          {os.cpu_count()} cores, {torch.get_num_threads()} threads in use")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"GPU          {', '.join(devices) or 'none'} (CUDA {torch.version.cuda or 'not built in'})")
    for extra, modules in EXTRAS.items():
        absent = [name for name in modules if importlib.util.find_spec(name) is None]
        state = f"lacks {', '.join(absent)}: pip install 'basicsr-kd[{extra}]'" if absent else "installed"
        print(f"[{extra}]".ljust(13) + state)
    conflict = find_conflict()
    failures: dict[str, str] = {}
    for registry in REGISTRIES.values():
        print(f"{len(registry.keys()):>3} registered as {registry.name}")
        failures |= registry.import_failures
    for module, why in failures.items():
        print(f"FAILED to import {module}: {why}")
    if conflict is not None:
        print(f"FAILED: {conflict}")
    return 1 if failures or conflict is not None else 0


def _version(module: str) -> str:
    try:
        return str(importlib.import_module(module).__version__)
    except ImportError as error:
        return f"not importable: {error}"
