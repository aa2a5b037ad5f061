import pytest
import torch
from torch import nn

from basicsr.engine.padding import run_padded


class Recorder(nn.Upsample):
    """Triples the size, and notes the size of what it was given."""

    def forward(self, x):
        self.size_seen = tuple(x.shape[-2:])
        return super().forward(x)


@pytest.mark.parametrize(("multiple", "seen"), [(1, (5, 7)), (8, (8, 8)), (5, (5, 10))])
def test_the_network_sees_a_multiple_and_the_result_is_cropped(multiple, seen):
    net = Recorder(scale_factor=3, mode="nearest")
    x = torch.randn(2, 1, 5, 7)
    result = run_padded(net, x, multiple)
    assert net.size_seen == seen
    assert torch.equal(result, nn.functional.interpolate(x, scale_factor=3, mode="nearest"))
