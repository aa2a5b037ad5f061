"""The same weights and inputs through PyPI's BasicSR 1.4.2 give the same outputs; see goldens/basicsr_reference.py."""

import json

import numpy as np
import pytest

from basicsr.archs import build_network

from ..goldens.basicsr_reference import NETWORKS, load_goldens, run_network


@pytest.fixture(scope="module")
def goldens() -> dict[str, np.ndarray]:
    return load_goldens()


@pytest.mark.parametrize("index", range(len(NETWORKS)), ids=[opt["type"] for opt in NETWORKS])
def test_layout_and_output_are_the_references(goldens, index):
    """Keys, shapes, types and buffers are equal; outputs in float64, to what the order of sums changes."""
    opt = NETWORKS[index]
    layout, output = run_network(build_network(opt), opt)
    assert layout == json.loads(goldens["layouts"].tobytes())[index]
    np.testing.assert_allclose(output, goldens[f"network {index}"], rtol=1e-9, atol=1e-9)
