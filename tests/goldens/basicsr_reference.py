"""What PyPI's basicsr 1.4.2 gives for fixed inputs, kept in ``basicsr_1.4.2.npz`` so that tests need not install it.

The file was made by::

    pip install --no-deps --target FOLDER basicsr==1.4.2
    python tests/goldens/basicsr_reference.py FOLDER

with torch 2.13.0, numpy 2.4.6, scikit-image 0.26.0 and OpenCV 5.0.0. Inputs and weights are made from NumPy's legacy
generator, whose numbers are the same in every version, and from an image of scikit-image. Networks compute in float64,
so that the processor does not matter. Of arrays one number in 97 or 997 is kept, and the mean and the mean square of
all.

With the environment variable BASICSR_REFERENCE set to such a folder, tests compare with the package itself instead.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from skimage import data

FILE = Path(__file__).with_name("basicsr_1.4.2.npz")
BENCHMARKS = Path(__file__).resolve().parents[2] / "scripts" / "benchmark"
STEP, LARGE_STEP = 97, 997  # primes, so that all rows, columns and channels are among what is kept

# Networks

RGB = {"num_in_ch": 3, "num_out_ch": 3}
EDSR = {"type": "EDSR", "num_feat": 16, "num_block": 2, "res_scale": 0.1} | RGB
RCAN = {"type": "RCAN", "num_feat": 16, "num_group": 2, "num_block": 2, "squeeze_factor": 4, "res_scale": 0.5} | RGB
RRDB = {"type": "RRDBNet", "num_feat": 16, "num_block": 2, "num_grow_ch": 8} | RGB
SWIN = {"type": "SwinIR", "img_size": 16, "embed_dim": 12, "depths": [3, 2], "num_heads": [2, 3], "window_size": 4}
NETWORKS = [
    *(EDSR | {"upscale": scale} for scale in (2, 3, 4)),
    *(RCAN | {"upscale": scale} for scale in (2, 3, 4)),
    *({"type": "MSRResNet", "num_feat": 16, "num_block": 2, "upscale": scale} for scale in (2, 3, 4)),
    *(
        {"type": "SRVGGNetCompact", "num_feat": 16, "num_conv": 2, "upscale": scale, "act_type": act}
        for scale, act in ((2, "relu"), (3, "leakyrelu"), (4, "prelu"))
    ),
    *(RRDB | {"scale": scale} for scale in (1, 2, 4)),
    SWIN | {"upsampler": "pixelshuffle", "upscale": 4},
    SWIN | {"upsampler": "pixelshuffle", "upscale": 3, "img_range": 255.0, "mlp_ratio": 2},
    SWIN | {"upsampler": "pixelshuffledirect", "upscale": 2},
    SWIN | {"upsampler": "nearest+conv", "upscale": 4, "resi_connection": "3conv"},
    SWIN | {"upsampler": "", "upscale": 1, "in_chans": 1, "patch_norm": False, "resi_connection": "3conv"},
    SWIN | {"upsampler": "", "upscale": 1, "qk_scale": 0.2, "qkv_bias": False},
    SWIN | {"upsampler": "", "upscale": 1, "ape": True, "img_size": 24},
    SWIN | {"upsampler": "", "upscale": 1, "img_size": 4},
    SWIN | {"upsampler": "", "upscale": 1, "window_size": 8},
]
FILES = {"EDSR": "edsr", "RCAN": "rcan", "MSRResNet": "srresnet", "SRVGGNetCompact": "srvgg", "RRDBNet": "rrdbnet"}
FILES |= {"SwinIR": "swinir"}


def run_network(network: torch.nn.Module, opt: dict) -> tuple[list, np.ndarray]:
    """The layout of a network's state (keys, shapes, types, and a digest of buffers), and its output as ``sample``.

    Its parameters are drawn from their own names, at the scale of a fresh layer.
    """
    layout, parameters = [], dict(network.named_parameters())
    for key, value in network.state_dict().items():
        content = (value.double() + 0.0).numpy().tobytes()  # the sum, so that −0 is 0
        digest = None if key in parameters else hashlib.sha256(content).hexdigest()[:16]
        layout.append([key, list(value.shape), str(value.dtype), digest])
    network.double().eval()
    for key, value in network.state_dict().items():
        if key in parameters:
            draws = np.random.RandomState(zlib.crc32(key.encode())).uniform(-1, 1, tuple(value.shape))
            if value.ndim > 1:
                draws *= np.sqrt(3 / value[0].numel())
            else:
                draws = draws / 4 + (0 if key.endswith("bias") else 1)
            value.copy_(torch.from_numpy(draws))
    side = 24 if opt.get("ape") else 16
    x = np.random.RandomState(0).uniform(size=(2, opt.get("in_chans", 3), 24, side))
    with torch.no_grad():
        output = network(torch.from_numpy(x))
    return layout, np.append(sample(output.numpy()), output.shape)


# Metrics, colours and resizing

CONVERSIONS = ("rgb2ycbcr", "bgr2ycbcr", "ycbcr2rgb", "ycbcr2bgr")
SCALES = (0.5, 1 / 3, 0.25, 0.7, 2, 3)


def pair_of_images() -> tuple[np.ndarray, np.ndarray]:
    """A photograph and a noisy copy: (208, 304, 3) uint8 BGR."""
    clean = data.astronaut()[:208, :304, ::-1].copy()
    noise = np.random.RandomState(0).normal(0, 8, clean.shape)
    return clean, np.clip(clean + noise, 0, 255).round().astype(np.uint8)


def run_metrics(modules: dict) -> dict[str, np.ndarray]:
    """Of ``psnr_ssim``, ``niqe``, ``color_util`` and ``matlab_functions``."""
    clean, noisy = pair_of_images()
    batches = [torch.from_numpy(i[..., ::-1].copy()).permute(2, 0, 1)[None] / 255.0 for i in (clean, noisy)]
    unit = noisy.astype(np.float32) / 255
    results = {}
    for luma in (False, True):
        for border in (0, 4):
            for name in ("calculate_psnr", "calculate_ssim"):
                metric, tensor_metric = (getattr(modules["psnr_ssim"], name + suffix) for suffix in ("", "_pt"))
                key = f"{luma} {border}"
                results[f"{name} {key}"] = metric(clean, noisy, border, test_y_channel=luma)
                results[f"{name}_pt {key}"] = tensor_metric(*batches, border, test_y_channel=luma).item()
    for to in ("y", "gray"):
        results[f"calculate_niqe {to}"] = modules["niqe"].calculate_niqe(noisy.astype(np.float32), 4, convert_to=to)
    colours = modules["color_util"]
    for name in CONVERSIONS:
        results[name] = sample(getattr(colours, name)(unit))
        source = colours.rgb2ycbcr(noisy) if name.startswith("y") else noisy
        results[f"{name} uint8"] = getattr(colours, name)(source).flatten()[::STEP]
    for scale in SCALES:
        results[f"imresize {scale}"] = sample(modules["matlab_functions"].imresize(unit, scale))
    return {name: np.asarray(value) for name, value in results.items()}


def sample(array: np.ndarray) -> np.ndarray:
    """Numbers at equal distances, then the mean and the mean square of all."""
    numbers = array.astype(np.float64).flatten()
    step = STEP if numbers.size < 100_000 else LARGE_STEP
    return np.concatenate([numbers[::step], [numbers.mean(), np.square(numbers).mean()]])


# The package itself


def run_reference(folder: str) -> dict[str, np.ndarray]:
    """All results of the package that lies in a folder."""
    sys.path.insert(0, str(BENCHMARKS))
    from _reference import load_reference

    paths = {name: f"basicsr.archs.{name}_arch" for name in FILES.values()}
    paths |= {name: f"basicsr.metrics.{name}" for name in ("psnr_ssim", "niqe")}
    paths |= {name: f"basicsr.utils.{name}" for name in ("color_util", "matlab_functions")}
    warnings.simplefilter("ignore")  # at what has changed in PyTorch since
    loaded = load_reference(folder, [*paths.values(), "basicsr.version"])
    if loaded["basicsr.version"].__version__ != "1.4.2":
        raise SystemExit(f"{folder} holds basicsr {loaded['basicsr.version'].__version__}, not 1.4.2")
    modules = {name: loaded[path] for name, path in paths.items()}
    results, layouts = run_metrics(modules), []
    for index, opt in enumerate(NETWORKS):
        arguments = {key: value for key, value in opt.items() if key != "type"}
        layout, output = run_network(getattr(modules[FILES[opt["type"]]], opt["type"])(**arguments), opt)
        layouts.append(layout)
        results[f"network {index}"] = output
    return {**results, "layouts": np.frombuffer(json.dumps(layouts).encode(), np.uint8)}


@functools.cache
def load_goldens() -> dict[str, np.ndarray]:
    """The committed results, or those of the package that BASICSR_REFERENCE names."""
    folder = os.environ.get("BASICSR_REFERENCE")
    if not folder:
        with np.load(FILE) as arrays:
            return dict(arrays)
    with tempfile.TemporaryDirectory() as temporary:  # in another process, since the package has our name
        output = f"{temporary}/reference.npz"
        subprocess.run([sys.executable, __file__, folder, output], check=True)
        with np.load(output) as arrays:
            return dict(arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    np.savez_compressed(sys.argv[2] if len(sys.argv) > 2 else FILE, **run_reference(sys.argv[1]))
