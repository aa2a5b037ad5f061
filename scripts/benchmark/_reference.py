"""Loads PyPI's basicsr 1.4.2 beside ours in one process, for benchmarks that compare the two."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from types import ModuleType


def load_reference(folder: str, modules: list[str]) -> dict[str, ModuleType]:
    """Import modules of the ``basicsr`` package in a folder, without affecting ours.

    It is installed with ``pip install --no-deps --target FOLDER basicsr==1.4.2``. It imports torchvision, which has no
    CPU build on PyPI; an empty stand-in is put in its place while it is imported. Nothing that is measured uses it.

    Args:
        folder: The folder that holds ``basicsr``.
        modules: Their names, such as ``basicsr.archs.swinir_arch``.
    """
    if not (Path(folder) / "basicsr" / "archs").is_dir():
        raise SystemExit(f"{folder} does not hold the package basicsr; {load_reference.__doc__.split('.')[1].strip()}")
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "basicsr"}
    stand_in = {name: _stand_in(name) for name in ("torchvision", *(f"torchvision.{part}" for part in PARTS))}
    sys.modules.update(stand_in)
    sys.path.insert(0, folder)
    try:
        return {name: importlib.import_module(name) for name in modules}
    finally:
        sys.path.remove(folder)
        for name in [n for n in sys.modules if n.split(".")[0] in ("basicsr", "torchvision")]:
            del sys.modules[name]
        sys.modules.update(ours)


PARTS = ("models", "models.vgg", "ops", "utils", "transforms", "transforms.functional", "transforms.functional_tensor")


def _stand_in(name: str) -> ModuleType:
    module = types.ModuleType(name)
    module.__path__ = []  # makes it a package
    module.__version__ = "0.0"
    module.__getattr__ = _attribute  # type: ignore[method-assign]
    return module


def _attribute(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    return _nothing


def _nothing(*args: object, **kwargs: object) -> None:
    raise NotImplementedError("torchvision is only a stand-in here")
