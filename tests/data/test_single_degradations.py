"""Degradations of single images against formulas and other programs."""

import math

import cv2
import numpy as np
import pytest

from basicsr.data.degradation_parameters import draw, draw_integer
from basicsr.data.motion_degradations import camera_trajectory, motion_blur, trajectory_kernel
from basicsr.data.pixel_degradations import gaussian_noise, jpeg
from basicsr.data.weather_degradations import haze, rain, scatter, smooth_depth, snow

from ..helpers import smooth_image

ALL = {
    "gaussian_noise": lambda image, rng: gaussian_noise(image, rng, sigma=[5, 50], gray=0.5),
    "jpeg": lambda image, rng: jpeg(image, rng, quality=[10, 40]),
    "motion_blur": motion_blur,
    "haze": haze,
    "rain": rain,
    "snow": snow,
}


def picture(seed=0, height=45, width=61, channels=3):
    """(H, W, C) float32 in [0, 1], of 8-bit values."""
    return smooth_image(seed, height, width)[..., :channels].astype(np.float32) / 255


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.random.default_rng, np.random.RandomState])
def test_every_degradation_is_a_function_of_image_and_generator(name, channels, kind):
    image = picture(channels=channels)
    before = image.copy()
    one, same, other = (ALL[name](image, kind(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(image, before)
    assert one.shape == image.shape and one.dtype == np.float32 and np.isfinite(one).all()
    assert not np.array_equal(one, other) and not np.array_equal(one, image)
    if name != "gaussian_noise":
        assert one.min() >= 0 and one.max() <= 1


@pytest.mark.parametrize("sigma", [5, 25.0, 100])
def test_the_variance_of_the_noise_is_that_of_its_sigma(sigma):
    """Of n samples, the relative error of the variance has the standard deviation sqrt(2 / n)."""
    image = np.full((400, 400, 3), 0.5, np.float32)
    noise = (gaussian_noise(image, np.random.default_rng(0), sigma=sigma).astype(np.float64) - 0.5) * 255
    n = noise.size
    assert abs(noise.var() / sigma**2 - 1) < 5 * math.sqrt(2 / n)
    assert abs(noise.mean()) < 5 * sigma / math.sqrt(n)
    channels = np.corrcoef(noise.reshape(-1, 3).T)
    assert np.abs(channels - np.eye(3)).max() < 5 / math.sqrt(n / 3)


def test_gray_noise_is_the_same_in_all_channels():
    image = np.full((30, 30, 3), 0.5, np.float32)
    noise = gaussian_noise(image, np.random.default_rng(0), sigma=20, gray=1.0) - image
    assert (noise == noise[..., :1]).all() and noise.std() > 0.05
    same = [
        bool((noisy == noisy[..., :1]).all())
        for noisy in (gaussian_noise(image, np.random.default_rng(s), sigma=20, gray=0.3) for s in range(300))
    ]
    assert abs(np.mean(same) - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 300)


def test_what_is_stored_of_noise():
    image = np.zeros((50, 50, 3), np.float32)
    exact, clipped, rounded = (
        gaussian_noise(image, np.random.default_rng(0), sigma=25, store=store) for store in ("float", "clip", "uint8")
    )
    assert exact.min() < -0.05
    np.testing.assert_array_equal(clipped, np.maximum(exact, 0))
    np.testing.assert_allclose(rounded * 255, np.round(clipped * 255), atol=1e-4)


def test_noise_of_a_fixed_sigma_is_the_first_that_numpy_draws():
    """So it is that of the published tables, for which `RandomState(0).normal` is called once for each image."""
    image = picture()
    expected = image + np.random.RandomState(0).normal(0, 25 / 255, image.shape)
    found = gaussian_noise(image, np.random.RandomState(0), sigma=25)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("quality", [1, 10, 75, 100])
def test_jpeg_is_opencvs(quality):
    image = picture()
    pixels = np.ascontiguousarray((image * 255).round().astype(np.uint8)[..., ::-1])
    content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    expected = cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]
    found = jpeg(image, np.random.default_rng(0), quality=quality)
    np.testing.assert_array_equal(np.round(found * 255).astype(np.uint8), expected)


def test_a_grey_image_becomes_a_grey_jpeg():
    image = picture(channels=1)
    content = cv2.imencode(".jpg", (image * 255).round().astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    expected = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    assert expected.ndim == 2
    found = jpeg(image, np.random.default_rng(0), quality=20)
    np.testing.assert_array_equal(np.round(found[..., 0] * 255).astype(np.uint8), expected)


def test_jpeg_takes_values_beyond_the_range():
    image = picture() * 3 - 1
    np.testing.assert_array_equal(
        jpeg(image, np.random.default_rng(0), quality=90), jpeg(image.clip(0, 1), np.random.default_rng(0), quality=90)
    )


def test_draws_stay_in_their_range_and_fill_it():
    rng = np.random.default_rng(0)
    values = np.array([draw([3, 7.5], rng) for _ in range(2000)])
    assert 3 <= values.min() < 3.05 and 7.45 < values.max() < 7.5
    integers = [draw_integer((10, 13), rng) for _ in range(2000)]
    counts = {value: integers.count(value) for value in set(integers)}
    assert counts.keys() == {10, 11, 12, 13}
    assert all(abs(count - 500) < 5 * math.sqrt(2000 * 0.25 * 0.75) for count in counts.values())


def test_fixed_values_draw_nothing():
    rng, untouched = np.random.default_rng(0), np.random.default_rng(0)
    assert (draw(0.5, rng), draw_integer(30, rng)) == (0.5, 30)
    assert rng.uniform() == untouched.uniform()


def test_sigma_and_quality_are_drawn_from_their_ranges():
    """Where a range is narrow, the result is that of the fixed value next to it."""
    image = np.full((200, 200, 3), 0.5, np.float32)
    levels = [gaussian_noise(image, np.random.default_rng(s), sigma=[10, 40]).std() * 255 for s in range(40)]
    assert 9.5 < min(levels) < 15 and 35 < max(levels) < 40.5
    picked = jpeg(picture(), np.random.default_rng(0), quality=[35, 35])
    np.testing.assert_array_equal(picked, jpeg(picture(), np.random.default_rng(0), quality=35))


def test_scattering_is_the_formula():
    image = picture()
    depth = smooth_depth(45, 61, np.random.default_rng(0))
    clear, far = image.astype(np.float64), depth.astype(np.float64)
    for y, x, c in ((0, 0, 0), (44, 60, 2), (20, 31, 1)):
        t = math.exp(-1.3 * far[y, x])
        expected = clear[y, x, c] * t + 0.8 * (1 - t)
        assert scatter(image, depth, 1.3, 0.8)[y, x, c] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_array_equal(scatter(image, depth, 0.0, 0.8), image)


def test_haze_scatters_over_a_depth_map():
    image = np.zeros((40, 50, 3), np.float32)
    hazy = haze(image, np.random.default_rng(3), beta=1.0, airlight=0.9)
    depth = -np.log(1 - hazy.astype(np.float64) / 0.9)  # of a black image: t = 1 − I/A
    np.testing.assert_allclose(depth, depth[..., :1] * np.ones(3), atol=1e-5)
    expected = smooth_depth(40, 50, np.random.default_rng(3))
    np.testing.assert_allclose(depth[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (300, 200)])
def test_depth_is_smooth_and_in_its_range(size):
    for seed in range(10):
        depth = smooth_depth(*size, np.random.default_rng(seed))
        assert depth.shape == size and depth.min() >= 0.05 and depth.max() <= 1 + 1e-6
        if size == (300, 200):
            steps = max(np.abs(np.diff(depth, axis=axis)).max() for axis in (0, 1))
            assert steps < 0.06 and depth.max() - depth.min() > 0.9


@pytest.mark.parametrize("shake", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("length", [0.5, 12.0, 60.0])
def test_the_kernel_of_a_motion(length, shake):
    for seed in range(5):
        points = camera_trajectory(length, shake, np.random.default_rng(seed))
        walked = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
        assert walked == pytest.approx(length)
        np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-9)
        kernel = trajectory_kernel(points)
        assert kernel.shape[0] == kernel.shape[1] and kernel.shape[0] % 2 == 1
        assert kernel.min() >= 0 and kernel.astype(np.float64).sum() == pytest.approx(1, abs=1e-6)
        if shake == 0:
            ends = np.linalg.norm(points[-1] - points[0])
            assert ends == pytest.approx(length)


def test_a_straight_motion_is_a_box():
    """From −3 to 3 pixels at constant speed: every pixel inside gets 1/6, the two at the ends half of that."""
    points = np.stack([np.linspace(-3, 3, 97), np.zeros(97)], axis=1)
    kernel = trajectory_kernel(points)
    middle = kernel.shape[0] // 2
    np.testing.assert_allclose(kernel[middle, middle - 2 : middle + 3], 1 / 6, atol=2e-3)
    np.testing.assert_allclose(kernel[middle, [middle - 3, middle + 3]], 1 / 12, atol=2e-3)
    assert kernel.sum() == pytest.approx(kernel[middle].sum(), abs=1e-7)


def test_motion_blur_averages_light_and_not_values():
    flat = np.full((20, 20, 3), 0.3, np.float32)
    np.testing.assert_allclose(motion_blur(flat, np.random.default_rng(0), length=9), flat, atol=1e-6)
    image = picture(height=40, width=40)
    kernel = trajectory_kernel(camera_trajectory(9.0, 0.5, np.random.default_rng(0))).astype(np.float64)
    radius, light = kernel.shape[0] // 2, image.astype(np.float64) ** 2.2
    y = x = 20
    window = light[y - radius : y + radius + 1, x - radius : x + radius + 1]
    expected = (window * kernel[..., None]).sum(axis=(0, 1)) ** (1 / 2.2)
    found = motion_blur(image, np.random.default_rng(0), length=9.0, shake=0.5)
    np.testing.assert_allclose(found[y, x], expected, atol=1e-5)


@pytest.mark.parametrize("weather", [rain, snow])
def test_weather_brightens_a_dark_image_and_more_of_it_more(weather):
    dark = np.full((120, 120, 3), 0.1, np.float32)
    light, heavy = (weather(dark, np.random.default_rng(0), amount=amount) for amount in (0.1, 1.0))
    assert (light >= dark - 1e-6).all() and (light == light[..., :1]).all()
    assert 0.001 < light.mean() - 0.1 < heavy.mean() - 0.1 < 0.6
    assert np.median(light) == pytest.approx(0.1, abs=0.02), "most of the image is not covered"


def _crowding(weather, side, count):
    black = np.zeros((side, side, 1), np.float32)
    options = {"amount": 0.6, "angle": 0.0, "opacity": 0.75}
    return np.mean([weather(black, np.random.default_rng(seed), **options).mean() for seed in range(count)])


@pytest.mark.parametrize("weather", [rain, snow])
def test_a_crop_is_covered_as_densely_as_a_large_image(weather):
    small, large = _crowding(weather, 64, 60), _crowding(weather, 384, 6)
    assert small == pytest.approx(large, rel=0.15)


@pytest.mark.parametrize("angle", [-30.0, 0.0, 30.0])
def test_rain_falls_in_its_direction(angle):
    """The structure tensor's weak axis, along which nothing changes, is that of the streaks."""
    rainy = rain(np.zeros((200, 200, 1), np.float32), np.random.default_rng(0), length=30.0, angle=angle)[..., 0]
    dy, dx = np.gradient(cv2.GaussianBlur(rainy, (0, 0), 1.0))
    values, axes = np.linalg.eigh([[(dx * dx).sum(), (dx * dy).sum()], [(dx * dy).sum(), (dy * dy).sum()]])
    assert values[1] > 3 * values[0]
    x, y = axes[:, 0] * np.sign(axes[1, 0])  # downwards
    assert math.degrees(math.atan2(x, y)) == pytest.approx(angle, abs=4)
