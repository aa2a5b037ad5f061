"""Precision, accumulation and the guard against NaN, in real runs."""

import copy
import re
import shutil
from pathlib import Path

import pytest
import torch

from ..helpers import log_text, logged_values, training_state, weights


@pytest.fixture
def plugin():
    return {"imports": [str(Path(__file__).with_name("bad_term_plugin.py"))]}


@pytest.mark.parametrize("runtime", [{"precision": "bf16"}, {"precision": "fp16"}, {"channels_last": True}])
def test_training_in_another_precision(runner, options, runtime):
    """It trains to about the same loss as fp32, and a resumed run ends with the same bits."""
    options["train"]["total_iter"] = 40
    options["logger"]["save_checkpoint_freq"] = 20
    exact = runner.train({**copy.deepcopy(options), "name": "tiny_fp32"})
    options["runtime"] = {"g": runtime, "t": runtime}
    folder = runner.train(options)
    final = [sum(logged_values(f, "l_pix")[-10:]) for f in (exact, folder)]
    assert final[1] == pytest.approx(final[0], rel=0.05)
    if "precision" in runtime:
        assert any(not torch.equal(v, weights(exact)["params"][k]) for k, v in weights(folder)["params"].items())
    final_weights = weights(folder)["params"]
    scaler = training_state(folder, 40).get("scaler")
    assert (scaler is not None) == (runtime.get("precision") == "fp16")
    (folder / "training_states" / "40.state").unlink()
    runner.train(options, "--auto_resume")
    assert all(torch.equal(v, final_weights[k]) for k, v in weights(folder)["params"].items())
    resumed = training_state(folder, 40).get("scaler")
    assert resumed == scaler, "the scale and how long it has held"


needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("c++")), reason="torch.compile needs a C++ compiler"
)


@needs_compiler
def test_training_compiled(runner, options):
    """Compiled networks, with feature taps, train as the others do; the files have the usual keys."""
    options["train"]["total_iter"] = 3
    options["val"]["val_freq"] = 100
    plain = runner.train({**copy.deepcopy(options), "name": "tiny_plain"})
    options["runtime"] = {"g": {"compile": True}, "t": {"compile": True}}
    folder = runner.train(options)
    assert weights(folder)["params"].keys() == weights(plain)["params"].keys()
    for name, value in weights(folder)["params"].items():
        torch.testing.assert_close(value, weights(plain)["params"][name], rtol=1e-3, atol=1e-4)


@needs_compiler
def test_gradients_of_a_compiled_student_are_compared(runner, options):
    """The backward pass of compiled code runs once for each comparison, and once more for the step."""
    options["train"]["total_iter"] = 2
    options["val"]["val_freq"] = 100
    options["train"]["kd_opt"]["logits"]["log_grad"] = True
    plain = runner.train({**copy.deepcopy(options), "name": "tiny_plain"})
    options["runtime"] = {"g": {"compile": True}}
    folder = runner.train(options)
    norms = [logged_values(f, "grad_logits") for f in (plain, folder)]
    assert len(norms[0]) == 2
    assert norms[1] == pytest.approx(norms[0], rel=1e-2)


def test_accumulation_gives_the_gradients_of_the_whole_batch(runner, options):
    options["train"] |= {"total_iter": 4, "optim_g": {"type": "SGD", "lr": 0.1}}
    whole = runner.train({**copy.deepcopy(options), "name": "tiny_whole"})
    options["train"]["accumulate"] = 3
    parts = runner.train(options)
    start = weights(whole, 4)["params"]
    for name, value in weights(parts, 4)["params"].items():
        torch.testing.assert_close(value, start[name], rtol=1e-4, atol=1e-6)


def test_accumulation_must_divide_the_batch(runner, options):
    options["train"]["accumulate"] = 2
    with pytest.raises(ValueError, match="train.accumulate .*: a batch of 3 .* cannot be divided into 2 equal parts"):
        runner.train(options)


@pytest.mark.parametrize("optimizer", [{}, {"fused": False}])
def test_bad_steps_are_skipped_and_named(runner, options, plugin, optimizer):
    options |= plugin
    options["train"]["optim_g"] |= optimizer
    options["train"]["kd_opt"]["bad"] = {"type": "BadAt", "first": 6, "last": 8}
    options["logger"] |= {"print_freq": 4, "save_checkpoint_freq": 1}
    folder = runner.train(options)
    assert "3 step(s) were skipped; at iteration 6, the first, l_bad was not finite" in log_text(folder)
    assert all(torch.equal(v, weights(folder, 5)["params"][k]) for k, v in weights(folder, 8)["params"].items())
    assert any(not torch.equal(v, weights(folder, 8)["params"][k]) for k, v in weights(folder, 9)["params"].items())
    assert all(v.isfinite().all() for v in weights(folder)["params"].values())


def test_too_many_bad_steps_stop_the_run(runner, options, plugin):
    options |= plugin
    options["train"] |= {"max_bad_steps": 5}
    options["train"]["kd_opt"]["bad"] = {"type": "BadAt", "first": 2, "last": 100}
    with pytest.raises(FloatingPointError, match="l_bad was not finite. 5 in a row"):
        runner.train(options)


def test_step_time_is_split_in_the_log(runner, options):
    folder = runner.train(options)
    assert re.search(r"A step takes \d+\.\d{3} s: .*student \d+ %.*teacher \d+ %", log_text(folder))


def test_normalisation_of_the_student_is_refused(runner, options):
    options["runtime"] = {"g": {"mean": [0.5, 0.5, 0.5], "std": [1.0, 1.0, 1.0]}}
    with pytest.raises(ValueError, match="runtime.g.mean .*: only a frozen network"):
        runner.train(options)
