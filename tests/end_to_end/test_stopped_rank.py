"""A rank that is stopped (SIGSTOP), as one that is swapped out: the first signal to another ends the run."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from ..helpers import assert_equal, finish, log_text, weights

PLUGIN = str(Path(__file__).with_name("fault_plugin.py"))


@pytest.fixture
def options(options):
    options |= {"model_type": "SRModel", "imports": [PLUGIN]}
    del options["network_t"], options["train"]["kd_opt"]
    options["val"] |= {"val_freq": 100, "metrics": {"psnr": options["val"]["metrics"]["psnr"]}}
    return options


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stopped_rank_ends_the_run_at_the_first_signal(launcher, options, stopped):
    """Also rank 0, which keeps the store that the others talk by."""
    runs = launcher.start_ranks(2, options, SLOW="0.1")
    runs[0].wait_for("iter:       5")
    os.kill(runs[stopped].process.pid, signal.SIGSTOP)
    time.sleep(1)
    other, start = runs[1 - stopped], time.monotonic()
    os.kill(other.process.pid, signal.SIGTERM)
    assert other.wait(60) == 1
    assert time.monotonic() - start < 60
    reason = (
        rf"SIGTERM asks it to stop, and rank {stopped} \(host .*, process {runs[stopped].process.pid}\).* has given no"
    )
    assert re.search(f"The run ends: {reason}", other.text), other.text
    os.kill(runs[stopped].process.pid, signal.SIGCONT)
    assert runs[stopped].wait(60) == 1
    assert re.search("The run ends: ", runs[stopped].text)
    if stopped == 1:
        assert re.search(reason, log_text(launcher.folder()))
    whole = options | {"name": "whole"}
    finish(launcher.start_ranks(2, options, "--auto_resume"))
    finish(launcher.start_ranks(2, whole))
    assert_equal(weights(launcher.folder("whole")), weights(launcher.folder()), "latest")


def test_the_third_rank_learns_the_reason(launcher, options):
    options["train"]["total_iter"] = 30
    runs = launcher.start_ranks(3, options, SLOW="0.1")
    runs[0].wait_for("iter:       3")
    os.kill(runs[1].process.pid, signal.SIGSTOP)
    os.kill(runs[2].process.pid, signal.SIGTERM)
    assert runs[2].wait(60) == 1
    assert runs[0].wait(30) == 1
    assert re.search(r"The run ends: .*SIGTERM asks it to stop, and rank 1 \(.*\) has given no sign", runs[0].text)


def test_a_slow_iteration_is_not_a_stopped_rank(launcher, options):
    """Longer than the patience with a stopped rank."""
    plugin = launcher.root / "impatient.py"
    plugin.write_text("from basicsr.engine.run import pulse\npulse.PATIENCE = 3.0\npulse.INTERVAL = 0.5\n")
    options["imports"].append(str(plugin))
    runs = launcher.start_ranks(2, options, each={1: {"SLOW": "8"}})
    runs[0].wait_for("iter:       1", 90)
    os.kill(runs[0].process.pid, signal.SIGTERM)
    assert [run.wait() for run in runs] == [75, 75], runs[0].text[-2000:]
