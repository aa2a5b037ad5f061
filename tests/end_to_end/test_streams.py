"""A recipe with two training sets: what it is fed, and that a run that was stopped ends as one that was not."""

import copy
import json
import logging
import re
import signal
from pathlib import Path

import pytest
import torch

from basicsr.data.data_sampler import EnlargedSampler
from basicsr.train import create_train_val_dataloader
from basicsr.utils.options import OptionError

from ..helpers import assert_equal, content, finish, log_text, training_state, weights

PLUGINS = [str(Path(__file__).with_name(name)) for name in ("fault_plugin.py", "two_stream_plugin.py")]
SAVED_AND_STOPPED = 75


@pytest.fixture
def options(options):
    """Both sets are the same folder; an epoch has 6 iterations of ``train_s`` and 4 of ``train_t``."""
    options |= {"model_type": "TwoStreamModel", "imports": PLUGINS}
    del options["network_t"], options["train"]["kd_opt"], options["val"]
    train = options["datasets"].pop("train") | {"dataset_enlarge_ratio": 3}
    options["datasets"] = {
        "train_t": train | {"name": "target", "batch_size_per_gpu": 3},
        "train_s": train | {"name": "source", "batch_size_per_gpu": 2},
    }
    options["train"]["total_iter"] = 15
    options["logger"]["save_checkpoint_freq"] = 5
    return options


def with_workers(options, workers):
    options = copy.deepcopy(options)
    for section in options["datasets"].values():
        section["num_worker_per_gpu"] = workers
    return options


def position(folder, iteration):
    return training_state(folder, iteration)["sampler"]


def assert_same_end(one, other):
    assert_equal(weights(one), weights(other), "weights")
    assert_equal(*(content(folder / "training_states" / "15.state") for folder in (one, other)), "state")


def test_each_iteration_has_a_batch_of_each_stream(launcher, options):
    fed = launcher.root / "fed.txt"
    finish([launcher.start(options, FED=str(fed))])
    batches = [json.loads(line) for line in fed.read_text().splitlines()]
    assert [list(batch) for batch in batches] == [["train_s", "train_t"]] * 15, "as the recipe declares them"
    orders = {name: [path for batch in batches for path in batch[name]] for name in ("train_s", "train_t")}
    for name, order in orders.items():
        epochs = [sorted(order[start : start + 12]) for start in range(0, len(order) - 11, 12)]
        assert len(epochs) == {"train_s": 2, "train_t": 3}[name]
        assert all(epoch == epochs[0] and len(set(epoch)) == 4 for epoch in epochs), "three times each of four images"
    assert orders["train_s"][:12] != orders["train_t"][:12]
    assert orders["train_t"][:12] != orders["train_t"][12:24]
    folder = launcher.folder()
    assert position(folder, 5) == {
        "position": 10,
        "streams": {"train_s": {"epoch": 0, "position": 10}, "train_t": {"epoch": 1, "position": 3}},
    }
    log = log_text(folder)
    assert [int(e) for e in re.findall(r"\[epoch: +(\d+), iter", log)] == [0] * 6 + [1] * 6 + [2] * 3
    assert log.count("l_flat: ") == 15
    assert re.search(r"statistics of train_s:\n.*\n.*\n\tBatch size per gpu: 2\n.*\n.*: 6\n\tTotal epochs: 3;", log)
    assert re.search(r"statistics of train_t:\n.*\n.*\n\tBatch size per gpu: 3\n.*\n.*: 4\n\tTotal epochs: 4;", log)


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_that_is_stopped_or_killed_ends_as_one_that_is_not(launcher, options, world):
    """In mid-epoch of both streams, at the end of one's epoch and of both, with and without loader workers."""
    whole = options | {"name": "whole"}
    finish(launcher.start_ranks(world, whole))
    signalled = ["7:SIGTERM", "11:SIGTERM", "12:SIGTERM"] if world == 1 else ["5:SIGTERM"]
    for index, fault in enumerate([*signalled, "8:SIGKILL", "14:SIGKILL"]):
        stopped = with_workers(options, 2 * (index % 2)) | {"name": f"stopped_{index}"}
        # The ranks ask each other five times a second whether to stop.
        slowness = {"SLOW": "0.02" if world == 1 else "0.2"} if "SIGTERM" in fault else {}
        runs = launcher.start_ranks(world, stopped, each={world - 1: {"FAULT": f"step:{fault}"}}, **slowness)
        codes = [run.wait() for run in runs]
        assert codes[-1] == (-signal.SIGKILL if "SIGKILL" in fault else SAVED_AND_STOPPED), runs[-1].text[-3000:]
        finish(launcher.start_ranks(world, stopped, "--auto_resume"))
        assert_same_end(launcher.folder("whole"), launcher.folder(stopped["name"]))


def test_every_stream_goes_on_with_another_number_of_ranks(launcher, options):
    finish(launcher.start_ranks(2, options | {"train": options["train"] | {"total_iter": 5}}))
    folder = launcher.folder()
    halves = {"train_s": {"epoch": 1, "position": 4}, "train_t": {"epoch": 2, "position": 3}}
    assert position(folder, 5) == {"position": 4, "streams": halves}
    options["train"]["total_iter"] = 6
    options["logger"]["save_checkpoint_freq"] = 1
    finish([launcher.start(options, "--auto_resume")])
    wholes = {"train_s": {"epoch": 1, "position": 8 + 2}, "train_t": {"epoch": 2, "position": 6 + 3}}
    assert position(folder, 6) == {"position": 10, "streams": wholes}


def test_the_state_of_a_recipe_with_other_streams_is_refused(runner, options):
    options["train"]["total_iter"] = 5
    folder = runner.train(options)
    file = folder / "training_states" / "5.state"
    state = torch.load(file, weights_only=True)
    own, options["train"]["total_iter"] = state["sampler"], 6
    for sampler, theirs in (
        ({"position": 10}, "one stream"),
        ({**own, "streams": {"train_s": own["streams"]["train_s"], "train_u": {}}}, "the streams train_s, train_u"),
    ):
        torch.save({**state, "sampler": sampler}, file)
        with pytest.raises(ValueError, match=f"holds the positions of {theirs}, and the recipe .* train_s, train_t;"):
            runner.train(options, "--auto_resume")
    # a state that BasicSR's own code has written
    torch.save({key: value for key, value in state.items() if key != "sampler"}, file)
    options["logger"]["save_checkpoint_freq"] = 1
    runner.train(options, "--auto_resume")
    streams = {"train_s": {"epoch": 0, "position": 2}, "train_t": {"epoch": 0, "position": 3}}
    assert position(folder, 6) == {"position": 2, "streams": streams}


@pytest.mark.parametrize(
    ("recipe", "rename", "message"),
    [
        (
            "SRModel",
            {},
            r"datasets \(.*\.yml:\d+\): 'train_t' and 'train_s' are 2 training sets, and SRModel",
        ),
        ("TwoStreamModel", {"train_t": None}, "trains on the sections 'train_s' and 'train_t'; 'train_t' is missing"),
        ("TwoStreamModel", {"train_t": "train"}, "'train_t' is missing, and 'train' is not one of them: rename it"),
    ],
)
def test_other_training_sets_than_the_recipe_declares_are_refused(runner, options, recipe, rename, message):
    options["model_type"] = recipe
    for old, new in rename.items():
        section = options["datasets"].pop(old)
        if new:
            options["datasets"][new] = section
    with pytest.raises(OptionError, match=message) as refusal:
        runner.train(options)
    assert len(refusal.value.problems) == 1
    assert not (runner.root / "experiments").exists()


def test_the_loaders_for_a_training_loop_of_ones_own(images):
    """What BasicSR's function of this name returns."""
    data = {"type": "PairedImageDataset", "dataroot_gt": f"{images}/hr", "dataroot_lq": f"{images}/lr", "scale": 2}
    data |= {"io_backend": {"type": "disk"}, "gt_size": 16, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0}
    opt = {"model_type": "SRModel", "num_gpu": 0, "dist": False, "rank": 0, "world_size": 1, "manual_seed": 0}
    opt |= {"train": {"total_iter": 5}, "datasets": {"train": data | {"name": "t", "phase": "train"}}}
    opt["datasets"]["val"] = data | {"name": "v", "phase": "val"}
    loader, sampler, val_loaders, epochs, iterations = create_train_val_dataloader(opt, logging.getLogger("basicsr"))
    assert isinstance(sampler, EnlargedSampler) and loader.sampler is sampler
    assert [len(loader), len(val_loaders), epochs, iterations] == [2, 1, 3, 5]
    assert next(iter(loader))["gt"].shape == (2, 3, 16, 16)
    opt["datasets"]["test"] = data | {"name": "x", "phase": "test"}
    with pytest.raises(ValueError, match="datasets.test: in training a section is named train… or val…, not 'test'"):
        create_train_val_dataloader(opt, logging.getLogger("basicsr"))
