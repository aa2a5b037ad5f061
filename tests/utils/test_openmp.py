import os
import subprocess
import sys
from pathlib import Path

import pytest

from basicsr.utils.openmp import SPIN_COUNT, USER_SETTINGS, limit_spinning

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in USER_SETTINGS:
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)


def test_threads_poll_briefly():
    limit_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == SPIN_COUNT


@pytest.mark.parametrize("name", USER_SETTINGS)
def test_the_users_own_setting_holds(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    limit_spinning()
    assert {key: os.environ.get(key) for key in USER_SETTINGS} == {**dict.fromkeys(USER_SETTINGS), name: "1"}


@pytest.mark.parametrize(
    "program", ["import basicsr.train", "import basicsr.test", "import basicsr.cli; basicsr.cli.main(['doctor'])"]
)
def test_entry_points_set_it_before_torch_is_loaded(program):
    """The environment is recorded at the moment when torch is looked for."""
    recorder = """
import importlib.abc, os, sys

class Recorder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
            sys.exit()

sys.meta_path.insert(0, Recorder())
"""
    environment = {key: value for key, value in os.environ.items() if key not in USER_SETTINGS}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([sys.executable, "-c", recorder + program], env=environment, capture_output=True, text=True)
    assert done.stdout == f"{SPIN_COUNT}\n", done.stderr
