"""DCKD in miniature: the authors' options as they are, ours, resuming, and what is refused before training."""

import copy
import re

import pytest
import torch

from basicsr.archs import build_network

from ..helpers import dckd_sections, finish, log_text, small_vqgan, training_state, weights


@pytest.fixture
def released(options, tmp_path):
    """The tiny options in the form of the authors' files: DCKDModel and its own sections."""
    torch.manual_seed(0)
    encoder = build_network(small_vqgan(5))
    state = {**encoder.state_dict(), "decoder.conv_in.weight": torch.zeros(1), "loss.logvar": torch.zeros(())}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "vqgan.ckpt")
    options["datasets"]["train"]["gt_size"] = 32
    options |= {"model_type": "DCKDModel", "network_his": True, "network_vqgan": small_vqgan(5)}
    options["path"] = {
        "pretrain_network_vqgan": str(tmp_path / "vqgan.ckpt"),
        "strict_load_vqgan": False,
        "param_key_vqgan": "state_dict",
    }
    options["train"].pop("kd_opt")
    options["train"] |= dckd_sections(step=(3, 4))
    return options


def test_released_options_train_and_log_the_released_names(runner, released):
    folder = runner.train(released)
    names = re.findall(r"iter: +12, .*\] (l_.*)", log_text(folder))[0]
    assert re.findall(r"(l_\w+):", names) == ["l_pix", "l_ts", "l_lcr", "l_cl", "l_ce"]
    (line,) = re.findall(r"A step takes .*", log_text(folder))[:1]
    assert all(f" {part} " in line for part in ("student", "teacher", "history", "encoder")), "its parts are told"
    assert "history.conv_first.weight" in training_state(folder)["terms"]["cl"]


def test_resume_is_exact_with_history_and_negatives(runner, released, monkeypatch):
    from pathlib import Path

    released["imports"] = [str(Path(__file__).with_name("stopping_plugin.py"))]
    released["train"] |= {"gaussian_blur_prob": 0.5, "resize_prob": 0.5}
    whole = runner.train({**copy.deepcopy(released), "name": "tiny_whole"})
    stopped = {**copy.deepcopy(released), "model_type": "StoppingDCKDModel"}
    monkeypatch.setenv("STOP_AT", "7")
    with pytest.raises(KeyboardInterrupt):
        runner.train(stopped)
    monkeypatch.delenv("STOP_AT")
    resumed = runner.train(released, "--auto_resume", "--force_yml", "path:resume_changed=[model_type]")
    one, other = (weights(f, 12) for f in (whole, resumed))
    assert all(torch.equal(v, other[key][name]) for key in one for name, v in one[key].items())
    one, other = (training_state(f)["terms"]["cl"] for f in (whole, resumed))
    assert all(torch.equal(v, other[name]) for name, v in one.items())


def as_terms(options):
    """The same method in the form of our own files."""
    for key in ("logits_opt", "lcr_opt", "noisy", "cl_opt", "ce_opt", "num_neg", "update_decay", "step"):
        options["train"].pop(key)
    for key in ("gaussian_blur_prob", "resize_prob", "gaussian_noise_prob", "gray_noise_prob"):
        options["train"].pop(key)
    options.pop("network_his")
    options["model_type"] = "KDModel"
    options["train"]["kd_opt"] = {
        "ts": {"type": "LogitsKD"},
        "lcr": {"type": "LCR"},
        "cl": {"type": "DCR", "loss_weight": 0.1, "step": [3, 4]},
        "ce": {"type": "DMM", "loss_weight": 0.001, "student_side": "release"},
    }
    return options


def test_our_form_is_the_released_one(runner, released):
    one = runner.train({**copy.deepcopy(released), "name": "tiny_released"})
    other = runner.train(as_terms(released))
    a, b = (weights(f, 12)["params"] for f in (one, other))
    assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_two_processes_train_dckd(launcher, released):
    released["datasets"]["train"]["batch_size_per_gpu"] = 2
    plugin = launcher.root / "telling.py"
    plugin.write_text(
        "from basicsr.models.kd_model import KDModel\n"
        "original = KDModel.optimize_parameters\n"
        "def optimize_parameters(self, current_iter):\n"
        "    original(self, current_iter)\n"
        "    nets = self.net_g, self.terms['cl'].history\n"
        "    sums = [sum(p.double().abs().sum().item() for p in net.parameters()) for net in nets]\n"
        f"    with open(f'{launcher.root}/rank_{{self.opt[\"rank\"]}}', 'a') as file:\n"
        "        print(*sums, file=file)\n"
        "KDModel.optimize_parameters = optimize_parameters\n"
    )
    released["imports"] = [str(plugin)]
    finish(launcher.start_ranks(2, released))
    assert "l_ce: " in log_text(launcher.folder())
    one, other = ([line.split() for line in (launcher.root / f"rank_{r}").read_text().splitlines()] for r in (0, 1))
    assert one == other, "student and history are the same on both ranks"
    assert len(one) == 12
    assert len({history for _, history in one}) == 5, "as made, and moved after iterations 3, 6, 9 and 12"


def test_vgg_as_the_encoder(runner, released):
    options = as_terms(released)
    options.pop("network_vqgan")
    options["path"] = {}
    layers = ["relu1_1", "relu2_1", "relu3_1"]
    options["network_vgg"] = {"type": "VGGFeatureExtractor", "layer_name_list": layers, "weights": "random"}
    options["train"]["kd_opt"] = {
        "cl": {"type": "DCR", "encoder": "vgg", "weights": [0.25, 0.5, 1.0], "num_neg": 1, "loss_weight": 0.1}
    }
    folder = runner.train(options)
    assert "l_cl: " in log_text(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda o: o["train"].update(ema_decay=0),
            "kd_opt.cl: history_source: ema follows .* set train.ema_decay above 0",
        ),
        (
            lambda o: o["train"]["kd_opt"]["cl"].update(encoder="vqgam"),
            "kd_opt.cl.encoder .*: network_vqgam is not defined",
        ),
        (lambda o: o.pop("network_t"), "network_t is not defined"),
        (lambda o: o["datasets"]["train"].update(gt_size=8), "network_vqgan cannot encode the training's 8×8 images"),
        (lambda o: o["train"]["kd_opt"]["cl"].update(weights=[1.0]), "has 5 levels, but there are 1 weights"),
        (lambda o: o["train"]["kd_opt"]["ce"].update(encoder="t"), r"network_t \(EDSR\) has no codebook"),
        (lambda o: o["network_vqgan"].update(n_embed=32), "16.* 32|32.* 16"),
        (
            lambda o: o["train"]["kd_opt"]["cl"].update(encoder="t"),
            r"network_t \(EDSR\) is not an encoder: it gives an image",
        ),
        (lambda o: o.update(network_his=True), "network_his: must be a section with a type, not True .*DCKDModel"),
        (
            lambda o: o.update(runtime={"vqgan": {"mean": [0.5] * 3, "std": [0.5] * 3}}),
            "runtime.vqgan: mean and std are for teachers",
        ),
        (
            lambda o: o.update(runtime={"vqgan": {"precision": "fp16"}}),
            "runtime.vqgan.precision: gradients pass the encoder, and in fp16 they vanish",
        ),
    ],
)
def test_what_is_refused_before_training(runner, released, change, message):
    options = as_terms(released)
    change(options)
    with pytest.raises(ValueError, match=message):
        runner.train(options)


def test_a_released_option_that_would_be_ignored_is_refused(runner, released):
    released["train"]["logits_opt"] |= {"type": "CharbonnierLoss", "eps": 1e-3}
    with pytest.raises(ValueError, match=r"train.logits_opt \(.*yml:\d+\): expected .* and no more, not with eps"):
        runner.train(released)


def test_contrast_without_a_history_network(runner, released):
    released.pop("network_his")
    with pytest.raises(ValueError, match=r"train.cl_opt \(.*yml:\d+\): needs a history .* add `network_his: true`"):
        runner.train(released)


def test_a_step_list_shorter_than_the_run_is_told(runner, released, monkeypatch):
    monkeypatch.setattr("basicsr.distill.dcr.STEP_SPAN", 5)
    folder = runner.train(as_terms(released))
    sentence = (
        "train.kd_opt.cl.step has 2 numbers, one for each 5 iterations, and the run is 12 long: its last, 4, applies"
    )
    assert sentence in log_text(folder)
    released["name"], released["train"]["total_iter"] = "tiny_shorter", 10
    assert "applies to the end" not in log_text(runner.train(released))
