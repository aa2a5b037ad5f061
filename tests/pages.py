"""Pages of the documentation whose files and commands are executed, in a folder with a copy of the shipped options."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from skimage import data as photographs

from basicsr.cli import main
from basicsr.test import test_pipeline as run_test_pipeline
from basicsr.train import train_pipeline
from basicsr.utils.img_util import imwrite

from .helpers import REPOSITORY

# Two iterations on patches of 32, as far as a file has these keys.
SHORT = ["logger:print_freq=1", "train:total_iter=2", "val:val_freq=2", "num_gpu=0", "datasets:train:gt_size=32"]
SHORT += ["datasets:train:batch_size_per_gpu=2", "datasets:train:num_worker_per_gpu=0", "logger:use_tb_logger=false"]
SHORT += ["datasets:train:dataset_enlarge_ratio=4"]


class Page:
    """A page: its blocks, and a folder in which its commands are run."""

    def __init__(self, name: str) -> None:
        self.path = REPOSITORY / "docs" / name
        self.text = self.path.read_text(encoding="utf-8")

    def blocks(self, language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```", self.text, flags=re.M | re.S)

    def files(self) -> dict[str, str]:
        """The blocks that begin with the name of a file."""
        named = ((re.match(r"# (\S+\.(?:py|yml))\n", text), text) for text in self.blocks("(?:python|yaml)"))
        return {name[1]: text for name, text in named if name}

    def commands(self) -> list[str]:
        """The lines of the ``bash`` blocks, without comments, in order."""
        lines = "".join(self.blocks("bash")).replace("\\\n", " ").splitlines()
        return [line for line in (shlex.join(shlex.split(line, comments=True)) for line in lines) if line]

    def check_links(self) -> None:
        """Relative links lead to files, and to headings that exist there."""
        links = re.findall(r"\]\(((?!https?:)[^)]+)\)", self.text)
        assert links
        for link in links:
            file, _, anchor = link.partition("#")
            target = (self.path.parent / file).resolve() if file else self.path
            assert target.exists(), f"{self.path.name} links to {link}, which does not exist"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.M)
                assert anchor in [_anchor(heading) for heading in headings], f"{link}: no such heading"

    def check_width(self) -> None:
        """Lines are at most 120 characters long, tables excepted."""
        lines = self.text.splitlines()
        assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []

    def check_named_files(self) -> None:
        """Paths of the repository that the text names exist; ``{a,b}`` stands for both, ``*`` for any name."""
        names = set(re.findall(r"(?<![\w/])(?:options|tests|scripts)/[\w./{},*-]*\w", self.text))
        for name in sorted(each for found in names for each in _spelt_out(found)):
            assert list(REPOSITORY.glob(name)), f"{self.path.name} names {name}, which does not exist"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _spelt_out(name: str) -> list[str]:
    found = re.search(r"\{([^}]*)\}", name)
    if not found:
        return [name]
    return [each for word in found[1].split(",") for each in _spelt_out(name.replace(found[0], word, 1))]


def make_folder(folder: Path, page: Page) -> Path:
    """The shipped options, the page's files, and small photographs in ``photos/train``, ``val`` and ``noisy``."""
    shutil.copytree(REPOSITORY / "options", folder / "options")
    for name, text in page.files().items():
        (folder / name).write_text(text, encoding="utf-8")
    rng = np.random.default_rng(0)
    for kind, names in (("train", ("coffee", "rocket")), ("val", ("astronaut",)), ("noisy", ("chelsea",))):
        for name in names:
            photo = getattr(photographs, name)()[40:296, 60:320, ::-1]
            if kind == "noisy":
                photo = (photo[:90, :70] + rng.normal(0, 25, (90, 70, 3))).clip(0, 255).astype(np.uint8)
            imwrite(np.ascontiguousarray(photo), folder / "photos" / kind / f"{name}.png")
    return folder


def run_command(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, force: Sequence[str] = ()) -> None:
    """Run a page's command in this process; trainings are cut short, and ``force`` has more options for them."""
    monkeypatch.chdir(folder)
    arguments = [os.path.expanduser(word) for word in shlex.split(command)]
    if arguments[0] == "basicsr":
        kept = [*arguments[1:], "--num-workers", "1"] if arguments[1] == "prepare" else arguments[1:]
        assert main(kept) == 0, command
    elif arguments[:2] in (["python", "basicsr/train.py"], ["python", "basicsr/test.py"]):
        train = arguments[1].endswith("train.py")
        more = [] if "--force_yml" in arguments else ["--force_yml"]
        monkeypatch.setattr(sys, "argv", [*arguments[1:], *more, *((*SHORT, *force) if train else ["num_gpu=0"])])
        (train_pipeline if train else run_test_pipeline)(str(folder))
    else:
        assert arguments[:3] == ["python", "-m", "pytest"], f"the tests cannot run {command}"
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run([sys.executable, *arguments[1:]], cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:]
