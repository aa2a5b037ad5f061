"""Private forks' spelling of distillation is read as ours."""

from pathlib import Path

import pytest
import yaml

from basicsr.models.sr_model import SRModel
from basicsr.utils.options import OptionError, read_options
from basicsr.utils.options.sections import LossOptions
from basicsr.utils.registry import MODEL_REGISTRY

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 2, "num_feat": 4, "num_block": 1}
PAIRS = {"type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "lq", "io_backend": {"type": "disk"}}
FILE = "fork.yml"


@pytest.fixture
def fork(tmp_path, monkeypatch):
    """A fork's options, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return {
        "name": "x",
        "model_type": "KDModel",
        "scale": 2,
        "datasets": {
            "train": {**PAIRS, "name": "D", "gt_size": 16, "batch_size_per_gpu": 4, "num_worker_per_gpu": 0},
        },
        "network_g": EDSR,
        "network_g_teacher": {**EDSR, "num_feat": 8},
        "path": {
            "pretrain_network_g_teacher": "t.pth",
            "strict_load_g_teacher": True,
            "param_key_g_teacher": "params",
        },
        "train": {
            "total_iter": 10,
            "optim_g": {"type": "Adam", "lr": 1e-4},
            "scheduler": {"type": "MultiStepLR", "milestones": [5]},
            "pixel_opt": {"type": "L1Loss"},
            "distill_opt": {"type": "MSELoss", "loss_weight": 0.5, "reduction": "mean"},
            "distill_weight": 0.1,
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 5},
    }


def read(opt):
    Path(FILE).write_text(yaml.safe_dump(opt, sort_keys=False))
    return read_options(FILE, is_train=True)


def problems(opt):
    with pytest.raises(OptionError) as caught:
        read(opt)
    return caught.value.problems


def line(text):
    lines = Path(FILE).read_text().splitlines(keepends=True)
    return f"{FILE}:{next(i for i, found in enumerate(lines, start=1) if text in found)}"


def test_a_forks_keys_are_read_as_ours_with_a_notice_for_each(fork):
    teacher = fork["network_g_teacher"]
    opt, notices = read(fork)
    assert list(opt) == [key.replace("_g_teacher", "_t") for key in fork]
    assert opt["network_t"] == teacher
    assert opt["path"] == {"pretrain_network_t": "t.pth", "strict_load_t": True, "param_key_t": "params"}
    assert opt["train"]["kd_opt"] == {"distill": {"type": "LogitsKD", "criterion": "l2", "loss_weight": 0.05}}
    assert opt["train"].keys().isdisjoint(("distill_opt", "distill_weight"))
    places = {key: line(f"{key}:") for key in ("network_g_teacher", *fork["path"])}
    term = "{'type': 'LogitsKD', 'criterion': 'l2', 'loss_weight': 0.05}"
    assert notices == [
        f"network_g_teacher ({places['network_g_teacher']}) is another spelling of network_t and is read as that",
        *(
            f"path.{key} ({places[key]}) is another spelling of path.{key[:-10]}_t and is read as that"
            for key in fork["path"]
        ),
        f"train.distill_opt ({line('distill_opt')}) is read as part of train.kd_opt.distill: {term}",
        f"train.distill_weight ({line('distill_weight')}) is read as part of train.kd_opt.distill: {term}",
    ]
    assert read(opt) == (opt, [])


@pytest.mark.parametrize(
    ("loss", "weight", "criterion", "total"),
    [
        ({"type": "L1Loss"}, 0.1, "l1", 0.1),
        ({"type": "CharbonnierLoss", "loss_weight": 2}, 0.25, "charbonnier", 0.5),
        ({"type": "MSELoss", "loss_weight": 3.0}, "absent", "l2", 3.0),
        ({"type": "MSELoss"}, None, "l2", 1.0),
        ("absent", 0.3, "l1", 0.3),
    ],
)
def test_the_weight_is_a_factor(fork, loss, weight, criterion, total):
    fork["train"] |= {"distill_opt": loss, "distill_weight": weight}
    fork["train"] = {key: value for key, value in fork["train"].items() if value != "absent"}
    expected = {"type": "LogitsKD", "criterion": criterion, "loss_weight": total}
    assert read(fork)[0]["train"]["kd_opt"] == {"distill": expected}


def test_a_loss_that_is_off_stays_off(fork):
    fork["train"]["distill_opt"] = None
    opt, notices = read(fork)
    assert "kd_opt" not in opt["train"]
    assert notices[-1] == f"train.distill_weight ({line('distill_weight')}) has no effect"


def test_a_term_of_our_own_goes_with_it(fork):
    fork["train"]["kd_opt"] = {"lcr": {"type": "LCR"}}
    assert list(read(fork)[0]["train"]["kd_opt"]) == ["lcr", "distill"]


def test_older_names_of_weights_are_read_on(fork):
    del fork["path"]["pretrain_network_g_teacher"]
    fork["path"]["pretrain_model_g_teacher"] = "t.pth"
    assert read(fork)[0]["path"]["pretrain_network_t"] == "t.pth"
    del fork["network_g_teacher"]
    found = problems(fork)
    place = line("pretrain_model_g_teacher")
    assert f"path.pretrain_model_g_teacher ({place}): there is no network_t to load weights into" in found


@pytest.mark.parametrize(
    ("change", "theirs", "ours"),
    [
        (lambda o: o.update(network_t=EDSR), "network_g_teacher", "network_t"),
        (lambda o: o["path"].update(param_key_t="params"), "path.param_key_g_teacher", "path.param_key_t"),
        (
            lambda o: o["train"].update(kd_opt={"distill": {"type": "LogitsKD"}}),
            "train.distill_opt",
            "train.kd_opt.distill",
        ),
    ],
)
def test_what_is_given_in_both_spellings_is_an_error_that_names_both(fork, change, theirs, ours):
    change(fork)
    found = problems(fork)
    places = [line(f"{key.rpartition('.')[2]}:") for key in (theirs, ours)]
    assert found == [
        f"{theirs} ({places[0]}): is read as {ours}, and {ours} ({places[1]}) is given as well; remove one of them"
    ]


@pytest.mark.parametrize(
    ("change", "where", "sentence"),
    [
        (
            {"distill_opt": {"type": "PerceptualLoss", "layer_weights": {"conv5_4": 1}}},
            "distill_opt",
            "train.distill_opt ({}): expected L1Loss, MSELoss or CharbonnierLoss with loss_weight, reduction: mean and "
            "no more, not PerceptualLoss",
        ),
        (
            {"distill_opt": {"type": "CharbonnierLoss", "eps": 1e-3}},
            "distill_opt",
            "train.distill_opt ({}): expected L1Loss, MSELoss or CharbonnierLoss with loss_weight, reduction: mean and "
            "no more, not with eps",
        ),
        (
            {"distill_opt": {"type": "L1Loss", "reduction": "sum"}},
            "distill_opt",
            "train.distill_opt ({}): expected L1Loss, MSELoss or CharbonnierLoss with loss_weight, reduction: mean and "
            "no more, not reduction: sum",
        ),
        ({"distill_opt": {"type": "L1Los"}}, "L1Los\n", "train.distill_opt.type ({}): No object named 'L1Los'"),
        ({"distill_opt": {"los_weight": 1}}, "distill_opt", "train.distill_opt ({}): the key 'type' is missing"),
        ({"distill_opt": "L1Loss"}, "distill_opt", "train.distill_opt ({}): must be a section or ~, not 'L1Loss'"),
        (
            {"distill_opt": {"type": "L1Loss", "los_weight": 1}},
            "los_weight",
            "train.distill_opt.los_weight ({}): unknown key; did you mean 'loss_weight'?",
        ),
        ({"distill_weight": "0.1"}, "distill_weight", "train.distill_weight ({}): must be a number or ~, not '0.1'"),
    ],
)
def test_what_is_wrong_with_the_loss_is_told(fork, change, where, sentence):
    fork["train"] |= change
    found = problems(fork)
    assert len(found) == 1, "and nothing that follows from it"
    assert found[0].startswith(sentence.format(line(where)))


def test_what_is_wrong_with_the_teacher_is_told_by_its_own_name(fork):
    fork["network_g_teacher"]["num_feat"] = "8"
    fork["network_g_teacher"]["rgb_mean"] = [0.1, "a", 0.3]
    found = problems(fork)
    assert found[0].startswith(f"network_g_teacher.num_feat ({line('num_feat: ' + chr(39))}): must be an integer")
    assert found[1].startswith(f"network_g_teacher.rgb_mean ({line('rgb_mean')}): must be a list of numbers")
    del fork["network_g_teacher"]
    fork["path"] = {}
    assert problems(fork) == [
        f"train.distill_opt ({line('distill_opt')}): network_t is not defined; there is network_g"
    ]


class OpenRecipe(SRModel):
    """A plug-in in BasicSR's style, which may read what it likes."""


class DeclaringRecipe(SRModel):
    class TrainOptions(SRModel.TrainOptions):
        distill_opt: LossOptions | None = None
        distill_weight: float = 1.0


@pytest.mark.parametrize("recipe", [OpenRecipe, DeclaringRecipe])
def test_a_recipe_that_may_read_them_itself_keeps_them(fork, monkeypatch, recipe):
    monkeypatch.setattr(MODEL_REGISTRY, "_objects", dict(iter(MODEL_REGISTRY)) | {recipe.__name__: recipe})
    fork["model_type"] = recipe.__name__
    opt, notices = read(fork)
    assert opt == fork
    place = line("network_g_teacher")
    assert f"network_g_teacher ({place}) is left to {recipe.__name__}, which may read it itself" in notices
