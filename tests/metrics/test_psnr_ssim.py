"""PSNR and SSIM against scikit-image, and PSNR-Y of bicubic on Set5 against the published table."""

import math

import cv2
import numpy as np
import pytest
import torch
from skimage import color
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from basicsr.metrics import calculate_psnr, calculate_psnr_pt, calculate_ssim, calculate_ssim_pt
from basicsr.utils import imresize


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture and a noisy one, BGR; higher than the strips in which SSIM is computed."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (18, 10, 3), dtype=np.uint8)
    clean = cv2.resize(coarse, (63, 150), interpolation=cv2.INTER_LINEAR)
    noisy = np.clip(clean + rng.normal(0, 12, clean.shape), 0, 255).round().astype(np.uint8)
    return clean, noisy


def crop(img: np.ndarray, border: int) -> np.ndarray:
    return img[border : img.shape[0] - border, border : img.shape[1] - border]


def luma(bgr: np.ndarray) -> np.ndarray:
    return color.rgb2ycbcr(bgr[..., ::-1] / 255.0)[..., 0]


def skimage_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """The SSIM of two planes by Wang et al.'s settings, over the valid region."""
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    _, ssim_map = structural_similarity(x.astype(np.float64), y.astype(np.float64), full=True, **settings)
    return crop(ssim_map, 5).mean()


@pytest.mark.parametrize("border", [0, 4])
def test_all_channels(pair, border):
    clean, noisy = (crop(img, border) for img in pair)
    psnr = calculate_psnr(*pair, crop_border=border)
    assert psnr == pytest.approx(peak_signal_noise_ratio(clean, noisy, data_range=255), abs=1e-10)
    ssim = calculate_ssim(*pair, crop_border=border)
    expected = np.mean([skimage_ssim(clean[..., channel], noisy[..., channel]) for channel in range(3)])
    assert ssim == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("border", [0, 4])
def test_luma(pair, border):
    clean, noisy = (crop(luma(img), border) for img in pair)
    psnr = calculate_psnr(*pair, crop_border=border, test_y_channel=True)
    assert psnr == pytest.approx(peak_signal_noise_ratio(clean, noisy, data_range=255), abs=1e-10)
    ssim = calculate_ssim(*pair, crop_border=border, test_y_channel=True)
    assert ssim == pytest.approx(skimage_ssim(clean, noisy), abs=1e-10)


@pytest.mark.parametrize("metric", [calculate_psnr, calculate_ssim])
def test_layouts_and_types(pair, metric):
    clean, noisy = pair
    expected = metric(clean, noisy, 2)
    channels_first = (img.transpose(2, 0, 1) for img in pair)
    assert metric(*channels_first, 2, input_order="CHW") == pytest.approx(expected, abs=1e-12)
    assert metric(clean.astype(np.float32), noisy.astype(np.float32), 2) == pytest.approx(expected, abs=1e-12)
    grey = metric(clean[..., 0], noisy[..., 0], 2)
    assert metric(clean[..., :1], noisy[..., :1], 2, test_y_channel=True) == grey


def test_equal_images(pair):
    assert calculate_psnr(pair[0], pair[0], 0) == math.inf
    assert calculate_ssim(pair[0], pair[0], 0) == pytest.approx(1, abs=1e-12)
    flat = np.full((20, 20, 3), 77, np.uint8)
    assert calculate_ssim(flat, flat, 0, test_y_channel=True) == pytest.approx(1, abs=1e-12)


def test_the_farthest_images():
    black, white = np.zeros((12, 12, 3), np.uint8), np.full((12, 12, 3), 255, np.uint8)
    assert calculate_psnr(black, white, 0) == 0
    c1 = (0.01 * 255) ** 2
    assert calculate_ssim(black, white, 0) == pytest.approx(c1 / (255**2 + c1), rel=1e-6)


def test_batches_agree_with_files(pair):
    clean, noisy = (torch.from_numpy(img[..., ::-1].copy()).permute(2, 0, 1) / 255.0 for img in pair)
    first, second = torch.stack([clean, noisy]), torch.stack([noisy, noisy.flip(0)])
    pictures = [(pair[0], pair[1]), (pair[1], pair[1][..., ::-1])]
    for luma_only in (False, True):
        expected = [calculate_psnr(*picture, 3, test_y_channel=luma_only) for picture in pictures]
        psnr = calculate_psnr_pt(first, second, 3, test_y_channel=luma_only)
        assert psnr.dtype == torch.float64
        # 1e-8 beside an error of about 2e-3, and float32 inputs.
        np.testing.assert_allclose(psnr, expected, atol=1e-4)
        expected = [calculate_ssim(*picture, 3, test_y_channel=luma_only) for picture in pictures]
        np.testing.assert_allclose(calculate_ssim_pt(first, second, 3, test_y_channel=luma_only), expected, atol=1e-6)
    assert calculate_psnr_pt(first, first, 0).tolist() == pytest.approx([80, 80])


def test_batches_carry_gradients():
    first = torch.rand(1, 3, 12, 11, dtype=torch.float64, requires_grad=True)
    second = torch.rand(1, 3, 12, 11, dtype=torch.float64)
    for metric in (calculate_psnr_pt, calculate_ssim_pt):
        assert torch.autograd.gradcheck(lambda x, metric=metric: metric(x, second, 0, test_y_channel=True), first)


@pytest.mark.parametrize(("scale", "published"), [(2, 33.67), (3, 30.40), (4, 28.43)])
def test_bicubic_on_set5(shared_data, scale, published):
    values = []
    for path in sorted((shared_data / "sr" / "Set5" / "HR").glob("*.png")):
        lr = cv2.imread(str(path.parents[1] / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png"))
        enlarged = imresize(lr, scale)
        hr = cv2.imread(str(path))[: enlarged.shape[0], : enlarged.shape[1]]
        values.append(calculate_psnr(enlarged, hr, crop_border=scale, test_y_channel=True))
    assert np.mean(values) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize("metric", [calculate_psnr, calculate_ssim])
def test_bad_images(metric):
    img = np.zeros((20, 24, 3), np.uint8)
    with pytest.raises(ValueError, match=r"images of one shape, not \(20, 24, 3\) and \(20, 24, 1\)"):
        metric(img, img[..., :1], 0)
    with pytest.raises(ValueError, match="crop_border 10 leaves nothing of an image of 20×24 pixels"):
        metric(img, img, 10)
    with pytest.raises(ValueError, match="input_order must be HWC or CHW, not hwc"):
        metric(img, img, 0, input_order="hwc")


@pytest.mark.parametrize("metric", [calculate_psnr_pt, calculate_ssim_pt])
def test_bad_batches(metric):
    batch = torch.zeros(1, 3, 20, 24)
    with pytest.raises(ValueError, match=r"of one shape, not \(1, 3, 20, 24\) and \(1, 1, 20, 24\)"):
        metric(batch, batch[:, :1], 0)
    with pytest.raises(ValueError, match=r"batches \(B, C, H, W\) of one shape, not \(3, 20, 24\)"):
        metric(batch[0], batch[0], 0)
    with pytest.raises(ValueError, match="crop_border 10 leaves nothing of images of 20×24 pixels"):
        metric(batch, batch, 10)


def test_too_small_for_the_window():
    assert math.isnan(calculate_ssim(np.zeros((14, 18, 3)), np.zeros((14, 18, 3)), 2))  # validation warns of NaN
    with pytest.raises(ValueError, match="SSIM needs 11×11 pixels or more within crop_border, not 10×14"):
        calculate_ssim_pt(torch.zeros(1, 3, 14, 18), torch.zeros(1, 3, 14, 18), 2)
