"""A term that trains a discriminator of its own, beside the student's optimiser."""

import copy
import re
from pathlib import Path

import pytest
import torch

from ..helpers import finish, log_text, training_state, weights

NAMES = ("prototypes_adversarial_plugin", "prototypes_gan_plugin", "fault_plugin")
WEIGHTS = ("discriminator.0.weight", "discriminator.2.weight")
PLUGINS = [str(Path(__file__).with_name(f"{name}.py")) for name in NAMES]


@pytest.fixture
def options(options):
    options["imports"] = PLUGINS
    options["train"]["kd_opt"] = {"adv": {"type": "Adversarial", "loss_weight": 0.5}}
    options["val"]["val_freq"] = 100
    return options


def discriminator_of(folder, iteration):
    return training_state(folder, iteration)["terms"]["adv"]


def assert_moved(own, by_hand, rate):
    """Gradients as computed by hand, and a step of gradient descent along them."""
    for name, parameter in by_hand.named_parameters():
        torch.testing.assert_close(own.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-6)
        moved = parameter.detach() - rate * parameter.grad
        torch.testing.assert_close(own.get_parameter(name).detach(), moved, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 2])
def test_each_loss_trains_its_own_network(runner, options, batch, parts):
    """The student has no gradient of ``own_loss``, which detaches nothing, and the discriminator none of the others."""
    options["datasets"]["train"]["batch_size_per_gpu"] = 2
    options["train"] |= {"ema_decay": 0, "optim_g": {"type": "SGD", "lr": 0.1}, "accumulate": parts}
    options["train"]["kd_opt"]["adv"] |= {"trains": "SGD", "lr": 0.2}
    model = runner.build(options)
    own = model.terms["adv"].discriminator
    student, critic, teacher = copy.deepcopy(model.net_g), copy.deepcopy(own), model.frozen["t"].net
    in_optim_g = {id(p) for group in model.optimizer_g.param_groups for p in group["params"]}
    assert in_optim_g == {id(p) for p in model.net_g.parameters()}

    output, target = student(batch["lq"]), teacher(batch["lq"])
    losses = {"l_pix": (output - batch["gt"]).abs().mean(), "l_adv": -0.5 * critic(output).mean()}
    sum(losses.values()).backward()
    critic.zero_grad()
    real, fake = critic(target.detach()), critic(output.detach())
    losses["l_adv_own"] = (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()
    losses["l_adv_own"].backward()

    seen = []
    model.optimizer_g.register_step_pre_hook(lambda *_: seen.extend(p.grad for p in own.parameters()))
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert seen == [None] * 4, "the student's losses give the discriminator no gradient"
    logged = model.get_current_log()
    assert {name: logged[name] for name in losses} == pytest.approx(
        {name: loss.item() for name, loss in losses.items()}, rel=1e-5
    )
    assert_moved(model.net_g, student, 0.1)
    assert_moved(own, critic, 0.2)


def test_it_is_logged_scheduled_and_saved(runner, options):
    options["train"]["kd_opt"]["adv"] |= {"start": 3, "end": 8}
    folder = runner.train(options)
    lines = [line for line in log_text(folder).splitlines() if "l_pix" in line]
    for name in ("l_adv: ", "l_adv_own: ", "adv_gap: "):
        assert [name in line for line in lines] == [3 <= iteration <= 8 for iteration in range(1, 13)]
    optimizers = training_state(folder)["optimizers"]
    assert [group["lr"] for optimizer in optimizers for group in optimizer["param_groups"]] == [1e-3, 5e-4]
    moments = optimizers[1]["state"]
    assert [int(moment["step"]) for moment in moments.values()] == [6] * 4, "it took a step where it was active"
    saved = {iteration: discriminator_of(folder, iteration) for iteration in (4, 8, 12)}
    assert saved[4].keys() == {f"discriminator.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert all(not torch.equal(saved[8][name], saved[4][name]) for name in WEIGHTS)
    assert all(torch.equal(value, saved[8][name]) for name, value in saved[12].items())
    student = weights(folder, 12)
    assert not any("discriminator" in name for name in student["params"])


def test_it_resumes_exactly(options, resumes_exactly):
    options["datasets"]["train"]["batch_size_per_gpu"] = 2
    options["train"]["accumulate"] = 2
    folder = resumes_exactly(options, "7:SIGKILL", "6:SIGTERM")
    assert len(training_state(folder)["optimizers"]) == len(training_state(folder)["schedulers"]) == 2


def test_two_ranks_hold_the_same_discriminator(launcher, options, resumes_exactly):
    """Each rank has another batch; the discriminator's gradients are averaged, too."""
    options["datasets"]["train"]["batch_size_per_gpu"] = 2
    runs = launcher.start_ranks(2, options, TELL=str(launcher.root / "told"))
    finish(runs)
    one, other = ((launcher.root / f"told_{rank}").read_text().splitlines() for rank in (0, 1))
    assert one == other
    assert len(set(one)) == 12, "it is trained at every iteration"
    alone = {**options, "name": "alone", "datasets": copy.deepcopy(options["datasets"])}
    alone["datasets"]["train"]["batch_size_per_gpu"] = 4
    finish([launcher.start(alone)])
    folders = [launcher.folder(name) for name in ("tiny", "alone")]
    two, single = (discriminator_of(folder, 12) for folder in folders)
    for name, value in two.items():
        torch.testing.assert_close(value, single[name], rtol=1e-3, atol=1e-5)
    resumes_exactly(options, "7:SIGKILL", world=2)


def test_a_step_that_is_not_finite_is_skipped_and_named(runner, options):
    options["train"]["kd_opt"]["adv"]["broken"] = 6
    options["logger"]["save_checkpoint_freq"] = 1
    folder = runner.train(options)
    assert re.search(r"1 step\(s\) were skipped; at iteration 6, the first, l_adv_own was not", log_text(folder))
    saved = {iteration: discriminator_of(folder, iteration) for iteration in (5, 6, 7)}
    assert all(torch.equal(value, saved[5][name]) for name, value in saved[6].items())
    assert all(not torch.equal(saved[7][name], saved[6][name]) for name in WEIGHTS)
