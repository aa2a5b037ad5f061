"""The README's example files and commands, executed as they are written, in a copy of the checkout."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .helpers import free_port

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = " --force_yml logger:print_freq=1 train:total_iter=2 datasets:train:batch_size_per_gpu=1 val:val_freq=2"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what the commands need, with the README's example files in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("basicsr", "options", "scripts", "assets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for text in blocks("python") + blocks("yaml"):
        name = re.match(r"# (\S+\.(?:py|yml))\n", text)
        if name:
            (folder / name[1]).write_text(text, encoding="utf-8")
    return folder


def test_the_readme_s_commands_work(checkout):
    """Every command of a ``bash`` block, in order; trainings are cut to two iterations."""
    commands = [line for block in blocks("bash") for line in block.splitlines() if line and not line.startswith("#")]
    assert len(commands) >= 4
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PORT": str(free_port())}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    for command in commands:
        is_check = " check " in command
        if not is_check and "train" in command and ("-opt" in command or "dist_train" in command):
            command += SHORT
        result = subprocess.run(command, shell=True, cwd=checkout, env=env, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, f"{command}\n{result.stdout[-1000:]}{result.stderr[-3000:]}"
        if is_check:
            seconds = re.fullmatch(r"\S+: ok \((\d+\.\d) s\)\n", result.stdout)
            assert seconds is not None and float(seconds[1]) < 60, "10 s on a machine that has nothing else to do"
    log = next((checkout / "experiments" / "my_run").glob("train_*.log")).read_text()
    assert "l_gradient: " in log
    assert (checkout / "results" / "quickstart_test_teacher" / "results.md").is_file()


def test_links_lead_to_files():
    for target in re.findall(r"\]\(((?!https?:)[^)#]+)\)", README):
        assert (ROOT / target).exists(), f"README.md links to {target}, which does not exist"
