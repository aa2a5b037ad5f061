"""Time of a DCKD step (SwinIR ×2 as released, random weights): ours against the straightforward order of the release.

    python scripts/benchmark/dckd_step.py [--batch 2] [--threads 2] [--repeats 3] [--device cpu] [--compile]

Straightforward means: the history network sees its inputs and the encoder each image one after the other, each image is
encoded once for the contrast, and student and teacher once more for the cross-entropy. Both do the same arithmetic on
the same draws; the five losses are printed so that they can be compared. Peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is installed

import torch
import torch.nn.functional as F

from basicsr.distill.augmentation import InvertibleAugmentation
from basicsr.distill.dcr import EPSILON
from basicsr.models import build_model
from basicsr.utils.logger import get_root_logger
from basicsr.utils.options import load_options

OPTIONS = Path(__file__).resolve().parents[2] / "options/train/SwinIR/train_SwinIR_SRx2_DCKD_release.yml"
VARIANTS = {
    "straightforward, fp32": {"order": "straightforward", "precision": "fp32"},
    "ours, fp32": {"order": "ours", "precision": "fp32"},
    "ours, frozen networks in bf16": {"order": "ours", "precision": "bf16"},
    "ours, all in bf16": {"order": "ours", "precision": "bf16", "student": "bf16"},
}


def make_model(variant: dict, device: str, compiled: bool):
    """The released SwinIR ×2 recipe with random weights, the same at every call."""
    torch.manual_seed(0)
    opt, _ = load_options(OPTIONS)
    opt |= {"num_gpu": 0 if device == "cpu" else 1, "is_train": True, "dist": False, "rank": 0, "world_size": 1}
    opt["path"] = {}
    opt["datasets"]["train"]["phase"] = "train"
    opt["logger"]["print_freq"] = 1  # every step is split into its parts
    frozen = {"precision": variant["precision"], "compile": compiled}
    student = {"precision": variant.get("student", "fp32"), "compile": compiled}
    opt["runtime"] = {"g": student, "t": frozen, "vqgan": frozen}
    opt["train"]["kd_opt"]["dcr"]["history_precision"] = variant["precision"]
    return build_model(opt)


def straightforward_step(model) -> dict[str, torch.Tensor]:
    """One step in the order of the release, with this model's networks."""
    terms, lq = model.terms, model.lq
    teacher, vqgan, dcr = model.frozen["t"].net, model.frozen["vqgan"].net, terms["dcr"]
    model.optimizer_g.zero_grad(set_to_none=True)
    output = model.net_g(lq)
    augmentation = InvertibleAugmentation.draw(len(lq), 0.5, lq.device)
    with torch.no_grad():
        target, view = teacher(torch.cat([lq, augmentation.apply(lq)])).chunk(2)
        view = augmentation.undo(view)
        inputs = [lq, *(dcr.degrade(lq) for _ in range(dcr.num_neg))]
        negatives = [dcr.history(x) for x in inputs]
    losses = {"l_pix": F.l1_loss(output, model.gt), "l_logits": F.l1_loss(output, target)}
    levels = [vqgan.features(image) for image in [output, target, *negatives]]
    contrast = torch.zeros((), device=lq.device)
    for weight, anchor, positive, *others in zip(dcr.weights, *levels):
        far = torch.mean(torch.abs(anchor - torch.stack(others)).sum(0))
        contrast = contrast + weight * torch.mean(torch.abs(anchor - positive)) / (far + EPSILON)
    losses["l_dcr"] = 0.1 * contrast
    distances = []
    for image in (output, target):
        tokens = vqgan(image).flatten(2).transpose(1, 2).flatten(0, 1)
        distances.append(-(torch.cdist(tokens, vqgan.codebook) ** 2))
    student, teacher_side = (d.softmax(1) for d in distances)
    losses["l_dmm"] = 0.001 * -(teacher_side * student.log_softmax(1)).sum(1).mean()
    losses["l_lcr"] = F.l1_loss(output, view)
    sum(losses.values()).backward()
    model.optimizer_g.step()
    model.model_ema(model.ema_decay)
    return losses


def measure(variant: dict, arguments: argparse.Namespace) -> dict:
    """Median time of a step, its parts, the losses of the first, and the peak memory of this process."""
    torch.set_num_threads(arguments.threads)
    get_root_logger().setLevel("ERROR")
    model = make_model(variant, arguments.device, arguments.compile and variant["order"] == "ours")
    is_cuda = arguments.device != "cpu"
    generator = torch.Generator().manual_seed(1)
    batch = {"lq": torch.rand(arguments.batch, 3, 48, 48, generator=generator)}
    batch["gt"] = torch.rand(arguments.batch, 3, 96, 96, generator=generator)
    seconds, parts, first = [], [], None
    for iteration in range(1, arguments.repeats + 2):
        torch.manual_seed(2)
        model.feed_data(batch)
        start = time.perf_counter()
        if variant["order"] == "straightforward":
            losses = straightforward_step(model)
        else:
            model.optimize_parameters(iteration)
            losses = model.log_dict
            parts.append(dict(model.timer.seconds))
        if is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        first = first or {name: float(value) for name, value in losses.items()}
    names = parts[-1] if parts else {}
    peak = torch.cuda.max_memory_allocated() if is_cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": statistics.median(seconds[1:]),
        "parts": {name: statistics.median(p[name] for p in parts[1:]) for name in names if name != "data"},
        "losses": first,
        "gib": peak / 2**30,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one variant, as JSON: how the processes are started
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(VARIANTS[arguments.only], arguments)))
        return
    results = {}
    for name in VARIANTS:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results[name] = json.loads(output.splitlines()[-1])
    base = results["straightforward, fp32"]
    print(f"batch {arguments.batch}, {arguments.threads} threads, {arguments.device}, median of {arguments.repeats}\n")
    print("| | s per step | faster | peak GiB | parts |\n|---|---:|---:|---:|---|")
    for name, r in results.items():
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in r["parts"].items() if seconds > 0.005)
        ratio = base["seconds"] / r["seconds"]
        print(f"| {name} | {r['seconds']:.2f} | {ratio:.2f}× | {r['gib']:.2f} | {parts or '–'} |")
    print(f"\n| loss of the first step | {' | '.join(results)} |\n|---|{'---:|' * len(results)}")
    for loss in base["losses"]:
        print(f"| {loss} | " + " | ".join(f"{r['losses'][loss]:.6f}" for r in results.values()) + " |")


if __name__ == "__main__":
    main()
