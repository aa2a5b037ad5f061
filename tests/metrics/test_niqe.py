"""NIQE against its formulas, written out block by block in float64 with SciPy."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.ndimage import correlate
from scipy.special import gamma
from skimage import color, data

import basicsr.metrics
from basicsr.metrics import calculate_niqe
from basicsr.utils import imresize

PRISTINE_FILE = Path(basicsr.metrics.__file__).with_name("niqe_pris_params.npz")
SHAPES = np.arange(0.2, 10.0005, 0.001)
MOMENT_RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


def fit(values: np.ndarray) -> tuple[float, float, float]:
    left = math.sqrt(np.mean(values[values < 0] ** 2))
    right = math.sqrt(np.mean(values[values > 0] ** 2))
    ratio = left / right
    target = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    target *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = SHAPES[np.argmin((MOMENT_RATIOS - target) ** 2)]
    scale = math.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def block_features(block: np.ndarray) -> list[float]:
    shape, left, right = fit(block)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = fit(block * np.roll(block, shift, axis=(0, 1)))
        features += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return features


def niqe_by_definition(plane: np.ndarray) -> float:
    """The NIQE of a rounded plane, which has texture everywhere, of whole 96×96 blocks."""
    y, x = np.mgrid[-3:4, -3:4]
    window = np.exp(-(x**2 + y**2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    scales = []
    for picture, size in ((plane, 96), (imresize(plane, 0.5), 48)):
        mean = correlate(picture, window, mode="nearest")
        deviation = np.sqrt(np.abs(correlate(picture**2, window, mode="nearest") - mean**2))
        normal = (picture - mean) / (deviation + 1)
        rows, columns = normal.shape[0] // size, normal.shape[1] // size
        blocks = [np.split(row, columns, axis=1) for row in np.split(normal, rows)]
        scales.append([block_features(block) for row in blocks for block in row])
    features = np.hstack(scales)
    with np.load(PRISTINE_FILE) as pristine:
        offset = features.mean(axis=0) - pristine["mean"]
        covariance = (np.cov(features.T) + pristine["covariance"]) / 2
    return math.sqrt(offset @ np.linalg.pinv(covariance) @ offset)


@pytest.fixture(scope="module")
def textured() -> np.ndarray:
    """A photograph with a little noise, so that no area is flat; BGR, 200×301."""
    photograph = data.astronaut()[:200, :301, ::-1]
    noise = np.random.default_rng(0).normal(0, 3, photograph.shape)
    return np.clip(photograph + noise, 0, 255).round().astype(np.uint8)


def test_definition(textured):
    plane = color.rgb2ycbcr(textured[..., ::-1] / 255.0)[..., 0].round()
    # We round local means to float32.
    assert calculate_niqe(textured, 0) == pytest.approx(niqe_by_definition(plane[:192, :288]), abs=1e-3)
    assert calculate_niqe(textured, 4) == pytest.approx(niqe_by_definition(plane[4:196, 4:292]), abs=1e-3)


def test_grey_weights(textured):
    plane = (textured @ np.array([0.114, 0.587, 0.299])).round()[:192, :288]
    assert calculate_niqe(textured, 0, convert_to="gray") == pytest.approx(niqe_by_definition(plane), abs=0.02)
    one_channel = np.repeat(plane[..., None], 3, axis=2)
    assert calculate_niqe(plane, 0, convert_to="gray") == calculate_niqe(one_channel, 0, convert_to="gray")


def test_layouts(textured):
    expected = calculate_niqe(textured, 0)
    assert calculate_niqe(textured.transpose(2, 0, 1), 0, input_order="CHW") == expected
    assert calculate_niqe(textured.astype(np.float32), 0) == expected


def test_damage_raises_it():
    photograph = data.astronaut()[..., ::-1]
    clean = calculate_niqe(photograph, 0)
    noise = np.random.default_rng(1).normal(0, 25, photograph.shape)
    assert calculate_niqe(np.clip(photograph + noise, 0, 255), 0) > clean + 1
    assert calculate_niqe(cv2.GaussianBlur(photograph, (0, 0), 3), 0) > clean + 1


def test_flat_blocks_do_not_spoil_it(textured):
    half_flat = textured.copy()
    half_flat[:96] = 255
    assert math.isfinite(calculate_niqe(half_flat, 0))
    assert math.isnan(calculate_niqe(np.full_like(textured, 128), 0))


def test_pristine_model_is_a_distribution():
    with np.load(PRISTINE_FILE, allow_pickle=False) as pristine:
        mean, covariance = pristine["mean"], pristine["covariance"]
    assert mean.shape == (36,)
    assert np.array_equal(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9


def test_bad_images(textured):
    with pytest.raises(ValueError, match="two blocks of 96×96 pixels.*96×191 pixels .*hold 1"):
        calculate_niqe(textured[:100, :195], 2)
    with pytest.raises(ValueError, match="two blocks of 96×96 pixels.*95×301 pixels .*hold 0"):
        calculate_niqe(textured[:95], 0)
    with pytest.raises(ValueError, match="convert_to must be y or gray, not rgb"):
        calculate_niqe(textured, 0, convert_to="rgb")
