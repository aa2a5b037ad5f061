"""DCKD's options are translated into terms, and what is wrong with them is told by the authors' names."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from basicsr.cli import main
from basicsr.models.dckd_model import DCKDModel
from basicsr.utils.options import OptionError, read_options

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 2, "num_block": 1}
PAIRS = {"type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "lq", "io_backend": {"type": "disk"}}
WEIGHTS = [0.03125, 0.0625, 0.125, 0.25, 1.0]
FILE = "dckd.yml"


@pytest.fixture
def released(tmp_path, monkeypatch):
    """The authors' options with small networks, to be written to a file in the working folder."""
    monkeypatch.chdir(tmp_path)
    return {
        "name": "x",
        "model_type": "DCKDModel",
        "scale": 2,
        "datasets": {
            "train": {**PAIRS, "name": "D", "gt_size": 32, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0},
        },
        "network_g": {**EDSR, "num_feat": 4},
        "network_t": {**EDSR, "num_feat": 6},
        "network_his": True,
        "network_vqgan": {
            "type": "VQGAN",
            "embed_dim": 8,
            "n_embed": 16,
            "ddconfig": {
                "ch": 32,
                "ch_mult": [1, 1],
                "num_res_blocks": 1,
                "attn_resolutions": [16],
                "resolution": 32,
                "z_channels": 8,
            },
        },
        "train": {
            "ema_decay": 0.9,
            "total_iter": 10,
            "scheduler": {"type": "MultiStepLR", "milestones": [10]},
            "optim_g": {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            "logits_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            "lcr_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            "noisy": {"prob": 0.5},
            "cl_opt": {"type": "ContrasLoss", "d_func": "L1", "loss_weight": 0.1, "weights": list(WEIGHTS)},
            "num_neg": 4,
            "update_decay": 0.1,
            "step": [1],
            "gaussian_blur_prob": 0,
            "resize_prob": 0,
            "gaussian_noise_prob": 1.0,
            "gray_noise_prob": 0.5,
            "ce_opt": {"type": "CELoss", "loss_weight": 0.001, "reduction": "mean"},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 10},
    }


def read(opt):
    Path(FILE).write_text(yaml.safe_dump(opt, sort_keys=False))
    return read_options(FILE, is_train=True)


def problems(opt):
    with pytest.raises(OptionError) as caught:
        read(opt)
    return caught.value.problems


def line(text, after=""):
    """The number of the first line with ``text``, at or below the line with ``after``."""
    lines = Path(FILE).read_text().splitlines()
    start = next(i for i, found in enumerate(lines) if after in found)
    return next(i for i, found in enumerate(lines) if i >= start and text in found) + 1


TERMS = {
    "ts": {"type": "LogitsKD", "criterion": "l1", "loss_weight": 1.0},
    "lcr": {"type": "LCR", "prob": 0.5, "loss_weight": 1.0},
    "cl": {
        "type": "DCR",
        "distance": "L1",
        "num_neg": 4,
        "update_decay": 0.1,
        "step": [1],
        "gaussian_blur_prob": 0,
        "resize_prob": 0,
        "gaussian_noise_prob": 1.0,
        "gray_noise_prob": 0.5,
        "loss_weight": 0.1,
        "weights": WEIGHTS,
    },
    "ce": {"type": "DMM", "student_side": "release", "loss_weight": 0.001},
}


def test_what_is_read_from_a_file_has_our_form(released):
    opt, notices = read(released)
    assert notices == []
    assert opt["train"]["kd_opt"] == TERMS
    assert opt["model_type"] == "DCKDModel"
    assert "network_his" not in opt
    assert opt["train"].keys().isdisjoint(DCKDModel.DialectOptions.model_fields)


def test_translating_is_pure_and_idempotent(released):
    before = copy.deepcopy(released)
    once = DCKDModel.translate(released)
    assert released == before
    assert once["train"]["kd_opt"] == TERMS
    assert DCKDModel.translate(once) == once
    assert read(once)[0] == once


@pytest.mark.parametrize("train", [{}, {"train": None}, {"train": {"pixel_opt": {"type": "L1Loss"}}}])
def test_options_without_the_dialect_stay_as_they_are(train):
    opt = {"name": "x", "network_g": {"type": "EDSR"}, **train}
    assert DCKDModel.translate(opt) == opt


def test_the_defaults_are_the_released_codes(released):
    for key in ("num_neg", "update_decay", "step", "gaussian_blur_prob", "gaussian_noise_prob", "gray_noise_prob"):
        del released["train"][key]
    del released["train"]["cl_opt"]["weights"], released["train"]["noisy"]
    released["train"]["logits_opt"] = {"type": "MSELoss"}
    terms = DCKDModel.translate(released)["train"]["kd_opt"]
    assert terms["cl"] == {
        **{key: value for key, value in TERMS["cl"].items() if key != "weights"},
        "step": [1000],
        "gaussian_blur_prob": 1.0,
        "gaussian_noise_prob": 0.0,
        "gray_noise_prob": 0.0,
    }
    assert terms["lcr"]["prob"] == 0.5
    assert terms["ts"] == {"type": "LogitsKD", "criterion": "l2", "loss_weight": 1.0}


def test_a_users_own_term_goes_with_the_authors(released):
    released["train"]["kd_opt"] = {"mine": {"type": "LCR"}}
    assert list(read(released)[0]["train"]["kd_opt"]) == ["mine", "ts", "lcr", "cl", "ce"]


def put(*keys, **values):
    def change(opt):
        section = opt
        for key in keys:
            section = section[key]
        section.update(values)

    return change


MISTAKES = [
    # the authors' sections themselves
    (put("train", num_neg=-1), "num_neg", "train.num_neg ({}): must be an integer ≥ 0, not -1"),
    (put("train", update_decay=2), "update_decay", "train.update_decay ({}): must be a number ≥ 0 and ≤ 1, not 2"),
    (put("train", gray_noise_prob="a"), "gray_noise_prob", "train.gray_noise_prob ({}): must be a number ≥ 0 and"),
    (put("train", step=1000), "step:", "train.step ({}): must be a list of integers, not 1000"),
    (put("train", "noisy", prob=-0.1), "  prob:", "train.noisy.prob ({}): must be a number ≥ 0 and ≤ 1, not -0.1"),
    (put("train", "cl_opt", d_func="L3"), "d_func", "train.cl_opt.d_func ({}): must be one of 'L1', 'L2', not 'L3'"),
    (put("train", "cl_opt", los_weight=1), "los_weight", "train.cl_opt.los_weight ({}): unknown key; did you mean"),
    (put("train", "cl_opt", type="ContrastLoss"), "ContrastLoss", "train.cl_opt.type ({}): must be 'ContrasLoss'"),
    (put("train", ce_opts={}), "ce_opts", "train.ce_opts ({}): unknown key; did you mean 'ce_opt'?"),
    (put("train", "ce_opt", reduction="sum"), "sum", "train.ce_opt.reduction ({}): must be 'mean', not 'sum'"),
    # what our terms cannot say
    (put("train", "lcr_opt", type="MSELoss"), "MSELoss", "train.lcr_opt.type ({}): expected L1Loss, not MSELoss"),
    (
        put("train", "logits_opt", reduction="sum"),
        "logits_opt",
        "train.logits_opt ({}): expected L1Loss, MSELoss or CharbonnierLoss with loss_weight, reduction: mean",
    ),
    (put(network_his=False), "  cl_opt", "train.cl_opt ({}): needs a history network: add `network_his: true`"),
    (put(network_his={"type": "EDSR"}), "network_his", "network_his ({}): must be true or false: the history network"),
    # the terms that they become
    (put("train", step=[0]), "step:", "train.step ({}): must be a non-empty list of integers ≥ 1, not [0]"),
    (put("train", step=[]), "step:", "train.step ({}): must be a non-empty list of integers ≥ 1, not []"),
    (
        lambda o: o.pop("network_t"),
        "  logits_opt",
        "train.logits_opt ({}): network_t is not defined; there is",
    ),
    (lambda o: o.pop("network_t"), "  cl_opt", "train.cl_opt ({}): network_t is not defined; there is"),
    (lambda o: o.pop("network_vqgan"), "  cl_opt", "train.cl_opt ({}): network_vqgan is not defined"),
    (lambda o: o.pop("network_vqgan"), "  ce_opt", "train.ce_opt ({}): network_vqgan is not defined"),
]


@pytest.mark.parametrize(("change", "where", "sentence"), MISTAKES)
def test_a_mistake_is_told_by_the_authors_key_and_line(released, change, where, sentence):
    change(released)
    found = problems(released)
    expected = sentence.format(f"{FILE}:{line(where, after='train:' if where[0] == ' ' else '')}")
    assert any(problem.startswith(expected) for problem in found), found


@pytest.mark.parametrize(("term", "source"), [("ts", "logits"), ("lcr", "lcr"), ("cl", "cl"), ("ce", "ce")])
@pytest.mark.parametrize("value", [{"type": "LCR"}, None])
def test_a_term_given_twice_is_an_error_that_names_both(released, term, source, value):
    released["train"]["kd_opt"] = {term: value}
    assert problems(released) == [
        f"train.{source}_opt ({FILE}:{line(f'  {source}_opt:')}): is read as train.kd_opt.{term}, and "
        f"train.kd_opt.{term} ({FILE}:{line(f'    {term}:')}) is given as well; remove one of them"
    ]


def test_all_mistakes_come_at_once(released):
    released["train"]["num_neg"] = -1
    released["train"]["cl_opt"]["d_func"] = "L3"
    released["train"]["totl_iter"] = 5
    released["network_g"]["num_feat"] = "4"
    assert len(problems(released)) == 4
    released["train"] |= {"num_neg": 1, "cl_opt": None, "logits_opt": {"type": "L1Loss", "reduction": "sum"}}
    assert len(problems(released)) == 3, "what cannot be translated among them"


def test_overrides_are_translated_too(released):
    read(released)
    opt, _ = read_options(FILE, ["train:num_neg=2", "train:noisy={prob: 0.25}"], is_train=True)
    assert opt["train"]["kd_opt"]["cl"]["num_neg"] == 2
    assert opt["train"]["kd_opt"]["lcr"]["prob"] == 0.25
    with pytest.raises(OptionError, match=r"train.step \(--force_yml\): must be a non-empty list"):
        read_options(FILE, ["train:step=[0]"], is_train=True)


def test_basicsr_check_reads_the_same(released, capsys):
    read(released)
    assert main(["check", "--options-only", FILE]) == 0
    assert main(["check", FILE, "--force_yml", "train:step=[0]"]) == 1
    assert "train.step (--force_yml): must be a non-empty list" in capsys.readouterr().out


def test_editors_complete_the_authors_files_and_ours(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    references = {
        r["if"]["properties"]["model_type"]["const"]: r["then"]["properties"]["train"] for r in schema["allOf"]
    }
    trains = {name: schema["$defs"][r["$ref"].rpartition("/")[2]] for name, r in references.items()}
    keys = trains["DCKDModel"]["properties"]
    assert {*DCKDModel.DialectOptions.model_fields, "kd_opt", "pixel_opt", "total_iter"} <= keys.keys()
    assert keys["num_neg"]["minimum"] == 0
    assert trains["DCKDModel"]["additionalProperties"] is False
    assert "cl_opt" not in trains["KDModel"]["properties"]
