"""Runs that are killed, signalled or short of disk space end as if nothing had happened."""

import copy
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from ..helpers import assert_equal, content, finish, log_text, training_state, weights

PLUGIN = str(Path(__file__).with_name("fault_plugin.py"))
SWEEP = int(os.environ.get("BASICSR_FAULT_SWEEP", 0))  # rounds of the long sweep; see docs/resume.md
SAVED_AND_STOPPED = 75


@pytest.fixture
def options(options):
    """The KD run of conftest, with the fault plug-in and without what these tests do not need."""
    options["imports"] = [PLUGIN]
    options["datasets"]["train"] |= {"batch_size_per_gpu": 2, "dataset_enlarge_ratio": 3}  # 6 iterations per epoch
    options["train"]["total_iter"] = 15
    options["logger"] |= {"save_checkpoint_freq": 4, "keep_last": 2, "keep_best": "val/psnr"}
    options["val"] |= {"val_freq": 5, "metrics": {"psnr": options["val"]["metrics"]["psnr"]}}
    return options


def plain(options):
    """The same without distillation."""
    options = copy.deepcopy(options) | {"model_type": "SRModel"}
    del options["network_t"], options["train"]["kd_opt"]
    return options


def files(folder):
    return sorted(p.name for sub in ("models", "training_states") for p in (folder / sub).iterdir())


def assert_same_run(one, other):
    """Weights, averages, best weights and everything in the last training state are equal to the bit."""
    assert files(one) == files(other)
    for name in files(one):
        kind = "training_states" if name.endswith(".state") else "models"
        contents = [content(folder / kind / name) for folder in (one, other)]
        assert_equal(*contents, name)


PLACES = {"step": 15, "image": 6, "write": 6, "rename": 6, "delete": 2}


def kill_several_times(launcher, options, world, rng, kills):
    """Kill one rank or all, at random, again and again, then let the run end."""
    for _ in range(kills):
        place = rng.choice([*PLACES, "time"])
        victim = 0 if place in ("write", "rename", "delete") else rng.randrange(world)
        if place == "time":
            runs = launcher.start_ranks(world, options, "--auto_resume", SLOW="0.02")
            time.sleep(rng.uniform(0.2, 1.5))
            for run in runs:
                run.process.kill()
        else:
            fault = {"FAULT": f"{place}:{rng.randint(1, PLACES[place])}:SIGKILL"}
            runs = launcher.start_ranks(world, options, "--auto_resume", each={victim: fault})
        codes = [run.wait() for run in runs]
        assert codes[victim] in (-signal.SIGKILL, 0), runs[victim].text[-3000:]
        assert all(code in (-signal.SIGKILL, 0, 1) for code in codes), codes
    finish(launcher.start_ranks(world, options, "--auto_resume"))


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("recipe", ["plain", "kd"])
def test_killed_at_random_and_resumed(launcher, options, recipe, world):
    """Several SIGKILLs, wherever they strike, change no bit of the result, with and without loader workers."""
    options = plain(options) if recipe == "plain" else options
    options["datasets"]["train"]["num_worker_per_gpu"] = 0
    whole = options | {"name": "whole"}
    finish(launcher.start_ranks(world, whole))
    for workers in (0, 2):
        for repetition in range(max(SWEEP, 1)):
            rng = random.Random(f"{recipe} {world} {workers} {repetition}")
            options["datasets"]["train"]["num_worker_per_gpu"] = workers
            kill_several_times(launcher, options, world, rng, kills=5 if SWEEP else 3)
            assert_same_run(launcher.folder("whole"), launcher.folder())
            assert not list(launcher.folder().rglob(".*.tmp"))
            shutil.rmtree(launcher.folder())


@pytest.mark.parametrize("place", ["write:3", "write:4", "rename:3", "rename:4", "image:2", "delete:1"])
def test_killed_in_the_middle_of(launcher, options, place):
    """The network's and the state's file half written, or not yet renamed; a validation; a deletion."""
    finish([launcher.start(options | {"name": "whole"})])
    run = launcher.start(options, FAULT=f"{place}:SIGKILL")
    assert run.wait() == -signal.SIGKILL
    leftovers = list(launcher.folder().rglob(".*.tmp"))
    assert len(leftovers) == (1 if place.startswith(("write", "rename")) else 0)
    finish([launcher.start(options, "--auto_resume")])
    assert_same_run(launcher.folder("whole"), launcher.folder())
    assert not list(launcher.folder().rglob(".*.tmp"))


# Signals


@pytest.mark.parametrize(
    ("name", "workers", "moment"),
    [("SIGTERM", 0, 7), ("SIGINT", 2, 7), ("SIGTERM", 2, 6), ("SIGINT", 0, 8), ("SIGTERM", 0, 15), ("SIGINT", 2, 15)],
)
def test_a_signal_saves_and_stops(launcher, options, name, workers, moment):
    """In the middle of an epoch, at its end, at a checkpoint's iteration, and in the last one."""
    options["datasets"]["train"]["num_worker_per_gpu"] = workers
    finish([launcher.start(options | {"name": "whole"})])
    run = launcher.start(options, FAULT=f"step:{moment}:{name}", SLOW="0.02")
    assert run.wait() == SAVED_AND_STOPPED, run.text
    folder = launcher.folder()
    assert f"{moment}.state" in files(folder)
    assert "Traceback" not in run.text
    assert len(re.findall(rf"Stopped by {name} after iteration {moment}, which is saved", run.text)) == 1
    assert "Stopped by" in log_text(folder)
    finish([launcher.start(options, "--auto_resume")])
    assert f"iter: {moment}." in log_text(folder)
    log = log_text(folder)
    assert all(len(re.findall(f"Best: .* @ {i} iter", log)) <= 2 for i in (5, 10, 15))
    # retention counts the additional checkpoint, so only what both runs keep is compared
    for kept in ("latest", "best"):
        assert_equal(*(weights(launcher.folder(name), kept) for name in ("whole", "tiny")), kept)


def test_a_second_signal_ends_at_once(launcher, options):
    run = launcher.start(options, FAULT="step:1:SIGTERM", SLOW="4")
    run.wait_for("a second signal ends it at once")
    time.sleep(0.3)
    start = time.monotonic()
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM
    assert time.monotonic() - start < 3, "it did not wait for the iteration's end"
    assert files(launcher.folder()) == []


def test_a_second_signal_ends_a_rank_that_waits_for_another(launcher, options):
    """Python's own handlers would not run before the collective returned."""
    runs = launcher.start_ranks(2, options, SLOW="0.1")
    runs[0].wait_for("iter:       2")
    os.kill(runs[1].process.pid, signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(runs[0].process.pid, signal.SIGINT)
    runs[0].wait_for("a second signal ends it at once")
    time.sleep(1.2)
    assert runs[0].process.is_alive()
    os.kill(runs[0].process.pid, signal.SIGINT)
    assert runs[0].wait(20) == 128 + signal.SIGINT


def test_one_signal_delivered_twice_counts_once(launcher, options):
    """As GNU timeout does, to the process and to its group."""
    run = launcher.start(options, SLOW="0.5")
    run.wait_for("iter:       1")
    for _ in range(2):
        os.kill(run.process.pid, signal.SIGTERM)
        time.sleep(0.02)
    assert run.wait() == SAVED_AND_STOPPED


def test_the_group_is_signalled_as_by_ctrl_c(launcher, options):
    """Loader workers say nothing, and end."""
    options["datasets"]["train"]["num_worker_per_gpu"] = 2
    run = launcher.start(options, SLOW="0.1")
    run.wait_for("iter:       2")
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.wait() == SAVED_AND_STOPPED
    assert "Traceback" not in run.text
    assert "KeyboardInterrupt" not in run.text


def test_a_signal_before_the_training_starts(launcher, options):
    """There is nothing to save yet."""
    slow = launcher.root / "slow_plugin.py"
    slow.write_text("import time\nprint('importing', flush=True)\ntime.sleep(5)\n")
    run = launcher.start(options | {"imports": [str(slow)]})
    run.wait_for("importing")
    os.kill(run.process.pid, signal.SIGINT)
    assert run.wait() == 130
    assert "Interrupted; nothing had to be saved." in run.text
    assert "Traceback" not in run.text


@pytest.mark.parametrize("world", [1, 2])
def test_a_signal_during_validation(launcher, options, world):
    """It ends after the present image, and is done when the run is continued, to the same end."""
    whole = options | {"name": "whole"}
    finish(launcher.start_ranks(world, whole))
    runs = launcher.start_ranks(world, options, each={0: {"FAULT": "image:1:SIGTERM"}}, SLOW="0.3")
    assert [run.wait() for run in runs] == [SAVED_AND_STOPPED] * world, runs[0].text
    folders = (launcher.folder("whole"), launcher.folder())
    assert training_state(folders[1], 5)["validation_due"]
    assert "# psnr" not in log_text(folders[1])
    finish(launcher.start_ranks(world, options, "--auto_resume"))
    assert len(re.findall("# psnr", log_text(folders[1]))) == 3
    results = [json.loads((folder / "validation.json").read_text())["datasets"] for folder in folders]
    assert results[0] == results[1]
    for kept in ("latest", "best"):
        assert_equal(*(weights(folder, kept) for folder in folders), kept)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_rank_stops_all_at_one_iteration(launcher, options, rank):
    whole = options | {"name": "whole"}
    finish(launcher.start_ranks(2, whole))
    runs = launcher.start_ranks(2, options, each={rank: {"FAULT": "step:6:SIGTERM"}}, SLOW="0.25")
    assert [run.wait() for run in runs] == [SAVED_AND_STOPPED] * 2, runs[0].text
    folder = launcher.folder()
    by = "SIGTERM" if rank == 0 else "a signal to another rank"
    assert f"Stopped by {by} after iteration 7, which is saved" in log_text(folder)
    finish(launcher.start_ranks(2, options, "--auto_resume"))
    assert_equal(weights(launcher.folder("whole")), weights(folder), "latest")


# Damaged checkpoints


def newest(folder, kind):
    return max((folder / kind).glob("*_12.pth" if kind == "models" else "*.state"), key=lambda p: p.stat().st_mtime)


@pytest.mark.parametrize(
    ("damage", "warning"),
    [
        ("no network", "its network net_g_12.pth is absent"),
        ("empty network", "its network net_g_12.pth is incomplete or damaged"),
        ("empty state", "the file is incomplete or damaged"),
        ("garbage state", "the file is incomplete or damaged"),
        ("folder", "the file is a folder"),
        ("weights", "the file is no training state: it must hold epoch, iter, optimizers, schedulers"),
    ],
)
def test_a_damaged_newest_checkpoint_is_passed_over(launcher, options, damage, warning):
    finish([launcher.start(options)])
    folder = launcher.folder()
    result = weights(folder)
    state, network = folder / "training_states" / "12.state", folder / "models" / "net_g_12.pth"
    if damage == "no network":
        network.unlink()
    elif damage == "empty network":
        network.write_bytes(b"")
    elif damage == "empty state":
        state.write_bytes(b"")
    elif damage == "garbage state":
        state.write_bytes(os.urandom(1000))
    elif damage == "folder":
        state.unlink()
        state.mkdir()
    else:
        shutil.copy(network, state)
    run = launcher.start(options, "--auto_resume")
    finish([run])
    assert f"12.state is passed over: {warning}. Looking for an earlier state." in run.text
    assert "Resuming training from epoch: 1, iter: 8." in run.text
    assert_equal(result, weights(folder), damage)


def test_nothing_whole_starts_anew(launcher, options):
    finish([launcher.start(options)])
    folder = launcher.folder()
    result = weights(folder)
    for state in (folder / "training_states").iterdir():
        state.write_bytes(b"")
    run = launcher.start(options, "--auto_resume")
    finish([run])
    assert run.text.count("is passed over") == 2
    assert_equal(result, weights(folder), "anew")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network_g": {"num_feat": 5}}, r"net_g_12\.pth does not fit EDSR(.|\n)*network_g\.num_feat 4 → 5"),
        (
            {"train": {"optim_g": {"type": "AdamW", "lr": 1e-3}}},
            r"continued from with train\.optim_g\.type 'Adam' → 'AdamW'; resume with",
        ),
        (
            {"train": {"scheduler": {"type": "CosineAnnealingRestartLR", "periods": [20]}}},
            r"continued from with .*train\.scheduler\.type 'MultiStepLR' → 'CosineAnnealingRestartLR'",
        ),
    ],
)
def test_the_state_of_an_incompatible_run_is_refused(runner, options, change, message):
    """By a sentence, rather than continued from or passed over: an older state would fit no better."""
    options = plain(options) | {"imports": []}
    runner.train(options)
    for section, values in change.items():
        options[section].update(values)
    with pytest.raises(ValueError, match=message):
        runner.train(options, "--auto_resume")


def test_resuming_from_another_runs_state(launcher, options):
    """``path.resume_state`` takes the networks beside the state, and writes into its own folder."""
    finish([launcher.start(options)])
    folder = launcher.folder()
    other = options | {"name": "other", "path": {"resume_state": str(folder / "training_states" / "8.state")}}
    finish([launcher.start(other)])
    assert_equal(weights(folder), weights(launcher.folder("other")), "latest")
    (folder / "models" / "net_g_8.pth").unlink()
    run = launcher.start(other | {"name": "third"})
    assert run.wait() == 2
    assert not folder.with_name("third").exists()
    assert "8.state cannot be continued from: its network net_g_8.pth is absent" in run.text


# Disk space


@pytest.mark.parametrize("world", [1, 2])
def test_a_full_disk_keeps_the_previous_checkpoint(launcher, options, world):
    """The second checkpoint cannot be written, the third can; the training goes on."""
    full = launcher.root / "full_plugin.py"
    full.write_text(
        "import errno, torch\n"
        "def save(obj, file, original=torch.save, **kwargs):\n"
        "    if '8.state' in getattr(file, 'name', ''):\n"
        "        file.write(b'half')\n"
        "        raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "    original(obj, file, **kwargs)\n"
        "torch.save = save\n"
    )
    options["imports"] = [PLUGIN, str(full)]
    options["logger"].pop("keep_best")
    finish(launcher.start_ranks(world, options | {"name": "whole", "imports": []}))
    runs = launcher.start_ranks(world, options, each={0: {"FAULT": "step:10:SIGKILL"}})
    assert runs[0].wait() == -signal.SIGKILL
    folder = launcher.folder()
    assert files(folder) == ["4.state", "net_g_4.pth"]
    sentence = r"A checkpoint could not be saved at iteration 8: .*8\.state could not be written \(.*No space left"
    assert re.search(sentence, log_text(folder))
    finish(launcher.start_ranks(world, options | {"imports": [PLUGIN]}, "--auto_resume"))
    assert_same_run(launcher.folder("whole"), folder)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system takes root and the permission to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


BALLAST = """
import os
from basicsr.models.sr_model import SRModel
original = SRModel.optimize_parameters
def optimize_parameters(self, current_iter):
    original(self, current_iter)
    if current_iter == 13 and 'BALLAST' in os.environ:
        try:
            with open(os.environ['BALLAST'], 'wb', buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            pass
SRModel.optimize_parameters = optimize_parameters
"""


def test_a_disk_that_is_really_full(launcher, options, small_disk):
    """Checkpoints of 60 KB are kept until the disk is full; the run ends, and says at the end what is missing."""
    plugin = small_disk.parent / "ballast_plugin.py"
    plugin.write_text(BALLAST)
    options["imports"] = [PLUGIN, str(plugin)]
    options["logger"] |= {"save_checkpoint_freq": 1, "keep_last": 100}
    options["logger"].pop("keep_best")
    options["train"]["total_iter"] = 14
    options["val"] |= {"val_freq": 14}
    launcher.root = small_disk.parent
    (small_disk.parent / "experiments").symlink_to(small_disk)
    run = launcher.start(options, BALLAST=str(small_disk / "ballast"))
    assert run.wait() == 1
    saved = sorted(int(p.stem) for p in (small_disk / "tiny" / "training_states").glob("*.state"))
    assert saved == list(range(1, len(saved) + 1)), "what was saved is whole and in order"
    assert re.search(rf"could not be saved at iteration {len(saved) + 1}: .*No space left on device", run.text)
    assert "Networks could not be saved at iteration 14" in run.text
    assert "Traceback" not in run.text
    for iteration in saved:
        training_state(small_disk / "tiny", iteration)
        torch.load(small_disk / "tiny" / "models" / f"net_g_{iteration}.pth")
    options["logger"]["keep_last"] = 1
    (small_disk / "ballast").unlink()
    run = launcher.start(options, "--auto_resume")
    finish([run])
    assert files(small_disk / "tiny") == ["14.state", "net_g_14.pth", "net_g_latest.pth"]


# Retention


def test_keep_last_and_keep_best(launcher, options):
    options["logger"]["save_checkpoint_freq"] = 2
    run = launcher.start(options)
    finish([run])
    folder = launcher.folder()
    assert files(folder) == [
        "12.state",
        "14.state",
        "net_g_12.pth",
        "net_g_14.pth",
        "net_g_best.pth",
        "net_g_latest.pth",
    ]
    psnr = [float(v) for v in re.findall(r"# psnr: (\S+)", log_text(folder))]
    assert len(psnr) == 3
    best = 5 * (psnr.index(max(psnr)) + 1)
    assert log_text(folder).count("The best val/psnr so far") >= 1
    whole = options | {"name": "whole"}
    whole["logger"] = {"print_freq": 1, "save_checkpoint_freq": 5}
    finish([launcher.start(whole)])
    at_best = weights(launcher.folder("whole"), best)
    assert_equal(at_best, weights(folder, "best"), "best")


@pytest.mark.parametrize("choice", ["val/ssim", "other/psnr"])
def test_a_wrong_keep_best_is_refused_before_anything_is_made(launcher, options, choice):
    options["logger"]["keep_best"] = choice
    run = launcher.start(options)
    assert run.wait() == 2
    assert f"'{choice}' is measured in no validation" in run.text and "logger.keep_best (" in run.text
    assert "val/psnr" in run.text
    assert not (launcher.root / "experiments").exists()
