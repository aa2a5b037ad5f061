"""Measure the training patches that the loader returns per second, and print a Markdown table.

    python scripts/benchmark/loader.py [--reference FOLDER] [--seconds 3] [--rounds 3] [--cpu-time]

The images are photographs bundled with scikit-image, cut into 480×480 sub-images, and their ×2 LR; a patch is a GT crop
of 96×96, randomly flipped, and its LR crop, as float32 in batches of 16. ``--reference`` names a folder that holds the
package `basicsr` of PyPI (1.4.2), whose loader is then measured beside ours on the same files, with the same crops and
batches, in a separate process; torchvision, which it imports without using it here, is replaced by an empty stand-in.

Loaders take turns in each round, so that whatever else the machine does affects all of them alike; an entry is the
median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import MagicMock

ROOT = Path(__file__).resolve().parents[2]
PHOTOGRAPHS = ("retina", "hubble_deep_field", "immunohistochemistry", "stereo_motorcycle", "astronaut")
SCALE, SIDE, STEP, GT_SIZE, BATCH = 2, 480, 120, 96, 16
WORKERS = (0, 2)
ENDINGS = {"disk": "", "lmdb": ".lmdb", "memmap": ".memmap"}


def prepare(folder: str, num_workers: int) -> int:
    """Write the sub-images as PNG files, LMDBs and decoded storage, unless they are there.

    Returns:
        The number of pairs.
    """
    import numpy as np
    from skimage import data

    from basicsr.data.memmap.writer import create_memmap
    from basicsr.data.preparation import create_lmdb, extract_subimages, make_lr
    from basicsr.utils.img_util import imwrite

    for name in PHOTOGRAPHS:
        path = f"{folder}/photos/{name}.png"
        if not os.path.exists(path):
            photograph = getattr(data, name)()
            image = photograph[0] if isinstance(photograph, tuple) else photograph
            imwrite(np.ascontiguousarray(image[..., 2::-1]), path)
    make_lr(
        f"{folder}/photos",
        f"{folder}/LR",
        [SCALE],
        filename_tmpl="{}",
        gt_output_folder=f"{folder}/HR",
        num_workers=num_workers,
    )
    extract_subimages(f"{folder}/HR", f"{folder}/gt", SIDE, STEP, num_workers=num_workers)
    extract_subimages(f"{folder}/LR/X{SCALE}", f"{folder}/lq", SIDE // SCALE, STEP // SCALE, num_workers=num_workers)
    for role in ("gt", "lq"):
        create_lmdb(f"{folder}/{role}", f"{folder}/{role}.lmdb", num_workers=num_workers)
        create_memmap(f"{folder}/{role}", f"{folder}/{role}.memmap", num_workers)
    return len(list(Path(folder, "gt").glob("*.png")))


def build_loader(folder: str, storage: str, workers: int) -> Iterable:
    """The training loader of whichever `basicsr` is imported."""
    from basicsr.data import build_dataloader, build_dataset
    from basicsr.data.data_sampler import EnlargedSampler

    opt = {
        "name": "benchmark",
        "type": "PairedImageDataset",
        "phase": "train",
        "scale": SCALE,
        "dataroot_gt": f"{folder}/gt{ENDINGS[storage]}",
        "dataroot_lq": f"{folder}/lq{ENDINGS[storage]}",
        "io_backend": {"type": storage},
        "gt_size": GT_SIZE,
        "use_hflip": True,
        "use_rot": True,
        "batch_size_per_gpu": BATCH,
        "num_worker_per_gpu": workers,
    }
    dataset = build_dataset(opt)
    return build_dataloader(dataset, opt, num_gpu=1, dist=False, sampler=EnlargedSampler(dataset, 1, 0, 5000), seed=0)


def patches_per_second(loader: Iterable, workers: int, seconds: float, clock: Callable[[], float]) -> float:
    batches = iter(loader)
    for _ in range(2 + 4 * workers):  # until what workers had read ahead is used up
        next(batches)
    start, count = clock(), 0
    while (elapsed := clock() - start) < seconds:
        assert next(batches)["gt"].shape == (BATCH, 3, GT_SIZE, GT_SIZE)
        count += BATCH
    return count / elapsed


def measure(folder: str, storages: list[str], seconds: float, cpu_time: bool) -> dict[str, float]:
    """Patches per second for each storage and number of workers."""
    import torch

    torch.set_num_threads(1)
    clock = time.process_time if cpu_time else time.perf_counter
    return {
        f"{storage} {workers}": patches_per_second(build_loader(folder, storage, workers), workers, seconds, clock)
        for storage in storages
        for workers in ((0,) if cpu_time else WORKERS)
    }


def measure_apart(options: argparse.Namespace, folder: str, *arguments: str) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--data", folder, "--seconds", str(options.seconds), *arguments]
    command += ["--cpu-time"] if options.cpu_time else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def stand_in_for_torchvision() -> None:
    """Let modules import what they like from torchvision."""
    for name in ("", ".models", ".models.vgg", ".ops", ".transforms", ".transforms.functional", ".utils"):
        sys.modules[f"torchvision{name}"] = MagicMock(__version__="0.0.0")
    sys.modules["torchvision.transforms.functional_tensor"] = MagicMock()


def table(rounds: list[dict[str, dict[str, float]]]) -> str:
    """Medians over the rounds, and their ratios to the first package's disk storage with as many workers."""
    medians = {
        (package, key): statistics.median(result[package][key] for result in rounds)
        for package in rounds[0]
        for key in rounds[0][package]
    }
    first = next(iter(rounds[0]))
    lines = [f"| loader | storage | workers | patches/s | per worker | × {first}, disk |", "|---|---|---|---|---|---|"]
    for (package, key), value in medians.items():
        storage, workers = key.split()
        numbers = value, value / max(int(workers), 1), value / medians[first, f"disk {workers}"]
        cells = "{:,.0f} | {:,.0f} | {:.1f}".format(*numbers)
        lines.append(f"| {package} | {storage} | {workers} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", help="folder that holds the package basicsr of PyPI")
    parser.add_argument("--data", help="where to keep the images; a temporary folder by default")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each loader in a round (default 3)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="per second of CPU, without workers; on a busy machine")
    parser.add_argument("--measure", nargs="+", choices=list(ENDINGS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reference and options.measure:
        stand_in_for_torchvision()
    sys.path.insert(0, options.reference if options.reference and options.measure else str(ROOT))
    if options.measure:
        import basicsr

        assert Path(basicsr.__file__).is_relative_to(Path(sys.path[0]).resolve()), basicsr.__file__
        print(json.dumps(measure(options.data, options.measure, options.seconds, options.cpu_time)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.data or temporary
        pairs = prepare(folder, os.cpu_count() or 1)
        rounds = []
        for _ in range(options.rounds):
            result = {}
            if options.reference:
                reference = ("--reference", options.reference, "--measure", "disk", "lmdb")
                result["BasicSR 1.4.2"] = measure_apart(options, folder, *reference)
            result["ours"] = measure_apart(options, folder, "--measure", *ENDINGS)
            rounds.append(result)
    print(f"{pairs} pairs of sub-images, {os.cpu_count()} cores; load average at the end {os.getloadavg()[0]:.1f}\n")
    print(table(rounds))


if __name__ == "__main__":
    main()
