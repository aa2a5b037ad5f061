"""A miniature training set and options, and ways to run train.py and test.py on them."""

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from basicsr.utils.img_util import imwrite
from basicsr.utils.matlab_functions import imresize

REPOSITORY = Path(__file__).resolve().parents[2]


def smooth_image(seed: int, height: int, width: int) -> np.ndarray:
    """A uint8 image with structure at several scales."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for size in (2, 5, 11):
        noise = torch.from_numpy(rng.random((1, 3, size, size)))
        layer = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic", align_corners=False)
        image += layer[0].permute(1, 2, 0).numpy()
    return np.clip(image / 3 * 255, 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """``hr`` and ``lr`` folders: four images, ×2, of different sizes."""
    root = tmp_path_factory.mktemp("images")
    for index in range(4):
        image = smooth_image(index, 40 + 2 * index, 48)
        imwrite(image, str(root / "hr" / f"img.{index}.png"))
        imwrite(imresize(image, 0.5), str(root / "lr" / f"img.{index}.png"))
    return root


@pytest.fixture
def options(images) -> dict:
    """Options of a tiny KD training on the CPU; tests change what they are about."""
    edsr = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 2, "img_range": 1.0, "res_scale": 1}
    data = {"type": "PairedImageDataset", "dataroot_gt": f"{images}/hr", "dataroot_lq": f"{images}/lr"}
    data["io_backend"] = {"type": "disk"}
    return {
        "name": "tiny",
        "model_type": "KDModel",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 7,
        "datasets": {
            "train": {
                "name": "train",
                **data,
                "gt_size": 16,
                "use_hflip": True,
                "use_rot": True,
                "num_worker_per_gpu": 0,
                "batch_size_per_gpu": 3,
                "dataset_enlarge_ratio": 4,
            },
            "val": {"name": "val", **data},
        },
        "network_g": {**edsr, "num_feat": 4, "num_block": 2},
        "network_t": {**edsr, "num_feat": 6, "num_block": 3},
        "path": {},
        "train": {
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 2e-3, "betas": [0.9, 0.99]},
            "scheduler": {"type": "MultiStepLR", "milestones": [6], "gamma": 0.5},
            "total_iter": 12,
            "pixel_opt": {"type": "L1Loss"},
            "kd_opt": {
                "logits": {"type": "LogitsKD", "loss_weight": 0.1},
                "feat": {"type": "FitNets", "pairs": [{"student": "body.1", "teacher": "body.2"}]},
            },
        },
        "val": {
            "val_freq": 6,
            "metrics": {
                "psnr": {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": True},
                "ssim": {"type": "calculate_ssim", "crop_border": 2, "test_y_channel": True},
            },
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 4},
    }


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
        return self.root / "experiments" / options["name"]

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


@pytest.fixture
def runner(tmp_path, monkeypatch) -> Runner:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return Runner(tmp_path, monkeypatch)


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@dataclass
class Launched:
    """A process that runs an entry point, and the file that holds what it printed."""

    process: multiprocessing.Process
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait(self, timeout: float = 120) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running after {timeout} s:\n{self.text[-4000:]}")
        return self.process.exitcode

    def wait_for(self, text: str, timeout: float = 60) -> None:
        """Wait until the process has printed something."""
        deadline = time.monotonic() + timeout
        while text not in self.text:
            if not self.process.is_alive() or time.monotonic() > deadline:
                raise AssertionError(f"'{text}' was not printed:\n{self.text[-4000:]}")
            time.sleep(0.01)


PRELOADED = [
    "torch._dynamo",  # imported when an optimiser is made, for seconds
    "basicsr.train",
    "basicsr.test",
    "basicsr.archs.edsr_arch",
    "basicsr.data.paired_image_dataset",
    "basicsr.distill.fitnets",
    "basicsr.distill.logits",
    "basicsr.losses.basic_loss",
    "basicsr.metrics.psnr_ssim",
    "basicsr.models.kd_model",
]


class Launcher:
    """Starts entry points as processes of their own within milliseconds: a server that has imported all forks them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.count = 0
        self.launched: list[Launched] = []

    def start(self, options: dict, *arguments: str, entry: str = "train", **environment: str) -> Launched:
        """``python basicsr/<entry>.py -opt <options>``, its runs going below the temporary root."""
        self.count += 1
        path = self.root / f"options_{self.count}" / f"{options['name']}.yml"
        path.parent.mkdir()
        run_paths = {"experiments_root": f"{self.root}/experiments", "results_root": f"{self.root}/results"}
        options = with_random_networks(options)
        path.write_text(yaml.safe_dump({**options, "path": {**options["path"], **run_paths}}, sort_keys=False))
        output = self.root / f"output_{self.count}.txt"
        output.touch()
        told = {
            "entry": entry,
            "arguments": ["-opt", str(path), *arguments],
            "environment": environment,
            "output": str(output),
        }
        script = str(Path(__file__).with_name("forked_run.py"))
        process = self.context.Process(target=runpy.run_path, args=(script, told))
        process.start()
        self.launched.append(Launched(process, output))
        return self.launched[-1]

    def start_ranks(
        self, world: int, options: dict, *arguments: str, each: dict[int, dict[str, str]] | None = None, **kwargs: str
    ) -> list[Launched]:
        """As a launcher would start them; one rank alone without a process group."""
        each = each or {}
        if world == 1:
            return [self.start(options, *arguments, **kwargs, **each.get(0, {}))]
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(world)}
        arguments += ("--launcher", "pytorch")
        return [
            self.start(options, *arguments, **{**place, "RANK": str(rank), **kwargs, **each.get(rank, {})})
            for rank in range(world)
        ]

    def close(self) -> None:
        for launched in self.launched:
            launched.process.kill()
            launched.process.join()


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    launcher = Launcher(tmp_path)
    yield launcher
    launcher.close()


def assert_equal(one, other, where):
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


@pytest.fixture
def resumes_exactly(launcher):
    """Check that a run that is killed, or stopped by SIGTERM, in an iteration and resumed ends as one that is not.

    Called with options that import fault_plugin.py, and with signals as ``<iteration>:<name>``; every file that the
    last iteration leaves must be the same, bit for bit. Returns the folder of the run without a stop.
    """

    def check(options: dict, *faults: str, world: int = 1) -> Path:
        def finish(runs):
            codes = [run.wait() for run in runs]
            assert codes == [0] * len(runs), "\n".join(run.text[-3000:] for run in runs)

        experiments, last = launcher.root / "experiments", options["train"]["total_iter"]
        finish(launcher.start_ranks(world, {**options, "name": "whole"}))
        for index, fault in enumerate(faults):
            stopped = {**options, "name": f"stopped_{index}"}
            runs = launcher.start_ranks(world, stopped, each={world - 1: {"FAULT": f"step:{fault}"}})
            codes = [run.wait() for run in runs]
            assert codes[-1] == (-signal.SIGKILL if "SIGKILL" in fault else 75), runs[-1].text[-3000:]
            finish(launcher.start_ranks(world, stopped, "--auto_resume"))
            files = [f"training_states/{last}.state"]
            files += [f"models/{file.name}" for file in (experiments / "whole" / "models").glob("*_latest.pth")]
            for file in files:
                one, other = (
                    torch.load(experiments / name / file, weights_only=True) for name in ("whole", stopped["name"])
                )
                assert_equal(one, other, file)
        return experiments / "whole"

    return check
