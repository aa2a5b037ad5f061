import numpy as np
import pytest
import torch
from torch import nn

from basicsr.engine.padding import pad_to_multiple, run_padded


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9), (3, 2), (7, 16)])
def test_padding_is_reflection(height, width):
    x = torch.randn(1, 2, height, width)
    pad_h, pad_w = -height % 8, -width % 8
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, pad_h), (0, pad_w)), mode="reflect")
    assert np.array_equal(pad_to_multiple(x, 8).numpy(), expected)


def test_a_side_of_one_pixel_is_repeated():
    assert pad_to_multiple(torch.ones(1, 1, 1, 3), 4).shape == (1, 1, 4, 4)


def test_result_is_cropped_to_the_scale():
    net = nn.Upsample(scale_factor=3, mode="nearest")
    x = torch.randn(1, 1, 5, 7)
    assert torch.equal(run_padded(net, x, 8), net(x))
    assert torch.equal(run_padded(net, x, 1), net(x))
