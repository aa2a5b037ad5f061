"""What a recipe does in single steps, on networks small enough to follow by hand."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from basicsr.distill.term import KDTerm
from basicsr.models.kd_model import KDModel
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import ARCH_REGISTRY, KD_REGISTRY

from ..helpers import recipe_options


@ARCH_REGISTRY.register()
class Mixer(nn.Module):
    """``y = W x`` over the colours: nine weights."""

    def __init__(self, seed: int = 0):
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.mix.weight.copy_(torch.randn(3, 3, 1, 1, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x):
        return self.mix(x)


@KD_REGISTRY.register()
class Recorder(KDTerm):
    """Returns what it is told to, and notes the iterations after which it is called."""

    def __init__(self, value: str = "scalar"):
        super().__init__()
        self.value = value
        self.after = []

    def forward(self, ctx):
        return {"scalar": ctx.output.mean(), "map": ctx.output, "number": 1.0}[self.value]

    def after_step(self, model, iteration):
        self.after.append(iteration)


@pytest.fixture
def opt():
    options = recipe_options(
        {"type": "Mixer"}, scale=1, gt_size=4, optim_g={"type": "SGD", "lr": 0.1}, pixel_opt={"type": "MSELoss"}
    )
    return {**options, "val": {"metrics": {"niqe": {"type": "calculate_niqe", "better": "lower"}}}}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(2, 3, 4, 4, generator=generator) for name in ("lq", "gt")}


def step(model, batch, iteration=1):
    model.update_learning_rate(iteration, model.opt["train"].get("warmup_iter", -1))
    model.feed_data(batch)
    model.optimize_parameters(iteration)


def weight(model):
    return model.get_bare_model(model.net_g).mix.weight.detach().squeeze().double().numpy().copy()


def pixels(image):
    return image.permute(1, 0, 2, 3).flatten(1).double().numpy()


def mse_gradient(w, x, target):
    """d/dW mean (W x − t)², over N values: 2/N (W x − t) xᵀ."""
    return 2 / target.size * (w @ x - target) @ x.T


def test_a_step_of_gradient_descent(opt, batch):
    model = SRModel(opt)
    before = weight(model)
    step(model, batch)
    expected = before - 0.1 * mse_gradient(before, pixels(batch["lq"]), pixels(batch["gt"]))
    np.testing.assert_allclose(weight(model), expected, rtol=1e-5)


def test_gradient_clipping_bounds_the_step(opt, batch):
    opt["train"]["clip_grad_norm"] = 1e-3
    model = SRModel(opt)
    before = weight(model)
    step(model, batch)
    assert np.linalg.norm(weight(model) - before) == pytest.approx(0.1 * 1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("scheduler", "after"),
    [
        ({"type": "MultiStepLR", "milestones": [5], "gamma": 0.5}, [0.1, 0.1, 0.05]),
        ({"type": "StepLR", "step_size": 5, "gamma": 0.5}, [0.1, 0.1, 0.05]),
    ],
)
def test_warm_up_rises_and_then_the_schedule_holds(opt, batch, scheduler, after):
    """Iterations 1 to 3 of a warm-up of 4 have 1/4, 2/4 and 3/4 of the rate; then the schedule, ours or PyTorch's."""
    opt["train"] |= {"warmup_iter": 4, "scheduler": scheduler}
    model = SRModel(opt)
    rates = []
    for iteration in range(1, 7):
        step(model, batch, iteration)
        rates += model.get_current_learning_rate()
    assert rates == pytest.approx([0.025, 0.05, 0.075, *after])


def test_a_scheduler_that_is_none(opt):
    opt["train"]["scheduler"] = {"type": "ReduceLROnPlateau", "patience": 3}
    with pytest.raises((ValueError, TypeError)):
        step(SRModel(opt), {"lq": torch.rand(1, 3, 4, 4), "gt": torch.rand(1, 3, 4, 4)}, 2)
    opt["train"]["scheduler"] = {"type": "math"}
    with pytest.raises(ValueError, match="there is no scheduler 'math'"):
        SRModel(opt)


def test_the_average_equals_the_network_where_a_file_lacks_weights(opt, tmp_path):
    torch.save({"params": {"unrelated": torch.zeros(1), "mix.weight": torch.ones(3, 3, 1, 1)}}, tmp_path / "w.pth")
    opt["train"]["ema_decay"] = 0.9
    opt["path"] = {"pretrain_network_g": str(tmp_path / "w.pth"), "strict_load_g": False}
    model = SRModel(opt)
    assert torch.equal(model.net_g.mix.weight, model.net_g_ema.mix.weight)
    assert model.net_g.mix.weight.eq(1).all()


def test_best_of_a_metric_of_which_less_is_better(opt):
    model = SRModel(opt)
    model._initialize_best_metric_results("set")
    for iteration, value in enumerate([5.0, 4.0, 6.0]):
        model._update_best_metric_result("set", "niqe", value, iteration)
    assert model.best_metric_results["set"]["niqe"] == {"better": "lower", "val": 4.0, "iter": 1}


def test_a_metric_that_a_resumed_run_adds_begins_anew(opt):
    model = SRModel(opt)
    model.best_metric_results = {"set": {"psnr": {"better": "higher", "val": 30.0, "iter": 4}}}
    model._initialize_best_metric_results("set")
    assert model.best_metric_results["set"]["psnr"]["val"] == 30.0
    assert model.best_metric_results["set"]["niqe"]["iter"] == -1


@pytest.fixture
def kd(opt):
    opt["network_t"] = {"type": "Mixer", "seed": 3}
    opt["train"]["kd_opt"] = {"logits": {"type": "LogitsKD", "criterion": "l2", "loss_weight": 0.5, "log_grad": True}}
    return opt


def test_distillation_s_step_and_its_logged_gradient(kd, batch):
    model = KDModel(kd)
    before, x, gt = weight(model), pixels(batch["lq"]), pixels(batch["gt"])
    target = model.frozen["t"].net.mix.weight.detach().squeeze().double().numpy() @ x
    step(model, batch)
    own, supervised = 0.5 * mse_gradient(before, x, target), mse_gradient(before, x, gt)
    np.testing.assert_allclose(weight(model), before - 0.1 * (own + supervised), rtol=1e-5)
    log = model.get_current_log()
    assert log["l_logits"] == pytest.approx(0.5 * np.mean((before @ x - target) ** 2), rel=1e-5)
    assert log["grad_logits"] == pytest.approx(np.linalg.norm(own), rel=1e-4)
    cosine = (own * supervised).sum() / np.linalg.norm(own) / np.linalg.norm(supervised)
    assert log["cos_logits"] == pytest.approx(cosine, rel=1e-4)


def test_ramp_and_after_step(kd, batch):
    kd["train"]["optim_g"]["lr"] = 0.0
    kd["train"]["kd_opt"] = {
        "ramped": {"type": "LogitsKD", "ramp": 4},
        "late": {"type": "Recorder", "start": 3},
    }
    model = KDModel(kd)
    values = []
    for iteration in range(1, 6):
        step(model, batch, iteration)
        values.append(model.get_current_log()["l_ramped"])
    assert np.array(values) / values[-1] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert model.terms["late"].after == [1, 2, 3, 4, 5], "also while the term does not count"


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"pix": {"type": "LogitsKD"}}, "kd_opt.pix: l_pix is the name of another loss"),
        ({"x": {"type": "Recorder", "value": "map"}}, r"kd_opt.x: a term returns a scalar .*, not a tensor \(2, 3"),
        ({"x": {"type": "Recorder", "value": "number"}}, r"kd_opt.x: a term returns a scalar .*, not a float"),
        ({"half": {"type": "LogitsKD"}}, "kd_opt.half: this name is taken by PyTorch"),
    ],
)
def test_terms_that_cannot_be_used(kd, batch, terms, message):
    kd["train"]["kd_opt"] = terms
    with pytest.raises(ValueError, match=message):
        step(KDModel(kd), batch)


@ARCH_REGISTRY.register()
class Normalised(nn.Module):
    """Batch statistics, dropout in place, and a convolution before it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5, inplace=True)

    def forward(self, x):
        return self.norm(self.drop(self.conv(x)))


def test_a_teacher_with_statistics_and_dropout_stays_as_it_was(kd, batch):
    kd["network_t"] = {"type": "Normalised"}
    model = KDModel(kd)
    before = copy.deepcopy(model.frozen["t"].net.state_dict())
    for iteration in (1, 2, 3):
        step(model, batch, iteration)
    assert all(torch.equal(v, before[k]) for k, v in model.frozen["t"].net.state_dict().items())
    outputs = [model.frozen["t"](batch["lq"]) for _ in range(2)]
    assert torch.equal(*outputs)


def test_a_feature_overwritten_in_training_alone_is_copied(kd, batch):
    """Dropout in place acts in training only; probing must not change the statistics either."""
    kd["network_g"] = {"type": "Normalised"}
    kd["train"]["kd_opt"] = {"feat": {"type": "FitNets", "pairs": [{"student": "conv", "teacher": "mix"}]}}
    model = KDModel(kd)
    assert model.net_g.norm.num_batches_tracked == 0
    with model.distillation.networks["g"].taps.recording() as features:
        model.net_g(batch["lq"])
    torch.testing.assert_close(features["conv"], model.net_g.conv(batch["lq"]))
