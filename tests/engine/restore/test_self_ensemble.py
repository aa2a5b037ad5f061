import numpy as np
import pytest
import torch
from torch import nn

from basicsr.engine.restore.self_ensemble import run_self_ensemble


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (7, 20)])
def test_an_equivariant_network_gives_what_it_gives_alone(size):
    net = nn.Upsample(scale_factor=2, mode="nearest")
    x = torch.rand(2, 3, *size)
    torch.testing.assert_close(run_self_ensemble(net, x), net(x), rtol=0, atol=1e-6)


def test_it_is_the_mean_over_the_eight_symmetries_of_the_square():
    """Against NumPy's rotations, mirrored or not, each undone by the rotation back."""
    torch.manual_seed(0)
    net = nn.Conv2d(1, 1, 3, padding=1, dtype=torch.float64).requires_grad_(False)
    x = torch.rand(1, 1, 5, 9, dtype=torch.float64)
    expected = np.zeros((5, 9))
    for mirrored in (False, True):
        for turns in range(4):
            variant = np.rot90(x[0, 0].numpy(), turns)
            variant = np.fliplr(variant) if mirrored else variant
            output = net(torch.from_numpy(variant.copy())[None, None])[0, 0].numpy()
            output = np.fliplr(output) if mirrored else output
            expected += np.rot90(output, -turns)
    np.testing.assert_allclose(run_self_ensemble(net, x)[0, 0].numpy(), expected / 8, atol=1e-12)
