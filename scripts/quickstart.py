"""The main job in a few minutes: distil a small network from a larger one, and compare it with its twin trained alone.

Everything goes through the commands a user would type (``basicsr/train.py``, ``basicsr/test.py``) with the option files
in ``options/quickstart``; the images are the photographs bundled with scikit-image, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from skimage import data as photographs

from basicsr.archs import build_network
from basicsr.data.preparation import extract_subimages, make_lr
from basicsr.engine.compute.profile import count_flops
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils.img_util import img2tensor, imread, imwrite
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.options import load_options

DATA = Path("datasets/quickstart")
TEST = ("astronaut", "chelsea", "coffee")
TRAIN = (
    *("brick", "camera", "coins", "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "moon", "page"),
    *("retina", "rocket", "stereo_motorcycle"),
)
CROPS = {"astronaut": (90, 180), "chelsea": (100, 100), "coffee": (140, 300)}  # top, left of a 96×96 detail
METHODS = ("student", "distilled", "teacher")


def prepare_data() -> None:
    """Write the photographs, their ×2 LR by MATLAB's bicubic, and the training sub-images."""
    for split, names in (("train", TRAIN), ("test", TEST)):
        for name in names:
            images = getattr(photographs, name)()
            for index, image in enumerate(images[:2] if isinstance(images, tuple) else [images]):
                path = DATA / f"{split}_photos" / f"{name}{index or ''}.png"
                if not path.exists():
                    imwrite(np.ascontiguousarray(_bgr(image)), str(path))
        problems = make_lr(DATA / f"{split}_photos", DATA / f"{split}_LR", [2], gt_output_folder=DATA / f"{split}_HR")
        _stop_on(problems)
    for kind, size, tmpl in (("HR", 160, "{}"), ("LR/X2", 80, "{}x2")):
        target = DATA / f"train_{kind.split('/')[0]}_sub"
        problems = extract_subimages(DATA / f"train_{kind}", target, size, size, filename_tmpl=tmpl)
        _stop_on(problems)


def _stop_on(problems: list[str]) -> None:
    if problems:
        sys.exit("The data could not be prepared:\n" + "\n".join(problems))


def _bgr(image: np.ndarray) -> np.ndarray:
    return np.stack([image] * 3, -1) if image.ndim == 2 else image[..., 2::-1]


def run(script: str, option_file: str) -> None:
    """Run one of the package's commands as a user would, its log on the screen."""
    command = [sys.executable, f"basicsr/{script}.py", "-opt", f"options/quickstart/{option_file}.yml"]
    print(f"\n$ python {' '.join(command[1:])}", flush=True)
    # Such small networks are not faster on several threads, and much slower if the threads share cores.
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def bicubic_row() -> dict:
    """Bicubic enlargement, measured as the networks are."""
    values = []
    for name in TEST:
        gt = imread(str(DATA / "test_HR" / f"{name}.png"))
        enlarged = imresize(imread(str(DATA / "test_LR/X2" / f"{name}x2.png")), 2)
        imwrite(enlarged, str(_result("bicubic", name)))
        values.append([metric(enlarged, gt, 2, test_y_channel=True) for metric in (calculate_psnr, calculate_ssim)])
    psnr, ssim = np.mean(values, axis=0)
    return {"psnr": psnr, "ssim": ssim}


def _result(method: str, name: str) -> Path:
    run_name = f"quickstart_test_{method}"
    return Path("results", run_name, "visualization", "quickstart_test", f"{name}x2_{run_name}.png")


def network_row(method: str) -> dict:
    """What test.py measured, and the cost of the network."""
    opt, _ = load_options(f"options/quickstart/test_{method}.yml")
    report = json.loads(Path(f"results/{opt['name']}/results.json").read_text())
    return {**report["datasets"]["quickstart_test"]["mean"], **cost(json.dumps(opt["network_g"]))}


@cache
def cost(network_g: str) -> dict:
    """Parameters, operations and time of a network, given as JSON; measured once, since weights do not matter."""
    net = build_network(json.loads(network_g)).eval()
    lq = imread(str(DATA / "test_LR/X2" / f"{TEST[0]}x2.png"), float32=True)
    image = img2tensor(lq)[None]
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "gflops": count_flops(net, image) / 1e9,
        "milliseconds": _milliseconds(net, image),
    }


@torch.no_grad()
def _milliseconds(net: torch.nn.Module, image: torch.Tensor) -> float:
    """Median time of a forward pass, after two warm-up passes."""
    durations = []
    for _ in range(9):
        start = time.perf_counter()
        net(image)
        durations.append(1e3 * (time.perf_counter() - start))
    return statistics.median(durations[2:])


def table(rows: dict[str, dict]) -> str:
    """The comparison as a Markdown table."""
    lines = [
        "| ×2, three held-out photographs | PSNR (Y) | SSIM (Y) | parameters | GFLOPs | ms per image |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        cost = "– | – | –"
        if "parameters" in row:
            cost = f"{row['parameters']:,d} | {row['gflops']:.2f} | {row['milliseconds']:.0f}"
        lines.append(f"| {name} | {row['psnr']:.2f} | {row['ssim']:.4f} | {cost} |")
    return "\n".join(lines)


def picture(path: Path) -> None:
    """A detail of each test photograph: LR, bicubic, student, distilled, teacher, ground truth."""
    rows = []
    for name, (top, left) in CROPS.items():
        lr = imread(str(DATA / "test_LR/X2" / f"{name}x2.png"))
        images = {"LR": cv2.resize(lr, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)}
        images |= {method: imread(str(_result(method, name))) for method in ("bicubic", *METHODS)}
        images["GT"] = imread(str(DATA / "test_HR" / f"{name}.png"))
        rows.append(
            np.hstack([_tile(image[top : top + 96, left : left + 96], label) for label, image in images.items()])
        )
    imwrite(np.vstack(rows), str(path))


def _tile(crop: np.ndarray, label: str) -> np.ndarray:
    tile = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    tile = cv2.copyMakeBorder(tile, 22, 4, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    return cv2.putText(tile, label, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-only", action="store_true", help="prepare the images and stop")
    arguments = parser.parse_args()
    os.chdir(Path(__file__).resolve().parents[1])
    start = time.time()
    prepare_data()
    if arguments.data_only:
        return
    for method in ("student", "distilled"):
        run("train", f"train_{method}")
    for method in METHODS:
        run("test", f"test_{method}")
    rows = {
        "bicubic": bicubic_row(),
        "student alone": network_row("student"),
        "student distilled": network_row("distilled"),
        "teacher": network_row("teacher"),
    }
    text = table(rows)
    Path("results/quickstart.md").write_text(text + "\n", encoding="utf-8")
    picture(Path("results/quickstart.png"))
    print(f"\n{text}\n")
    print("The GFLOPs and times are for one 256×256 input (512×512 output) on this machine's CPU.")
    print(f"Table: results/quickstart.md. Details side by side: results/quickstart.png. {time.time() - start:.0f} s.")


if __name__ == "__main__":
    main()
