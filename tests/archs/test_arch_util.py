import math

import numpy as np
import pytest
import torch
from torch import nn

from basicsr.archs.arch_util import (
    DropPath,
    ResidualBlockNoBN,
    Upsample,
    default_init_weights,
    flow_warp,
    make_layer,
    pad_to_multiple,
    pixel_unshuffle,
    to_2tuple,
    to_3tuple,
)


def test_default_init_has_kaiming_variance_times_scale():
    conv, linear, norm = nn.Conv2d(64, 256, 3), nn.Linear(512, 512), nn.BatchNorm2d(4)
    default_init_weights([nn.Sequential(conv, norm), linear], scale=0.1, bias_fill=0.5)
    assert conv.weight.std().item() == pytest.approx(0.1 * math.sqrt(2 / (64 * 9)), rel=0.02)
    assert linear.weight.std().item() == pytest.approx(0.1 * math.sqrt(2 / 512), rel=0.02)
    for module in (conv, linear, norm):
        assert torch.all(module.bias == 0.5)
    assert torch.all(norm.weight == 1)


def test_residual_block_scales_only_its_branch():
    block = ResidualBlockNoBN(4, res_scale=0.1)
    x = torch.randn(1, 4, 6, 6)
    branch = block.conv2(torch.relu(block.conv1(x)))
    torch.testing.assert_close(block(x), x + 0.1 * branch)
    assert len(make_layer(ResidualBlockNoBN, 3, num_feat=4)) == 3


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_upsample_scales(scale):
    assert Upsample(scale, 2)(torch.rand(1, 2, 3, 5)).shape == (1, 2, 3 * scale, 5 * scale)


@pytest.mark.parametrize("scale", [0, 5, 6])
def test_upsample_refuses_other_scales(scale):
    with pytest.raises(ValueError, match=f"by {scale} .*power of two"):
        Upsample(scale, 2)


@pytest.mark.parametrize(
    ("height", "width", "multiple"), [(7, 9, 8), (3, 17, 8), (1, 5, 8), (2, 1, 7), (1, 1, 4), (8, 16, 8)]
)
def test_padding_equals_numpys_reflection(height, width, multiple):
    x = torch.rand(2, 3, height, width)
    down, right = -height % multiple, -width % multiple
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, down), (0, right)), mode="reflect")
    np.testing.assert_array_equal(pad_to_multiple(x, multiple).numpy(), expected)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(4000, 3, 2)
    out = layer(x)
    kept = out[:, 0, 0] > 0
    assert torch.all(out == kept[:, None, None] / 0.75)
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert layer.eval()(x) is x


def test_flow_warp_moves_by_pixels():
    x = torch.arange(20.0).view(1, 1, 4, 5)
    flow = torch.zeros(1, 4, 5, 2)
    flow[..., 0], flow[..., 1] = 1, 2
    expected = torch.zeros_like(x)
    expected[..., :2, :4] = x[..., 2:, 1:]
    torch.testing.assert_close(flow_warp(x, flow), expected)
    halfway = flow_warp(x, torch.full((1, 4, 5, 2), 0.5), padding_mode="border")
    assert halfway[0, 0, 0, 0].item() == pytest.approx((0 + 1 + 5 + 6) / 4)
    with pytest.raises(ValueError, match="flow's size"):
        flow_warp(x, flow[:, :3])


def test_pixel_unshuffle_orders_channels_by_offset():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    out = pixel_unshuffle(x, 2)
    for row in range(2):
        for column in range(2):
            torch.testing.assert_close(out[0, 2 * row + column], x[0, 0, row::2, column::2])
    with pytest.raises(ValueError, match="5×4.*divide by 2"):
        pixel_unshuffle(torch.rand(1, 1, 5, 4), 2)


def test_tuples():
    assert to_2tuple(3) == (3, 3)
    assert to_2tuple([1, 2]) == (1, 2)
    assert to_3tuple("ab") == ("a", "b")
