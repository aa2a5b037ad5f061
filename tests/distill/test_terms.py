"""The terms' values and gradients on a hand-made context; how they are set up is tested with the recipe."""

import pytest
import torch
from torch import nn

from basicsr.distill import build_term
from basicsr.distill.context import KDContext, Pass
from basicsr.distill.frozen import FrozenNetwork
from basicsr.distill.term import Schedule


class Constant(nn.Module):
    """A teacher that gives a fixed image whatever it sees."""

    def __init__(self, image):
        super().__init__()
        self.image = nn.Parameter(image)
        self.inner = nn.Identity()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.inner(self.image)


def context(output, teacher_image, features=None):
    frozen = {"t": FrozenNetwork(Constant(teacher_image), "t")}
    return KDContext(1, torch.zeros(1, 1, 1, 1), None, Pass(output, features or {}), frozen)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    # differences 1, -3, 0, 2: mean of |d| = 6/4, of d² = 14/4
    [("l1", 1.5), ("l2", 3.5), ("charbonnier", 1.5)],
)
def test_logits_value(criterion, expected):
    output = torch.tensor([[[[2.0, 0.0], [5.0, 1.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[1.0, 3.0], [5.0, -1.0]]]], dtype=torch.float64)
    value = build_term("x", {"type": "LogitsKD", "criterion": criterion})(context(output, teacher))
    assert value.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("criterion", ["l1", "l2", "charbonnier"])
def test_logits_gradient(criterion):
    torch.manual_seed(0)
    output = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    term = build_term("x", {"type": "LogitsKD", "criterion": criterion})
    assert torch.autograd.gradcheck(lambda o: term(context(o, teacher)), [output])


def test_teacher_gets_no_gradient_and_runs_once():
    output = torch.rand(1, 1, 2, 2, requires_grad=True)
    ctx = context(output, torch.rand(1, 1, 2, 2))
    term = build_term("x", {"type": "LogitsKD"})
    (term(ctx) + term(ctx)).backward()
    teacher = ctx._frozen["t"].net
    assert teacher.image.grad is None
    assert teacher.calls == 1


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(loss_weight=2.0), {1: 2.0, 1000: 2.0}),
        (Schedule(loss_weight=2.0, start=5, end=7), {4: 0.0, 5: 2.0, 7: 2.0, 8: 0.0}),
        (Schedule(loss_weight=2.0, start=11, ramp=4), {10: 0.0, 11: 0.5, 12: 1.0, 14: 2.0, 99: 2.0}),
    ],
)
def test_schedule(schedule, expected):
    assert {i: schedule.weight(i) for i in expected} == expected


def test_build_term_refuses_wrong_arguments():
    with pytest.raises(ValueError, match=r"train.kd_opt.x: LogitsKD: .*'teecher'"):
        build_term("x", {"type": "LogitsKD", "teecher": "t"})
    with pytest.raises(KeyError, match="Did you mean 'LogitsKD'"):
        build_term("x", {"type": "LogitKD"})
