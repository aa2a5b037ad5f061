"""Time the forms of window attention and print a Markdown table; the choice of ``attention.fastest_form`` is last.

    python scripts/benchmark/attention.py [--device cpu] [--threads 2] [--repeats 20] [--cpu-time]

The tokens are those of two 48×48 patches, as SwinIR trains on: 72 windows of 8×8, 6 heads. ``plain`` is attention as it
is usually written, with the bias and the mask added one after the other. The forms take turns, so that whatever else
the machine does affects all of them alike, and each entry is a median in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is installed
from basicsr.archs.attention import (
    fastest_form,
    relative_position_bias,
    relative_position_index,
    shift_mask,
    window_attention,
)

WINDOW, HEADS, BATCH, SIDE = 8, 6, 2, 48
Attention = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def plain(qkv: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Attention without any care for speed, on tokens (3, B, W, H, N, D)."""
    q, k, v = qkv.unbind(0)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias.to(q.dtype)
    if mask is not None:
        scores = scores + mask[:, None].to(q.dtype)
    return scores.softmax(dim=-1) @ v


def time_forms(
    forms: dict[str, Attention], dim: int, dtype: torch.dtype, device: str, shifted: bool, train: bool, options
) -> dict[str, float]:
    """The median time of each form in milliseconds."""
    tokens = WINDOW * WINDOW
    generator = torch.Generator().manual_seed(0)
    shape = (3, BATCH, (SIDE // WINDOW) ** 2, HEADS, tokens, dim // HEADS)
    qkv = torch.randn(shape, generator=generator).to(device, dtype).requires_grad_(train)
    table = torch.randn((2 * WINDOW - 1) ** 2, HEADS, generator=generator).to(device).requires_grad_(train)
    index = relative_position_index(WINDOW).to(device)
    mask = shift_mask(SIDE, SIDE, WINDOW, WINDOW // 2, torch.device(device)) if shifted else None
    upstream = torch.randn(shape[1:], generator=generator).to(device, dtype)
    clock = time.process_time if options.cpu_time else time.perf_counter

    def once(form: Attention) -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        start = clock()
        with torch.set_grad_enabled(train):
            out = form(qkv, relative_position_bias(table, index), mask)
        if train:
            torch.autograd.grad(out, (qkv, table), upstream)
        if device != "cpu":
            torch.cuda.synchronize()
        return clock() - start

    times: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(options.repeats + 2):
        for name, form in forms.items():
            elapsed = once(form)
            if repeat >= 2:  # the first two warm up
                times[name].append(elapsed)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--cpu-time", action="store_true", help="the process's CPU time; for one thread on a busy CPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    forms: dict[str, Attention] = {
        "plain": plain,
        "sdpa": partial(window_attention, form="sdpa"),
        "matmul": partial(window_attention, form="matmul"),
    }
    where = options.device if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    print(f"PyTorch {torch.__version__}, {where}, {options.threads} threads; milliseconds\n")
    print("| dim | dtype | windows | pass | " + " | ".join(forms) + " | chosen |")
    print("|---" * (len(forms) + 5) + "|")
    for dim in (60, 180):
        for dtype in (torch.float32, torch.bfloat16):
            for shifted in (False, True):
                for train in (False, True):
                    shape = (3, BATCH, (SIDE // WINDOW) ** 2, HEADS, WINDOW * WINDOW, dim // HEADS)
                    chosen = fastest_form(torch.empty(shape, device=options.device, dtype=dtype, requires_grad=train))
                    times = time_forms(forms, dim, dtype, options.device, shifted, train, options)
                    row = [
                        str(dim),
                        str(dtype).removeprefix("torch."),
                        "shifted" if shifted else "regular",
                        "forward + backward" if train else "forward",
                        *(f"{value:.2f}" for value in times.values()),
                        chosen,
                    ]
                    print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
