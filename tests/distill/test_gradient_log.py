"""The logged norm of each term's gradient, and its cosine with the supervised losses' gradient."""

import math

import pytest
import torch
from torch import nn

from basicsr.distill.gradient_log import GradientComparison
from basicsr.distill.term import KDTerm
from basicsr.utils.registry import KD_REGISTRY

from .helpers import batch_of, distil, network, small_batch


@pytest.fixture
def gradients(monkeypatch):
    """The losses whose gradient was computed."""
    asked = []
    compute = torch.autograd.grad

    def count(loss, *args, **kwargs):
        asked.append(loss)
        return compute(loss, *args, **kwargs)

    monkeypatch.setattr("basicsr.distill.gradient_log.torch.autograd.grad", count)
    return asked


def parameters():
    return [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.tensor(0.0))]


def test_values_by_hand(gradients):
    """Supervised: gradient (4, 0, 0, 3). Term: (0, 0, 2, 0) + (3, 0, 0, 0): norm √13, cosine 12 / (5 √13)."""
    a, b, c = parameters()
    supervised = 4 * a[0] + 3 * c
    compare = GradientComparison([a, b, c], supervised)
    log = compare("kd", 2 * b + 3 * a[0])
    assert log["grad_kd"].item() == pytest.approx(math.sqrt(13))
    assert log["cos_kd"].item() == pytest.approx(12 / 5 / math.sqrt(13))
    log = compare("other", -supervised)
    assert log["grad_other"].item() == pytest.approx(5) and log["cos_other"].item() == pytest.approx(-1)
    assert len(gradients) == 3, "two terms, and the supervised losses once"
    assert all(p.grad is None for p in (a, b, c))
    supervised.backward()  # the graph is still there


def test_a_term_without_gradient_gives_zero(gradients):
    a, b, c = parameters()
    compare = GradientComparison([a, b, c], a.sum())
    adapter = nn.Parameter(torch.tensor(1.0))
    for term in (torch.tensor(5.0), 2 * adapter):
        log = compare("kd", term)
        assert log["grad_kd"].item() == 0 and log["cos_kd"].item() == 0


def test_without_supervised_losses_there_is_no_cosine(gradients):
    a, b, c = parameters()
    log = GradientComparison([a, b, c], None)("kd", 2 * b)
    assert {name: value.item() for name, value in log.items()} == {"grad_kd": 2.0}
    assert len(gradients) == 1


def test_parameters_that_are_not_trained_are_left_out(gradients):
    a, b, c = parameters()
    a.requires_grad_(False)
    assert GradientComparison([a, b, c], None)("kd", 2 * b + 7 * a[0])["grad_kd"].item() == 2.0


@KD_REGISTRY.register()
class ConstantTerm(KDTerm):
    """Does not depend on the student."""

    def forward(self, ctx):
        return torch.tensor(3.0)


def test_in_a_distillation(gradients):
    """A weighted term's gradient is logged, at print iterations alone and for those terms alone that ask for it."""
    terms = {
        "kd": {"type": "LogitsKD", "loss_weight": 0.5, "log_grad": True},
        "l2": {"type": "LogitsKD", "criterion": "l2", "log_grad": True},
        "constant": {"type": "ConstantTerm", "log_grad": True},
        "silent": {"type": "LogitsKD"},
    }
    distillation = distil(terms)
    lq, student = small_batch().lq, network(distillation, "g")
    logs = {}
    for iteration in (1, 2):
        ctx = distillation.context(iteration, batch_of(lq), lambda: student(lq))
        pixel = {"l_pix": ctx.output.mean()}
        losses = distillation(ctx, pixel)
        logs[iteration] = distillation.pop_logs()
        distillation.after_step(iteration)
    assert logs[1] == {}
    assert list(logs[2]) == [f"{kind}_{name}" for name in ("kd", "l2", "constant") for kind in ("grad", "cos")]
    assert len(gradients) == 3, "kd, l2, and the supervised losses once"
    (gradient,) = torch.autograd.grad(losses["l_kd"], student.shift, retain_graph=True)
    assert logs[2]["grad_kd"].item() == pytest.approx(abs(gradient.item()))
    assert logs[2]["grad_constant"].item() == 0 and logs[2]["cos_constant"].item() == 0
    assert logs[2]["cos_kd"].item() == pytest.approx(math.copysign(1, gradient.item()))
