"""BT.601 studio swing, against scikit-image and against values that the standard gives."""

import numpy as np
import pytest
import torch
from skimage import color

from basicsr.utils.color_util import bgr2ycbcr, rgb2ycbcr, rgb2ycbcr_pt, ycbcr2bgr, ycbcr2rgb


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).random((6, 7, 3))


@pytest.mark.parametrize(
    ("name", "rgb", "ycbcr"),
    [
        ("black", (0, 0, 0), (16, 128, 128)),
        ("white", (255, 255, 255), (235, 128, 128)),
        ("red", (255, 0, 0), (81, 90, 240)),
        ("green", (0, 255, 0), (145, 54, 34)),
        ("blue", (0, 0, 255), (41, 240, 110)),
    ],
)
def test_colour_bars(name, rgb, ycbcr):
    pixel = np.array([[rgb]], np.uint8)
    converted = rgb2ycbcr(pixel)
    assert converted.dtype == np.uint8
    assert converted[0, 0].tolist() == list(ycbcr)
    assert bgr2ycbcr(pixel[..., ::-1])[0, 0].tolist() == list(ycbcr)
    assert rgb2ycbcr(pixel, y_only=True)[0, 0] == ycbcr[0]


def test_floats_agree_with_skimage(rgb):
    expected = color.rgb2ycbcr(rgb) / 255
    np.testing.assert_allclose(rgb2ycbcr(rgb), expected, atol=1e-12)
    np.testing.assert_allclose(bgr2ycbcr(rgb[..., ::-1]), expected, atol=1e-12)
    np.testing.assert_allclose(rgb2ycbcr(rgb, y_only=True), expected[..., 0], atol=1e-12)
    np.testing.assert_allclose(bgr2ycbcr(rgb[..., ::-1], y_only=True), expected[..., 0], atol=1e-12)
    single = rgb2ycbcr(rgb.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-6)


def test_the_way_back(rgb):
    np.testing.assert_allclose(ycbcr2rgb(color.rgb2ycbcr(rgb) / 255), rgb, atol=1e-12)
    np.testing.assert_allclose(ycbcr2bgr(color.rgb2ycbcr(rgb) / 255), rgb[..., ::-1], atol=1e-12)
    assert ycbcr2rgb(rgb.astype(np.float32)).dtype == np.float32


def test_uint8_out_of_gamut_is_clipped():
    # The standard's inverse: R = 1.164 (Y-16) + 1.596 (Cr-128), G = 1.164 (Y-16) - 0.392 (Cb-128) - 0.813 (Cr-128).
    assert ycbcr2rgb(np.array([[[235, 128, 255]]], np.uint8))[0, 0].tolist() == [255, 152, 255]
    assert ycbcr2rgb(np.array([[[0, 0, 0]]], np.uint8))[0, 0].tolist() == [0, 136, 0]


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 5)])
def test_tensors(shape):
    tensor = torch.from_numpy(np.random.default_rng(1).random(shape))
    expected = np.moveaxis(color.rgb2ycbcr(np.moveaxis(tensor.numpy(), -3, -1)), -1, -3) / 255
    np.testing.assert_allclose(rgb2ycbcr_pt(tensor), expected, atol=1e-12)
    np.testing.assert_allclose(rgb2ycbcr_pt(tensor, y_only=True), expected[..., :1, :, :], atol=1e-12)
    assert rgb2ycbcr_pt(tensor.float()).dtype == torch.float32


def test_tensors_carry_gradients():
    tensor = torch.rand(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rgb2ycbcr_pt, tensor)


@pytest.mark.parametrize("convert", [rgb2ycbcr, bgr2ycbcr, ycbcr2rgb, ycbcr2bgr])
def test_bad_images(convert):
    with pytest.raises(ValueError, match=r"three channels \(..., 3\) is expected, not the shape \(4, 4\)"):
        convert(np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"uint8 in \[0, 255\] or floats in \[0, 1\], not uint16"):
        convert(np.zeros((4, 4, 3), np.uint16))


def test_bad_tensors():
    with pytest.raises(ValueError, match=r"RGB images \(B, 3, H, W\) are expected, not the shape \(1, 1, 4, 4\)"):
        rgb2ycbcr_pt(torch.zeros(1, 1, 4, 4))
