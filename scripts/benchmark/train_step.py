"""Time of a training step of the students, ours against PyPI's basicsr 1.4.2, interleaved in one process.

    python scripts/benchmark/train_step.py --reference FOLDER [--threads 2] [--repeats 7] [--batch 2] [--device cpu]

A step is what an iteration of SRModel does: forward, L1, backward, Adam, average of the weights. BasicSR trains in fp32
only; its "bf16" column puts its network under the same autocast as ours. It is left out where the device only emulates
bf16. Freed memory is kept, for both, as train.py keeps it. ``--cpu-time`` counts the process's CPU time instead of the
time that passes: on a machine with other jobs, with one thread.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is installed

import torch
from _reference import load_reference
from _timing import time_in_turn

from basicsr.archs import build_network
from basicsr.engine.compute.ema import update_ema
from basicsr.engine.compute.precision import native_bf16
from basicsr.engine.run.host_memory import disable_malloc_trim

SWINIR = {"type": "SwinIR", "upscale": 4, "img_size": 48, "window_size": 8, "depths": [6] * 4, "embed_dim": 60}
SWINIR |= {"num_heads": [6] * 4, "mlp_ratio": 2, "upsampler": "pixelshuffle", "resi_connection": "1conv"}
NETWORKS = {
    "SwinIR-S ×4": SWINIR,
    "EDSR-M ×4": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 64, "num_block": 16, "upscale": 4},
    "RCAN-S ×4": {"type": "RCAN", "num_in_ch": 3, "num_out_ch": 3, "num_group": 10, "num_block": 6, "upscale": 4},
}
MODULES = {"SwinIR": "basicsr.archs.swinir_arch", "EDSR": "basicsr.archs.edsr_arch", "RCAN": "basicsr.archs.rcan_arch"}


def our_step(net: torch.nn.Module, lq: torch.Tensor, gt: torch.Tensor, bf16: bool) -> Callable[[], None]:
    average = build_like(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.9, 0.99), fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(lq.device.type, torch.bfloat16, enabled=bf16):
            output = net(lq)
        torch.nn.functional.l1_loss(output.float(), gt).backward()
        optimizer.step()
        update_ema(average, net, 0.999)

    return step


def their_step(net: torch.nn.Module, lq: torch.Tensor, gt: torch.Tensor, bf16: bool) -> Callable[[], None]:
    """BasicSR's iteration: Adam as it makes it, a loop over parameters for the average, ``.item()`` of the loss."""
    average = build_like(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.9, 0.99))
    own, trained = dict(average.named_parameters()), dict(net.named_parameters())

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(lq.device.type, torch.bfloat16, enabled=bf16):
            output = net(lq)
        loss = torch.nn.functional.l1_loss(output.float(), gt)
        loss.backward()
        optimizer.step()
        loss.mean().item()
        for name in own:
            own[name].data.mul_(0.999).add_(trained[name].data, alpha=0.001)

    return step


def build_like(net: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(net).requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="folder that holds PyPI's basicsr 1.4.2")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true")
    arguments = parser.parse_args()
    disable_malloc_trim()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    reference = load_reference(arguments.reference, list(MODULES.values()))

    native, reason = native_bf16(device)
    print(f"bf16 is {'measured' if native else 'left out'}, since {reason}")
    print(f"{arguments.threads} threads, batch {arguments.batch}, LR 48×48, median of {arguments.repeats}, {device}\n")
    print("| network | ours fp32 | theirs fp32 | ratio | ours bf16 | theirs bf16 | ratio | ours bf16 : theirs fp32 |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for title, options in NETWORKS.items():
        arguments_of_net = {k: v for k, v in options.items() if k != "type"}
        lq, gt = (
            torch.rand(arguments.batch, 3, 48, 48, device=device),
            torch.rand(arguments.batch, 3, 192, 192, device=device),
        )
        ours = build_network(options).to(device)
        theirs = getattr(reference[MODULES[options["type"]]], options["type"])(**arguments_of_net).to(device)
        theirs.load_state_dict(ours.state_dict())
        steps = {}
        for bf16 in (False, True) if native else (False,):
            steps[f"ours {bf16}"] = our_step(build_like(ours).requires_grad_(True), lq, gt, bf16)
            steps[f"theirs {bf16}"] = their_step(build_like(theirs).requires_grad_(True), lq, gt, bf16)
        t = time_in_turn(steps, arguments.repeats, clock)
        cells = []
        for bf16 in (False, True) if native else (False,):
            a, b = t[f"ours {bf16}"], t[f"theirs {bf16}"]
            cells += [f"{1e3 * a:.0f} ms", f"{1e3 * b:.0f} ms", f"{b / a:.2f}×"]
        cells += [f"{t['theirs False'] / t['ours True']:.2f}×"] if native else ["–"] * 4
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
