"""LogitsKD, the schedule of a term, and how terms are built from options."""

import pytest
import torch
from torch import nn

from basicsr.distill import build_term
from basicsr.distill.frozen import FrozenNetwork
from basicsr.utils.options.sections import Schedule

from .helpers import context, student


class Constant(nn.Module):
    """A teacher that gives a fixed image whatever it sees."""

    def __init__(self, image):
        super().__init__()
        self.image = nn.Parameter(image)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.image


def given(output, teacher):
    """A context in which the student's output and the teacher are as given."""
    ctx = context(torch.zeros(1, 1, 1, 1), g=student(nn.Identity()), t=FrozenNetwork(teacher, "t"))
    ctx.record("g", lambda: output)
    return ctx


def value_of(criterion, output, teacher_image):
    term = build_term("x", {"type": "LogitsKD", "criterion": criterion})
    ctx = given(output, Constant(teacher_image))
    term.prepare(ctx)
    return term(ctx)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    # differences 1, -3, 0, 2: mean of |d| = 6/4, of d² = 14/4
    [("l1", 1.5), ("l2", 3.5), ("charbonnier", 1.5)],
)
def test_logits_value(criterion, expected):
    output = torch.tensor([[[[2.0, 0.0], [5.0, 1.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[1.0, 3.0], [5.0, -1.0]]]], dtype=torch.float64)
    assert value_of(criterion, output, teacher).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("criterion", ["l1", "l2", "charbonnier"])
def test_logits_gradient(criterion):
    torch.manual_seed(0)
    output = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda o: value_of(criterion, o, teacher), [output])


def test_teacher_gets_no_gradient_and_runs_once():
    teacher = Constant(torch.rand(1, 1, 2, 2))
    output = torch.rand(1, 1, 2, 2, requires_grad=True)
    ctx = given(output, teacher)
    term = build_term("x", {"type": "LogitsKD"})
    term.prepare(ctx)
    (term(ctx) + term(ctx)).backward()
    assert output.grad.abs().sum() > 0
    assert teacher.image.grad is None
    assert teacher.calls == 1


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule.of({"loss_weight": 2.0}), {1: 2.0, 1000: 2.0}),
        (Schedule.of({"loss_weight": 2.0, "start": 5, "end": 7}), {4: 0.0, 5: 2.0, 7: 2.0, 8: 0.0}),
        (Schedule.of({"loss_weight": 2.0, "start": 11, "ramp": 4}), {10: 0.0, 11: 0.5, 12: 1.0, 14: 2.0, 99: 2.0}),
    ],
)
def test_schedule(schedule, expected):
    assert {i: schedule.weight(i) for i in expected} == expected


def test_build_term_refuses_wrong_arguments():
    with pytest.raises(ValueError, match=r"train.kd_opt.x.teecher: unknown key; did you mean 'teacher'"):
        build_term("x", {"type": "LogitsKD", "teecher": "t"})
    with pytest.raises(KeyError, match="Did you mean 'LogitsKD'"):
        build_term("x", {"type": "LogitKD"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "DCR", "step": []}, "step: must be a non-empty list"),
        ({"type": "DCR", "step": [0]}, "step: must be a non-empty list of integers ≥ 1"),
        ({"type": "DMM", "temperature": 0.0}, "temperature: must be a number > 0"),
        ({"type": "DCR", "gaussian_noise_prob": 5}, "gaussian_noise_prob: must be a number ≥ 0 and ≤ 1, not 5"),
        ({"type": "DCR", "update_decay": 5}, "update_decay: must be a number ≥ 0 and ≤ 1, not 5"),
        ({"type": "LCR", "prob": -0.1}, "prob: must be a number ≥ 0 and ≤ 1, not -0.1"),
        ({"type": "DUKD", "prob": 2}, "prob: must be a number ≥ 0 and ≤ 1, not 2"),
        ({"type": "DUKD", "form": "other"}, "form: must be one of 'release', 'symmetric', not 'other'"),
        ({"type": "DUKD", "zoom_in": False, "zoom_out": False}, "both false"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_term("x", options)
