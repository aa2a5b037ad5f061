"""Two runs never write into one folder, and what a launcher has started is one run."""

import re
import signal
import time
from pathlib import Path

import pytest

from basicsr.utils.options.command_line import launcher_of

from ..helpers import finish, free_port, log_text, to_test_options

PLUGIN = str(Path(__file__).with_name("fault_plugin.py"))
PLACED = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def options(options):
    options |= {"model_type": "SRModel", "imports": [PLUGIN]}
    del options["network_t"], options["train"]["kd_opt"]
    options["val"] |= {"val_freq": 100, "metrics": {"psnr": options["val"]["metrics"]["psnr"]}}
    return options


def experiments(launcher):
    return sorted(p.name for p in (launcher.root / "experiments").iterdir())


def test_the_same_options_twice_one_after_the_other(launcher, options):
    first = launcher.start(options, SLOW="0.3")
    first.wait_for("iter:       2")
    for arguments in ((), ("--auto_resume",)):
        second = launcher.start(options, *arguments)
        assert second.wait() == 2
        assert f"is in use by another run: process {first.process.pid} on host" in second.text
        assert "Traceback" not in second.text and "nothing was written" in second.text
    finish([first])
    assert experiments(launcher) == ["tiny"]
    assert log_text(launcher.folder()).count("Start training") == 1
    assert not (launcher.folder() / "run.lock").exists()


def test_the_same_options_twice_at_the_same_moment(launcher, options):
    runs = [launcher.start(options, SLOW="0.1") for _ in range(3)]
    codes = sorted(run.wait() for run in runs)
    assert codes == [0, 2, 2], "\n".join(run.text[-1500:] for run in runs)
    assert log_text(launcher.folder()).count("End of training") == 1


def test_after_a_kill_the_folder_is_free(launcher, options):
    assert launcher.start(options, FAULT="step:6:SIGKILL").wait() == -signal.SIGKILL
    assert (launcher.folder() / "run.lock").exists()
    run = launcher.start(options, "--auto_resume")
    finish([run])
    assert "run.lock was left by a run that is gone" in run.text
    assert "Resuming training from epoch: 0, iter: 4." in run.text


def test_the_ranks_of_a_run_hold_one_lock(launcher, options):
    first = launcher.start_ranks(2, options, SLOW="0.3")
    first[0].wait_for("iter:       2")
    second = launcher.start_ranks(2, options)
    assert [run.wait() for run in second] == [2, 1]
    assert "is in use by another run" in second[0].text
    assert re.search(r"The run ends: rank 0 \(.*It did not start, and nothing was written", second[1].text)
    finish(first)


def test_two_tests_of_one_name(launcher, options):
    finish([launcher.start(options)])
    test_options = to_test_options(options, launcher.folder() / "models" / "net_g_latest.pth")
    test_options["imports"] = [PLUGIN]
    first = launcher.start(test_options, entry="test", SLOW="1")
    first.wait_for("Testing val")
    second = launcher.start(test_options, entry="test")
    assert second.wait() == 2
    assert "results/tiny_test is in use by another run" in second.text
    finish([first])


def test_torchruns_environment_is_one_run(launcher, options):
    """Without ``--launcher pytorch``."""
    place = {**PLACED, "MASTER_PORT": free_port()}
    runs = [launcher.start(options, **{**place, "RANK": str(rank)}) for rank in range(2)]
    finish(runs)
    assert "WORLD_SIZE=2), as torchrun sets it: --launcher pytorch is assumed" in runs[0].text
    assert experiments(launcher) == ["tiny"]
    assert "world_size: 2" in log_text(launcher.folder())


def test_without_a_launcher_on_purpose_the_folder_is_still_one_runs(launcher, options):
    runs = [launcher.start(options, "--launcher", "none", **{**PLACED, "RANK": str(r)}, SLOW="0.1") for r in range(2)]
    codes = sorted(run.wait() for run in runs)
    assert codes == [0, 2]
    refused = next(run for run in runs if run.wait() == 2)
    assert "are started with --launcher slurm or pytorch" in refused.text


@pytest.mark.parametrize(
    ("change", "launcher"),
    [({}, "pytorch"), ({"WORLD_SIZE": "1"}, "none"), ({"MASTER_PORT": ""}, "none"), ({"RANK": ""}, "none")],
)
def test_which_environment_is_unmistakable(change, launcher):
    assert launcher_of({**PLACED, **change}) == launcher


def test_the_check_neither_locks_nor_waits(launcher, options, monkeypatch, capsys, tmp_path):
    """Beside a run, and with torchrun's environment."""
    from basicsr.cli import main

    first = launcher.start(options, SLOW="4")  # a check takes seconds
    first.wait_for("iter:       1")
    for key, value in PLACED.items():
        monkeypatch.setenv(key, value)
    before = (launcher.folder() / "run.lock").read_text()
    start = time.monotonic()
    assert main(["check", str(tmp_path / "options_1" / "tiny.yml")]) == 0, capsys.readouterr().out
    assert time.monotonic() - start < 60
    assert (launcher.folder() / "run.lock").read_text() == before
    first.process.terminate()
    assert first.wait() == 75
