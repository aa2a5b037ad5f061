"""What spandrel gives for fixed inputs, kept in ``spandrel_0.4.2.npz`` so that tests need not install it.

The file was made by::

    pip install --no-deps --target FOLDER spandrel==0.4.2 spandrel_extra_arches==0.2.0
    python tests/goldens/spandrel_reference.py FOLDER

with torch 2.13.0 and einops. spandrel holds the authors' code of NAFNet, Restormer and Uformer, and KAIR's of DnCNN,
and loads their published weights. Weights are drawn from their own names and networks compute in float64, as in
``basicsr_reference.py``. torchvision, which spandrel imports and these networks do not use, is a stand-in.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import sys
import zlib
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

FILE = Path(__file__).with_name("spandrel_0.4.2.npz")
STEP, LARGE_STEP = 7, 97  # of small and large outputs one number in so many is kept, and means of all
MODULES = {
    "NAFNet": "spandrel.architectures.NAFNet",
    "DnCNN": "spandrel.architectures.DnCNN",
    "Uformer": "spandrel.architectures.Uformer",
    "Restormer": "spandrel_extra_arches.architectures.Restormer",
}

NAF = {"type": "NAFNet", "width": 6, "enc_blk_nums": [1, 2], "middle_blk_num": 2, "dec_blk_nums": [2, 1]}
REST = {"type": "Restormer", "dim": 8, "num_blocks": [1, 2, 1, 1], "num_refinement_blocks": 2, "heads": [1, 2, 2, 4]}
UFORMER = {"type": "Uformer", "embed_dim": 4, "win_size": 4, "img_size": 128, "num_heads": [1, 1, 2, 2, 2, 4, 2, 1, 2]}
SMALL: list[tuple[dict, tuple[int, ...]]] = [  # options and the shape of the input
    (NAF, (2, 3, 24, 16)),
    (NAF, (1, 3, 21, 15)),  # padded inside
    (NAF | {"img_channel": 1, "enc_blk_nums": [1, 0, 1], "dec_blk_nums": [1, 1, 1]}, (1, 1, 16, 24)),
    (REST, (2, 3, 24, 16)),
    (REST | {"LayerNorm_type": "BiasFree"}, (1, 3, 16, 24)),
    (REST | {"bias": True, "ffn_expansion_factor": 2.0, "inp_channels": 1, "out_channels": 1}, (1, 1, 16, 16)),
    (REST | {"inp_channels": 6, "dual_pixel_task": True, "bias": True}, (1, 6, 16, 16)),
    (UFORMER, (1, 3, 128, 128)),
    (UFORMER | {"modulator": True, "depths": [1, 2, 3, 2, 2, 2, 2, 2, 1], "qkv_bias": False}, (1, 3, 64, 64)),
    (UFORMER | {"img_size": 32, "win_size": 8, "token_mlp": "mlp", "mlp_ratio": 2.0, "qk_scale": 0.3}, (1, 3, 64, 64)),
    (UFORMER | {"dd_in": 4, "shift_flag": False}, (1, 4, 64, 64)),
    ({"type": "DnCNN", "nc": 8, "nb": 5}, (2, 1, 13, 9)),
    ({"type": "DnCNN", "nc": 8, "nb": 4, "act_mode": "R", "in_nc": 3, "out_nc": 3}, (1, 3, 8, 9)),
]
GOPRO = {"type": "NAFNet", "enc_blk_nums": [1, 1, 1, 28], "middle_blk_num": 1, "dec_blk_nums": [1, 1, 1, 1]}
SIDD = {"type": "NAFNet", "enc_blk_nums": [2, 2, 4, 8], "middle_blk_num": 12, "dec_blk_nums": [2, 2, 2, 2]}
BASE = {"type": "Uformer", "depths": [1, 2, 8, 8, 2, 8, 8, 2, 1], "modulator": True}
PUBLISHED: list[dict] = [  # the released models
    *(size | {"width": width} for size in (GOPRO, SIDD) for width in (32, 64)),
    {"type": "Restormer"},
    {"type": "Restormer", "LayerNorm_type": "BiasFree"},
    {"type": "Restormer", "LayerNorm_type": "BiasFree", "inp_channels": 1, "out_channels": 1},
    {"type": "Restormer", "inp_channels": 6, "dual_pixel_task": True},
    {"type": "Uformer", "embed_dim": 16, "modulator": True},
    {"type": "Uformer", "embed_dim": 32, "modulator": True},
    BASE,
    {"type": "DnCNN", "act_mode": "R"},
    {"type": "DnCNN", "act_mode": "R", "nb": 20},
    {"type": "DnCNN", "act_mode": "R", "nb": 20, "in_nc": 3, "out_nc": 3},
]


def layout(network: torch.nn.Module) -> list:
    """Keys, shapes and types of a network's state in alphabetical order."""
    return [[key, list(value.shape), str(value.dtype)] for key, value in sorted(network.state_dict().items())]


def layout_digest(network: torch.nn.Module) -> list:
    """The number of keys and of parameters, and a digest of the layout."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    text = json.dumps(layout(network))
    return [len(network.state_dict()), parameters, hashlib.sha256(text.encode()).hexdigest()]


@torch.no_grad()
def draw_weights(network: torch.nn.Module) -> torch.nn.Module:
    """Draw the parameters and the statistics of batch norms from their names, at the scale of a fresh layer."""
    network.double().eval()
    for key, value in network.state_dict().items():
        if not value.is_floating_point():
            continue
        draws = np.random.RandomState(zlib.crc32(key.encode())).uniform(-1, 1, tuple(value.shape))
        if value.ndim > 1:
            draws *= np.sqrt(3 / value[0].numel())
        else:
            draws = draws / 4 + (0 if key.endswith(("bias", "mean")) else 1)
        value.copy_(torch.from_numpy(draws))
    return network


def image(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(0).uniform(size=shape))


def sample(output: torch.Tensor) -> np.ndarray:
    """Numbers at equal distances, the mean and the mean square of all, and the shape."""
    numbers = output.detach().double().flatten().numpy()
    step = STEP if numbers.size < 5000 else LARGE_STEP
    return np.concatenate([numbers[::step], [numbers.mean(), np.square(numbers).mean()], output.shape])


@functools.cache
def load_goldens() -> dict[str, np.ndarray]:
    with np.load(FILE) as arrays:
        return dict(arrays)


def run_reference(folder: str) -> dict[str, np.ndarray]:
    """All results of the packages that lie in a folder."""
    sys.path.insert(0, folder)
    for part in ("", ".models", ".models.vgg", ".ops", ".ops.misc", ".transforms", ".transforms.functional", ".utils"):
        sys.modules[f"torchvision{part}"] = MagicMock()
    version = importlib.import_module("spandrel").__version__
    if version != "0.4.2":
        raise SystemExit(f"{folder} holds spandrel {version}, not 0.4.2")

    def build(opt: dict) -> torch.nn.Module:
        network = getattr(importlib.import_module(MODULES[opt["type"]]), opt["type"])
        return network(**{key: value for key, value in opt.items() if key != "type"})

    results, layouts = {}, []
    for index, (opt, shape) in enumerate(SMALL):
        network = build(opt)
        layouts.append(layout(network))
        with torch.no_grad():
            results[f"output {index}"] = sample(draw_weights(network)(image(shape)))
    digests = [layout_digest(build(opt)) for opt in PUBLISHED]
    texts = {"layouts": layouts, "digests": digests}
    return results | {key: np.frombuffer(json.dumps(value).encode(), np.uint8) for key, value in texts.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    np.savez_compressed(FILE, **run_reference(sys.argv[1]))
