"""Training step and inference of Restormer and NAFNet, ours against their authors' code (as spandrel ships it).

    python scripts/benchmark/restoration.py --reference FOLDER [--threads 2] [--repeats 3] [--cpu-time] [--device cpu]

FOLDER is made by ``pip install --no-deps --target FOLDER spandrel==0.4.2 spandrel_extra_arches==0.2.0``. Times are
medians; what is compared takes turns, so that whatever else the machine does affects all alike. Each peak of memory is
measured in a process of its own, above the memory that the process has before. ``--cpu-time`` counts the process's CPU
time instead of the time that passes: on a machine with other jobs, with one thread.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is installed

import torch
from _timing import time_in_turn
from torch import nn

from basicsr.archs import build_network
from basicsr.engine.restore.restorer import Restorer, RestoreSettings
from basicsr.engine.run.host_memory import disable_malloc_trim

MODULES = {
    "Restormer": "spandrel_extra_arches.architectures.Restormer",
    "NAFNet": "spandrel.architectures.NAFNet",
}
SMALL_RESTORMER = {"type": "Restormer", "dim": 24, "num_blocks": [2, 3, 3, 4], "num_refinement_blocks": 2}
NAFNET = {"type": "NAFNet", "enc_blk_nums": [1, 1, 1, 28], "middle_blk_num": 1, "dec_blk_nums": [1, 1, 1, 1]}
SMALL_NAFNET = NAFNET | {"width": 16, "enc_blk_nums": [1, 1, 1, 14]}
NETWORKS = {
    "Restormer, student": SMALL_RESTORMER,
    "Restormer": {"type": "Restormer"},
    "NAFNet-16, student": SMALL_NAFNET,
    "NAFNet-32": NAFNET | {"width": 32},
}
TASKS = {
    "train 2×128²": (2, 128, 128, None),
    "256²": (1, 256, 256, RestoreSettings()),
    "1280×720 whole": (1, 720, 1280, RestoreSettings()),
    "1280×720 tiled": (1, 720, 1280, RestoreSettings(tile=256)),
}
VARIANTS = ("authors", "ours", "ours, channels last")


def build(variant: str, options: dict, device: torch.device) -> nn.Module:
    """A network with random weights, equal in all variants."""
    torch.manual_seed(0)
    ours = build_network(dict(options))
    if variant == "authors":
        module = importlib.import_module(MODULES[options["type"]])
        network = getattr(module, options["type"])(**{k: v for k, v in options.items() if k != "type"})
        network.load_state_dict(ours.state_dict())
        return network.to(device)
    layout = torch.channels_last if variant.endswith("channels last") else torch.contiguous_format
    return ours.to(device, memory_format=layout)


def prepare(variant: str, options: dict, task: str, device: torch.device) -> Callable[[], None]:
    """What is measured: an iteration (forward, L1, backward, AdamW), or the restoration of an image."""
    network = build(variant, options, device)
    batch, height, width, settings = TASKS[task]
    image = torch.rand(batch, 3, height, width, device=device)
    if variant.endswith("channels last"):
        image = image.contiguous(memory_format=torch.channels_last)
    if settings is None:
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4)
        return partial(train_step, network, optimizer, image)
    run = Restorer(network.eval(), settings) if settings.tile or variant != "authors" else network.eval()
    return partial(restore, run, image)


def train_step(network: nn.Module, optimizer: torch.optim.Optimizer, image: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    nn.functional.l1_loss(network(image), image).backward()
    optimizer.step()


@torch.no_grad()
def restore(run: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> None:
    run(image)


def peak(device: torch.device) -> float:
    """GiB that the process has used at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status").read_text()  # ru_maxrss would begin at the parent's
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="folder that holds spandrel and spandrel_extra_arches")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)  # a variant, of one network and task
    arguments = parser.parse_args()
    disable_malloc_trim()
    sys.path.insert(0, arguments.reference)
    for part in ("", ".models", ".models.vgg", ".ops", ".ops.misc", ".transforms", ".transforms.functional", ".utils"):
        sys.modules[f"torchvision{part}"] = MagicMock()  # spandrel imports it; these networks do not use it
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if arguments.peak_of:
        call = prepare(arguments.peak_of, NETWORKS[arguments.networks[0]], arguments.tasks[0], device)
        before = peak(device)
        call()
        print(peak(device) - before)
        return

    clock = time.process_time if arguments.cpu_time else time.perf_counter
    print(f"{arguments.threads} threads, {device}, {'CPU time' if arguments.cpu_time else 'time'}\n")
    print("| network | task | " + " | ".join(f"{v}: time | memory" for v in VARIANTS) + " | authors ÷ ours | ÷ last |")
    print("|---|---|" + "---:|" * (2 * len(VARIANTS) + 2))
    for name in arguments.networks:
        for task in arguments.tasks:
            calls = {variant: prepare(variant, NETWORKS[name], task, device) for variant in VARIANTS}
            seconds = time_in_turn(calls, arguments.repeats, clock)
            del calls
            cells = []
            for variant in VARIANTS:
                command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", variant]
                command += ["--networks", name, "--tasks", task]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                cells.append(f"{seconds[variant]:.2f} s | {float(out.splitlines()[-1]):.2f} GiB")
            ratios = [f"{seconds['authors'] / seconds[variant]:.2f}×" for variant in VARIANTS[1:]]
            print(f"| {name} | {task} | {' | '.join(cells + ratios)} |", flush=True)


if __name__ == "__main__":
    main()
