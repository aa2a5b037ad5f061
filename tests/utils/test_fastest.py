"""How forms are chosen and how the choice is kept. Times are made up: nothing here depends on the machine's speed."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from basicsr.archs import build_network
from basicsr.utils import fastest
from basicsr.utils.fastest import Forms, cache_folder, measurable, parse_setting, power_of_two
from basicsr.utils.logger import get_root_logger

from ..helpers import run_forked


@pytest.fixture
def forms(tmp_path, monkeypatch):
    """A computation with two forms, of which `new` takes the time that a test sets; the default takes 1 s."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("BASICSR_FORMS")
    forms = Forms("made_up", "old", "new")
    forms.time_of_new = 0.5
    forms.measured = 0

    def time_each(make):
        forms.measured += 1
        return {"old": 1.0, "new": forms.time_of_new}

    monkeypatch.setattr(fastest, "time_each", time_each)
    parse_setting.cache_clear()
    yield forms
    del Forms.registered["made_up"]
    parse_setting.cache_clear()


def choose(forms: Forms, default: str = "old") -> str:
    return forms.fastest(torch.float32, ("8tokens", "grad"), default, dict)


def files() -> list[Path]:
    return list(cache_folder().iterdir()) if cache_folder().exists() else []


@pytest.mark.parametrize(("seconds", "form"), [(0.5, "new"), (0.89, "new"), (0.95, "old"), (2.0, "old")])
def test_the_default_gives_way_to_what_is_faster_by_a_tenth(forms, seconds, form):
    forms.time_of_new = seconds
    assert choose(forms) == form


def test_a_choice_is_measured_once_and_kept(forms):
    assert choose(forms) == "new"
    forms.time_of_new = 9.0
    assert choose(forms) == "new"  # this process remembers
    forms.clear()
    assert choose(forms) == "new"  # the file does
    assert forms.measured == 1
    [file] = files()
    assert file.name == f"made_up-8tokens-grad-float32-{torch.get_num_threads()}threads.json"
    assert json.loads(file.read_text()) == {"form": "new", "milliseconds": {"old": 1000.0, "new": 500.0}}


def test_cases_dtypes_and_numbers_of_threads_have_choices_of_their_own(forms, monkeypatch):
    choose(forms)
    forms.time_of_new = 9.0
    assert forms.fastest(torch.float32, ("8tokens", "forward"), "old", dict) == "old"
    assert forms.fastest(torch.bfloat16, ("8tokens", "grad"), "old", dict) == "old"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert choose(forms) == "old"
    assert forms.measured == len(files()) == 4


def test_the_first_process_to_write_decides(forms, monkeypatch):
    """Another process measures at the same time, finds the contrary, and writes a moment earlier."""

    def time_each(make):
        cache_folder().joinpath(f"made_up-8tokens-grad-float32-{torch.get_num_threads()}threads.json").write_text(
            json.dumps({"form": "old", "milliseconds": {"old": 1.0, "new": 2.0}})
        )
        return {"old": 1.0, "new": 0.5}

    monkeypatch.setattr(fastest, "time_each", time_each)
    assert choose(forms) == "old"
    assert len(files()) == 1  # and nothing was left lying about


@pytest.mark.parametrize("text", ["", "{", "[]", '{"form": "newer", "milliseconds": {}}', '{"form": "new"}', "\0\0"])
def test_a_damaged_file_is_left_and_the_default_used(forms, text):
    choose(forms)
    [file] = files()
    file.write_text(text)
    forms.clear()
    assert choose(forms) == "old"
    assert forms.measured == 1
    assert file.read_text() == text


def test_where_nothing_can_be_written_nothing_is_measured(forms, tmp_path, monkeypatch):
    (tmp_path / "a_file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a_file"))
    assert choose(forms) == "old"
    assert forms.measured == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to every folder")
def test_a_read_only_folder(forms):
    cache_folder().mkdir(parents=True)
    cache_folder().chmod(0o500)
    assert choose(forms) == "old"
    assert forms.measured == 0


def test_a_form_that_fails_leaves_the_default(forms, monkeypatch):
    def time_each(make):
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(fastest, "time_each", time_each)
    assert choose(forms) == "old"
    assert files() == []


@pytest.mark.parametrize(
    ("value", "form", "measured"),
    [("default", "old", 0), ("made_up=new", "new", 0), ("default, made_up=new", "new", 0), ("", "new", 1)],
)
def test_the_environment_overrules(forms, monkeypatch, value, form, measured):
    monkeypatch.setenv("BASICSR_FORMS", value)
    assert choose(forms) == form
    assert forms.measured == len(files()) == measured


@pytest.mark.parametrize("value", ["off", "made_op=new", "made_up=newer"])
def test_the_environment_is_checked(forms, monkeypatch, value):
    monkeypatch.setenv("BASICSR_FORMS", value)
    with pytest.raises(ValueError, match="BASICSR_FORMS"):
        choose(forms)


def test_a_choice_is_logged_once_with_its_times(forms, log):
    choose(forms)
    choose(forms)
    forms.clear()
    (file,) = files()
    file.write_text("{")
    choose(forms)
    first, second = log.messages
    threads = torch.get_num_threads()
    assert first == f"Form of made_up-8tokens-grad-float32-{threads}threads: new (old 1000.0 ms, new 500.0 ms; {file})"
    assert f"old (the default, since {file} cannot be used: JSONDecodeError" in second


def test_what_is_measurable():
    x = torch.ones(2)
    assert measurable(x)
    assert measurable(x.bfloat16())
    assert not measurable(x.double())
    assert not measurable(x.to("meta"))
    traced = []

    def look(y):
        traced.append(measurable(y))
        return y + 1

    torch.jit.trace(look, x, check_trace=False)
    assert traced == [False]


@pytest.mark.parametrize(("count", "power"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_power_of_two(count, power):
    assert power_of_two(count) == power


def train_a_step(folder, output):
    """The life of a process that measures: its choices go into the folder, its gradients and its log to a file."""
    os.environ |= {"XDG_CACHE_HOME": str(folder), "BASICSR_FORMS": ""}
    for forms in Forms.registered.values():
        forms.clear()
    get_root_logger(log_file=str(output))
    torch.manual_seed(0)
    opt = {"type": "SwinIR", "img_size": 8, "window_size": 4, "depths": [2], "embed_dim": 12, "num_heads": [2]}
    net = build_network(opt | {"upsampler": "pixelshuffle", "upscale": 2})
    net(torch.rand(1, 3, 8, 8)).square().mean().backward()
    gradients = sum(p.grad.double().abs().sum() for p in net.parameters()).item()
    get_root_logger().info(f"gradients {gradients.hex()}")


def test_processes_that_measure_at_once_compute_the_same(tmp_path):
    """With the measurement on: two at a time, then one later that finds the choices made."""
    outputs = [tmp_path / f"output_{index}" for index in range(3)]
    folder = tmp_path / "cache"
    calls = [(folder, output) for output in outputs]
    processes = run_forked(train_a_step, calls[:2]) + run_forked(train_a_step, calls[2:])
    assert [process.exitcode for process in processes] == [0, 0, 0]
    texts = [output.read_text() for output in outputs]
    assert len({re.search(r"gradients (\S+)", text)[1] for text in texts}) == 1, texts
    names = {file.name.split("-")[0] for file in folder.rglob("*.json")}
    assert names == {"attention", "linear", "layout"}
    assert texts[2].count("Form of") == len(list(folder.rglob("*.json")))


def test_measuring_draws_no_random_numbers(tmp_path, monkeypatch):
    from basicsr.archs.attention import FORMS, window_attention

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("BASICSR_FORMS")
    FORMS.clear()
    before = torch.get_rng_state()
    window_attention(torch.ones(3, 1, 4, 2, 16, 6, requires_grad=True), torch.zeros(2, 16, 16))
    FORMS.clear()
    assert torch.equal(torch.get_rng_state(), before)
    assert list(tmp_path.rglob("attention-*.json"))
