"""Time and memory of a step in which a perceptual loss and distillation terms share one VGG, and in which they do not.

    python scripts/benchmark/shared_encodings.py [--batch 2] [--threads 2] [--rounds 3] [--repeats 3] [--device cpu]
                                              [--cpu-time]

The step is that of a small EDSR ×4 with a pixel loss, a perceptual loss and DCR, both over relu1_1 … relu5_1 of VGG19
(random weights, the same in both variants). Apart: the perceptual loss has a VGG of its own, and each image is encoded
once for it and once for DCR. Shared: ``perceptual_opt: {encoder: vgg}``. The losses are printed so that they can be
compared. Each measurement runs in a separate process, and the two take turns; times are medians without
each process's first step. ``--cpu-time`` counts the process's CPU time: on a machine with other jobs, with one thread.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is installed

import torch

from basicsr.archs.vgg_arch import VGGFeatureExtractor
from basicsr.engine.run.host_memory import disable_malloc_trim
from basicsr.models import build_model
from basicsr.utils.logger import get_root_logger

LAYERS = {f"relu{stage}_1": weight for stage, weight in enumerate((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0), 1)}
EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 4, "img_range": 1.0, "res_scale": 1.0}


def make_model(shared: bool, weights: str, device: str):
    """The recipe, with the same random weights in either variant."""
    torch.manual_seed(0)
    perceptual = {"encoder": "vgg"} if shared else {"vgg_type": "vgg19", "weights": weights}
    return build_model(
        {
            "model_type": "SRModel",
            "scale": 4,
            "num_gpu": 0 if device == "cpu" else 1,
            "is_train": True,
            "dist": False,
            "rank": 0,
            "world_size": 1,
            "path": {},
            "logger": {"print_freq": 1},
            "datasets": {"train": {"gt_size": 192}},
            "network_g": {**EDSR, "num_feat": 32, "num_block": 8},
            "network_t": {**EDSR, "num_feat": 64, "num_block": 16},
            "network_vgg": {"type": "VGGFeatureExtractor", "layer_name_list": list(LAYERS), "weights": weights},
            "train": {
                "total_iter": 100,
                "ema_decay": 0.999,
                "optim_g": {"type": "Adam", "lr": 1e-4},
                "scheduler": {"type": "MultiStepLR", "milestones": [100]},
                "pixel_opt": {"type": "L1Loss"},
                "perceptual_opt": {"type": "PerceptualLoss", "layer_weights": LAYERS, **perceptual},
                "kd_opt": {"dcr": {"type": "DCR", "encoder": "vgg", "num_neg": 1, "loss_weight": 0.1}},
            },
        }
    )


def measure(shared: bool, arguments: argparse.Namespace) -> dict:
    """Times of steps; of the first, the losses and how many images VGG has encoded; this process's peak memory."""
    torch.set_num_threads(arguments.threads)
    get_root_logger().setLevel("ERROR")
    disable_malloc_trim()
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(3)
        file = f"{folder}/vgg19.pth"
        torch.save(VGGFeatureExtractor(list(LAYERS), weights="random").state_dict(), file)
        model = make_model(shared, file, arguments.device)
    encoded: list[int] = []
    for module in (model.frozen["vgg"].net, getattr(model.cri_perceptual, "vgg", None)):
        if module is not None:
            module.register_forward_hook(lambda _, args, __: encoded.append(len(args[0])))
    generator = torch.Generator().manual_seed(1)
    batch = {"lq": torch.rand(arguments.batch, 3, 48, 48, generator=generator)}
    batch["gt"] = torch.rand(arguments.batch, 3, 192, 192, generator=generator)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    seconds, first, images = [], None, 0
    for iteration in range(1, arguments.repeats + 2):
        torch.manual_seed(2)
        model.feed_data(batch)
        start = clock()
        model.optimize_parameters(iteration)
        if arguments.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
        if first is None:
            first, images = {name: float(value) for name, value in model.log_dict.items()}, sum(encoded)
    is_cuda = arguments.device != "cpu"
    peak = torch.cuda.max_memory_allocated() if is_cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds[1:], "losses": first, "images": images, "gib": peak / 2**30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="steps measured in each round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--only", choices=["apart", "shared"], help=argparse.SUPPRESS)  # one variant, as JSON
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only == "shared", arguments)))
        return
    results: dict[str, list[dict]] = {"apart": [], "shared": []}
    for _ in range(arguments.rounds):
        for name, runs in results.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs.append(json.loads(output.splitlines()[-1]))
    seconds = {name: statistics.median(s for run in runs for s in run["seconds"]) for name, runs in results.items()}
    print(f"batch {arguments.batch}, {arguments.threads} threads, {arguments.device}\n")
    print("| VGG | s per step | faster | images encoded | peak GiB |\n|---|---:|---:|---:|---:|")
    for name, runs in results.items():
        gib = statistics.median(run["gib"] for run in runs)
        ratio = seconds["apart"] / seconds[name]
        print(f"| {name} | {seconds[name]:.3f} | {ratio:.2f}× | {runs[0]['images']} | {gib:.2f} |")
    print("\nlosses of the first step:", {name: runs[0]["losses"] for name, runs in results.items()})


if __name__ == "__main__":
    main()
