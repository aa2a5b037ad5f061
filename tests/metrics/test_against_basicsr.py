"""Our numbers beside those of PyPI's BasicSR 1.4.2; see goldens/basicsr_reference.py."""

import numpy as np
import pytest

from basicsr.metrics import niqe, psnr_ssim
from basicsr.utils import color_util, matlab_functions

from ..goldens.basicsr_reference import CONVERSIONS, SCALES, load_goldens, run_metrics


@pytest.fixture(scope="module")
def goldens() -> dict[str, np.ndarray]:
    return load_goldens()


@pytest.fixture(scope="module")
def ours() -> dict[str, np.ndarray]:
    modules = {"psnr_ssim": psnr_ssim, "niqe": niqe}
    return run_metrics({**modules, "color_util": color_util, "matlab_functions": matlab_functions})


@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize("luma", [False, True])
@pytest.mark.parametrize("name", ["calculate_psnr", "calculate_ssim", "calculate_psnr_pt", "calculate_ssim_pt"])
def test_psnr_and_ssim(goldens, ours, name, luma, border):
    # Its luma has passed through float32.
    key = f"{name} {luma} {border}"
    assert ours[key] == pytest.approx(goldens[key], abs=1e-6 if luma else 1e-10)


@pytest.mark.parametrize("convert_to", ["y", "gray"])
def test_niqe(goldens, ours, convert_to):
    # It rounds a luma that has passed through float32, so that some pixels differ by 1.
    key = f"calculate_niqe {convert_to}"
    assert ours[key] == pytest.approx(goldens[key], abs=5e-3)


@pytest.mark.parametrize("name", CONVERSIONS)
def test_colours(goldens, ours, name):
    # Its inverse has six digits; ours is computed.
    np.testing.assert_allclose(ours[name], goldens[name], atol=2e-5)
    difference = ours[f"{name} uint8"].astype(int) - goldens[f"{name} uint8"]
    # A colour outside the gamut wraps around there and is clipped here.
    difference = difference[np.abs(difference) < 128]
    assert np.abs(difference).max() <= 1
    assert np.count_nonzero(difference) <= difference.size // 500


@pytest.mark.parametrize("scale", SCALES)
def test_imresize(goldens, ours, scale):
    # It places the pixels in float32.
    np.testing.assert_allclose(ours[f"imresize {scale}"], goldens[f"imresize {scale}"], atol=5e-5)
