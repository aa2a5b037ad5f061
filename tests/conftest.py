"""Shared fixtures. Tests run on one thread so that they neither fight for cores nor depend on their number."""

import os
from pathlib import Path

import pytest
import torch

# No form is measured, here or in a process that a test starts, so that results do not depend on a measurement.
os.environ["BASICSR_FORMS"] = "default"

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and weights beside the project; tests that want it skip without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the folder of real images and weights is not beside the project ({SHARED_DATA.name})")
    return SHARED_DATA
