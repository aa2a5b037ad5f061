"""Runs with two training sets, and with a term that has an optimiser of its own, killed at random places.

However often and wherever they are killed, what they end with is bit for bit that of a run that was never stopped. More
rounds: ``BASICSR_FAULT_SWEEP=10`` (docs/resume.md).
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from ..helpers import assert_equal, content, finish, training_state

HERE = Path(__file__).parent
SWEEP = int(os.environ.get("BASICSR_FAULT_SWEEP", 0))
LAST = 15
PLACES = {"step": LAST, "write": 10, "rename": 10, "delete": 4}


def plug_ins(*names):
    return [str(HERE / f"{name}.py") for name in ("fault_plugin", *names)]


def two_streams(options):
    """Sets whose epochs have 6 and 4 iterations, in batches of different sizes."""
    options |= {"model_type": "TwoStreamModel", "imports": plug_ins("two_stream_plugin")}
    del options["network_t"], options["train"]["kd_opt"]
    train = options["datasets"].pop("train") | {"dataset_enlarge_ratio": 3}
    for name, size in (("train_t", 3), ("train_s", 2)):
        options["datasets"][name] = train | {"name": name, "batch_size_per_gpu": size}


def own_optimizer(options):
    """A discriminator that a distillation term trains with its own Adam, beside a term without one."""
    options["imports"] = plug_ins("prototypes_adversarial_plugin")
    options["train"]["kd_opt"]["adv"] = {"type": "Adversarial", "loss_weight": 0.5, "start": 3}
    options["train"]["accumulate"] = 2
    options["datasets"]["train"] |= {"batch_size_per_gpu": 2, "dataset_enlarge_ratio": 3}


CASES = {"two streams": two_streams, "own optimizer": own_optimizer}


@pytest.fixture(params=CASES)
def options(request, options):
    CASES[request.param](options)
    options["train"]["total_iter"] = LAST
    options["val"]["val_freq"] = 100
    options["val"]["metrics"] = {"psnr": options["val"]["metrics"]["psnr"]}
    options["logger"] |= {"save_checkpoint_freq": 3, "keep_last": 3}
    return options


def kept(folder):
    """The files of the last three checkpoints and the result."""
    found = [p.relative_to(folder) for kind in ("models", "training_states") for p in (folder / kind).iterdir()]
    assert not [p for p in found if p.name.endswith(".tmp")]
    return sorted(map(str, found))


def kill_at_random(launcher, options, world, rng, place=None):
    """Start or continue the run, and kill a rank of it at a random place or time."""
    place = place or rng.choice([*PLACES, "time"])
    if place == "time":
        runs = launcher.start_ranks(world, options, "--auto_resume", SLOW="0.02")
        time.sleep(rng.uniform(0.2, 2.0))
        for run in runs:
            run.process.kill()
    else:
        victim = rng.randrange(world) if place == "step" else 0
        first, last = (5, LAST - 1) if place == "step" else (1, PLACES[place])  # after the first checkpoint
        fault = {"FAULT": f"{place}:{rng.randint(first, last)}:SIGKILL"}
        runs = launcher.start_ranks(world, options, "--auto_resume", each={victim: fault})
    codes = [run.wait() for run in runs]
    assert all(code in (-signal.SIGKILL, 0, 1) for code in codes), [run.text[-2000:] for run in runs]
    return -signal.SIGKILL in codes


@pytest.mark.parametrize("world", [1, 2])
def test_killed_at_random_it_ends_bit_for_bit(launcher, options, world):
    finish(launcher.start_ranks(world, options | {"name": "whole"}))
    whole = launcher.folder("whole")
    kills = 0
    for repetition in range(max(SWEEP, 1)):
        rng = random.Random(f"{options['model_type']} {world} {repetition}")
        name = {"name": f"killed_{repetition}"}
        for place in ("step", None, None, None, None):
            kills += kill_at_random(launcher, options | name, world, rng, place)
        finish(launcher.start_ranks(world, options | name, "--auto_resume"))
        folder = launcher.folder(name["name"])
        assert kept(folder) == kept(whole)
        for file in kept(whole):
            assert_equal(content(whole / file), content(folder / file), file)
    assert kills >= 2, "the places are such that something is killed"
    state = training_state(whole, LAST)
    if "Adversarial" in str(options["train"].get("kd_opt")):
        assert len(state["optimizers"]) == 2
        assert all(moment["step"] > 0 for moment in state["optimizers"][1]["state"].values())
    else:
        assert state["sampler"]["streams"]["train_s"] != state["sampler"]["streams"]["train_t"]
