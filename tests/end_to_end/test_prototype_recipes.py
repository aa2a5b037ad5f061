"""Terms under other recipes: two domains, losses of one's own, learnt weights, and what was written for BasicSR."""

import copy
import json
import re
from pathlib import Path

import pytest
import torch

from ..helpers import finish, log_text, logged_values, training_state, weights

NAMES = ("prototypes_plugin", "prototypes_streams_plugin", "fault_plugin")
PLUGINS = [str(Path(__file__).with_name(f"{name}.py")) for name in NAMES]


@pytest.fixture
def options(options):
    options["imports"] = PLUGINS
    options["val"]["val_freq"] = 100
    return options


# Two domains, of which one has no ground truth


@pytest.fixture
def domains(options):
    train = options["datasets"].pop("train")
    options["datasets"]["train_s"] = train | {"name": "source", "batch_size_per_gpu": 2}
    options["datasets"]["train_t"] = train | {"type": "UnpairedPatches", "name": "target", "batch_size_per_gpu": 4}
    options["model_type"] = "TwoDomainModel"
    options["train"]["kd_opt"] = {"logits": {"type": "LogitsKD"}, "gap": {"type": "DomainGap"}}
    return options


def test_the_losses_of_two_domains(runner, domains):
    """Supervised losses see the rows that have a ground truth; terms see all, and which are whose."""
    generator = torch.Generator().manual_seed(1)
    s, t = (torch.rand(count, 3, 8, 8, generator=generator) for count in (2, 4))
    gt = torch.rand(2, 3, 16, 16, generator=generator)
    model = runner.build(domains)
    teacher = model.frozen["t"].net
    with torch.no_grad():
        outputs, targets = ([net(images) for images in (s, t)] for net in (model.net_g, teacher))
        expected = {
            "l_pix": (outputs[0] - gt).abs().mean().item(),
            "l_logits": (torch.cat(outputs) - torch.cat(targets)).abs().mean().item(),
        }
        colours = [[image.mean((0, 2, 3)) for image in images] for images in (outputs, targets)]
        own, other = (one - two for one, two in colours)
        expected["l_gap"] = (own - other).abs().mean().item()
    model.feed_data({"train_s": {"lq": s, "gt": gt}, "train_t": {"lq": t}})
    model.optimize_parameters(1)
    logged = model.get_current_log()
    assert logged == pytest.approx({**expected, "gap_rows": 402.0}, rel=1e-4)


def test_each_part_of_a_batch_has_its_share_of_both_domains(launcher, domains):
    domains["train"]["accumulate"] = 2
    told = launcher.root / "parts.txt"
    finish([launcher.start(domains, PARTS=str(told))])
    trial, *parts = [json.loads(line) for line in told.read_text().splitlines()]
    assert trial == parts[0], "before the run a part of its first batch was tried"
    assert [iteration for iteration, _ in parts] == [i for i in range(1, 13) for _ in range(2)]
    assert all({name: len(paths) for name, paths in rows.items()} == {"s": 1, "t": 2} for _, rows in parts)
    folder = launcher.folder()
    assert logged_values(folder, "gap_rows") == [201.0] * 12
    seen = [path for _, rows in parts for path in rows["t"]]
    assert {seen.count(path) for path in set(seen)} == {12}, "three epochs of 16, each of four images"


def test_two_domains_resume_exactly(domains, resumes_exactly):
    domains["train"]["accumulate"] = 2
    folder = resumes_exactly(domains, "6:SIGTERM", "11:SIGKILL")
    assert len(logged_values(folder, "l_gap")) == 12


# Losses and weights


def test_a_loss_of_one_s_own_beside_the_others(runner, options):
    """No recipe and no term: a section of ``train`` that names a registered loss."""
    options["model_type"] = "SRModel"
    options["train"].pop("kd_opt")
    options["train"]["edge_opt"] = {"type": "EdgeLoss", "loss_weight": 2.0, "start": 3, "end": 6}
    model = runner.build(options)
    generator = torch.Generator().manual_seed(1)
    lq, gt = (torch.rand(2, 3, side, side, generator=generator) for side in (8, 16))
    for iteration in (2, 3):
        with torch.no_grad():
            output = model.net_g(lq)
        model.feed_data({"lq": lq, "gt": gt})
        model.optimize_parameters(iteration)
    difference = (output - gt)[..., 1:] - (output - gt)[..., :-1]
    assert model.get_current_log()["l_edge"] == pytest.approx(2 * difference.abs().mean().item(), rel=1e-4)
    lines = [line for line in log_text(runner.train(options)).splitlines() if "l_pix: " in line]
    assert [" l_edge: " in line for line in lines] == [3 <= iteration <= 6 for iteration in range(1, 13)]


def test_weights_that_are_learnt(runner, options, resumes_exactly):
    """The minimum of ``exp(−s) L + s``, by one step of gradient descent, and over a run."""
    options["train"] |= {"combine": "uncertainty", "optim_g": {"type": "SGD", "lr": 0.1}}
    model = runner.build(options)
    generator = torch.Generator().manual_seed(1)
    model.feed_data({k: torch.rand(2, 3, side, side, generator=generator) for k, side in (("lq", 8), ("gt", 16))})
    model.optimize_parameters(1)
    logged = model.get_current_log()
    for name in ("pix", "logits", "feat"):  # at s = 0, ds = −0.1 (1 − L)
        s = -0.1 * (1 - logged[f"l_{name}"])
        assert logged[f"weight_{name}"] == pytest.approx(torch.exp(torch.tensor(-s)).item(), rel=1e-4)
    options["train"]["optim_g"] = {"type": "Adam", "lr": 2e-3}
    folder = resumes_exactly(options, "7:SIGKILL")
    state = training_state(folder, 12)
    scales = {name.removeprefix("log_scales."): value for name, value in state["balance"].items()}
    assert scales.keys() == {"l_pix", "l_logits", "l_feat"}
    for name in ("pix", "logits", "feat"):
        learnt = logged_values(folder, f"weight_{name}")
        assert len(learnt) == 12
        assert learnt[-1] == pytest.approx(torch.exp(-scales[f"l_{name}"]).item(), rel=1e-3)
        assert learnt[-1] > 1, "losses below 1 gain weight"


# Recipes written for BasicSR


def test_settings_of_one_s_own_without_terms(runner, options):
    """The inherited iteration minimises the plug-in's ``cri_pix``."""
    options["train"].pop("kd_opt")
    plain = runner.train({**copy.deepcopy(options), "name": "tiny_plain", "model_type": "SRModel"})
    options["model_type"] = "OwnSettingsModel"
    folder = runner.train(options)
    assert len(logged_values(folder, "l_pix")) == 12
    one, other = (weights(f, 12) for f in (plain, folder))
    assert all(torch.equal(value, other[key][name]) for key in one for name, value in one[key].items())


def test_a_loss_that_a_recipe_sets_itself(runner, options):
    """The inherited iteration minimises ``cri_pix``, whoever has set it; the terms stay."""
    options["model_type"] = "OwnLossModel"
    model = runner.build(options)
    lq, gt = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = 3 * (model.net_g(lq) - gt).square().mean().item()
    model.feed_data({"lq": lq, "gt": gt})
    model.optimize_parameters(1)
    logged = model.get_current_log()
    assert logged.keys() == {"l_pix", "l_logits", "l_feat"}
    assert logged["l_pix"] == pytest.approx(expected, rel=1e-5)


def test_settings_of_one_s_own_leave_out_the_terms(runner, options):
    options["model_type"] = "OwnSettingsModel"
    with pytest.raises(ValueError, match=r"train.kd_opt: OwnSettingsModel .* \(init_training_settings\) .* remove kd_"):
        runner.train(options)


def test_an_iteration_of_one_s_own_leaves_out_the_terms(runner, options):
    options["model_type"] = "OwnIterationModel"
    options["logger"]["print_freq"] = 3
    with pytest.raises(ValueError, match="train.kd_opt: OwnIterationModel trains with an optimize_parameters of its"):
        runner.train(options)
    options["train"].pop("kd_opt")
    assert len(logged_values(runner.train(options), "l_pix")) == 4


# Other people's files


def test_dckd_resumes_from_the_authors_state(runner, options):
    """It holds nothing of the terms: the history network starts as the student's average."""
    vgg = {"type": "VGGFeatureExtractor", "layer_name_list": ["relu1_1", "relu2_1"], "weights": "random"}
    dcr = {"type": "DCR", "encoder": "vgg", "weights": [0.5, 1.0], "num_neg": 1, "step": [100]}
    options["network_vgg"] = vgg
    options["train"]["kd_opt"] = {"logits": {"type": "LogitsKD"}, "cl": dcr}
    options["train"]["total_iter"] = 8
    first = runner.train({**copy.deepcopy(options), "name": "tiny_first"})
    state, networks = training_state(first, 4), weights(first, 4)
    theirs = runner.root / "theirs"
    for kind in ("training_states", "models"):
        (theirs / kind).mkdir(parents=True)
    kept = {key: state[key] for key in ("epoch", "iter", "optimizers", "schedulers")}
    torch.save(kept, theirs / "training_states" / "4.state")
    torch.save(networks, theirs / "models" / "net_g_4.pth")
    options["path"]["resume_state"] = str(theirs / "training_states" / "4.state")
    folder = runner.train(options)
    log = log_text(folder)
    assert "made by another program and holds nothing of the distillation terms cl: they start afresh" in log
    assert "Resuming training from epoch: 0, iter: 4" in log
    assert [int(i) for i in re.findall(r"iter: +(\d+), lr", log)] == [5, 6, 7, 8]
    history = training_state(folder, 8)["terms"]["cl"]
    assert {name for name in history if name.startswith("history.")} == {f"history.{k}" for k in networks["params"]}
    for name, value in networks["params_ema"].items():
        assert torch.equal(history[f"history.{name}"], value), "no update was due since"
    assert any(not torch.equal(value, networks["params"][name]) for name, value in networks["params_ema"].items())
    moments = training_state(folder, 8)["optimizers"][0]["state"]
    assert all(int(moment["step"]) == 8 for moment in moments.values()), "the optimiser goes on"


def test_a_network_that_no_term_uses_is_not_built(runner, options):
    """PDD's files describe ``network_g_fix`` also where the average is the reference."""
    options["network_g_fix"] = {**options["network_g"], "num_feat": 5}
    options["path"]["pretrain_network_g_fix"] = str(runner.root / "absent.pth")
    folder = runner.train(options)
    assert "network_g_fix is not built, since no term or loss names it." in log_text(folder)
    assert "absent.pth does not exist" in log_text(folder)
    assert len(logged_values(folder, "l_logits")) == 12


def test_the_weights_of_a_network_that_a_term_uses_must_exist(runner, options):
    options["network_g_fix"] = options["network_t"]
    options["path"]["pretrain_network_g_fix"] = str(runner.root / "absent.pth")
    options["train"]["kd_opt"] = {"logits": {"type": "LogitsKD", "teacher": "g_fix"}}
    with pytest.raises(ValueError, match=r"path.pretrain_network_g_fix \(.*\): .*absent.pth does not exist"):
        runner.train(options)
    options["network_t"] = options.pop("network_g_fix")
    options["path"] = {"pretrain_network_t": str(runner.root / "absent.pth")}
    options["train"]["kd_opt"] = {"logits": {"type": "LogitsKD"}}  # which names its teacher by default
    with pytest.raises(ValueError, match=r"path.pretrain_network_t \(.*\): .*absent.pth does not exist"):
        runner.train(options)
