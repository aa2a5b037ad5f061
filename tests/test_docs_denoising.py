"""docs/denoising.md: its commands train, test and restore, on small photographs; its tables name what is shipped."""

import numpy as np
import pytest
import torch

from basicsr.archs import build_network
from basicsr.utils.img_util import imread, imwrite
from basicsr.utils.options import load_options

from .helpers import REPOSITORY, log_text, logged_values, smooth_image
from .pages import Page, make_folder, run_command

PAGE = Page("denoising.md")
FILES = REPOSITORY / "options" / "denoise_photos"
RESTORMER = ["dim=8", "num_blocks=[1,1,1,1]", "num_refinement_blocks=1"]
SMALL = [f"network_g:{each}" for each in RESTORMER] + [f"network_t:{each}" for each in RESTORMER]
SMALL += ["datasets:train:gt_sizes=[32]", "datasets:train:mini_batch_sizes=[2]", "datasets:train:iters=[2]"]
EXTRA = {  # weights that the test does not have, and networks that take long
    "ffdnet": ["path:pretrain_network_t=random", "network_t:nc=8", "network_t:nb=3"],
    "restormer.yml": ["path:pretrain_network_t=random", *SMALL[3:6]],
    "gray.yml": ["path:pretrain_network_t=random", "network_t:nc=8", "network_t:nb=3"],
    "SIDD": ["path:pretrain_network_t=random", *SMALL],
}


def test_its_commands_work(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = make_folder(tmp_path, PAGE)
    for part, size in (("train", 60), ("val", 32)):
        for kind in ("input_crops", "target_crops"):
            imwrite(smooth_image(size, size, size), tmp_path / "downloads" / "SIDD" / part / kind / "0001_01.png")
    for command in PAGE.commands():
        extra = next((more for name, more in EXTRA.items() if name in command), [])
        if "test_Restormer" in command:
            command += " " + " ".join(SMALL[:3])
        run_command(command, folder, monkeypatch, extra)
    for run, losses in {
        "denoise_photos_distilled": {"l_logits", "l_mca"},
        "denoise_photos_distilled_ffdnet": {"l_logits"},
        "denoise_photos_distilled_restormer": {"l_logits"},
        "denoise_photos_distilled_gray": {"l_logits"},
        "train_Restormer_S_SIDD_logits": {"l_logits"},
    }.items():
        for loss in losses | {"l_pix"}:
            assert len(logged_values(folder / "experiments" / run, loss)) == 2, (run, loss)
    assert "'sigma': [0, 50]" in log_text(folder / "experiments" / "blind")
    noisy, restored = imread(folder / "photos/noisy/chelsea.png"), imread(folder / "results/restored/chelsea.png")
    assert noisy.shape == restored.shape and (noisy != restored).any()
    for name in ("student", "distilled", "distilled_ffdnet"):
        report = folder / "results" / f"denoise_photos_test_{name}"
        assert (report / "results.md").is_file() and list((report / "visualization").rglob("*.png"))


def test_the_validation_images_have_the_stated_noise(tmp_path, monkeypatch):
    """8-bit noise of 25 on a photograph in the middle of the range: 20·log10(255 / 25) = 20.17 dB."""
    from basicsr.data import build_dataset

    folder = make_folder(tmp_path, PAGE)
    imwrite(np.full((256, 256, 3), 128, np.uint8), folder / "datasets/denoise_photos/val/flat.png")
    opt, _ = load_options(folder / "options/denoise_photos/train_student.yml")
    monkeypatch.chdir(folder)
    item = build_dataset({**opt["datasets"]["val"], "scale": 1, "phase": "val"})[0]
    assert torch.equal(item["lq"], (item["lq"] * 255).round() / 255)
    mse = (item["lq"] - item["gt"]).square().mean().item()
    assert -10 * np.log10(mse) == pytest.approx(20.17, abs=0.05)


@pytest.mark.parametrize(("file", "count"), [("student", 75_355), ("teacher", 438_387)])
def test_the_sizes_in_the_files_are_right(file, count):
    opt, _ = load_options(FILES / f"train_{file}.yml")
    assert sum(parameter.numel() for parameter in build_network(opt["network_g"]).parameters()) == count
    assert f"{count:,d}" in PAGE.text


@pytest.mark.parametrize("path", sorted(FILES.glob("[!_]*.yml")), ids=lambda path: path.stem)
def test_statistics_are_those_of_a_training_patch(path):
    opt, _ = load_options(path)
    patch, _ = load_options(FILES / "_train_.yml")
    assert opt["val"]["local_statistics"] == patch["datasets"]["train"]["gt_size"]


def test_the_teacher_is_the_network_that_was_trained():
    teacher, _ = load_options(FILES / "train_teacher.yml")
    distilled, _ = load_options(FILES / "train_distilled.yml")
    assert teacher["network_g"] == distilled["network_t"]
    assert teacher["name"] in distilled["path"]["pretrain_network_t"]


@pytest.mark.parametrize("check", [PAGE.check_links, PAGE.check_width, PAGE.check_named_files])
def test_the_page_is_in_order(check):
    check()
