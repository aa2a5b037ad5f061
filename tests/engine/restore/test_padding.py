import numpy as np
import pytest
import torch
from torch import nn

from basicsr.archs.size_requirement import SizeRequirement
from basicsr.engine.restore.padding import run_padded


class Recorder(nn.Upsample):
    """Triples the size, and keeps what it was given."""

    def forward(self, x):
        self.seen = x
        return super().forward(x)


@pytest.mark.parametrize(
    ("requirement", "seen"),
    [
        (SizeRequirement(), (5, 7)),
        (SizeRequirement(multiple_of=8), (8, 8)),
        (SizeRequirement(multiple_of=5), (5, 10)),
        (SizeRequirement(minimum=16), (16, 16)),
        (SizeRequirement(multiple_of=4, square=True), (8, 8)),
    ],
)
def test_the_network_sees_what_it_requires_and_the_result_is_cropped(requirement, seen):
    net = Recorder(scale_factor=3, mode="nearest")
    x = torch.randn(2, 1, 5, 7)
    result = run_padded(net, x, requirement)
    padding = [(0, 0), (0, 0), (0, seen[0] - 5), (0, seen[1] - 7)]
    np.testing.assert_array_equal(net.seen.numpy(), np.pad(x.numpy(), padding, mode="reflect"))
    assert torch.equal(result, nn.functional.interpolate(x, scale_factor=3, mode="nearest"))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 1), (2, 2)])
def test_sides_shorter_than_the_padding(size):
    net = Recorder(scale_factor=1, mode="nearest")
    x = torch.randn(1, 3, *size)
    assert torch.equal(run_padded(net, x, SizeRequirement(multiple_of=16)), x)
    assert net.seen.shape[-2:] == (16, 16)
