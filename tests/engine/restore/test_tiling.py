import pytest
import torch
from torch import nn

from basicsr.engine.restore.tiling import Tiles, run_tiled


def conv_net(radius=4, scale=2):
    """Convolutions of 3×3, so an output pixel depends on input pixels at most ``radius`` away."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1)]
    for _ in range(radius - 2):
        layers += [nn.LeakyReLU(0.2), nn.Conv2d(6, 6, 3, padding=1)]
    layers += [nn.Conv2d(6, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


SIDES = [1, 3, 5, 31, 32, 33, 47, 48, 49, 63, 64, 65, 100, 257]


@pytest.mark.parametrize("multiple_of", [1, 4, 8])
@pytest.mark.parametrize("overlap", [0, 1, 2, 5, 8, 16, None])
@pytest.mark.parametrize("length", SIDES)
def test_the_grid_and_its_weights(length, overlap, multiple_of):
    """Every pixel is covered, tiles are of one size and overlap enough, and weights sum to 1 without any gap."""
    length = -(-length // multiple_of) * multiple_of
    tiles = Tiles(32, overlap, multiple_of)
    starts = tiles.starts(length)
    assert starts[0] == 0
    assert all(start % multiple_of == 0 for start in starts)
    if length <= 32:
        assert starts == [0]
        assert torch.equal(tiles.weights(length, 3), torch.ones(1, 3 * length))
        return
    assert starts[-1] == length - 32
    assert all(0 < b - a <= 32 - tiles.overlap for a, b in zip(starts, starts[1:]))
    for scale in (1, 4):
        total = torch.zeros(length * scale)
        largest = torch.zeros(length * scale)
        for start, weight in zip(starts, tiles.weights(length, scale), strict=True):
            part = slice(start * scale, (start + 32) * scale)
            total[part] += weight
            largest[part] = torch.maximum(largest[part], weight)
            assert (weight >= 0).all()
            assert weight.isfinite().all()
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
        assert (largest > 0.2).all(), "every pixel, at borders and corners too, is carried by some tile"


def test_weights_change_smoothly():
    weights = Tiles(64, 32).weights(112, 1)
    assert (weights[:, 1:] - weights[:, :-1]).abs().max() < 0.15
    assert weights[0, :32].eq(1).all()  # at the image's border there is no neighbour


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 31), (31, 32), (32, 32)])
def test_a_tile_that_holds_the_image_changes_nothing(size):
    net, x = conv_net(), torch.rand(1, 3, *size)
    torch.testing.assert_close(run_tiled(net, x, Tiles(32, 8)), net(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(33, 33), (1, 65), (49, 100), (24, 70), (97, 32)])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_equal_everywhere_where_a_quarter_of_the_overlap_holds_the_receptive_radius(size, scale):
    net, x = conv_net(4, scale), torch.rand(2, 3, *size)
    torch.testing.assert_close(run_tiled(net, x, Tiles(32, 16)), net(x), rtol=0, atol=1e-6)


def test_equal_in_the_interior_where_the_overlap_holds_the_receptive_field():
    """Between the overlaps, a tile whose overlap is at least the receptive field of 9 gives the untiled result."""
    net, x = conv_net(4, 1), torch.rand(1, 3, 55, 55)
    tiles = Tiles(32, 9)
    assert tiles.starts(55) == [0, 23]
    result, whole = run_tiled(net, x, tiles), net(x)
    for rows in (slice(0, 23), slice(32, 55)):
        for columns in (slice(0, 23), slice(32, 55)):
            torch.testing.assert_close(result[..., rows, columns], whole[..., rows, columns], rtol=0, atol=1e-6)


def test_all_tiles_have_one_size():
    sizes = set()

    def net(x):
        sizes.add(tuple(x.shape))
        return x

    x = torch.rand(1, 1, 100, 71)
    torch.testing.assert_close(run_tiled(net, x, Tiles(32, 8)), x, rtol=0, atol=1e-6)
    assert sizes == {(1, 1, 32, 32)}


def test_no_seam_shows_in_a_flat_image():
    """A network whose border pixels are wrong by 1, as zero padding makes them: the step across a seam stays small."""

    def net(x):
        y = x.clone()
        y[..., :2, :] += 1
        y[..., -2:, :] += 1
        y[..., :, :2] += 1
        y[..., :, -2:] += 1
        return y

    result = run_tiled(net, torch.zeros(1, 1, 100, 100), Tiles(32, 8))
    assert result[..., 2:-2, 2:-2].abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_sums_are_at_least_single_precision(dtype):
    x = torch.rand(1, 1, 50, 50, dtype=torch.float64).to(dtype)
    result = run_tiled(lambda t: t, x, Tiles(32, 8))
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(result.double(), x.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("numbers", [(0, 0), (32, 17), (32, -1), (1, 1)])
def test_impossible_tiles_are_refused(numbers):
    with pytest.raises(ValueError, match=rf"tiles of {numbers[0]} pixels cannot overlap by {numbers[1]}: .* half"):
        Tiles(*numbers)


def test_a_tile_of_one_pixel_is_possible():
    x = torch.rand(1, 1, 3, 4)
    torch.testing.assert_close(run_tiled(lambda t: t, x, Tiles(1)), x, rtol=0, atol=1e-6)


def test_a_network_of_broken_scale_is_refused():
    with pytest.raises(ValueError, match="16×16 pixels became 24×24; remove val.tile"):
        run_tiled(nn.Upsample(scale_factor=1.5), torch.rand(1, 1, 20, 20), Tiles(16))
