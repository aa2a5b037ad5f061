"""What DCKD's terms gain in miniature: one student, one budget, five ways of training it, several seeds. [ours]

    python scripts/experiments/dckd_miniature.py --data FOLDER [--iterations 1500] [--seeds 3] [--jobs 2] [--arms …]

FOLDER has ``photos/BSDS500_train``, ``photos/T91``, ``photos/BSDS500_test``, ``sr/Set5``, ``sr/Set14`` (with ``HR`` and
``LR_bicubic/X2``), the teacher ``weights/IMDN_x2.pth`` and a VGG19 in ``weights``. The encoder is trained first, by
VQGAN's recipe, on the training photographs. All runs go through ``basicsr/train.py``, one CPU thread each; what has
been run is not repeated. The results are printed and written to ``experiments/dckd_miniature.json``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from _miniature import ROOT, report, require_data, train, train_all

from basicsr.data.memmap.writer import create_memmap
from basicsr.data.preparation import make_lr

NAME = "dckd_miniature"
WORK = ROOT / "datasets/dckd_miniature"
VGG = "weights/vgg19_caffe_normalised_fp16.pth"
NEEDED = (
    *("photos/BSDS500_train", "photos/T91", "photos/BSDS500_test", "sr/Set5", "sr/Set14", "weights/IMDN_x2.pth"),
    VGG,
)
ENCODER = "dckd_miniature_vqgan"
ENCODER_NET = {  # f8, four levels; with f16 as published, as short a training gave 14 dB instead
    "embed_dim": 64,
    "n_embed": 256,
    "ddconfig": {
        "ch": 32,
        "ch_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "resolution": 64,
        "z_channels": 64,
    },
}
TRAIN_SET = {
    "name": "photos",
    "type": "PairedImageDataset",
    "io_backend": {"type": "memmap"},
    "gt_size": 64,
    "dataroot_gt": str(WORK / "HR.memmap"),
    "use_hflip": True,
    "use_rot": True,
    "num_worker_per_gpu": 0,
}
INPUT = {"encoder": "vqgan", "input_range": "[-1,1]"}  # what this encoder is trained on
LOGITS = {"logits": {"type": "LogitsKD"}}
DCR = {"dcr": {"type": "DCR", **INPUT, "loss_weight": 0.1, "history_source": "student", "step": [100]}}
DCR["dcr"]["weights"] = [0.0625, 0.125, 0.25, 1.0]
DMM = {"dmm": {"type": "DMM", **INPUT, "loss_weight": 0.001}}
ARMS = {"alone": {}, "logits": LOGITS, "DCR": LOGITS | DCR, "DMM": LOGITS | DMM, "DCR+DMM": LOGITS | DCR | DMM}
# To find out what limits them: weights at which their gradients are a part of the L1 losses', and another encoder.
MORE_ARMS = {
    "DCR ÷10": LOGITS | {"dcr": DCR["dcr"] | {"loss_weight": 0.01}},
    "DMM ×100": LOGITS | {"dmm": DMM["dmm"] | {"loss_weight": 0.1}},
    "DCR VGG19": LOGITS
    | {"dcr": DCR["dcr"] | {"encoder": "vgg", "input_range": "[0,1]", "weights": [0.125, 0.25, 1.0]}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--encoder-iterations", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=[*ARMS, *MORE_ARMS])
    parser.add_argument("--encoder-only", action="store_true")
    args = parser.parse_args()
    require_data(args.data, NEEDED)
    prepare(args.data)
    train(ENCODER, encoder_options(args.encoder_iterations), threads=args.jobs)
    if args.encoder_only:
        return
    seeds = range(1, args.seeds + 1)
    terms = {**ARMS, **MORE_ARMS}
    train_all(
        NAME, args.arms, seeds, args.jobs, lambda arm, s: student_options(args.data, args.iterations, terms[arm], s)
    )
    report(NAME, args.arms, seeds, "PSNR-Y", baseline="logits")


def prepare(data: Path) -> None:
    """Training photographs, cut to even sides, with ×2 LR by MATLAB's bicubic, decoded; the same of 20 to test."""
    for name in ("BSDS500_train", "T91"):
        problems = make_lr(data / "photos" / name, WORK / "LR", [2], gt_output_folder=WORK / "HR", num_workers=2)
        assert not problems, problems
    for folder in ("HR", "LR/X2"):
        create_memmap(WORK / folder, WORK / f"{folder.replace('/', '_')}.memmap", num_workers=2)
    test = WORK / "test_photos"
    test.mkdir(exist_ok=True)
    for path in sorted((data / "photos/BSDS500_test").glob("*.jpg"))[::10]:
        (test / path.name).unlink(missing_ok=True)
        (test / path.name).symlink_to(path.resolve())
    make_lr(test, WORK / "test_LR", [2], gt_output_folder=WORK / "test_HR", num_workers=2)


def encoder_options(iterations: int) -> dict:
    train_set = {
        **TRAIN_SET,
        "dataroot_lq": str(WORK / "HR.memmap"),
        "batch_size_per_gpu": 16,
        "dataset_enlarge_ratio": 20,
    }
    return {
        "_base_": str(ROOT / "options/train/VQGAN/train_VQGAN_f16_n256.yml"),
        "name": ENCODER,
        "num_gpu": 0,
        "network_g": {"type": "VQGANAutoEncoder", **ENCODER_NET},
        "datasets": {"train": train_set, "val": {"name": "test", "dataroot_lq": str(WORK / "test_HR")}},
        "train": {
            "total_iter": iterations,
            "warmup_iter": 50,
            "ema_decay": 0.995,
            "scheduler": {"type": "CosineAnnealingLR", "T_max": iterations, "eta_min": 1e-6},
        },
        "val": {"val_freq": iterations, "save_img": True, "metrics": {"psnr": {"crop_border": 0}}},
        "logger": {"print_freq": 50, "save_checkpoint_freq": 500, "use_tb_logger": False},
    }


def student_options(data: Path, iterations: int, terms: dict, seed: int) -> dict:
    train_set = {
        **TRAIN_SET,
        "dataroot_lq": str(WORK / "LR_X2.memmap"),
        "filename_tmpl": "{}x2",
        "batch_size_per_gpu": 8,
        "dataset_enlarge_ratio": 10,
    }
    tests = {"photos": (WORK / "test_HR", WORK / "test_LR/X2")}
    tests |= {name: (data / "sr" / name / "HR", data / "sr" / name / "LR_bicubic/X2") for name in ("Set5", "Set14")}
    datasets = {
        f"val_{index}": {
            "name": name,
            "type": "PairedImageDataset",
            "io_backend": {"type": "disk"},
            "filename_tmpl": "{}x2",
            "dataroot_gt": str(gt),
            "dataroot_lq": str(lq),
        }
        for index, (name, (gt, lq)) in enumerate(tests.items(), 1)
    }
    options = {
        "model_type": "KDModel" if terms else "SRModel",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": seed,
        "datasets": {"train": train_set, **datasets},
        "network_g": {
            "type": "EDSR",
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 16,
            "num_block": 4,
            "upscale": 2,
            "res_scale": 1,
            "img_range": 1.0,
        },
        "path": {},
        "train": {
            "ema_decay": 0.99,
            "total_iter": iterations,
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0},
            "optim_g": {"type": "Adam", "lr": 2e-3, "betas": [0.9, 0.99]},
            "scheduler": {"type": "CosineAnnealingLR", "T_max": iterations, "eta_min": 1e-5},
        },
        "val": {
            "val_freq": iterations,
            "metrics": {
                metric: {"type": f"calculate_{metric}", "crop_border": 2, "test_y_channel": True}
                for metric in ("psnr", "ssim")
            },
        },
        "logger": {"print_freq": 50, "save_checkpoint_freq": 500, "use_tb_logger": False},
    }
    if terms:
        options["network_t"] = {"type": "IMDN", "num_in_ch": 3, "num_out_ch": 3, "upscale": 2}
        options["path"]["pretrain_network_t"] = str(data / "weights/IMDN_x2.pth")
        options["train"]["kd_opt"] = {name: {**term, "log_grad": True} for name, term in terms.items()}
    if "'vgg'" in str(terms):
        layers = ["relu1_1", "relu2_1", "relu3_1"]
        weights = str(data / VGG)
        options["network_vgg"] = {"type": "VGGFeatureExtractor", "layer_name_list": layers, "weights": weights}
    elif "encoder" in str(terms):
        options["network_vqgan"] = {"type": "VQGAN", **ENCODER_NET}
        options["path"]["pretrain_network_vqgan"] = str(ROOT / f"experiments/{ENCODER}/models/net_g_latest.pth")
    return options


if __name__ == "__main__":
    main()
