"""A recipe with a discriminator: it distils when its options name terms, and needs no code for that."""

import copy
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ..helpers import finish, log_text, training_state, weights

FOLDER = Path(__file__).parent
PLUGINS = [str(FOLDER / f"{name}.py") for name in ("prototypes_plugin", "prototypes_gan_plugin", "fault_plugin")]


@pytest.fixture
def options(options):
    options |= {"imports": PLUGINS, "model_type": "SmallGANModel", "network_d": {"type": "PatchDiscriminator"}}
    options["train"] |= {
        "gan_opt": {"type": "LogisticGANLoss", "loss_weight": 0.5},
        "optim_d": {"type": "Adam", "lr": 1e-3},
        "kd_opt": {
            "logits": {"type": "LogitsKD", "loss_weight": 0.1},
            "feat": {"type": "FitNets", "pairs": [{"student": "body.1", "teacher": "body.2"}]},
        },
    }
    options["val"]["val_freq"] = 100
    return options


def names_of(folder):
    return re.findall(r"(l_\w+):", re.findall(r"iter: +12, .*\] (l_.*)", log_text(folder))[0])


@pytest.mark.parametrize("distilled", [True, False])
def test_it_trains_with_and_without_distillation(runner, options, distilled):
    if not distilled:
        options["train"].pop("kd_opt")
    folder = runner.train(options)
    terms = ["l_logits", "l_feat"] if distilled else []
    assert names_of(folder) == ["l_pix", *terms, "l_g_gan", "l_d_real", "l_d_fake"]
    own = weights(folder, 12, "d")["params"]
    assert all(not torch.equal(value, weights(folder, 4, "d")["params"][k]) for k, value in own.items())
    state = training_state(folder)
    assert state["networks"] == ["net_d_12.pth", "net_g_12.pth"]
    assert len(state["optimizers"]) == len(state["schedulers"]) == 2
    assert state["optimizers"][1]["param_groups"][0]["lr"] == pytest.approx(5e-4), "halved after iteration 6"
    assert "network_d is not used" not in log_text(folder)


@pytest.mark.parametrize("parts", [1, 2])
def test_one_step_of_both_networks(runner, options, parts):
    """The generator's and the discriminator's step written out, on the whole batch."""
    options["datasets"]["train"]["batch_size_per_gpu"] = 2
    sgd = {"type": "SGD", "lr": 0.1}
    options["train"] |= {"ema_decay": 0, "optim_g": sgd, "optim_d": sgd, "accumulate": parts}
    options["train"]["kd_opt"].pop("feat")
    model = runner.build(options)
    generator = torch.Generator().manual_seed(1)
    lq, gt = (torch.rand(2, 3, side, side, generator=generator) for side in (8, 16))
    g, d, teacher = copy.deepcopy(model.net_g), copy.deepcopy(model.net_d), model.frozen["t"].net
    output = g(lq)
    losses = {"l_pix": (output - gt).abs().mean(), "l_logits": 0.1 * (output - teacher(lq)).abs().mean()}
    losses["l_g_gan"] = 0.5 * F.softplus(-d(output)).mean()
    sum(losses.values()).backward()
    d.zero_grad()
    losses |= {"l_d_real": F.softplus(-d(gt)).mean(), "l_d_fake": F.softplus(d(output.detach())).mean()}
    (losses["l_d_real"] + losses["l_d_fake"]).backward()

    model.feed_data({"lq": lq, "gt": gt})
    model.optimize_parameters(1)
    logged = model.get_current_log()
    assert logged == pytest.approx({name: loss.item() for name, loss in losses.items()}, rel=1e-5)
    for own, by_hand in ((model.net_g, g), (model.net_d, d)):
        for name, parameter in by_hand.named_parameters():
            torch.testing.assert_close(own.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-6)
            moved = parameter.detach() - 0.1 * parameter.grad
            torch.testing.assert_close(own.get_parameter(name).detach(), moved, rtol=1e-4, atol=1e-6)


def test_it_resumes_exactly(options, resumes_exactly):
    folder = resumes_exactly(options, "7:SIGKILL", "7:SIGTERM")
    assert (folder / "models" / "net_d_latest.pth").is_file()


def test_on_two_ranks(launcher, options, resumes_exactly):
    options["datasets"]["train"]["batch_size_per_gpu"] = 2
    options["train"]["accumulate"] = 2
    runs = launcher.start_ranks(2, options, TELL=str(launcher.root / "told"))
    finish(runs)
    one, other = ((launcher.root / f"told_{rank}").read_text().splitlines() for rank in (0, 1))
    assert one == other, "adapters and discriminator are the same on both ranks"
    assert len(set(one)) == 12, "and have changed at every iteration"
    resumes_exactly(options, "7:SIGKILL", world=2)
