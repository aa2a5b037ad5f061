"""The shipped option files, and published files' structure, load and pass the checks."""

import importlib.util
from pathlib import Path

import pytest
import torch
import yaml

from basicsr.archs import build_network
from basicsr.utils.options import read_options
from basicsr.utils.options.files import load_options
from basicsr.utils.options.sections import Section

OPTIONS = Path(__file__).resolve().parents[1] / "options"
BASES = sorted(
    path for path in OPTIONS.rglob("*.yml") if any(p.startswith("_") for p in path.relative_to(OPTIONS).parts)
)
FILES = sorted({*OPTIONS.rglob("*.yml")}.difference(BASES))

# methods.md, section 1: parameters of teachers and students at x2, x3, x4
PARAMETERS = {
    "SwinIR_M": (11_752_487, 11_937_127, 11_900_199),
    "SwinIR_S": (1_087_727, 1_272_367, 1_235_439),
    "RCAN_L": (15_444_643, 15_629_283, 15_592_355),
    "RCAN_S": (5_023_603, 5_208_243, 5_171_315),
    "EDSR_L": (40_729_603, 43_680_003, 43_089_923),
    "EDSR_S": (2_551_555, 2_736_195, 2_699_267),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_files_are_valid(path):
    opt, notices = read_options(path, is_train=path.stem.startswith("train"))
    assert notices == []
    assert opt["name"].endswith(path.stem.removeprefix("train_"))


def test_no_two_files_share_a_run_folder():
    names = [load_options(path)[0]["name"] for path in FILES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("arch", ["EDSR", "RCAN", "SwinIR"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_recipes_are_complete_and_of_the_published_size(arch, scale):
    student, teacher = f"{arch}_S", f"{arch}_{'M' if arch == 'SwinIR' else 'L'}"
    index = scale - 2
    folder = OPTIONS / "train" / arch
    alone, _ = load_options(folder / f"train_{student}_SRx{scale}_scratch.yml")
    distilled, _ = load_options(folder / f"train_{student}_SRx{scale}_logits.yml")
    taught, _ = load_options(folder / f"train_{teacher}_SRx{scale}_scratch.yml")
    assert parameters(alone["network_g"]) == PARAMETERS[student][index]
    assert parameters(taught["network_g"]) == PARAMETERS[teacher][index]
    assert distilled["network_t"] == taught["network_g"]
    # alone and distilled differ in nothing but the distillation
    same = {key: value for key, value in distilled.items() if key not in ("name", "model_type", "network_t", "path")}
    same["train"] = {key: value for key, value in same["train"].items() if key != "kd_opt"}
    assert same == {key: value for key, value in alone.items() if key not in ("name", "model_type", "path")}
    assert alone["datasets"]["train"]["gt_size"] == 48 * scale
    assert all(m["crop_border"] == scale and m["test_y_channel"] for m in alone["val"]["metrics"].values())
    for name, expected in ((student, alone), (teacher, taught)):
        test, _ = load_options(OPTIONS / "test" / arch / f"test_{name}_x{scale}.yml")
        assert test["network_g"] == expected["network_g"]


def parameters(network: dict) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_network(network).parameters())


def published_training() -> dict:
    """The keys of BasicSR's training files for EDSR, RCAN and SwinIR, older spellings among them."""
    return {
        "name": "204_EDSR_Lx2_f256b32_DIV2K_300k_B16G1_wandb",
        "model_type": "SRModel",
        "scale": 2,
        "num_gpu": 1,
        "manual_seed": 10,
        "datasets": {
            "train": {
                "name": "DIV2K",
                "type": "PairedImageDataset",
                "dataroot_gt": "datasets/DIV2K/DIV2K_train_HR_sub",
                "dataroot_lq": "datasets/DIV2K/DIV2K_train_LR_bicubic/X2_sub",
                "meta_info_file": "basicsr/data/meta_info/meta_info_DIV2K800sub_GT.txt",
                "filename_tmpl": "{}",
                "io_backend": {"type": "disk"},
                "gt_size": 96,
                "use_flip": True,
                "use_rot": True,
                "use_shuffle": True,
                "num_worker_per_gpu": 6,
                "batch_size_per_gpu": 16,
                "dataset_enlarge_ratio": 100,
                "prefetch_mode": None,
            },
            "val": {
                "name": "Set5",
                "type": "PairedImageDataset",
                "dataroot_gt": "datasets/Set5/GTmod12",
                "dataroot_lq": "datasets/Set5/LRbicx2",
                "io_backend": {"type": "disk"},
            },
        },
        "network_g": {
            "type": "EDSR",
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 256,
            "num_block": 32,
            "upscale": 2,
            "res_scale": 0.1,
            "img_range": 255.0,
            "rgb_mean": [0.4488, 0.4371, 0.4040],
        },
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "ema_decay": 0.999,
            "optim_g": {"type": "Adam", "lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]},
            "scheduler": {"type": "MultiStepLR", "milestones": [200000], "gamma": 0.5},
            "total_iter": 300000,
            "warmup_iter": -1,
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
        "val": {
            "val_freq": 5e3,
            "save_img": False,
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": False}},
        },
        "logger": {
            "print_freq": 100,
            "save_checkpoint_freq": 5e3,
            "use_tb_logger": True,
            "wandb": {"project": None, "resume_id": None},
        },
        "dist_params": {"backend": "nccl", "port": 29500},
    }


SWINIR = {
    "type": "SwinIR",
    "upscale": 2,
    "in_chans": 3,
    "img_size": 48,
    "window_size": 8,
    "img_range": 1.0,
    "depths": [6, 6, 6, 6],
    "embed_dim": 60,
    "num_heads": [6, 6, 6, 6],
    "mlp_ratio": 2,
    "upsampler": "pixelshuffle",
    "resi_connection": "1conv",
}


def check(tmp_path, opt: dict, is_train: bool = True) -> list[str]:
    path = tmp_path / "x.yml"
    path.write_text(yaml.safe_dump(opt))
    return read_options(path, is_train=is_train)[1]


def test_basicsr_training_files(tmp_path):
    notices = check(tmp_path, published_training())
    assert len(notices) == 1
    assert "use_flip" in notices[0]


def test_basicsr_swinir_training_files(tmp_path):
    opt = published_training() | {"model_type": "SwinIRModel", "num_gpu": "auto", "network_g": SWINIR}
    opt["datasets"]["train"]["use_hflip"] = opt["datasets"]["train"].pop("use_flip")
    assert check(tmp_path, opt) == []


def test_basicsr_rcan_test_file(tmp_path):
    """It has no ``val`` section, and switches of the test at the top."""
    opt = published_training()
    opt = {key: opt[key] for key in ("name", "model_type", "scale", "num_gpu", "manual_seed", "network_g")}
    opt["network_g"] = {
        **{key: value for key, value in opt["network_g"].items() if key != "num_feat"},
        "type": "RCAN",
        "num_feat": 64,
        "num_group": 10,
        "num_block": 20,
        "squeeze_factor": 16,
        "res_scale": 1,
    }
    opt |= {"suffix": None, "crop_border": None, "save_img": True}
    opt["path"] = {"pretrain_model_g": "./experiments/pretrained_models/RCAN_BIX4-official.pth", "strict_load": True}
    opt["datasets"] = {
        "test_1": {
            "name": "val_set5",
            "type": "PairedImageDataset",
            "dataroot_gt": "./datasets/val_set5/Set5",
            "dataroot_lq": "./datasets/val_set5/Set5_bicLRx4",
            "io_backend": {"type": "disk"},
        }
    }
    assert len(check(tmp_path, opt, is_train=False)) == 5


def test_dckd_training_files(tmp_path):
    """The authors' files are accepted as they are."""
    opt = published_training() | {"model_type": "DCKDModel", "num_gpu": 4}
    opt["datasets"]["train"].pop("use_flip")
    opt |= {
        "network_g": SWINIR,
        "network_t": {**SWINIR, "embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6},
        "network_his": True,
        "network_vqgan": {
            "type": "VQGAN",
            "embed_dim": 256,
            "n_embed": 1024,
            "ddconfig": {
                "in_channels": 3,
                "out_ch": 3,
                "resolution": 256,
                "ch": 128,
                "ch_mult": [1, 1, 2, 2, 4],
                "num_res_blocks": 2,
                "attn_resolutions": [16],
                "dropout": 0.0,
                "double_z": False,
                "z_channels": 256,
            },
        },
        "path": {
            f"{key}_{'network_' if key == 'pretrain' else ''}{name}": value
            for name, strict in (("t", True), ("g", True), ("vqgan", False))
            for key, value in (("pretrain", f"{name}.pth"), ("strict_load", strict), ("param_key", "params_ema"))
        },
    }
    opt["train"] |= {
        "logits_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        "lcr_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        "noisy": {"prob": 0.5},
        "cl_opt": {
            "type": "ContrasLoss",
            "d_func": "L1",
            "loss_weight": 0.1,
            "weights": [0.03125, 0.0625, 0.125, 0.25, 1],
        },
        "num_neg": 4,
        "update_decay": 0.1,
        "step": [1000, 2000, 3000],
        "gaussian_blur_prob": 0,
        "resize_prob": 0,
        "gaussian_noise_prob": 1.0,
        "gray_noise_prob": 0.5,
        "ce_opt": {"type": "CELoss", "loss_weight": 0.001, "reduction": "mean"},
    }
    opt["val"]["window_size"] = 8
    check(tmp_path, opt)


@pytest.mark.parametrize("section", Section.__subclasses__(), ids=lambda section: section.__name__)
def test_the_docs_describe_every_key(section):
    text = (OPTIONS.parent / "docs" / "options.md").read_text()
    if section.__module__ == Section.__module__:
        assert [key for key in section.model_fields if f"`{key}`" not in text and f"`{key}." not in text] == []


def test_the_tables_of_the_docs_are_those_of_the_declarations():
    """scripts/option_tables.py writes them."""
    spec = importlib.util.spec_from_file_location("option_tables", OPTIONS.parent / "scripts" / "option_tables.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.with_tables(page) == page
    assert page.count("<!-- table: ") == 15
