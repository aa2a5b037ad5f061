"""The terms of docs/distillation.md: each is trained with the option file that stands beside it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from basicsr.train import train_pipeline

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8")
SHORT = ["logger:print_freq=1", "train:total_iter=3", "datasets:train:batch_size_per_gpu=2", "val:val_freq=3"]
SHORT += ["datasets:train:num_worker_per_gpu=0"]


def files() -> dict[str, str]:
    """The blocks that begin with the name of a file."""
    blocks = re.findall(r"^```(?:python|yaml)\n(.*?)^```", PAGE, flags=re.M | re.S)
    named = ((re.match(r"# (\S+\.(?:py|yml))\n", text), text) for text in blocks)
    return {name[1]: text for name, text in named if name}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The shipped options, the quickstart's data, and the page's files."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("options", "scripts", "assets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "scripts/quickstart.py", "--data-only"]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=300)
    return folder


def test_every_kind_of_term_is_shown():
    names = ["attention.yml", "attention_kd.py", "privileged.yml", "privileged_kd.py"]
    assert sorted(files()) == ["adversarial.yml", "adversarial_kd.py", *names]


@pytest.mark.parametrize(
    ("name", "logged"),
    [
        ("attention", [["l_attention"]] * 3),
        ("privileged", [["l_privileged"]] * 3),
        ("adversarial", [[], *[["l_adversarial", "l_adversarial_own", "adversarial_margin"]] * 2]),
    ],
)
def test_a_term_of_the_page_trains(checkout, monkeypatch, name, logged):
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", f"{name}.yml", "--force_yml", *SHORT])
    train_pipeline(str(checkout))
    log = next((checkout / "experiments" / name).glob("train_*.log")).read_text()
    lines = [re.findall(r"(\w+): [-\d]\S* ", line) for line in log.splitlines() if " l_pix: " in line]
    assert [[label for label in line if label.startswith((f"l_{name}", name))] for line in lines] == logged
    assert re.search(rf"^  {name} .*$", log, re.M), "it is in the table of the start"


def test_code_without_a_file_is_python():
    for text in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S):
        compile(text, "block", "exec")


def test_links_lead_to_files():
    for target in re.findall(r"\]\(((?!https?:)[^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), f"docs/distillation.md links to {target}, which does not exist"
