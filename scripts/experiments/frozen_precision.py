"""The effect of bf16 in frozen networks on a run's losses.

    python scripts/experiments/frozen_precision.py -opt OPTIONS [--auto_resume]

OPTIONS are those of a distillation; with ``--auto_resume`` its newest training state is taken, with history network and
adapters, else the networks as the training starts. On 16 batches of the training set, each loss is computed with all
frozen networks in fp32, then with one of them, and with all, in bf16, the draws being equal. Printed is the mean over
the batches of |difference| : |fp32 value|, and the same of the gradient in the student.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from basicsr.engine.compute.runtime import NetworkRuntime
from basicsr.engine.run.resume import find_resume_state
from basicsr.models import build_model
from basicsr.train import create_train_val_dataloader
from basicsr.utils.logger import get_root_logger
from basicsr.utils.options import parse_options
from basicsr.utils.paths import default_root

BATCHES = 16
FP32, BF16 = NetworkRuntime(), NetworkRuntime("bf16")


def main() -> None:
    opt, _ = parse_options(default_root(), is_train=True)
    for runtime in (opt.get("runtime") or {}).values():
        runtime["precision"] = "fp32"
    logger = get_root_logger()
    state = find_resume_state(opt)
    loader, *_ = create_train_val_dataloader(opt, logger)
    model = build_model(opt)
    if state:
        model.resume_training(state)
    networks = {f"network_{name}": (network, "runtime") for name, network in model.frozen.items()}
    for name, term in model.terms.items():
        if hasattr(term, "history_runtime"):
            networks[f"history of {name}"] = (term, "history_runtime")
    variants = {name: [name] for name in networks} | {"all": list(networks)}
    sums: dict[str, dict[str, float]] = {variant: {} for variant in variants}
    for index, batch in zip(range(BATCHES), loader):
        model.feed_data(batch)
        exact = measure(model, networks, [], index)
        for variant, chosen in variants.items():
            for name, value in measure(model, networks, chosen, index).items():
                change = ((value - exact[name]).norm() / exact[name].norm()).item()
                sums[variant][name] = sums[variant].get(name, 0.0) + change / BATCHES
    names = list(sums["all"])
    print(f"in bf16 | {' | '.join(names)}")
    for variant, values in sums.items():
        print(f"{variant} | {' | '.join(f'{values[name]:.2%}' for name in names)}")


def measure(model, networks: dict, chosen: list[str], seed: int) -> dict[str, torch.Tensor]:
    """Each loss, weighted, and the gradient of their sum in the student, with the chosen networks in bf16."""
    for name, (owner, attribute) in networks.items():
        setattr(owner, attribute, BF16 if name in chosen else FP32)
    torch.manual_seed(seed)
    losses = model.compute_losses(model.opt["train"]["total_iter"])
    model.optimizer_g.zero_grad(set_to_none=True)
    sum(losses.values()).backward()
    values = {name: value.detach() for name, value in losses.items()}
    return values | {"gradient": torch.cat([p.grad.flatten() for p in model.net_g.parameters() if p.grad is not None])}


if __name__ == "__main__":
    main()
