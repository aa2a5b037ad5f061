"""Local statistics at test time against sums over windows, one pixel at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from basicsr.archs import build_network
from basicsr.archs.local_average import LocalAverage
from basicsr.archs.nafnet_arch import NAFNet, NAFNetLocal

from ..goldens.spandrel_reference import draw_weights, image

SMALL = {"width": 4, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]}


class WindowMean(nn.Module):
    """For each pixel the mean over the window around it, moved inwards where it would leave the image. Of a window of
    even width the pixel is left of the middle."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.sides = (height, width)

    def forward(self, x):
        if self.sides[0] >= x.shape[2] and self.sides[1] >= x.shape[3]:
            return x.mean((2, 3), keepdim=True)
        out = torch.empty_like(x)
        for i, j in ((i, j) for i in range(x.shape[2]) for j in range(x.shape[3])):
            (top, bottom), (left, right) = (
                self.window(at, n, side) for at, n, side in zip((i, j), x.shape[2:], self.sides)
            )
            out[:, :, i, j] = x[:, :, top:bottom, left:right].mean((2, 3))
        return out

    @staticmethod
    def window(at: int, length: int, side: int) -> tuple[int, int]:
        side = min(side, length)
        start = min(max(at - (side - 1) // 2, 0), length - side)
        return start, start + side


@pytest.mark.parametrize("size", [(9, 14), (14, 9), (9, 6), (6, 9), (20, 5), (6, 6), (5, 4), (7, 7)])
@pytest.mark.parametrize("patch", [(4, 4), (5, 3)])
def test_the_average_over_windows(size, patch):
    average = LocalAverage(patch, (1, 1))
    assert average.window == [int(1.5 * side) for side in patch]
    x = image((2, 3, *size))
    expected = WindowMean(*average.window)(x)
    torch.testing.assert_close(average(x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(average(x.float()).double(), expected, rtol=0, atol=1e-6)
    assert average(x.bfloat16()).dtype == torch.bfloat16


def test_on_a_large_image_float32_keeps_its_digits():
    """A running sum over the whole image, as the release's, is a hundred times less exact."""
    x = image((1, 1, 720, 1280))
    average = LocalAverage((256, 256), (1, 1))
    assert (average(x.float()).double() - average(x)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("train_size", "grid", "window"),
    [
        ((256, 256), (16, 1), [384, 384]),
        ((256, 256), (16, 16), [24, 24]),
        ((100, 60), (16, 4), [42, 24]),  # the release measures 112×64 padded pixels: 28·150//100, 16·90//60
    ],
)
def test_the_window_on_a_level(train_size, grid, window):
    assert LocalAverage(train_size, grid).window == window


def fast_by_hand(x, window, strides):
    """The release's formula: an integral image of every r-th pixel without a border of zeros, enlarged."""
    few = x[:, :, :: strides[0], :: strides[1]]
    heights, widths = few.shape[2:]
    k1, k2 = min(heights - 1, window[0] // strides[0]), min(widths - 1, window[1] // strides[1])
    rows = []
    for i in range(heights - k1):
        rows.append(
            torch.stack([few[:, :, i + 1 : i + k1 + 1, j + 1 : j + k2 + 1].mean((2, 3)) for j in range(widths - k2)], 2)
        )
    out = torch.stack(rows, 2).repeat_interleave(strides[0], 2).repeat_interleave(strides[1], 3)
    down, right = x.shape[2] - out.shape[2], x.shape[3] - out.shape[3]
    return F.pad(out, (right // 2, (right + 1) // 2, down // 2, (down + 1) // 2), mode="replicate")


@pytest.mark.parametrize(("size", "strides"), [((40, 30), (5, 5)), ((32, 27), (4, 3)), ((14, 31), (2, 1))])
def test_the_fast_form(size, strides):
    average = LocalAverage((8, 8), (1, 1), fast=True)
    x = image((1, 2, *size))
    torch.testing.assert_close(average(x), fast_by_hand(x, [12, 12], strides), rtol=0, atol=1e-12)


def test_the_fast_form_subsamples_less_where_features_are_few():
    average = LocalAverage((8, 8), (4, 4), fast=True)  # 5 · 2 // 8 = 1
    x = image((1, 2, 10, 10))
    torch.testing.assert_close(average(x), fast_by_hand(x, [3, 3], (1, 1)), rtol=0, atol=1e-12)


def test_the_network_is_nafnet_with_other_averages():
    local = draw_weights(NAFNetLocal(**SMALL, train_size=(1, 3, 12, 8)))
    reference = NAFNet(**SMALL).double().eval()
    reference.load_state_dict(local.state_dict(), strict=True)
    for level, blocks in enumerate([*reference.encoders, reference.middle_blks]):
        for block in blocks:
            block.sca[0] = WindowMean(18 >> level, 12 >> level)
    for level, blocks in zip((1, 0), reference.decoders):
        for block in blocks:
            block.sca[0] = WindowMean(18 >> level, 12 >> level)
    x = image((1, 3, 28, 24))
    with torch.no_grad():
        torch.testing.assert_close(local(x), reference(x), rtol=0, atol=1e-12)


def test_up_to_one_and_a_half_patches_it_is_nafnet():
    local = draw_weights(NAFNetLocal(**SMALL, train_size=(1, 3, 16, 16)))
    plain = NAFNet(**SMALL).double().eval()
    plain.load_state_dict(local.state_dict(), strict=True)
    with torch.no_grad():
        x = image((1, 3, 24, 24))
        assert torch.equal(local(x), plain(x))
        x = image((1, 3, 28, 28))
        assert (local(x) - plain(x)).abs().max() > 1e-3


def test_it_is_built_by_its_published_arguments():
    network = build_network({"type": "NAFNetLocal", **SMALL, "train_size": [1, 3, 24, 16], "fast_imp": True})
    assert network.encoders[1][0].sca[0].window == [18, 12]
    assert network.encoders[1][0].sca[0].fast
    with pytest.raises(ValueError, match="train_size"):
        build_network({"type": "NAFNetLocal", **SMALL, "train_size": [256, 256]})


def test_local_statistics_of_a_network_for_a_while():
    """``val.local_statistics`` gives what NAFNetLocal gives, and leaves the network as it was."""
    options = SMALL | {"enc_blk_nums": [1, 2], "dec_blk_nums": [1, 1]}
    network, local = draw_weights(NAFNet(**options)), draw_weights(NAFNetLocal(**options, train_size=(1, 3, 16, 16)))
    x, modules = image((1, 3, 37, 50)), list(network.modules())
    before, expected = network(x), local(x)
    assert (before - expected).abs().max() > 1e-3
    with network.local_statistics(16):
        assert torch.equal(network(x), expected)
    assert list(network.modules()) == modules and torch.equal(network(x), before)
    with pytest.raises(RuntimeError, match="stop"), network.local_statistics(16):
        raise RuntimeError("stop")
    assert list(network.modules()) == modules
