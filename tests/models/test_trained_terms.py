"""What a recipe trains for its terms: their parameters in ``optim_g``, their own optimisers, and learnt weights."""

import copy
import math

import pytest
import torch
from torch import nn

from basicsr.distill.term import KDTerm
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import ARCH_REGISTRY, KD_REGISTRY

from ..helpers import recipe_options


@ARCH_REGISTRY.register()
class Scaled(nn.Module):
    """``factor · x``: one weight."""

    def __init__(self, factor: float = 2.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return self.factor * x


@KD_REGISTRY.register()
class Bettor(KDTerm):
    """``quick`` and ``slow`` train with the student, ``own`` by an optimiser of the term's own."""

    def __init__(self):
        super().__init__()
        self.quick, self.slow, self.own = (nn.Parameter(torch.tensor(1.0)) for _ in range(3))

    def parameter_groups(self):
        return [{"params": [self.quick]}, {"params": [self.slow], "lr": 0.001}]

    def optimizers(self, networks):
        return [torch.optim.SGD([self.own], lr=0.5, momentum=0.9)]

    def forward(self, ctx):
        return (self.quick + self.slow + self.own) * ctx.output.mean()

    def own_loss(self, ctx):
        return self.own * ctx.output.mean()


@pytest.fixture
def opt():
    terms = {"bet": {"type": "Bettor", "loss_weight": 0.5}}
    train = {"pixel_opt": {"type": "MSELoss"}, "kd_opt": terms}
    options = recipe_options({"type": "Scaled"}, scale=1, gt_size=4, optim_g={"type": "SGD", "lr": 0.1}, **train)
    options["datasets"]["train"]["batch_size_per_gpu"] = 4
    options["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [2], "gamma": 0.5}
    return {**options, "network_t": {"type": "Scaled", "factor": 3.0}}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(4, 3, 4, 4, generator=generator) for name in ("lq", "gt")}


def step(model, batch, iteration=1):
    model.update_learning_rate(iteration)
    model.feed_data(batch)
    model.optimize_parameters(iteration)


def test_optimisers_and_their_groups(opt):
    model = SRModel(opt)
    term = model.terms["bet"]
    groups = model.optimizer_g.param_groups
    held = [([id(p) for p in group["params"]], group["lr"]) for group in groups]
    assert held == [([id(model.net_g.factor), id(term.quick)], 0.1), ([id(term.slow)], 0.001)]
    assert [id(p) for p in model.optimizers[1].param_groups[0]["params"]] == [id(term.own)]
    assert len(model.optimizers) == len(model.schedulers) == len(model.steps()) == 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_of_all_of_them(opt, batch, accumulate):
    opt["train"]["accumulate"] = accumulate
    model = SRModel(opt)
    term = model.terms["bet"]
    lq, gt = batch["lq"].double(), batch["gt"].double()
    mean = lq.mean().item()
    step(model, batch)
    supervised = (2 * (2.0 * lq - gt) * lq).mean().item()
    assert model.net_g.factor.item() == pytest.approx(2.0 - 0.1 * (supervised + 0.5 * 3.0 * mean), rel=1e-5)
    assert term.quick.item() == pytest.approx(1 - 0.1 * 0.5 * 2.0 * mean)
    assert term.slow.item() == pytest.approx(1 - 0.001 * 0.5 * 2.0 * mean)
    assert term.own.item() == pytest.approx(1 - 0.5 * 2.0 * mean), "on what the student gave before its step"
    log = model.get_current_log()
    assert log["l_bet"] == pytest.approx(0.5 * 3.0 * 2.0 * mean) and log["l_bet_own"] == pytest.approx(2.0 * mean)


def test_the_schedule_and_the_training_state_hold_for_a_term_s_own_optimiser(opt, batch, tmp_path):
    opt["path"] = {"models": str(tmp_path), "training_states": str(tmp_path)}
    model = SRModel(opt)
    for iteration in (1, 2):
        step(model, batch, iteration)
    model.save(0, 2)
    state = torch.load(tmp_path / "2.state", weights_only=True)
    assert state["classes"]["optimizers"] == ["SGD", "SGD"]
    step(model, batch, 3)
    assert model.optimizers[1].param_groups[0]["lr"] == 0.25, "halved at iteration 2"

    again = copy.deepcopy(opt)
    again["path"]["pretrain_network_g"] = str(tmp_path / "net_g_2.pth")
    resumed = SRModel(again)
    resumed.resume_training(state)
    step(resumed, batch, 3)
    assert torch.equal(resumed.net_g.factor, model.net_g.factor)
    for name in ("quick", "slow", "own"):
        assert torch.equal(getattr(resumed.terms["bet"], name), getattr(model.terms["bet"], name)), name


def test_learnt_weights_of_the_losses(opt, batch):
    """exp(−s) L + s at s = 0: the networks move as by the plain sum, each s by −lr (1 − L)."""
    opt["train"] |= {"combine": "uncertainty", "kd_opt": {"kd": {"type": "LogitsKD", "criterion": "l2"}}}
    model = SRModel(opt)
    lq, gt = batch["lq"].double(), batch["gt"].double()
    pixel, kd = (2 * lq - gt).square().mean().item(), lq.square().mean().item()
    step(model, batch)
    moved = (2 * (2 * lq - gt) * lq).mean().item() - 2 * kd
    assert model.net_g.factor.item() == pytest.approx(2.0 - 0.1 * moved, rel=1e-5)
    for name, loss in (("l_pix", pixel), ("l_kd", kd)):
        assert model.balance.log_scales[name].item() == pytest.approx(-0.1 * (1 - loss), rel=1e-4)
    log = model.get_current_log()
    assert log["l_pix"] == pytest.approx(pixel) and log["l_kd"] == pytest.approx(kd)
    assert log["weight_pix"] == pytest.approx(math.exp(0.1 * (1 - pixel)), rel=1e-5)
    other = SRModel(copy.deepcopy(opt))
    other.load_extra_training_state(model.extra_training_state())
    assert torch.equal(other.balance.log_scales["l_kd"], model.balance.log_scales["l_kd"])


def test_a_recipe_that_leaves_out_what_the_terms_train_is_refused(opt):
    class OwnOptimizers(SRModel):
        def setup_optimizers(self):
            self.optimizer_g = torch.optim.SGD(self.net_g.parameters(), lr=0.1)
            self.optimizers.append(self.optimizer_g)

    message = r"train.kd_opt: OwnOptimizers makes its optimisers itself .* build optim_g from self.trained_groups\(\)"
    with pytest.raises(ValueError, match=message):
        OwnOptimizers(opt)
    opt["train"]["kd_opt"] = {"kd": {"type": "LogitsKD"}}
    OwnOptimizers(opt)


def test_term_parameters_in_another_optimiser_than_optim_g_are_refused(opt):
    """The step of the student's losses would leave them as they are."""

    class Second(SRModel):
        def setup_optimizers(self):
            self.optimizer_g = torch.optim.SGD(self.net_g.parameters(), lr=0.1)
            groups = self.distillation.parameter_groups()
            self.optimizers += [self.optimizer_g, torch.optim.SGD(groups, lr=0.1), *self.distillation.optimizers]

    with pytest.raises(ValueError, match="train.kd_opt: Second makes its optimisers itself .* and leaves out"):
        Second(opt)


@pytest.mark.parametrize("held", [False, True])
def test_learnt_weights_that_a_recipe_leaves_out_are_refused(opt, held):
    class OwnOptimizers(SRModel):
        def setup_optimizers(self):
            weights = self.balance.parameters() if held else ()
            self.optimizer_g = torch.optim.SGD([*self.net_g.parameters(), *weights], lr=0.1)
            self.optimizers.append(self.optimizer_g)

    opt["train"] |= {"combine": "uncertainty", "kd_opt": {"kd": {"type": "LogitsKD"}}}
    if held:
        OwnOptimizers(opt)
    else:
        with pytest.raises(ValueError, match="OwnOptimizers makes its optimisers itself .* and leaves out"):
            OwnOptimizers(opt)
