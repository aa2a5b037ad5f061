"""``imresize`` against MATLAB's own output (the benchmarks' LR files) and against its definition."""

import math

import cv2
import numpy as np
import pytest
import torch

from basicsr.utils.matlab_functions import imresize


def defined_matrix(size: int, scale: float, antialiasing: bool) -> np.ndarray:
    """Each output pixel as a sum over the infinitely mirrored line, with every tap within reach of the kernel."""
    stretch = 1 / scale if antialiasing and scale < 1 else 1.0
    matrix = np.zeros((math.ceil(size * scale), size))
    for row in range(len(matrix)):
        centre = (row + 0.5) / scale - 0.5
        for tap in range(math.floor(centre - 2 * stretch) - 1, math.ceil(centre + 2 * stretch) + 2):
            x = abs(centre - tap) / stretch
            if x < 1:
                value = 3 / 2 * x**3 - 5 / 2 * x**2 + 1
            elif x < 2:
                value = -1 / 2 * x**3 + 5 / 2 * x**2 - 4 * x + 2
            else:
                value = 0.0
            period = tap % (2 * size)
            matrix[row, min(period, 2 * size - 1 - period)] += value
        matrix[row] /= matrix[row].sum()
    return matrix


def by_definition(img: np.ndarray, scale: float, antialiasing: bool = True) -> np.ndarray:
    along_height = defined_matrix(img.shape[0], scale, antialiasing)
    along_width = defined_matrix(img.shape[1], scale, antialiasing)
    # Rounding to 9 digits first makes sums that are exactly one half so, whatever the order of summation.
    as_uint8 = (lambda x: np.floor(x.round(9) + 0.5).clip(0, 255)) if img.dtype == np.uint8 else (lambda x: x)
    columns = as_uint8(np.einsum("ih,h...->i...", along_height, img.astype(np.float64)))
    return as_uint8(np.einsum("jw,iw...->ij...", along_width, columns))


SCALES = [1 / 2, 1 / 3, 1 / 4, 0.7, 0.05, 1.0, 1.5, 2, 4]


@pytest.mark.parametrize("antialiasing", [True, False])
@pytest.mark.parametrize("scale", SCALES)
def test_floats_follow_the_definition(scale, antialiasing):
    img = np.random.default_rng(0).random((13, 22, 3))
    resized = imresize(img, scale, antialiasing)
    expected = by_definition(img, scale, antialiasing)
    assert resized.shape == expected.shape == (math.ceil(13 * scale), math.ceil(22 * scale), 3)
    assert resized.dtype == np.float64
    np.testing.assert_allclose(resized, expected, atol=1e-13)
    single = imresize(img.astype(np.float32), scale, antialiasing)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-6)


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 2, 3, 4])
def test_uint8_rounds_after_each_axis(scale):
    img = np.random.default_rng(1).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    resized = imresize(img, scale)
    assert resized.dtype == np.uint8
    assert np.array_equal(resized, by_definition(img, scale))
    assert np.array_equal(imresize(img[..., 0], scale), resized[..., 0])


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("dataset", ["Set5", "Set14"])
def test_reproduces_the_benchmarks(shared_data, dataset, scale):
    hr_files = sorted((shared_data / "sr" / dataset / "HR").glob("*.png"))
    assert len(hr_files) == {"Set5": 5, "Set14": 14}[dataset]
    for path in hr_files:
        lr = cv2.imread(str(path.parents[1] / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png"))
        hr = cv2.imread(str(path))[: lr.shape[0] * scale, : lr.shape[1] * scale]
        assert np.array_equal(imresize(hr, 1 / scale), lr), path.name


def test_constant_images_and_scale_one_do_not_change():
    img = np.random.default_rng(2).integers(0, 256, (9, 8), dtype=np.uint8)
    assert np.array_equal(imresize(img, 1), img)
    assert (imresize(np.full((9, 8, 1), 200, np.uint8), 0.4) == 200).all()


@pytest.mark.parametrize("scale", SCALES)
def test_tensors_give_the_same(scale):
    img = np.random.default_rng(3).random((2, 3, 13, 22))
    resized = imresize(torch.from_numpy(img), scale)
    for batch, picture in zip(resized, img):
        np.testing.assert_allclose(batch.permute(1, 2, 0), by_definition(picture.transpose(1, 2, 0), scale), atol=1e-13)
    half = imresize(torch.from_numpy(img).to(torch.bfloat16), scale)
    assert half.dtype == torch.bfloat16
    assert (half - resized).abs().max() < 0.02


def test_tensors_ignore_autocast():
    tensor = torch.rand(3, 12, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = imresize(tensor, 0.5)
    assert torch.equal(inside, imresize(tensor, 0.5))


def test_tensors_carry_gradients():
    tensor = torch.rand(1, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: imresize(x, 0.5), tensor)


@pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf])
def test_bad_scales(scale):
    with pytest.raises(ValueError, match="the scale of imresize must be a positive number, not"):
        imresize(np.zeros((4, 4)), scale)


def test_bad_images():
    with pytest.raises(ValueError, match=r"empty image of the shape \(0, 4\)"):
        imresize(np.zeros((0, 4)), 2)
    with pytest.raises(ValueError, match=r"\(H, W\) or \(H, W, C\), not the shape \(1, 4, 4, 3\)"):
        imresize(np.zeros((1, 4, 4, 3)), 2)
    with pytest.raises(ValueError, match="uint8 or floating images, not int32"):
        imresize(np.zeros((4, 4), np.int32), 2)
    with pytest.raises(ValueError, match=r"floating tensors .*, not torch.uint8"):
        imresize(torch.zeros(3, 4, 4, dtype=torch.uint8), 2)
    with pytest.raises(ValueError, match=r"a tensor \(..., H, W\), not the shape \(4,\)"):
        imresize(torch.zeros(4), 2)
