import random

import numpy as np
import torch

from basicsr.engine.rng import capture_rng, preserved_rng, restore_rng
from basicsr.utils.atomic_file import atomic_save
from basicsr.utils.weights import load_file


def draw():
    return random.random(), np.random.rand(), np.random.randn(), torch.randn(3).tolist()


def test_round_trip_through_a_file(tmp_path):
    np.random.randn()  # leaves a cached second normal number in NumPy's generator
    atomic_save(capture_rng(), tmp_path / "rng")
    expected = [draw() for _ in range(3)]
    restore_rng(load_file(tmp_path / "rng"))
    assert [draw() for _ in range(3)] == expected


def test_preserved():
    state = capture_rng()
    expected = draw()
    restore_rng(state)
    with preserved_rng():
        draw()
    assert draw() == expected
