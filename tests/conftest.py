"""Shared fixtures. Tests run on one thread so that they neither fight for cores nor depend on their number."""

import logging
import os
import random
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch

from basicsr.utils import registry
from basicsr.utils.logger import get_root_logger

from .helpers import REPOSITORY, Runner

# No form is measured, here or in a process that a test starts, so that results do not depend on a measurement.
os.environ["BASICSR_FORMS"] = "default"

SHARED_DATA = REPOSITORY.parent / "shared" / "data"
REGISTRIES = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory) -> Iterator[None]:
    """What a test changes in this process is undone, so that no test depends on those before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    environment, folder = dict(os.environ), os.getcwd()
    path, modules = list(sys.path), set(sys.modules)
    registered = [dict(each._objects) for each in REGISTRIES]
    logger = get_root_logger()
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    os.chdir(folder)
    if os.environ != environment:
        os.environ.clear()
        os.environ.update(environment)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if _is_a_plug_in(name, tmp_path_factory.getbasetemp()):
            del sys.modules[name]
    for each, before in zip(REGISTRIES, registered):
        _forget_plug_ins(each, before)
    for handler in [handler for handler in logger.handlers if handler not in handlers]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)
    logger.propagate = propagate
    torch.set_default_dtype(torch.float32)


def _is_a_plug_in(name: str, temporary: Path) -> bool:
    """Whether a module was imported from a test's folder or from beside an option file, by the name of its file."""
    spec = getattr(sys.modules[name], "__spec__", None)
    if name.startswith("tests.") or not isinstance(spec, ModuleSpec):
        return False
    places = [Path(place) for place in (spec.origin, *(spec.submodule_search_locations or ())) if place]
    folders = (temporary, REPOSITORY / "tests", REPOSITORY / "options")
    return any(place.is_relative_to(folder) for place in places for folder in folders)


def _forget_plug_ins(each: registry.Registry, before: dict) -> None:
    """Leave what was registered before and what is the package's own; its members may have been imported since."""
    for name, value in list(each._objects.items()):
        if name in before:
            each._objects[name] = before[name]
        elif not value.__module__.startswith("basicsr."):
            del each._objects[name]
    for name in [name for name in each._objects if name.endswith("_basicsr") and name not in before]:
        each._objects[name.removesuffix("_basicsr")] = each._objects.pop(name)


@pytest.fixture
def log(caplog):
    """What is logged from here on: ``log.messages`` and ``log.records``."""
    logger = get_root_logger()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "basicsr")
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and weights beside the project; tests that want it skip without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the folder of real images and weights is not beside the project ({SHARED_DATA.name})")
    return SHARED_DATA


@pytest.fixture
def runner(tmp_path, monkeypatch) -> Runner:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return Runner(tmp_path, monkeypatch)
