"""Time of a DCKD step (SwinIR ×2 as released, random weights): ours against the straightforward order of the release.

    python scripts/benchmark/dckd_step.py [--reference FOLDER] [--batch 2] [--threads 2] [--rounds 3] [--repeats 2]
        [--device cpu] [--compile]

Straightforward means: the encoder sees one image (a batch of B) after the other, each once for the contrast, and
student and teacher once more for the cross-entropy. With ``--reference`` it also runs as the release does, with the
SwinIR of PyPI's basicsr 1.4.2 and the encoder's activation as ``x · sigmoid(x)``. All compute the same
losses on the same draws (stochastic depth is off); the five losses are printed for comparison. Each measurement runs in
a separate process, with its peak memory. The variants take turns; times are medians without each process's first step.
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
from _reference import load_reference

from basicsr.archs import vqgan_blocks
from basicsr.distill.augmentation import InvertibleAugmentation
from basicsr.distill.contrast import EPSILON
from basicsr.engine.run.host_memory import disable_malloc_trim
from basicsr.models import build_model
from basicsr.utils.logger import get_root_logger
from basicsr.utils.options import load_options

OPTIONS = Path(__file__).resolve().parents[2] / "options/train/SwinIR/train_SwinIR_SRx2_DCKD_release.yml"
RELEASE = "as released: straightforward, basicsr 1.4.2's SwinIR, fp32"
VARIANTS = {
    RELEASE: {"order": "straightforward"},
    "straightforward, our networks, fp32": {"order": "straightforward"},
    "ours, fp32, freed memory given back": {"disable_malloc_trim": False},
    "ours, fp32": {},
    "ours, history in bf16 (our files)": {"history": "bf16"},
    "ours, all frozen networks in bf16": {"t": "bf16", "history": "bf16", "vqgan": "bf16"},
    "ours, student too": {"t": "bf16", "history": "bf16", "vqgan": "bf16", "g": "bf16"},
}


def make_model(variant: dict, device: str, compiled: bool):
    """The released SwinIR ×2 recipe with random weights, the same at every call."""
    torch.manual_seed(0)
    opt, _ = load_options(OPTIONS)
    opt |= {"num_gpu": 0 if device == "cpu" else 1, "is_train": True, "dist": False, "rank": 0, "world_size": 1}
    opt["path"] = {}
    opt["network_g"]["drop_path_rate"] = 0.0
    opt["datasets"]["train"]["phase"] = "train"
    opt["logger"]["print_freq"] = 1  # every step is split into its parts
    opt["runtime"] = {n: {"precision": variant.get(n, "fp32"), "compile": compiled} for n in ("g", "t", "vqgan")}
    opt["train"]["kd_opt"]["dcr"]["history_precision"] = variant.get("history", "fp32")
    return build_model(opt)


def put_reference_networks_in(model, folder: str) -> None:
    """The release's SwinIR, which is basicsr's, for teacher, student and history; its activation in the encoder."""
    swinir = load_reference(folder, ["basicsr.archs.swinir_arch"])["basicsr.archs.swinir_arch"].SwinIR

    def theirs(net: torch.nn.Module, options: dict) -> torch.nn.Module:
        other = swinir(**{key: value for key, value in options.items() if key != "type"})
        other.load_state_dict(net.state_dict())
        return other.to(next(net.parameters()).device)

    model.net_g = theirs(model.net_g, model.opt["network_g"]).train()
    model.net_g_ema = theirs(model.net_g_ema, model.opt["network_g"])
    model.terms["dcr"].history = theirs(model.terms["dcr"].history, model.opt["network_g"]).requires_grad_(False).eval()
    model.frozen["t"].net = theirs(model.frozen["t"].net, model.opt["network_t"]).requires_grad_(False).eval()
    model.optimizer_g = torch.optim.Adam(model.net_g.parameters(), lr=1e-4, betas=(0.9, 0.99))
    vqgan_blocks._swish = lambda x: x * torch.sigmoid(x)


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
        negatives = dcr.history(torch.cat(inputs)).chunk(len(inputs))
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
    is_ours = "order" not in variant
    if is_ours and variant.get("disable_malloc_trim", True):
        disable_malloc_trim()  # as train.py does
    model = make_model(variant, arguments.device, arguments.compile and is_ours)
    if arguments.only == RELEASE:
        put_reference_networks_in(model, arguments.reference)
    is_cuda = arguments.device != "cpu"
    generator = torch.Generator().manual_seed(1)
    batch = {"lq": torch.rand(arguments.batch, 3, 48, 48, generator=generator)}
    batch["gt"] = torch.rand(arguments.batch, 3, 96, 96, generator=generator)
    seconds, parts, first = [], [], None
    for iteration in range(1, arguments.repeats + 2):
        torch.manual_seed(2)
        model.feed_data(batch)
        start = time.perf_counter()
        if is_ours:
            model.optimize_parameters(iteration)
            losses = model.log_dict
            parts.append(dict(model.timer.seconds))
        else:
            losses = straightforward_step(model)
        if is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        first = first or {name: float(value.detach()) for name, value in losses.items()}
    peak = torch.cuda.max_memory_allocated() if is_cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds[1:], "parts": parts[1:], "losses": first, "gib": peak / 2**30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", help="the folder that holds PyPI's basicsr; see _reference.py")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2, help="steps measured in each round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one variant, as JSON: how the processes are started
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(VARIANTS[arguments.only], arguments)))
        return
    names = [name for name in VARIANTS if arguments.reference or name != RELEASE]
    results: dict[str, list[dict]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[name].append(json.loads(output.splitlines()[-1]))
    seconds = {name: statistics.median(s for run in runs for s in run["seconds"]) for name, runs in results.items()}
    bases = [name for name in names if "order" in VARIANTS[name]]
    print(f"batch {arguments.batch}, {arguments.threads} threads, {arguments.device}\n")
    print(f"| | s per step |{' faster |' * len(bases)} peak GiB | parts |\n|---|---:|{'---:|' * len(bases)}---:|---|")
    for name, runs in results.items():
        ratios = "".join(f" {seconds[base] / seconds[name]:.2f}× |" for base in bases)
        parts = [part for run in runs for part in run["parts"]]
        medians = {key: statistics.median(p[key] for p in parts) for key in (parts[0] if parts else {})}
        shown = ", ".join(f"{key} {value:.2f}" for key, value in medians.items() if value > 0.005)
        gib = statistics.median(run["gib"] for run in runs)
        print(f"| {name} | {seconds[name]:.2f} |{ratios} {gib:.2f} | {shown or '–'} |")
    print(f"\n| loss of the first step | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    for loss in results[names[0]][0]["losses"]:
        print(f"| {loss} | " + " | ".join(f"{results[name][0]['losses'][loss]:.6f}" for name in names) + " |")


if __name__ == "__main__":
    main()
