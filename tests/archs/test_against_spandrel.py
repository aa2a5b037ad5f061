"""The same weights and inputs through spandrel 0.4.2 give the same outputs; see goldens/spandrel_reference.py."""

import json

import numpy as np
import pytest
import torch

from basicsr.archs import build_network

from ..goldens.spandrel_reference import (
    PUBLISHED,
    SMALL,
    draw_weights,
    image,
    layout,
    layout_digest,
    load_goldens,
    sample,
)

NAMES = [f"{opt['type']} {index}" for index, (opt, _) in enumerate(SMALL)]


@pytest.mark.parametrize("index", range(len(SMALL)), ids=NAMES)
def test_layout_and_output_are_the_references(index):
    opt, shape = SMALL[index]
    network = build_network(opt)
    assert layout(network) == json.loads(load_goldens()["layouts"].tobytes())[index]
    expected = load_goldens()[f"output {index}"]
    with torch.no_grad():
        output = draw_weights(network)(image(shape))
        np.testing.assert_allclose(sample(output), expected, rtol=1e-9, atol=1e-9)
        single = network.float()(image(shape).float())
    np.testing.assert_allclose(sample(single), expected, rtol=1e-5, atol=1e-5 * float(output.abs().max()))


@pytest.mark.parametrize("index", range(len(PUBLISHED)), ids=[f"{opt['type']} {i}" for i, opt in enumerate(PUBLISHED)])
def test_released_models_have_the_references_layout_and_size(index):
    """Number of keys, number of parameters, and a digest of all keys, shapes and types."""
    with torch.device("meta"):
        network = build_network(PUBLISHED[index])
    assert layout_digest(network) == json.loads(load_goldens()["digests"].tobytes())[index]
