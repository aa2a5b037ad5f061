import os
import random
import sys

import numpy as np
import pytest
import torch
import yaml

from basicsr.utils.options import OptionError, command_line, copy_opt_file, dict2str, parse_options, yaml_load

NETWORK = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 2, "num_feat": 4, "num_block": 1}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Write options to x.yml and parse a command line that names it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    (tmp_path / "data").mkdir()

    def parse(opt, *arguments, is_train=True):
        (tmp_path / "x.yml").write_text(opt if isinstance(opt, str) else yaml.safe_dump(opt))
        monkeypatch.setattr(sys, "argv", ["train.py", "-opt", "x.yml", *arguments])
        return parse_options("/root_of_runs", is_train)

    return parse


def training_options():
    pair = {"type": "PairedImageDataset", "dataroot_gt": "data", "dataroot_lq": "data", "io_backend": {"type": "disk"}}
    return {
        "name": "run",
        "model_type": "SRModel",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 3,
        "datasets": {
            "train": {**pair, "name": "D", "gt_size": 8, "batch_size_per_gpu": 1, "num_worker_per_gpu": 0},
            "val_1": {**pair, "name": "A"},
        },
        "network_g": NETWORK,
        "train": {
            "total_iter": 10,
            "optim_g": {"type": "Adam", "lr": 0.1},
            "scheduler": {"type": "MultiStepLR", "milestones": [5]},
            "pixel_opt": {"type": "L1Loss"},
        },
        "val": {"val_freq": 5000},
        "logger": {"print_freq": 100, "save_checkpoint_freq": 5000},
    }


def evaluation_options():
    pair = {"type": "PairedImageDataset", "dataroot_gt": "data", "dataroot_lq": "data", "io_backend": {"type": "disk"}}
    return {
        "name": "run",
        "model_type": "SRModel",
        "scale": 2,
        "datasets": {"test_1": {**pair, "name": "A"}},
        "network_g": NETWORK,
    }


def test_training_options_are_filled_in(run):
    opt, args = run(training_options())
    assert (opt["dist"], opt["rank"], opt["world_size"]) == (False, 0, 1)
    assert opt["auto_resume"] is False
    assert opt["is_train"] is True
    assert opt["path"] == {
        "experiments_root": "/root_of_runs/experiments/run",
        "models": "/root_of_runs/experiments/run/models",
        "training_states": "/root_of_runs/experiments/run/training_states",
        "log": "/root_of_runs/experiments/run",
        "visualization": "/root_of_runs/experiments/run/visualization",
    }
    assert [d["phase"] for d in opt["datasets"].values()] == ["train", "val"]
    assert [d["scale"] for d in opt["datasets"].values()] == [2, 2]
    assert opt["network_g"] == NETWORK
    assert args.notices == []
    assert args.opt == "x.yml"
    assert "LOCAL_RANK" not in os.environ


def test_test_options_are_filled_in(run):
    opt, _ = run(evaluation_options(), is_train=False)
    assert opt["path"] == {
        "results_root": "/root_of_runs/results/run",
        "log": "/root_of_runs/results/run",
        "visualization": "/root_of_runs/results/run/visualization",
    }
    assert opt["val"] == {"save_img": False}
    assert opt["datasets"]["test_1"]["phase"] == "test"
    assert opt["num_gpu"] == torch.cuda.device_count()


def test_runs_can_be_kept_elsewhere(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    opt, _ = run(training_options() | {"path": {"experiments_root": "~/runs"}})
    assert opt["path"]["models"] == f"{tmp_path}/runs/run/models"
    opt, _ = run(evaluation_options() | {"path": {"results_root": "~/res"}}, is_train=False)
    assert opt["path"]["results_root"] == f"{tmp_path}/res/run"


def test_home_is_expanded(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.pth").touch()
    options = training_options() | {"path": {"pretrain_network_g": "~/w.pth", "resume_state": "~/w.pth"}}
    options["datasets"]["train"]["dataroot_gt"] = "~/data"
    opt, _ = run(options)
    assert opt["path"]["pretrain_network_g"] == opt["path"]["resume_state"] == f"{tmp_path}/w.pth"
    assert opt["datasets"]["train"]["dataroot_gt"] == f"{tmp_path}/data"


def test_the_seed_is_set_and_drawn_when_absent(run):
    run(training_options())
    found = (random.random(), float(np.random.rand()), float(torch.rand(1)))
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    assert found == (random.random(), float(np.random.rand()), float(torch.rand(1)))
    options = training_options()
    del options["manual_seed"]
    opt, _ = run(options)
    assert 1 <= opt["manual_seed"] <= 10000


def test_more_gpus_than_there_are_is_told(run):
    opt, args = run(training_options() | {"num_gpu": 999})
    assert opt["num_gpu"] == torch.cuda.device_count()
    assert "num_gpu is 999" in args.notices[0]


def test_debug(run):
    opt, _ = run(training_options(), "--debug")
    assert opt["name"] == "debug_run"
    assert opt["val"]["val_freq"] == 8
    assert opt["logger"] == {"print_freq": 1, "save_checkpoint_freq": 8}
    assert opt["path"]["models"].endswith("/experiments/debug_run/models")
    assert run(training_options() | {"name": "debug_mine"}, "--debug")[0]["name"] == "debug_mine"
    assert run(training_options() | {"name": "debug_mine"})[0]["val"]["val_freq"] == 8


def test_the_command_line(run):
    opt, args = run(
        training_options(),
        "--force_yml",
        "name=other",
        "train:ema_decay=0.5",
        "--auto_resume",
        "--force_yml",
        "scale=4",
        "network_g:upscale=4",
        "path:strict_load_d=true",
    )
    assert (opt["name"], opt["train"]["ema_decay"], opt["scale"], opt["auto_resume"]) == ("other", 0.5, 4, True)
    assert args.notices == ["path.strict_load_d (--force_yml): has no effect, since there is no network_d"]
    assert run(training_options(), "--local-rank=1")[1].local_rank == 1
    assert run(training_options(), "--local_rank", "1")[1].local_rank == 1
    with pytest.raises(SystemExit):
        run(training_options(), "--launcher", "mpi")


def test_a_launcher_joins_the_process_group(run, monkeypatch):
    calls = []
    monkeypatch.setattr(command_line, "init_dist", lambda launcher, **kw: calls.append((launcher, kw)))
    monkeypatch.setattr(command_line, "get_dist_info", lambda: (2, 4))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = training_options() | {"dist_params": {"backend": "nccl", "port": 29501}}
    opt, _ = run(options, "--launcher", "pytorch", "--local-rank=2")
    assert calls == [("pytorch", {"backend": None, "port": 29501})]
    assert (opt["dist"], opt["rank"], opt["world_size"]) == (True, 2, 4)
    assert os.environ["LOCAL_RANK"] == "2"
    assert torch.initial_seed() == 3 + 2


def test_wrong_options_stop_before_the_process_group(run, monkeypatch):
    monkeypatch.setattr(command_line, "init_dist", lambda *a, **k: pytest.fail("too early"))
    options = training_options()
    options["datasets"]["train"]["dataroot_gt"] = "nowhere"
    options["train"]["totl_iter"] = 3
    with pytest.raises(OptionError) as caught:
        run(options, "--launcher", "pytorch")
    assert len(caught.value.problems) == 2


def test_the_options_are_kept_with_the_run(run, tmp_path, monkeypatch):
    (tmp_path / "base.yml").write_text(yaml.safe_dump(training_options()))
    text = "_base_: base.yml  # the rest\nname: derived\n"
    run(text, "--force_yml", "train:optim_g:lr=1e-4")
    copy_opt_file("x.yml", str(tmp_path / "data"))
    kept = (tmp_path / "data" / "x.yml").read_text()
    assert kept.endswith(text)
    assert "# Command: train.py -opt x.yml --force_yml train:optim_g:lr=1e-4\n" in kept
    resolved = yaml_load(tmp_path / "data" / "x_resolved.yml")
    expected = training_options() | {"name": "derived"}
    expected["train"]["optim_g"]["lr"] = 1e-4
    assert resolved == expected


def test_yaml_load_takes_a_file_or_text(tmp_path):
    (tmp_path / "x.yml").write_text("a: 1e-3\n")
    assert yaml_load(str(tmp_path / "x.yml")) == {"a": 1e-3}
    assert yaml_load("a: {b: 2}") == {"a": {"b": 2}}
    with pytest.raises(OptionError, match="no such option file"):
        yaml_load(str(tmp_path / "absent.yml"))


def test_dict2str():
    assert dict2str({"a": 1, "b": {"c": None, 2: [3]}}) == "\n  a: 1\n  b:[\n    c: None\n    2: [3]\n  ]\n"
