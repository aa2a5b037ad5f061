"""A miniature training set and options, and ways to run train.py and test.py on them."""

import multiprocessing
import runpy
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from basicsr.utils.img_util import imwrite
from basicsr.utils.matlab_functions import imresize

from ..helpers import EDSR, assert_equal, content, finish, free_port, smooth_image, with_random_networks


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
        "network_g": {**EDSR, "num_feat": 4, "num_block": 2},
        "network_t": {**EDSR, "num_feat": 6, "num_block": 3},
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


@pytest.fixture
def batch() -> dict:
    """Two images, ×2, for single steps."""
    generator = torch.Generator().manual_seed(1)
    return {"lq": torch.rand(2, 3, 8, 8, generator=generator), "gt": torch.rand(2, 3, 16, 16, generator=generator)}


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

    def folder(self, name: str = "tiny") -> Path:
        """Where the training of that name puts its files."""
        return self.root / "experiments" / name

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


@pytest.fixture
def resumes_exactly(launcher):
    """Check that a run that is killed, or stopped by SIGTERM, in an iteration and resumed ends as one that is not.

    Called with options that import fault_plugin.py, and with signals as ``<iteration>:<name>``; every file that the
    last iteration leaves must be the same, bit for bit. Returns the folder of the run without a stop.
    """

    def check(options: dict, *faults: str, world: int = 1) -> Path:
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
                one, other = (content(experiments / name / file) for name in ("whole", stopped["name"]))
                assert_equal(one, other, file)
        return experiments / "whole"

    return check
