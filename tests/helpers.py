"""What tests of several folders share: starting runs, what they leave behind, and options in miniature."""

import multiprocessing
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 2, "img_range": 1.0, "res_scale": 1}


def free_port() -> str:
    """A port of this machine that nobody listens at, as environment variables and command lines take it."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def smooth_image(seed: int, height: int, width: int) -> np.ndarray:
    """A uint8 image with structure at several scales."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for size in (2, 5, 11):
        noise = torch.from_numpy(rng.random((1, 3, size, size)))
        layer = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic", align_corners=False)
        image += layer[0].permute(1, 2, 0).numpy()
    return np.clip(image / 3 * 255, 0, 255).round().astype(np.uint8)


# Runs


def with_random_networks(options: dict) -> dict:
    """The options with frozen networks whose weights are meant to be random, unless ``path`` says something else."""
    names = [key for key, value in options.items() if key.startswith("network_") and isinstance(value, dict)]
    frozen = {f"pretrain_{name}": "random" for name in names if name not in ("network_g", "network_d")}
    return {**options, "path": {**frozen, **options["path"]}}


class Runner:
    """Runs the entry points below a temporary root."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.monkeypatch = monkeypatch

    def write(self, options: dict) -> str:
        path = self.root / f"{options['name']}.yml"
        path.write_text(yaml.safe_dump(with_random_networks(options), sort_keys=False))
        return str(path)

    def train(self, options: dict, *arguments: str) -> Path:
        """Train in this process; returns the run's folder."""
        from basicsr.train import train_pipeline

        self.monkeypatch.setattr(sys, "argv", ["train.py", "-opt", self.write(options), *arguments])
        train_pipeline(str(self.root))
        return self.folder(options["name"])

    def folder(self, name: str = "tiny") -> Path:
        """Where the training of that name puts its files."""
        return self.root / "experiments" / name

    def build(self, options: dict):
        """The recipe as train.py builds it, for single steps."""
        from basicsr.models import build_model
        from basicsr.utils.options import read_options

        opt, _ = read_options(self.write(options), is_train=True)
        opt |= {"dist": False, "rank": 0, "world_size": 1, "is_train": True}
        for name, section in opt["datasets"].items():
            section["phase"] = name.split("_")[0]
        torch.manual_seed(opt["manual_seed"])
        return build_model(opt)

    def test(self, options: dict, *arguments: str) -> Path:
        """Test in this process; returns the results' folder."""
        from basicsr.test import test_pipeline

        self.monkeypatch.setattr(sys, "argv", ["test.py", "-opt", self.write(options), *arguments])
        test_pipeline(str(self.root))
        return self.root / "results" / options["name"]

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Run ``python <command>`` from the repository as a user would, its runs going below the temporary root."""
        env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        result = subprocess.run(
            [sys.executable, *command], cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=300
        )
        if check and result.returncode != 0:
            output = result.stdout[-2000:] + result.stderr[-4000:]
            raise AssertionError(f"{command} exited {result.returncode}:\n{output}")
        return result


def run_forked(target: Callable, calls: list[tuple], timeout: float = 60) -> list[multiprocessing.Process]:
    """Call a function with each of these arguments, at the same time, in processes that need import nothing.

    Returns:
        The processes, which have ended.
    """
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=target, args=arguments) for arguments in calls]
    for process in processes:
        process.start()
    for process in reversed(processes):  # one that nobody has waited for is not gone, and rank 0 may wait for others
        process.join(timeout)
        process.kill()
    return processes


# What a run leaves behind


def log_text(folder: Path) -> str:
    """All that a training has logged, also before it was resumed."""
    return "\n".join(path.read_text() for path in sorted(folder.glob("train_*.log")))


def logged_values(folder: Path, name: str) -> list[float]:
    """The values of a loss, or of what else the lines of iterations hold, in their order."""
    return [float(value) for value in re.findall(rf" {name}: (\S+)", log_text(folder))]


def weights(folder: Path, iteration: int | str = "latest", network: str = "g") -> dict:
    """What a network's file holds: ``params``, and ``params_ema`` where there is an average."""
    return torch.load(folder / "models" / f"net_{network}_{iteration}.pth", weights_only=True)


def training_state(folder: Path, iteration: int = 12) -> dict:
    return torch.load(folder / "training_states" / f"{iteration}.state", weights_only=True)


def content(file: Path) -> dict:
    """What a network's or a training state's file holds, without what tells one run from another that trains alike."""
    loaded = torch.load(file, weights_only=True)
    return {key: value for key, value in loaded.items() if key not in ("run", "options", "files")}


def finish(runs) -> None:
    """Wait for processes that the fixture ``launcher`` has started; all must end without an error."""
    codes = [run.wait() for run in runs]
    assert codes == [0] * len(runs), "\n".join(run.text[-3000:] for run in runs)


def assert_equal(one, other, where: str) -> None:
    """Two nested values are equal, tensors bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}: {key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other)):
            assert_equal(a, b, f"{where}: {index}")
    else:
        assert one == other, where


# Options


def to_test_options(options: dict, file: Path) -> dict:
    """By which test.py measures a file's weights on the validation images of a training."""
    kept = {key: options[key] for key in ("scale", "num_gpu", "manual_seed", "network_g")}
    return {
        **kept,
        "name": "tiny_test",
        "model_type": "SRModel",
        "datasets": {"test": options["datasets"]["val"]},
        "path": {"pretrain_network_g": str(file)},
        "val": {"metrics": options["val"]["metrics"]},
    }


def recipe_options(network_g: dict, *, scale: int, gt_size: int, optim_g: dict, **train) -> dict:
    """Options as a recipe gets them from train.py, for single steps in one process."""
    return {
        "name": "small",
        "scale": scale,
        "num_gpu": 0,
        "is_train": True,
        "dist": False,
        "rank": 0,
        "world_size": 1,
        "datasets": {"train": {"gt_size": gt_size, "phase": "train"}},
        "network_g": network_g,
        "path": {},
        "train": {
            "total_iter": 10,
            "optim_g": optim_g,
            "scheduler": {"type": "MultiStepLR", "milestones": [100]},
            **train,
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 100},
    }


def dckd_sections(weights=(1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0), num_neg: int = 4, step=(1,)) -> dict:
    """The sections of ``train`` by which the authors' files name DCKD's terms, with their values."""
    l1 = {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}
    return {
        "logits_opt": l1,
        "lcr_opt": dict(l1),
        "noisy": {"prob": 0.5},
        "cl_opt": {"type": "ContrasLoss", "d_func": "L1", "loss_weight": 0.1, "weights": list(weights)},
        "num_neg": num_neg,
        "update_decay": 0.1,
        "step": list(step),
        "gaussian_blur_prob": 0,
        "resize_prob": 0,
        "gaussian_noise_prob": 1.0,
        "gray_noise_prob": 0.5,
        "ce_opt": {"type": "CELoss", "loss_weight": 0.001, "reduction": "mean"},
    }


def small_vqgan(levels: int, resolution: int = 32) -> dict:
    """A VQGAN of ``levels`` levels, without attention above its smallest one, and a codebook of 16 entries."""
    return {
        "type": "VQGAN",
        "embed_dim": 8,
        "n_embed": 16,
        "ddconfig": {
            "ch": 32,
            "ch_mult": [1] * levels,
            "num_res_blocks": 1,
            "attn_resolutions": [resolution >> (levels - 1)],
            "resolution": resolution,
            "z_channels": 8,
        },
    }
