"""Resuming with other options: listed where they do not matter, by consent where they do, refused where they cannot."""

import copy
import re
import shutil

import pytest
import torch

from ..helpers import assert_equal, log_text, logged_values, training_state, weights


@pytest.fixture
def options(options):
    options["train"]["total_iter"] = 4
    options["val"] |= {"val_freq": 100, "metrics": {"psnr": options["val"]["metrics"]["psnr"]}}
    return options


def changed(options, name, value):
    """Options of which one differs; None removes it."""
    options = copy.deepcopy(options)
    *sections, key = name.split(".")
    section = options
    for each in sections:
        section = section.setdefault(each, {})
    if value is None:
        del section[key]
    else:
        section[key] = value
    return options


FREE = [
    ("train.total_iter", 6, "train.total_iter 4 → 6"),
    ("logger.print_freq", 2, "logger.print_freq 1 → 2"),
    ("val.val_freq", 50, "val.val_freq 100 → 50"),
    ("datasets.train.num_worker_per_gpu", 1, "datasets.train.num_worker_per_gpu 0 → 1"),
    ("datasets.val", None, "datasets.val PairedImageDataset → absent"),
    ("train.kd_opt.feat.log_grad", True, "train.kd_opt.feat.log_grad false → true"),
    ("runtime.t.channels_last", True, "runtime.t.channels_last absent → true"),
]
MEANING = [
    ("train.optim_g.lr", 1e-3, "train.optim_g.lr 0.002 → 0.001"),
    ("train.optim_g.betas", [0.5, 0.9], "train.optim_g.betas [0.9, 0.99] → [0.5, 0.9]"),
    ("train.scheduler.milestones", [2], "train.scheduler.milestones [6] → [2]"),
    ("train.ema_decay", 0.5, "train.ema_decay 0.9 → 0.5"),
    ("train.pixel_opt.loss_weight", 2.0, "train.pixel_opt.loss_weight 1.0 → 2.0"),
    ("train.pixel_opt", None, "train.pixel_opt L1Loss → absent"),
    ("train.kd_opt.logits.loss_weight", 0.25, "train.kd_opt.logits.loss_weight"),
    ("manual_seed", 8, "manual_seed 7 → 8"),
    ("datasets.train.gt_size", 12, "datasets.train.gt_size 16 → 12"),
    ("datasets.train.batch_size_per_gpu", 2, "datasets.train.batch_size_per_gpu 3 → 2"),
    ("network_t.res_scale", 0.5, "network_t.res_scale 1.0 → 0.5"),
    ("runtime.t.precision", "tf32", "runtime.t.precision absent → 'tf32'"),
]
IMPOSSIBLE = [
    ("train.optim_g.type", "AdamW", "train.optim_g.type 'Adam' → 'AdamW'"),
    ("train.scheduler", {"type": "CosineAnnealingRestartLR", "periods": [20]}, "train.scheduler.type 'MultiStepLR' →"),
    (
        "network_g",
        {"type": "MSRResNet", "num_feat": 4, "num_block": 2, "upscale": 2},
        "network_g.type 'EDSR' → 'MSRResNet'",
    ),
    ("network_g.num_feat", 5, "network_g.num_feat 4 → 5"),
    ("train.total_iter", 3, "train.total_iter is 3, and the training state is of iteration 4"),
    ("train.kd_opt.feat.pairs", [{"student": "body.0", "teacher": "body.2"}] * 2, "train.kd_opt.feat.pairs"),
]


@pytest.mark.parametrize(("name", "value", "words"), FREE)
def test_what_does_not_matter_is_listed(runner, options, name, value, words):
    folder = runner.train(options)
    end = {} if name == "train.total_iter" else {"total_iter": 6}
    later = changed(options, name, value)
    later["train"] |= end
    if name == "datasets.val":
        del later["val"]
    runner.train(later, "--auto_resume")
    (line,) = re.findall("Options that differ from those of the training state: .*", log_text(folder))
    assert words in line
    assert "train.total_iter 4 → 6" in line


@pytest.mark.parametrize(("name", "value", "words"), MEANING)
def test_what_changes_the_training_takes_consent(runner, options, name, value, words):
    folder = runner.train(options)
    options["train"]["total_iter"] = 5
    options = changed(options, name, value)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    with pytest.raises(ValueError, match=r"saved with other options, by which something else was trained") as refusal:
        runner.train(options, "--auto_resume")
    assert words in str(refusal.value)
    (consent,) = re.findall(r"--force_yml '(path:resume_changed=\[\S+\])'", str(refusal.value))
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    options["logger"]["save_checkpoint_freq"] = 1
    runner.train(options, "--auto_resume", "--force_yml", consent)
    assert re.search(rf"Changed with consent \(path\.resume_changed\): {re.escape(words)}", log_text(folder))
    options["train"]["total_iter"] = 6
    runner.train(options, "--auto_resume")  # the state of iteration 5 has the changed options


@pytest.mark.parametrize(("name", "value", "words"), IMPOSSIBLE)
def test_what_cannot_work_is_refused_with_both_values(runner, options, name, value, words):
    runner.train(options)
    options = changed(options, name, value)
    consent = "path:resume_changed=[train, datasets, network_g, network_t]"
    with pytest.raises(ValueError) as refusal:
        runner.train(options, "--auto_resume", "--force_yml", consent)
    assert words in str(refusal.value)


def test_files_are_compared_by_their_content(runner, options, tmp_path):
    """A teacher's file that was replaced is another teacher, and one that was moved is the same."""
    options |= {"name": "first"}
    options["path"]["pretrain_network_t"] = "random"
    teacher = weights(runner.train({**options, "network_g": options["network_t"], "train": _plain(options)}))
    file, other = tmp_path / "teacher.pth", tmp_path / "other" / "teacher.pth"
    torch.save(teacher, file)
    options |= {"name": "tiny", "path": {"pretrain_network_t": str(file)}}
    folder = runner.train(options)
    options["train"]["total_iter"] = 5
    options["logger"]["save_checkpoint_freq"] = 1
    other.parent.mkdir()
    shutil.move(file, other)
    options["path"] = {"pretrain_network_t": str(other)}
    runner.train(options, "--auto_resume")
    assert re.search(
        r"Options that differ from .*: path\.pretrain_network_t '\S+' → '\S+/other/teacher\.pth'", log_text(folder)
    )
    teacher["params"]["conv_first.bias"] += 1
    torch.save(teacher, other)
    options["train"]["total_iter"] = 6
    words = r"was trained: path\.pretrain_network_t SHA-256 \w{12}… → \w{12}…\."
    with pytest.raises(ValueError, match=words):
        runner.train(options, "--auto_resume")
    options["path"]["resume_changed"] = ["path.pretrain_network_t"]
    runner.train(options, "--auto_resume")
    options["train"]["total_iter"] = 7
    del options["path"]["resume_changed"]
    runner.train(options, "--auto_resume")  # the state of iteration 6 is of the new teacher


def _plain(options):
    return {key: value for key, value in options["train"].items() if key != "kd_opt"}


def test_consent_to_one_option_is_not_consent_to_another(runner, options):
    runner.train(options)
    options["train"] |= {"total_iter": 5, "ema_decay": 0.5}
    options["train"]["optim_g"]["lr"] = 1e-3
    options["path"] = {"resume_changed": ["train.optim_g"]}
    with pytest.raises(ValueError, match=r"was trained: train\.ema_decay 0\.9 → 0\.5\. .*\[train\.optim_g, train\.ema"):
        runner.train(options, "--auto_resume")


@pytest.mark.parametrize(
    "scheduler",
    [
        {"type": "MultiStepLR", "milestones": [2], "gamma": 0.5},
        {"type": "CosineAnnealingRestartLR", "periods": [10], "restart_weights": [1], "eta_min": 1e-5},
        {"type": "LinearLR", "start_factor": 0.5, "total_iters": 8},
        {"type": "ExponentialLR", "gamma": 0.5},
    ],
)
def test_changed_optimisers_and_schedules_are_in_force(runner, options, scheduler):
    """As if they had been from the beginning; moments are kept. Rates are those of a run that had them always."""
    always = copy.deepcopy(options) | {"name": "tiny_always"}
    parameters = {"MultiStepLR": {"milestones": [3]}, "CosineAnnealingRestartLR": {"periods": [20]}}
    options["train"]["scheduler"] = scheduler | parameters.get(scheduler["type"], {})
    folder = runner.train(options)
    moment = training_state(folder, 4)["optimizers"][0]["state"][0]["exp_avg"]
    for each in (options, always):
        each["train"] |= {"scheduler": dict(scheduler), "total_iter": 8}
        each["train"]["optim_g"] = {"type": "Adam", "lr": 1e-3, "betas": [0.5, 0.6], "weight_decay": 0.01}
    runner.train(options, "--auto_resume", "--force_yml", "path:resume_changed=[train.optim_g, train.scheduler]")
    (group,) = training_state(folder, 8)["optimizers"][0]["param_groups"]
    assert (tuple(group["betas"]), group["weight_decay"]) == ((0.5, 0.6), 0.01)
    assert moment.abs().max() > 0
    expected = runner.train(always)
    rates = [re.findall(r"iter: +([5-8]), lr:\((\S+?),", log_text(f)) for f in (folder, expected)]
    assert rates[0] == rates[1] and len(rates[0]) == 4


def test_nothing_is_changed_where_nothing_is(runner, options):
    """Other spellings of the same: a default that is written out, 2 for 2.0, a link to the same folder."""
    folder = runner.train(options)
    whole = runner.train(options | {"name": "tiny_whole", "train": options["train"] | {"total_iter": 8}})
    link = runner.root / "linked"
    link.symlink_to(options["datasets"]["train"]["dataroot_gt"])
    options["datasets"]["train"]["dataroot_gt"] = str(link)
    options["train"] |= {"total_iter": 8, "accumulate": 1, "warmup_iter": -1}
    options["train"]["pixel_opt"]["loss_weight"] = 1
    options["find_unused_parameters"] = False
    runner.train(options, "--auto_resume")
    assert_equal(weights(whole), weights(folder), "latest")
    (line,) = re.findall("Options that differ from those of the training state: .*", log_text(folder))
    assert line.endswith(": train.total_iter 4 → 8.")


def test_a_drawn_seed_is_kept(runner, options):
    """So a run without ``manual_seed`` ends as one that was not stopped, too."""
    del options["manual_seed"]
    folder = runner.train(options)
    seed = training_state(folder, 4)["options"]["manual_seed"]
    options["train"]["total_iter"] = 8
    runner.train(options, "--auto_resume")
    assert training_state(folder, 8)["options"]["manual_seed"] == seed
    expected = runner.train(options | {"name": "tiny_expected", "manual_seed": seed})
    assert_equal(weights(expected), weights(folder), "latest")
    assert logged_values(folder, "l_pix") == logged_values(expected, "l_pix")


def test_a_finished_run_may_be_started_again(runner, options):
    folder = runner.train(options)
    before = weights(folder)
    runner.train(options, "--auto_resume")
    assert_equal(before, weights(folder), "latest")


def test_a_state_that_does_not_say_its_options_is_continued_from(runner, options):
    """BasicSR's, and our earlier ones; what it cannot be used with is refused as before."""
    folder = runner.train(options)
    state = training_state(folder, 4)
    torch.save({key: value for key, value in state.items() if key != "options"}, folder / "training_states/4.state")
    options["train"] |= {"total_iter": 5, "optim_g": {"type": "AdamW", "lr": 1e-3}}
    with pytest.raises(ValueError, match="holds the optimizers Adam, and the options make AdamW"):
        runner.train(options, "--auto_resume")
    options["train"]["optim_g"] = {"type": "Adam", "lr": 1e-3}
    runner.train(options, "--auto_resume")
    assert "Options that differ" not in log_text(folder)
