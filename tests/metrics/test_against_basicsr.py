"""Our numbers beside those of BasicSR 1.4.2, where the environment variable BASICSR_REFERENCE names a folder that
holds its ``basicsr`` package. It runs in another process, since it has our name, and without the ``__init__`` files
that import everything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from basicsr import metrics
from basicsr.utils import bgr2ycbcr, imresize, rgb2ycbcr, ycbcr2bgr, ycbcr2rgb

REFERENCE_PROGRAM = """
import json, sys, types, warnings
import numpy as np, torch
warnings.simplefilter("ignore")
root, folder = sys.argv[1:]
for name in ("torchvision", "torchvision.utils"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["torchvision.utils"].make_grid = None
for name in ("basicsr", "basicsr.metrics"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [root + "/" + name.replace(".", "/")]
from basicsr.metrics import niqe, psnr_ssim
from basicsr.utils import color_util, matlab_functions
clean, noisy = (np.load(f"{folder}/{name}.npy") for name in ("clean", "noisy"))
values = {}
for y in (False, True):
    for border in (0, 4):
        for name in ("calculate_psnr", "calculate_ssim"):
            metric, tensor_metric = getattr(psnr_ssim, name), getattr(psnr_ssim, name + "_pt")
            values[f"{name} {y} {border}"] = [float(metric(clean, noisy, border, test_y_channel=y))]
            batches = [torch.from_numpy(i[..., ::-1].copy()).permute(2, 0, 1)[None] / 255.0 for i in (clean, noisy)]
            values[f"{name}_pt {y} {border}"] = tensor_metric(*batches, border, test_y_channel=y).tolist()
for to in ("y", "gray"):
    values[f"calculate_niqe {to}"] = [float(niqe.calculate_niqe(noisy.astype(np.float32), 4, convert_to=to))]
arrays = {}
unit = noisy.astype(np.float32) / 255
for name in ("rgb2ycbcr", "bgr2ycbcr", "ycbcr2rgb", "ycbcr2bgr"):
    arrays[name] = getattr(color_util, name)(unit)
    arrays[name + " uint8"] = getattr(color_util, name)(color_util.rgb2ycbcr(noisy) if name[0] == "y" else noisy)
for scale in (0.5, 1 / 3, 0.25, 0.7, 2, 3):
    arrays[f"imresize {scale}"] = matlab_functions.imresize(unit, scale)
np.savez(f"{folder}/arrays.npz", **arrays)
print(json.dumps(values))
"""


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    clean = data.astronaut()[:208, :304, ::-1].copy()
    noise = np.random.default_rng(0).normal(0, 8, clean.shape)
    return clean, np.clip(clean + noise, 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def reference(pair, tmp_path_factory) -> dict:
    """Every number and array that BasicSR gives for the pair of images."""
    root = os.environ.get("BASICSR_REFERENCE")
    if not root:
        pytest.skip("BASICSR_REFERENCE does not name a folder with BasicSR's own package")
    if not (Path(root) / "basicsr" / "metrics" / "psnr_ssim.py").is_file():
        pytest.fail("BASICSR_REFERENCE names a folder without BasicSR's package")
    folder = tmp_path_factory.mktemp("reference")
    for name, img in zip(("clean", "noisy"), pair):
        np.save(folder / f"{name}.npy", img)
    command = [sys.executable, "-c", REFERENCE_PROGRAM, root, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    with np.load(folder / "arrays.npz") as arrays:
        return json.loads(run.stdout) | dict(arrays)


@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize("luma", [False, True])
@pytest.mark.parametrize("name", ["calculate_psnr", "calculate_ssim"])
def test_psnr_and_ssim(reference, pair, name, luma, border):
    # Its luma has passed through float32.
    tolerance = 1e-6 if luma else 1e-10
    value = getattr(metrics, name)(*pair, border, test_y_channel=luma)
    assert value == pytest.approx(reference[f"{name} {luma} {border}"][0], abs=tolerance)
    batches = [torch.from_numpy(img[..., ::-1].copy()).permute(2, 0, 1)[None] / 255.0 for img in pair]
    value = getattr(metrics, f"{name}_pt")(*batches, border, test_y_channel=luma)
    assert value.tolist() == pytest.approx(reference[f"{name}_pt {luma} {border}"], abs=tolerance)


@pytest.mark.parametrize("convert_to", ["y", "gray"])
def test_niqe(reference, pair, convert_to):
    # Its half-size image is made in float32, whose last digits depend on the BLAS library.
    value = metrics.calculate_niqe(pair[1], 4, convert_to=convert_to)
    assert value == pytest.approx(reference[f"calculate_niqe {convert_to}"][0], abs=1e-3)


@pytest.mark.parametrize("convert", [rgb2ycbcr, bgr2ycbcr, ycbcr2rgb, ycbcr2bgr])
def test_colours(reference, pair, convert):
    noisy = pair[1]
    # Its inverse has six digits; ours is computed.
    np.testing.assert_allclose(convert(noisy.astype(np.float32) / 255), reference[convert.__name__], atol=2e-5)
    source = rgb2ycbcr(noisy) if convert.__name__.startswith("y") else noisy
    difference = convert(source).astype(int) - reference[f"{convert.__name__} uint8"]
    # A colour outside the gamut wraps around there and is clipped here.
    difference = difference[np.abs(difference) < 128]
    assert np.abs(difference).max() <= 1
    assert np.count_nonzero(difference) <= difference.size // 500


@pytest.mark.parametrize("scale", [0.5, 1 / 3, 0.25, 0.7, 2, 3])
def test_imresize(reference, pair, scale):
    resized = imresize(pair[1].astype(np.float32) / 255, scale)
    # It places the pixels in float32.
    np.testing.assert_allclose(resized, reference[f"imresize {scale}"], atol=5e-5)
