"""What should be a training state and is a pipe, a device, a loop or made by hand: said, and never waited for."""

import os
import subprocess
import time
from pathlib import Path

import pytest
import torch

from ..helpers import finish, log_text, training_state


@pytest.fixture
def options(options):
    options |= {"model_type": "SRModel"}
    del options["network_t"], options["train"]["kd_opt"]
    options["val"] |= {"val_freq": 100, "metrics": {"psnr": options["val"]["metrics"]["psnr"]}}
    return options


def make(kind, file, tmp_path):
    {
        "pipe": lambda: os.mkfifo(file),
        "dangling link": lambda: file.symlink_to(tmp_path / "nothing"),
        "loop": lambda: file.symlink_to(file),
        "device": lambda: file.symlink_to("/dev/zero"),
        "folder": file.mkdir,
        "socket": lambda: subprocess.run(
            ["python3", "-c", f"import socket; socket.socket(socket.AF_UNIX).bind({str(file)!r})"], check=True
        ),
    }[kind]()


KINDS = {
    "pipe": "is a FIFO",
    "dangling link": "is a link to nothing",
    "loop": "is a link to itself",
    "device": "is a device",
    "folder": "is a folder",
    "socket": "is a socket",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_file_is_passed_over(launcher, options, kind):
    finish([launcher.start(options)])
    folder = launcher.folder()
    make(kind, folder / "training_states" / "99.state", launcher.root)
    options["train"]["total_iter"] = 13
    start = time.monotonic()
    run = launcher.start(options, "--auto_resume")
    finish([run])
    assert time.monotonic() - start < 60
    assert f"99.state is passed over: the file {KINDS[kind]}. Looking for an earlier state." in run.text
    assert "iter: 12." in run.text
    (aside,) = (folder / "aside").iterdir()
    assert os.path.lexists(aside / "training_states" / "99.state")


@pytest.mark.parametrize("kind", ["pipe", "device", "loop"])
@pytest.mark.parametrize("what", ["state", "network", "pretrained"])
def test_what_is_not_a_file_is_refused_where_it_is_named(launcher, options, kind, what):
    finish([launcher.start(options)])
    folder = launcher.folder()
    state, network = folder / "training_states" / "12.state", folder / "models" / "net_g_12.pth"
    file = {"state": state, "network": network, "pretrained": launcher.root / "weights.pth"}[what]
    file.unlink(missing_ok=True)
    make(kind, file, launcher.root)
    key = "pretrain_network_g" if what == "pretrained" else "resume_state"
    options["path"] = {key: str(file if what == "pretrained" else state)}
    run = launcher.start(options | {"name": "other"})
    assert run.wait(60) == 2
    assert f"path.{key}" in run.text and "Traceback" not in run.text
    if what == "network":
        assert f"its network net_g_12.pth {KINDS[kind]}" in run.text


BY_HAND = [
    ({"iter": "12"}, "its iter must be a whole number from 0, not the str '12'"),
    ({"iter": 12.0}, "its iter must be a whole number from 0, not the float 12.0"),
    ({"iter": True}, "its iter must be"),
    ({"iter": 8}, "it is of iteration 8, and is named by iteration 12"),
    ({"epoch": None}, "its epoch must be a whole number from 0, not the NoneType None"),
    ({"epoch": -1}, "its epoch must be"),
    ({"optimizers": {}}, "its optimizers must be a list of dicts, not the dict {}"),
    ({"schedulers": [1]}, "its schedulers must be a list of dicts, not the list [1]"),
    ({"networks": "net_g_12.pth"}, "its networks must be a list of names of files"),
    ({"networks": ["../../secret.pth"]}, "its networks must be a list of names of files"),
    ({"network_hashes": {"net_g_12.pth": 1}}, "its network_hashes must be"),
    ({"rng": [1]}, "its rng must be"),
    ({"sampler": {"position": "x"}}, "its sampler must be the position of each training set"),
    ({"sampler": []}, "its sampler must be"),
    ({"run": 3}, "its run must be"),
    ({"options": []}, "its options must be"),
    ({"best_metric_results": None}, "its best_metric_results must be"),
]


@pytest.mark.parametrize(("change", "message"), BY_HAND)
def test_a_state_of_wrong_types_is_passed_over_or_refused(runner, options, change, message):
    folder = runner.train(options)
    file = folder / "training_states" / "12.state"
    torch.save({**training_state(folder), **change}, file)
    runner.train(options, "--auto_resume")
    assert f"12.state is passed over: the file is no training state: {message}" in log_text(folder)
    if change == {"iter": 8}:
        return
    other = runner.root / "own" / "training_states" / "12.state"
    other.parent.mkdir(parents=True)
    torch.save({**training_state(folder), **change}, other)
    options["path"] = {"resume_state": str(other)}
    with pytest.raises(
        ValueError, match=r"path\.resume_state: .*cannot be continued from: the file is no training state"
    ):
        runner.train(options)


INSIDE = [
    {"optimizers": [{}]},
    {"optimizers": [{"state": {}, "param_groups": [{"params": "x"}]}]},
    {"optimizers": [{"state": 3, "param_groups": []}]},
    {"schedulers": [{}]},
    {"rng": [{"python": 3}]},
    {"rng": [{"python": (3, (1,), None), "numpy": 1, "torch": 2}]},
    {"sampler": {"position": 10**9}},
    {"run": {"id": 3, "continuation": "x"}},
    {"options": {"train": 3}},
    {"options": {"model_type": [1], "train": {"optim_g": 3}}},
    {"classes": {"optimizers": 3}},
    {"best_metric_results": {"val": 3}},
]


@pytest.mark.parametrize("change", INSIDE)
def test_a_state_with_something_wrong_inside_is_refused_in_a_sentence(launcher, options, change):
    finish([launcher.start(options)])
    folder = launcher.folder()
    torch.save({**training_state(folder), **change}, folder / "training_states" / "12.state")
    options["train"]["total_iter"] = 13
    run = launcher.start(options, "--auto_resume")
    assert run.wait(60) in (0, 2)
    assert "Traceback" not in run.text, run.text[-3000:]
    if run.wait() == 2:
        assert "error: " in run.text


# Folders that cannot be read or written to


@pytest.fixture
def unprivileged(launcher, images):
    """The launcher, whose processes give up root's rights."""
    if os.geteuid() != 0:
        return launcher
    for place in (launcher.root, *launcher.root.parents, images, *images.parents):
        if place == Path("/tmp") or place == Path("/"):
            continue
        place.chmod(0o777)
    for place in images.rglob("*"):
        place.chmod(0o755 if place.is_dir() else 0o644)
    plugin = launcher.root / "nobody.py"
    plugin.write_text("import os\nif os.geteuid() == 0:\n    os.setgid(65534)\n    os.setuid(65534)\n")
    launcher.root.joinpath("nobody.py").chmod(0o644)
    launcher.plugin = str(plugin)
    return launcher


PLACES = [
    ("experiments", 0o555, (), "cannot be made or written"),
    ("experiments", 0o000, (), "cannot be"),
    ("experiments/tiny", 0o555, ("--auto_resume",), "cannot be"),
    ("experiments/tiny", 0o000, ("--auto_resume",), "cannot be"),
    ("experiments/tiny/training_states", 0o000, ("--auto_resume",), "cannot be read"),
    ("experiments/tiny/training_states", 0o555, ("--auto_resume",), "cannot be"),
    ("experiments/tiny/models", 0o555, ("--auto_resume",), "cannot be"),
    ("experiments/tiny/training_states/12.state", 0o000, ("--auto_resume",), "passed over: the file cannot be read"),
]


@pytest.mark.parametrize(("place", "mode", "arguments", "message"), PLACES)
def test_folders_without_rights_are_told_in_a_sentence(unprivileged, options, place, mode, arguments, message):
    launcher = unprivileged
    if hasattr(launcher, "plugin"):
        options["imports"] = [launcher.plugin]
    (launcher.root / "experiments").mkdir()
    (launcher.root / "experiments").chmod(0o777)
    finish([launcher.start(options)])
    target = launcher.root / place
    target.chmod(mode)
    try:
        run = launcher.start(options | {"train": options["train"] | {"total_iter": 13}}, *arguments)
        code = run.wait(60)
    finally:
        target.chmod(0o777)
    assert message in run.text, run.text[-3000:]
    assert "Traceback" not in run.text, run.text[-3000:]
    assert code == (0 if place.endswith(".state") else 2)
