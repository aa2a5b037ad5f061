"""docs/restoration.md: its commands prepare, train and test, on small images in the layouts of the public sets."""

import itertools
import re

import pytest

from basicsr.utils.img_util import imwrite
from basicsr.utils.options import load_options

from .helpers import REPOSITORY, logged_values, smooth_image
from .pages import Page, make_folder, run_command

PAGE = Page("restoration.md")
DATA = [line for line in Page("denoising.md").commands() if line.startswith("basicsr prepare subimages")]
RAIN_TESTS = ("Rain100L", "Rain100H", "Test100", "Test1200", "Test2800")
DOWNLOADS = [
    *(f"Rain13K/train/Rain13K/{kind}/1.png" for kind in ("input", "target")),
    *(f"Rain13K/test/{name}/{kind}/1.png" for name in RAIN_TESTS for kind in ("input", "target")),
    *(f"GOPRO_Large/{part}/A/{kind}/1.png" for part in ("train", "test") for kind in ("blur", "sharp")),
    *(f"HIDE/test/{kind}/1.png" for kind in ("input", "target")),
    *("OTS/clear/0001.png", "OTS/part1/0001_0.8_0.2.png"),
    *(f"SOTS/{place}/{kind}" for place in ("indoor", "outdoor") for kind in ("gt/1.png", "hazy/1_0.8_0.2.png")),
]
PATCHES = ["datasets:train:gt_sizes=[32]", "datasets:train:mini_batch_sizes=[2]", "datasets:train:iters=[2]"]
SMALL = {
    "Restormer": ["dim=8", "num_blocks=[1,1,1,1]", "num_refinement_blocks=1"],
    "Uformer": ["embed_dim=4", "depths=[1,1,1,1,1,1,1,1,1]", "img_size=32", "win_size=2"],
    "NAFNet": ["width=4", "enc_blk_nums=[1,1]", "dec_blk_nums=[1,1]"],
}


def options_for(command: str) -> list[str]:
    """What makes a public set's training quick."""
    found = re.search(r"options/train/(\w+)/", command)
    if not found:
        return []
    networks = ["network_g", "network_t"] if "_logits" in command else ["network_g"]
    small = [f"{network}:{each}" for network in networks for each in SMALL[found[1]]]
    if found[1] == "NAFNet":
        small.append("path:pretrain_network_t=random")
    return small + (PATCHES if found[1] == "Restormer" else [])


def test_its_commands_work(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = make_folder(tmp_path, PAGE)
    for seed, name in enumerate(DOWNLOADS):
        imwrite(smooth_image(seed, 40, 48), tmp_path / "downloads" / name)
    commands = PAGE.commands()
    assert len(commands) == 17
    for command in DATA + commands:
        test = re.search(r"options/test/(\w+)/", command)
        if test:
            command += "".join(f" network_g:{each}" for each in SMALL[test[1]])
        run_command(command, folder, monkeypatch, options_for(command))
    runs = folder / "experiments"
    for name in ("train_Restormer_S_Rain13K_logits", "train_NAFNet_S_GoPro_logits", "train_Uformer_S_OTS_logits"):
        assert len(logged_values(runs / name, "l_logits")) == 2
    assert len(logged_values(runs / "rain_distilled", "l_mca")) == 2
    log = next((runs / "all_in_one").glob("train_*.log")).read_text()
    assert all(f"Validation {name}" in log for name in ("noise", "rain", "haze"))


def test_every_file_of_the_table_exists():
    templates = re.findall(r"`(train_<Net>_\w*<Set>_?\w*\.yml)`", PAGE.text)
    assert len(templates) == 5
    nets = {"Restormer": ("Rain13K", "Rain1400", "GoPro", "OTS", "SIDD"), "NAFNet": ("GoPro",)}
    nets["Uformer"] = nets["Restormer"]
    shipped = {path.name for net in nets for path in (REPOSITORY / "options" / "train" / net).glob("train_*.yml")}
    named = {
        template.replace("<Net>", net).replace("<Set>", name)
        for template, net in itertools.product(templates, nets)
        for name in nets[net]
        if not (net == "NAFNet" and "SKD" in template)
    }
    assert named == shipped
    for net, sets in nets.items():
        for name, size in itertools.product(sets, "LS"):
            assert (REPOSITORY / "options" / "test" / net / f"test_{net}_{size}_{name}.yml").is_file()


@pytest.mark.parametrize(("base", "luma"), [("rain13k", True), ("rain1400", True), ("gopro", False), ("ots", False)])
def test_the_metrics_are_those_of_the_table(base, luma):
    opt, _ = load_options(REPOSITORY / "options" / "train" / "_base_" / f"{base}.yml")
    metrics = opt["val"]["metrics"].values()
    assert [(each["test_y_channel"], each["crop_border"]) for each in metrics] == [(luma, 0)] * 2


@pytest.mark.parametrize("check", [PAGE.check_links, PAGE.check_width, PAGE.check_named_files])
def test_the_page_is_in_order(check):
    check()
