"""Published weights of DnCNN, FFDNet and PReNet give the known figures through test.py and the shipped option files."""

import json
import os

import pytest

from basicsr.utils.options import load_options

from ..helpers import REPOSITORY

long = pytest.mark.skipif(
    not os.environ.get("BASICSR_LONG_TESTS"), reason="takes minutes; set BASICSR_LONG_TESTS=1 to run it"
)


def mean_psnr(runner, file, weights, **folders) -> dict[str, float]:
    """The mean PSNR of each data set, by name; ``folders`` are the data sets' by their sections."""
    opt, _ = load_options(REPOSITORY / "options" / "test" / file)
    opt["num_gpu"] = 0
    opt["path"]["pretrain_network_g"] = str(weights)
    opt["datasets"] = {name: opt["datasets"][name] | keys for name, keys in folders.items()}
    del opt["val"]["metrics"]["ssim"]
    report = json.loads((runner.test(opt) / "results.json").read_text())["datasets"]
    return {name: values["mean"]["psnr"] for name, values in report.items()}


@pytest.mark.parametrize(
    ("folder", "section", "psnr"), [("Kodak24", "test_2", 32.13), pytest.param("CBSD68", "test_1", 31.21, marks=long)]
)
def test_ffdnet_on_colour_images(runner, shared_data, folder, section, psnr):
    """Zhang et al., TIP 2018, table V, as the weights' authors' code gives them."""
    found = mean_psnr(
        runner,
        "FFDNet/test_FFDNet_color_sigma25.yml",
        shared_data / "weights" / "FFDNet_color.pth",
        **{section: {"dataroot_gt": str(shared_data / "denoise" / folder)}},
    )
    assert found[folder] == pytest.approx(psnr, abs=0.01)


@long
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


@long
def test_dncnn_on_grey_images(runner, shared_data):
    """Zhang et al., TIP 2017, table II: 29.23 dB with another draw of the noise."""
    found = mean_psnr(
        runner,
        "DnCNN/test_DnCNN_gray_sigma25.yml",
        shared_data / "weights" / "DnCNN_gray_sigma25.pth",
        test_1={"dataroot_gt": str(shared_data / "denoise" / "CBSD68")},
    )
    assert found["CBSD68"] == pytest.approx(29.23, abs=0.02)
