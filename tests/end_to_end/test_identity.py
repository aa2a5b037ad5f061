"""A training state knows its run, networks and options; another continuation's checkpoints are never mixed in."""

import json
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch

from basicsr.engine.run import set_aside
from basicsr.engine.run.set_aside import NOTE

from ..helpers import assert_equal, finish, log_text, training_state, weights

PLUGIN = str(Path(__file__).with_name("fault_plugin.py"))


@pytest.fixture
def options(options):
    """Without distillation; a checkpoint at iterations 3, 6, 9 and 12."""
    options |= {"model_type": "SRModel", "imports": [PLUGIN]}
    del options["network_t"], options["train"]["kd_opt"]
    options["logger"]["save_checkpoint_freq"] = 3
    options["val"] |= {"val_freq": 100, "metrics": {"psnr": options["val"]["metrics"]["psnr"]}}
    return options


def state_file(folder, iteration):
    return folder / "training_states" / f"{iteration}.state"


def files(folder):
    return sorted(p.name for sub in ("models", "training_states") for p in (folder / sub).iterdir())


def going_on_from(options, file, **train):
    return options | {"path": {"resume_state": str(file)}, "train": options["train"] | train}


def aside(folder):
    """The only folder of what was set aside."""
    (found,) = (folder / "aside").iterdir()
    return found


def test_a_state_names_its_run_and_its_networks(runner, options):
    folder = runner.train(options)
    first, last = training_state(folder, 3), training_state(folder)
    assert last["run"] == first["run"]
    assert last["run"]["continuation"] == 0 and last["run"]["parent"] is None
    assert last["options"]["train"]["optim_g"]["lr"] == 2e-3
    assert first["network_hashes"].keys() == {"net_g_3.pth"}
    options["train"]["total_iter"] = 15
    runner.train(options, "--auto_resume")
    run = training_state(folder, 15)["run"]
    assert run["id"] == last["run"]["id"] and run["continuation"] == 1
    assert run["parent"] == {"id": run["id"], "continuation": 0, "iter": 12}
    other = runner.train(going_on_from(options, state_file(folder, 3)) | {"name": "tiny_other"})
    theirs = training_state(other, 6)["run"]
    assert theirs["id"] != run["id"] and theirs["parent"]["id"] == run["id"]


def test_the_runs_id_costs_no_random_number(runner, options):
    """Two runs have different ids and the same random states."""
    one, other = (training_state(runner.train(options | {"name": f"tiny_{n}"})) for n in range(2))
    assert one["run"]["id"] != other["run"]["id"]
    assert_equal(one["rng"], other["rng"], "rng")
    assert one["network_hashes"] == other["network_hashes"]


def test_a_network_of_another_iteration_is_not_taken(launcher, options):
    finish([launcher.start(options)])
    folder = launcher.folder()
    result = weights(folder)
    shutil.copy(folder / "models" / "net_g_9.pth", folder / "models" / "net_g_12.pth")
    run = launcher.start(options, "--auto_resume")
    finish([run])
    assert "12.state is passed over: its network net_g_12.pth is not the file that was saved with it" in run.text
    assert "Resuming training from epoch: 1, iter: 9." in run.text
    assert_equal(result, weights(folder), "latest")
    shutil.copy(folder / "models" / "net_g_9.pth", folder / "models" / "net_g_12.pth")
    run = launcher.start(going_on_from(options, state_file(folder, 12)))
    assert run.wait() == 2
    assert "12.state cannot be continued from: its network net_g_12.pth is not the file" in run.text


@pytest.mark.parametrize("has_hashes", [True, False])
def test_states_of_a_run_without_identity_are_continued_from(runner, options, has_hashes):
    """Those of BasicSR, and our earlier ones."""
    folder = runner.train(options)
    expected = runner.train(options | {"name": "tiny_whole", "train": options["train"] | {"total_iter": 15}})
    dropped = {"run", "options"} | (set() if has_hashes else {"network_hashes", "networks"})
    state = {key: value for key, value in training_state(folder).items() if key not in dropped}
    torch.save(state, state_file(folder, 12))
    options["train"]["total_iter"] = 15
    runner.train(options, "--auto_resume")
    assert_equal(weights(expected), weights(folder), "latest")
    assert training_state(folder, 15)["run"]["parent"] == {"iter": 12}


def test_a_later_continuation_is_set_aside(launcher, options):
    """After going back to an earlier state, --auto_resume takes what was trained since, and not what is newest."""
    finish([launcher.start(options)])
    folder = launcher.folder()
    before = {n: weights(folder, n) for n in (6, 9, 12)}
    back = going_on_from(options, state_file(folder, 3), optim_g={**options["train"]["optim_g"], "lr": 1e-3})
    back["path"]["resume_changed"] = ["train.optim_g"]
    run = launcher.start(back, FAULT="step:5:SIGKILL")  # iteration 8
    assert run.wait() == -signal.SIGKILL
    assert "holds other checkpoints (6, 9, 12): they are set aside in" in run.text
    assert files(folder) == ["3.state", "6.state", "net_g_3.pth", "net_g_6.pth"]
    kept = aside(folder)
    assert files(kept) == sorted([f"{n}.state" for n in before] + [f"net_g_{n}.pth" for n in (*before, "latest")])
    for iteration, expected in before.items():
        assert_equal(expected, weights(kept, iteration), "what was set aside")
    assert not torch.equal(before[6]["params"]["conv_first.weight"], weights(folder, 6)["params"]["conv_first.weight"])
    back["path"].pop("resume_state")
    run = launcher.start(back, "--auto_resume")
    finish([run])
    assert "Resuming training from epoch: 1, iter: 6." in run.text
    # what was set aside can be continued from where it is
    finish([launcher.start(going_on_from(options, state_file(kept, 9)) | {"name": "third"})])
    assert_equal(before[12], weights(launcher.folder("third"), 12), "continued from what was set aside")


@pytest.mark.parametrize("place", ["write:1", "rename:1", "write:2", "rename:2"])
def test_killed_between_the_new_network_and_the_new_state(launcher, options, place):
    """What an earlier continuation has left there is never taken together with the new network."""
    whole = going_on_from(options, "", optim_g={**options["train"]["optim_g"], "lr": 1e-3}) | {"name": "whole"}
    finish([launcher.start(options)])
    folder = launcher.folder()
    shutil.copytree(folder, launcher.folder("whole"))
    for each in (options, whole):
        each["train"] = {**whole["train"]}
        each["path"] = {"resume_changed": ["train.optim_g.lr"]}
    whole["path"]["resume_state"] = str(state_file(launcher.folder("whole"), 3))
    finish([launcher.start(whole)])
    options["path"]["resume_state"] = str(state_file(folder, 3))
    assert launcher.start(options, FAULT=f"{place}:SIGKILL").wait() == -signal.SIGKILL
    del options["path"]["resume_state"]
    run = launcher.start(options, "--auto_resume")
    finish([run])
    assert "Resuming training from epoch: 0, iter: 3." in run.text
    assert_equal(weights(launcher.folder("whole")), weights(folder), "latest")


def test_setting_aside_is_safe_wherever_it_is_killed(launcher, options, monkeypatch, log):
    """After each single step, the state that is taken is the one that was gone back to."""
    from basicsr.engine.run.resume import find_resume_state, tidy_up

    finish([launcher.start(options)])
    source = launcher.folder()

    class Killed(BaseException):
        pass

    for steps in range(12):
        folder = launcher.folder(f"copy_{steps}")
        shutil.copytree(source, folder)
        paths = {name: str(folder / name) for name in ("models", "training_states")}
        paths |= {"experiments_root": str(folder)}
        opt = {"path": {**paths, "resume_state": str(state_file(folder, 6))}, "logger": {}}
        left = [steps]

        def replace(source, target, original=set_aside.os.replace, left=left):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            original(source, target)

        state = find_resume_state(opt)
        with monkeypatch.context() as patch:
            patch.setattr(set_aside.os, "replace", replace)
            try:
                tidy_up(opt, state)
                done = True
            except Killed:
                done = False
        again = {"path": {**paths}, "logger": {}, "auto_resume": True}
        state = find_resume_state(again)
        begun = (folder / NOTE).exists() or done
        assert state["iter"] == (6 if begun else 12), steps
        tidy_up(again, state)
        if begun:
            assert files(folder) == ["3.state", "6.state", "net_g_3.pth", "net_g_6.pth"], steps
            assert len(files(aside(folder))) == 5, steps
        assert not (folder / NOTE).exists()
    assert done, "all steps have been tried"


def test_another_runs_state_leaves_nothing_of_this_one(launcher, options):
    """``path.resume_state`` of another run, in a folder that has checkpoints of its own."""
    finish([launcher.start(options), launcher.start(options | {"name": "other", "manual_seed": 8})])
    folder, other = launcher.folder(), launcher.folder("other")
    later = going_on_from(options, state_file(other, 9), total_iter=10) | {"manual_seed": 8}
    finish([launcher.start(later)])
    assert files(folder) == ["net_g_latest.pth"]
    assert len(files(aside(folder))) == 9
    assert "9.state of another run" in log_text(folder)


def test_a_note_that_is_not_ours_is_passed_over(runner, options):
    folder = runner.train(options)
    (folder / NOTE).write_text(json.dumps({"into": "../elsewhere", "after": 3}))
    options["train"]["total_iter"] = 13
    runner.train(options, "--auto_resume")
    assert "iter: 12." in log_text(folder)
    assert not (folder.parent / "elsewhere").exists()


def test_random_kills_and_returns_never_mix(launcher, options):
    """Continuations that differ in their rate, begun and killed at random: each checkpoint is whole and of one run."""
    finish([launcher.start(options)])
    folder = launcher.folder()
    rng = random.Random(1)
    options["path"] = {"resume_changed": ["train.optim_g.lr"]}
    for number in range(6):
        options["train"]["optim_g"]["lr"] = 1e-3 * (number + 1)
        options["path"]["resume_state"] = str(rng.choice(sorted((folder / "training_states").glob("*.state"))))
        place = rng.choice(["write:1", "rename:2", "step:3", "rename:3", "write:4"])
        assert launcher.start(options, FAULT=f"{place}:SIGKILL").wait() in (-signal.SIGKILL, 0)
        del options["path"]["resume_state"]
        run = launcher.start(options, "--auto_resume")
        finish([run])
        assert "passed over" not in run.text
        runs = {training_state(folder, n)["options"]["train"]["optim_g"]["lr"]: n for n in (3, 6, 9, 12)}
        assert list(runs.values()) == sorted(runs.values()), "later checkpoints are of later continuations"
