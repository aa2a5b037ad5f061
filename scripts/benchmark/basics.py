"""Import time, metrics and the moving average, ours against PyPI's basicsr 1.4.2 in one run.

python scripts/benchmark/basics.py --reference FOLDER [--repeats 7]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is installed

import numpy as np
import torch
from _reference import load_reference

from basicsr.archs import build_network
from basicsr.engine.compute.ema import update_ema
from basicsr.metrics import calculate_psnr, calculate_ssim

SWINIR_M = {"type": "SwinIR", "upscale": 4, "img_size": 48, "window_size": 8, "depths": [6] * 6, "embed_dim": 180}
SWINIR_M |= {"num_heads": [6] * 6, "mlp_ratio": 2, "upsampler": "pixelshuffle", "resi_connection": "1conv"}


def compare(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds of the two, taking turns, after one run each to warm up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for call, record in zip((ours, theirs), seconds):
            start = time.perf_counter()
            call()
            record.append(time.perf_counter() - start)
    return statistics.median(seconds[0][1:]), statistics.median(seconds[1][1:])


def import_times(reference: str, repeats: int) -> tuple[float, float]:
    """Median seconds of ``import basicsr`` in fresh interpreters."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([sys.path[0], str(Path(__file__).parent)])}
    theirs = f"from _reference import load_reference; load_reference({reference!r}, ['basicsr'])"

    def run(code: str) -> float:
        timed = f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
        result = subprocess.run([sys.executable, "-c", timed], env=env, check=True, capture_output=True, text=True)
        return float(result.stdout.splitlines()[-1])

    pairs = [(run("import basicsr"), run(theirs)) for _ in range(repeats)]
    return tuple(statistics.median(column) for column in zip(*pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="folder that holds PyPI's basicsr 1.4.2")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    reference = load_reference(arguments.reference, ["basicsr.metrics.psnr_ssim"])["basicsr.metrics.psnr_ssim"]
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    noisy = np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)
    net = build_network(SWINIR_M)
    average = build_network(SWINIR_M).requires_grad_(False)
    own, trained = dict(average.named_parameters()), dict(net.named_parameters())

    def both(psnr: Callable, ssim: Callable, y: bool) -> Callable[[], object]:
        return lambda: (psnr(image, noisy, 4, test_y_channel=y), ssim(image, noisy, 4, test_y_channel=y))

    def their_average() -> None:
        for name in own:
            own[name].data.mul_(0.999).add_(trained[name].data, alpha=0.001)

    theirs = (reference.calculate_psnr, reference.calculate_ssim)
    rows = {
        "`import basicsr`": import_times(arguments.reference, arguments.repeats),
        "PSNR + SSIM, 720p, Y": compare(
            both(calculate_psnr, calculate_ssim, True), both(*theirs, True), arguments.repeats
        ),
        "PSNR + SSIM, 720p, RGB": compare(
            both(calculate_psnr, calculate_ssim, False), both(*theirs, False), arguments.repeats
        ),
        "average of SwinIR-M (11.9 M parameters)": compare(
            lambda: update_ema(average, net, 0.999), their_average, arguments.repeats
        ),
    }
    print(f"{torch.get_num_threads()} threads, median of {arguments.repeats}\n")
    print("| | ours | basicsr 1.4.2 | ratio |\n|---|---:|---:|---:|")
    for name, (a, b) in rows.items():
        print(f"| {name} | {1e3 * a:.1f} ms | {1e3 * b:.1f} ms | {b / a:.1f}× |")


if __name__ == "__main__":
    main()
