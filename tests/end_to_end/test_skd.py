"""SKD in miniature: the example of docs/skd.md with tiny Restormers, a kill, a resumption, and a test."""

import copy
import re
from pathlib import Path

import pytest
import torch
import yaml

from basicsr.utils.img_util import imwrite

from ..helpers import log_text, logged_values, smooth_image, to_test_options, training_state, weights

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "skd.md").read_text(encoding="utf-8")
RESTORMER = {"type": "Restormer", "dim": 4, "num_blocks": [1, 1, 1, 1], "heads": [1, 1, 2, 2]}


def section_of_the_page() -> dict:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.M | re.S)
    return yaml.safe_load(text)


@pytest.fixture
def skd(options, tmp_path):
    """The tiny options at scale 1, with the sections of the page."""
    for index in range(4):
        image = smooth_image(index, 40, 48)
        imwrite(image, str(tmp_path / "clean" / f"{index}.png"))
        imwrite(
            (image * 0.5 + image.mean(axis=(0, 1)) * 0.5).astype(image.dtype), str(tmp_path / "flat" / f"{index}.png")
        )
    for section in options["datasets"].values():
        section |= {"dataroot_gt": f"{tmp_path}/clean", "dataroot_lq": f"{tmp_path}/flat"}
    page = section_of_the_page()
    options["scale"] = 1
    options["datasets"]["train"]["gt_size"] = 16
    options["network_g"] = {**RESTORMER, "num_refinement_blocks": 1}
    options["network_t"] = {**RESTORMER, "dim": 8, "num_refinement_blocks": 2}
    options["network_vgg"] = {**page["network_vgg"], "weights": "random"}
    options["train"] |= page["train"]
    return options


def test_killed_resumed_and_tested(runner, skd, monkeypatch):
    skd["imports"] = [str(Path(__file__).with_name("stopping_plugin.py"))]
    whole = runner.train({**copy.deepcopy(skd), "name": "tiny_whole"})
    names = re.findall(r"iter: +12, .*\] (l_.*)", log_text(whole))[0]
    assert re.findall(r"(l_\w+):", names) == ["l_pix", "l_logits", "l_mca", "l_contrast"]
    assert all(value > 0 for value in logged_values(whole, "l_mca"))
    monkeypatch.setenv("STOP_AT", "7")
    with pytest.raises(KeyboardInterrupt):
        runner.train({**copy.deepcopy(skd), "model_type": "StoppingKDModel"})
    monkeypatch.delenv("STOP_AT")
    resumed = runner.train(skd, "--auto_resume", "--force_yml", "path:resume_changed=[model_type]")
    one, other = (weights(folder, 12) for folder in (whole, resumed))
    assert all(torch.equal(value, other[key][name]) for key in one for name, value in one[key].items())
    assert not any("adapter" in name for name in one["params"])
    one, other = (training_state(folder)["terms"]["mca"] for folder in (whole, resumed))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    adapters = {f"adapters.{i}.{name}" for i in range(3) for name in ("weight", "bias")}
    assert one.keys() == adapters | {"saturation.count"}
    assert one["saturation.count"].shape == (9,)
    tested = log_text_of_test(runner.test(to_test_options(skd, resumed / "models" / "net_g_12.pth")))
    (validated,) = re.findall(r"psnr: ([\d.]+)\tBest: \S+ @ +\d+ iter", log_text(resumed))[-1:]
    assert re.findall(r"psnr: ([\d.]+)", tested) == [validated]


def log_text_of_test(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("test_*.log")))


def test_a_saturated_kernel_is_told_with_its_option(runner, skd, monkeypatch):
    monkeypatch.setattr("basicsr.distill.saturation.PATIENCE", 5)
    skd["train"]["kd_opt"]["mca"]["sigma"] = 1e-6
    text = log_text(runner.train(skd))
    assert text.count("the Gaussian kernel of latent ↔ latent (spatial) has been above 0.999") == 1
    assert "raise sigma, which is 1e-06, towards" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter": "raw"}, r"kd_opt.mca.adapter .*raw"),
        ({"temperature": 0}, r"kd_opt.mca.temperature"),
        ({"pairs": [["encoder_level1", "encoder_level2"]]}, r"kd_opt.mca: .* differ in height and width"),
    ],
)
def test_what_is_refused_before_training(runner, skd, change, message):
    skd["train"]["kd_opt"]["mca"] |= change
    with pytest.raises(ValueError, match=message):
        runner.train(skd)
