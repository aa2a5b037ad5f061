"""What SKD's terms gain in miniature, on denoising: one student, one budget, several ways of training it. [ours]

    python scripts/experiments/skd_miniature.py --data FOLDER [--iterations 1000] [--seeds 3] [--jobs 2] [--arms …]

FOLDER has ``photos/BSDS500_train`` and ``photos/T91`` to train on, ``denoise/CBSD68`` and ``denoise/Kodak24`` to test
on, the teacher ``weights/FFDNet_color.pth`` (published) and a VGG19 in ``weights``. The student is a NAFNet of width 8
and two levels; features are compared at half resolution, on which FFDNet works; the noise has σ 25. All runs go through
``basicsr/train.py``, one CPU thread each; what has been run is not repeated. The results are printed and written to
``experiments/skd_miniature.json``, and crops of the first seed's restorations to ``experiments/skd_miniature.png``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import numpy as np
from _miniature import ROOT, report, require_data, run_name, train_all

from basicsr.data.memmap.writer import create_memmap

NAME = "skd_miniature"
WORK = ROOT / "datasets/skd_miniature"
VGG = "weights/vgg19_caffe_normalised_fp16.pth"
TEACHER = "weights/FFDNet_color.pth"
NEEDED = ("photos/BSDS500_train", "photos/T91", "denoise/CBSD68", "denoise/Kodak24", TEACHER, VGG)
STUDENT = {"type": "NAFNet", "width": 8, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]}
FFDNET = {"type": "FFDNet", "in_nc": 3, "out_nc": 3, "nc": 96, "nb": 12, "sigma": 25}
PAIRS = [["encoders.1", "model.11"], ["decoders.0", "model.21"]]  # of FFDNet ReLUs, in the middle and before the last
LOGITS = {"logits": {"type": "LogitsKD"}}


def kernel(**more: object) -> dict:
    return {"features": {"type": "MCA" if more else "GaussianKernel", "pairs": PAIRS, "loss_weight": 1.0, **more}}


CONTRAST = {"contrast": {"type": "ContrastKD", "loss_weight": 0.01, "start": 100}}  # the student begins as the identity
ARMS = {
    "alone": {},
    "logits": LOGITS,
    "GK": LOGITS | kernel(),
    "MCA channel": LOGITS | kernel(attention="channel"),
    "MCA spatial": LOGITS | kernel(attention="spatial"),
    "MCA both": LOGITS | kernel(attention="both"),
    "MCA+contrast": LOGITS | kernel(attention="both") | CONTRAST,
}


# To find out what limits them: a weight at which their gradients are small beside the losses'.
MORE_ARMS = {"GK ÷10": LOGITS | {"features": kernel()["features"] | {"loss_weight": 0.1}}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=[*ARMS, *MORE_ARMS])
    args = parser.parse_args()
    require_data(args.data, NEEDED)
    for name in ("BSDS500_train", "T91"):
        create_memmap(args.data / "photos" / name, WORK / f"{name}.memmap", num_workers=2)
    seeds = range(1, args.seeds + 1)
    terms = ARMS | MORE_ARMS
    train_all(
        NAME, args.arms, seeds, args.jobs, lambda arm, seed: options(args.data, args.iterations, terms[arm], seed)
    )
    report(NAME, args.arms, seeds, "PSNR (RGB)", baseline="alone")
    draw(args.arms, args.iterations)


def options(data: Path, iterations: int, terms: dict, seed: int) -> dict:
    """A run: the student, with terms or without."""
    noise = {"type": "DegradedImageDataset", "degradations": [{"type": "gaussian_noise", "sigma": 25}]}
    train_set = {
        "name": "photos",
        **noise,
        "dataroot_gt": [str(WORK / f"{name}.memmap") for name in ("BSDS500_train", "T91")],
        "io_backend": {"type": "memmap"},
        "gt_size": 32,
        "geometric_augs": True,
        "batch_size_per_gpu": 8,
        "num_worker_per_gpu": 0,
        "dataset_enlarge_ratio": 10,
    }
    tests = {
        f"val_{index}": {"name": name, **noise, "noise_seed": 0, "dataroot_gt": str(data / "denoise" / name)}
        for index, name in enumerate(("CBSD68", "Kodak24"), 1)
    }
    result = {
        "model_type": "KDModel" if terms else "SRModel",
        "scale": 1,
        "num_gpu": 0,
        "manual_seed": seed,
        "datasets": {"train": train_set, **{k: {**v, "io_backend": {"type": "disk"}} for k, v in tests.items()}},
        "network_g": STUDENT,
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
            "save_img": seed == 1,
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}},
        },
        "logger": {"print_freq": 50, "save_checkpoint_freq": 500, "use_tb_logger": False},
    }
    if terms:
        result["network_t"] = FFDNET
        result["path"]["pretrain_network_t"] = str(data / TEACHER)
        result["train"]["kd_opt"] = {name: {**term, "log_grad": True} for name, term in terms.items()}
    if "contrast" in terms:
        layers = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
        result["network_vgg"] = {"type": "VGGFeatureExtractor", "layer_name_list": layers, "weights": str(data / VGG)}
    return result


def draw(arms: list[str], iterations: int) -> None:
    """A crop of one image as each arm restores it, side by side."""
    crops = []
    for arm in arms:
        folder = ROOT / "experiments" / run_name(NAME, arm, 1) / "visualization"
        image = cv2.imread(str(sorted(folder.rglob(f"*kodim05*_{iterations}.png"))[0]))
        crop = cv2.resize(image[180:330, 180:330], None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        cv2.putText(crop, arm, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
        crops.append(crop)
    cv2.imwrite(str(ROOT / "experiments" / f"{NAME}.png"), np.hstack(crops))


if __name__ == "__main__":
    main()
