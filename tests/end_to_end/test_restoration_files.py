"""Shipped option files beyond super-resolution, with tiny networks and images: trained, stopped, resumed and tested."""

import copy
from pathlib import Path

import pytest
import torch

from basicsr.utils.img_util import imwrite
from basicsr.utils.options.files import load_options

from ..helpers import log_text, small_vqgan, smooth_image, training_state, weights

OPTIONS = Path(__file__).resolve().parents[2] / "options"
TINY = {
    "Restormer": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1},
    "Uformer": {"embed_dim": 4, "depths": [1] * 9},
    "NAFNet": {"width": 4, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
}
SIDE = {"Restormer": 64, "Uformer": 128, "NAFNet": 32}  # Uformer pads to 128


def shrink(file: str, folder: Path) -> dict:
    """The options of a file with tiny networks, images, patches, batches and lengths; the rest as it stands."""
    arch = file.split("_")[1]
    options = copy.deepcopy(load_options(OPTIONS / "train" / arch / f"{file}.yml")[0])
    for name in ("network_g", "network_t"):
        options[name] |= TINY[arch]
    if "network_vqgan" in options:
        options["network_vqgan"] = small_vqgan(5)
        options["network_vqgan"]["ddconfig"]["ch"] = 64  # two channels per group: the trial's corner is one pixel deep
    if "network_vgg" in options:
        options["network_vgg"] |= {"weights": "random"}
    for section in options["datasets"].values():
        section |= {"dataroot_gt": str(folder / "gt"), "dataroot_lq": str(folder / "lq")}
    side, train_set = SIDE[arch], options["datasets"]["train"]
    train_set |= {"gt_size": side, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0, "dataset_enlarge_ratio": 4}
    if "gt_sizes" in train_set:
        train_set |= {
            "gt_sizes": [32, 32, 48, 48, side, side],
            "mini_batch_sizes": [2, 2, 2, 1, 1, 1],
            "iters": [1] * 6,
        }
    scheduler = options["train"]["scheduler"]
    scheduler |= {"periods": [2, 4]} if "periods" in scheduler else {"T_max": 6}
    options["train"]["total_iter"] = 6
    for term in options["train"]["kd_opt"].values():
        term.pop("start", None)
    options["val"]["val_freq"] = 6
    options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False}
    return options | {"path": {}, "num_gpu": 0}


@pytest.mark.parametrize(
    "file",
    [
        "train_Restormer_Rain13K_SKD",
        "train_Restormer_SIDD_DCKD",
        "train_Restormer_S_OTS_logits",
        "train_Uformer_GoPro_SKD",
        "train_NAFNet_GoPro_DCKD",
    ],
)
def test_a_shipped_file_trains_resumes_and_tests(file, runner, tmp_path, monkeypatch):
    for index in range(4):
        image = smooth_image(index, 131, 137)
        imwrite(image, str(tmp_path / "gt" / f"{index}.png"))
        imwrite((image * 0.7).astype(image.dtype), str(tmp_path / "lq" / f"{index}.png"))
    options = shrink(file, tmp_path) | {"imports": [str(Path(__file__).with_name("stopping_plugin.py"))]}
    whole = runner.train({**copy.deepcopy(options), "name": "whole"})
    text = log_text(whole)
    assert all(f"l_{term}" in text for term in ("pix", *options["train"]["kd_opt"]))
    monkeypatch.setenv("STOP_AT", "4")
    with pytest.raises(KeyboardInterrupt):
        runner.train({**copy.deepcopy(options), "model_type": "StoppingKDModel"})
    monkeypatch.delenv("STOP_AT")
    resumed = runner.train(options, "--auto_resume", "--force_yml", "path:resume_changed=[model_type]")
    one, other = weights(whole, 6), weights(resumed, 6)
    assert all(torch.equal(value, other[key][name]) for key in one for name, value in one[key].items())
    assert training_state(resumed, 6)["iter"] == 6

    arch, task = file.split("_")[1], next(part for part in file.split("_")[2:] if part != "S")
    test, _ = load_options(OPTIONS / "test" / arch / f"test_{arch}_S_{task}.yml")
    test = copy.deepcopy(test) | {"num_gpu": 0, "path": {"pretrain_network_g": str(resumed / "models/net_g_6.pth")}}
    test["network_g"] |= TINY[arch]
    name, section = next(iter(test["datasets"].items()))
    test["datasets"] = {name: section | {"dataroot_gt": f"{tmp_path}/gt", "dataroot_lq": f"{tmp_path}/lq"}}
    results = log_text(resumed), "\n".join(path.read_text() for path in runner.test(test).glob("test_*.log"))
    validated, tested = (found_psnr(text) for text in results)
    assert tested == validated


def found_psnr(text: str) -> str:
    """The last PSNR in a log."""
    return text.split("# psnr: ")[-1].split("\t")[0].split()[0]
