import math

import pytest
import torch
from scipy.ndimage import convolve1d

from basicsr.data import degradations
from basicsr.data.degradations import Degradation, add_noise, gaussian_blur


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(4, 3, 16, 20)


def test_nothing_happens_with_probability_zero(images):
    assert torch.equal(Degradation(0, 0, 0, 0)(images), images)


def test_blur_equals_scipy(images):
    sides, sigmas = [5, 3], [1.3, 0.4]
    expected = images.double().numpy()
    for axis, (side, sigma) in enumerate(zip(sides, sigmas)):
        kernel = [math.exp(-((i - side // 2) ** 2) / (2 * sigma**2)) for i in range(side)]
        expected = convolve1d(expected, [k / sum(kernel) for k in kernel], axis=2 + axis, mode="mirror")
    torch.testing.assert_close(gaussian_blur(images.double(), sides, sigmas), torch.from_numpy(expected))


def test_blur_of_a_tiny_image_keeps_a_constant():
    constant = torch.full((1, 3, 2, 3), 0.7)
    torch.testing.assert_close(gaussian_blur(constant, [11, 11], [2.0, 2.0]), constant)


def test_noise_has_the_stated_strength():
    """σ is uniform in [1, 30]/255 for each image, so its mean over many images is 15.5/255."""
    torch.manual_seed(0)
    images = torch.full((2000, 1, 16, 16), 0.5)
    sigmas = (add_noise(images, gray=0.0) - images).flatten(1).std(1) * 255
    assert sigmas.mean().item() == pytest.approx(15.5, abs=0.6)
    assert 0.5 < sigmas.min() < 3 and 28 < sigmas.max() < 35


@pytest.mark.parametrize(("gray", "expected"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)])
def test_share_of_grey_noise(gray, expected):
    torch.manual_seed(0)
    noise = add_noise(torch.full((400, 3, 8, 8), 0.5), gray) - 0.5
    is_gray = (noise[:, :1] == noise).flatten(1).all(1).float()
    assert is_gray.mean().item() == pytest.approx(expected, abs=0.08)


def test_noise_is_clipped():
    torch.manual_seed(0)
    noisy = add_noise(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 32, 32), gray=0.0)
    assert noisy.min() >= 0 and noisy.max() <= 1


@pytest.mark.parametrize("options", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0.5), (1, 1, 1, 1)])
def test_every_kind_keeps_the_shape_and_repeats_from_the_generator(images, options):
    degrade = Degradation(*options)
    torch.manual_seed(3)
    first = degrade(images)
    torch.manual_seed(3)
    assert torch.equal(degrade(images), first)
    assert first.shape == images.shape
    assert not torch.equal(first, images)


def test_resize_goes_through_the_stated_scales(images, monkeypatch):
    """Up by [1, 1.5] a quarter of the time, else down by [0.5, 1]; then back to the size it had."""
    sizes = []
    interpolate = degradations.F.interpolate

    def record(x, size, **kwargs):
        sizes.append(size)
        return interpolate(x, size=size, **kwargs)

    monkeypatch.setattr(degradations.F, "interpolate", record)
    torch.manual_seed(0)
    degrade = Degradation(0, 1, 0, 0)
    for _ in range(300):
        assert degrade(images).shape == images.shape
    heights = [size[0] for size in sizes if tuple(size) != (16, 20)]
    assert min(heights) >= 8 and max(heights) <= 24
    assert sum(h > 16 for h in heights) / 300 == pytest.approx(0.25, abs=0.08)
