"""Published weights of DnCNN, FFDNet and PReNet give the known figures through test.py and the shipped option files."""

import json
import shutil

import pytest

from basicsr.utils.options import load_options

from ..helpers import REPOSITORY


def mean_psnr(runner, file, weights, **folders) -> dict[str, float]:
    """The mean PSNR of each data set, by name; ``folders`` are the data sets' by their sections."""
    opt, _ = load_options(REPOSITORY / "options" / "test" / file)
    opt["num_gpu"] = 0
    opt["path"]["pretrain_network_g"] = str(weights)
    opt["datasets"] = {name: opt["datasets"][name] | keys for name, keys in folders.items()}
    del opt["val"]["metrics"]["ssim"]
    report = json.loads((runner.test(opt) / "results.json").read_text())["datasets"]
    return {name: values["mean"]["psnr"] for name, values in report.items()}


def test_ffdnet_on_colour_images(runner, shared_data):
    """Zhang et al., TIP 2018, table V, as the weights' authors' code gives them: CBSD68 31.21, Kodak24 32.13."""
    found = mean_psnr(
        runner,
        "FFDNet/test_FFDNet_color_sigma25.yml",
        shared_data / "weights" / "FFDNet_color.pth",
        test_1={"dataroot_gt": str(shared_data / "denoise" / "CBSD68")},
        test_2={"dataroot_gt": str(shared_data / "denoise" / "Kodak24")},
    )
    assert found["CBSD68"] == pytest.approx(31.21, abs=0.01)
    assert found["Kodak24"] == pytest.approx(32.13, abs=0.01)


def test_prenet_on_rain(runner, shared_data):
    """The mean over 20 images, 22.29 dB with the rain: 25.60 with the weights for Rain100H."""
    rain = shared_data / "weather" / "SIRR20"
    found = mean_psnr(
        runner,
        "PReNet/test_PReNet_Rain100H.yml",
        shared_data / "weights" / "PReNet_Rain100H.pth",
        test_1={"dataroot_gt": str(rain / "norain"), "dataroot_lq": str(rain / "rain")},
    )
    assert found["Rain100H"] == pytest.approx(25.60, abs=0.01)


def test_dncnn_on_grey_images(runner, shared_data, tmp_path):
    """Of all 68 images our mean is 29.22 dB, and Zhang et al., TIP 2017, table II, have 29.23; here the first eight."""
    folder = tmp_path / "images"
    folder.mkdir()
    for image in sorted((shared_data / "denoise" / "CBSD68").iterdir())[:8]:
        shutil.copy(image, folder)
    found = mean_psnr(
        runner,
        "DnCNN/test_DnCNN_gray_sigma25.yml",
        shared_data / "weights" / "DnCNN_gray_sigma25.pth",
        test_1={"dataroot_gt": str(folder)},
    )
    assert found["CBSD68"] == pytest.approx(29.11, abs=0.01)
