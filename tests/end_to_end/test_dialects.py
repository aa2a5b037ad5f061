"""Options in a published spelling are kept with the run in our form, which repeats and resumes it."""

import copy

import pytest
import torch

from basicsr.archs import build_network
from basicsr.cli import main
from basicsr.utils.options import yaml_load

from ..helpers import dckd_sections, log_text, small_vqgan, weights

VQGAN = small_vqgan(3, resolution=16)


def save(network, path):
    torch.manual_seed(0)
    torch.save({"params": build_network(network).state_dict()}, path)
    return str(path)


@pytest.fixture
def dckd(options, tmp_path):
    """The tiny options in the form of the authors' files."""
    options |= {"model_type": "DCKDModel", "network_his": True, "network_vqgan": VQGAN}
    options["path"] = {"pretrain_network_vqgan": save(VQGAN, tmp_path / "vqgan.pth"), "param_key_vqgan": "params"}
    del options["train"]["kd_opt"], options["val"]["metrics"]["ssim"]
    options["train"] |= dckd_sections((0.25, 0.5, 1.0), num_neg=1, step=(3,))
    return options


@pytest.fixture
def fork(options, tmp_path):
    """The tiny options in a private fork's spelling."""
    teacher = options.pop("network_t")
    options["network_g_teacher"] = teacher
    options["path"] = {
        "pretrain_network_g_teacher": save(teacher, tmp_path / "t.pth"),
        "strict_load_g_teacher": True,
        "param_key_g_teacher": "params",
    }
    del options["train"]["kd_opt"], options["val"]["metrics"]["ssim"]
    options["train"] |= {"distill_opt": {"type": "MSELoss", "loss_weight": 0.5}, "distill_weight": 0.3}
    return options


def same_weights(one, other):
    return all(
        torch.equal(value, weights(other)[key][name]) for key, v in weights(one).items() for name, value in v.items()
    )


@pytest.mark.parametrize("spelling", ["dckd", "fork"])
def test_the_resolved_file_repeats_and_resumes_the_run(runner, request, spelling, capsys):
    options = request.getfixturevalue(spelling)
    first = runner.train(copy.deepcopy(options), "--force_yml", "train:optim_g:lr=1e-3")
    assert (first / "tiny.yml").read_text().endswith((runner.root / "tiny.yml").read_text()), "as the user wrote it"
    kept = first / "tiny_resolved.yml"
    resolved = yaml_load(kept)
    assert resolved["train"]["kd_opt"].keys() == ({"ts", "lcr", "cl", "ce"} if spelling == "dckd" else {"distill"})
    assert resolved["train"]["optim_g"]["lr"] == 1e-3
    assert resolved["model_type"] == options["model_type"]
    assert main(["check", str(kept)]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines()[1:] if "RANDOM weights" not in line]
    assert not notes

    again = runner.train({**resolved, "name": "again"})
    assert same_weights(first, again)
    assert yaml_load(again / "again_resolved.yml") == {**resolved, "name": "again"}

    for path in ("models/net_g_12.pth", "models/net_g_latest.pth", "training_states/12.state"):
        (again / path).unlink()
    resumed = runner.train({**resolved, "name": "again"}, "--auto_resume")
    assert "Resuming training from epoch: 1, iter: 8" in log_text(resumed)
    assert same_weights(first, resumed)


def test_a_resolved_file_is_run_where_it_lies(runner, fork, monkeypatch):
    """Its folder is renamed by the run that it starts."""
    fork["train"] |= {"total_iter": 2}
    folder = runner.train(fork)
    kept = folder / "tiny_resolved.yml"
    text = kept.read_text()
    monkeypatch.setattr("sys.argv", ["train.py", "-opt", str(kept)])
    from basicsr.train import train_pipeline

    train_pipeline(str(runner.root))
    assert len(list((runner.root / "experiments").glob("tiny_archived_*"))) == 1
    assert kept.read_text().endswith(text)


def test_a_forks_spelling_trains_as_ours(runner, fork):
    ours = copy.deepcopy(fork)
    ours["network_t"] = ours.pop("network_g_teacher")
    ours["path"] = {key.replace("_g_teacher", "_t"): value for key, value in ours["path"].items()}
    del ours["train"]["distill_opt"], ours["train"]["distill_weight"]
    ours["train"]["kd_opt"] = {"distill": {"type": "LogitsKD", "criterion": "l2", "loss_weight": 0.15}}
    one, other = runner.train(fork), runner.train({**ours, "name": "ours"})
    assert same_weights(one, other)
    log = log_text(one)
    assert "l_distill: " in log
    assert "is another spelling of network_t and is read as that" in log
