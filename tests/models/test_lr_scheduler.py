import math

import pytest
import torch

from basicsr.models import lr_scheduler


def rates(scheduler_class, steps, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = scheduler_class(optimizer, **options)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def test_multi_step_equals_torch():
    ours = rates(lr_scheduler.MultiStepLR, 12, milestones=[3, 7, 7], gamma=0.5)
    assert ours == pytest.approx(rates(torch.optim.lr_scheduler.MultiStepLR, 12, milestones=[3, 7, 7], gamma=0.5))


def test_multi_step_restarts():
    values = rates(
        lr_scheduler.MultiStepRestartLR, 9, milestones=[2, 6], gamma=0.5, restarts=[0, 4], restart_weights=[1, 0.8]
    )
    assert values == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.08, 0.08, 0.04, 0.04, 0.04])


def test_cosine_equals_torch():
    ours = rates(lr_scheduler.CosineAnnealingLR, 10, T_max=10, eta_min=0.01)
    assert ours == pytest.approx(rates(torch.optim.lr_scheduler.CosineAnnealingLR, 10, T_max=10, eta_min=0.01))


def test_cosine_restarts():
    values = rates(lr_scheduler.CosineAnnealingRestartLR, 8, periods=[2, 4], restart_weights=[1, 0.5], eta_min=0.02)
    # as BasicSR 1.4.2 does: eta_min is reached at the end of each period, 0.1 → 0.02, then 0.06 → 0.02
    half = [0.02 + 0.5 * 0.08 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(1, 4)]
    assert values == pytest.approx([0.1, 0.06, 0.02, *half, 0.02, 0.02])


def test_a_state_gives_the_position_and_the_options_the_rest():
    """BasicSR keeps milestones as a Counter in its states; and a resumed run may have other options."""
    from collections import Counter

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = lr_scheduler.MultiStepLR(optimizer, [3, 7], 0.5)
    optimizer.param_groups[0]["initial_lr"] = 5.0  # as a loaded optimiser state would leave it
    scheduler.load_state_dict({"last_epoch": 4, "milestones": Counter({1: 1}), "base_lrs": [5.0], "_last_lr": [5.0]})
    values = []
    for _ in range(4):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert values == pytest.approx([0.05, 0.05, 0.05, 0.025])
    assert optimizer.param_groups[0]["initial_lr"] == 0.1


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_state_resumes_anywhere(steps):
    def build():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        return optimizer, lr_scheduler.MultiStepLR(optimizer, [3, 7], 0.5)

    optimizer, scheduler = build()
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    other_optimizer, other = build()
    other.load_state_dict(scheduler.state_dict())
    other_optimizer.load_state_dict(optimizer.state_dict())
    for _ in range(5):
        for o, s in ((optimizer, scheduler), (other_optimizer, other)):
            o.step()
            s.step()
        assert optimizer.param_groups[0]["lr"] == other_optimizer.param_groups[0]["lr"]


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 restarts but 1 restart_weights"):
        rates(lr_scheduler.MultiStepRestartLR, 1, milestones=[1], restarts=[0, 2])
    with pytest.raises(ValueError, match="2 periods but 1 restart_weights"):
        rates(lr_scheduler.CosineAnnealingRestartLR, 1, periods=[1, 2])


def test_cosine_restarts_with_several_lowest_rates():
    """Restormer's schedule: constant for 92000 iterations, then one cosine from 3e-4 to 1e-6."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    schedule = lr_scheduler.CosineAnnealingRestartCyclicLR(
        optimizer, periods=[92000, 208000], restart_weights=[1, 1], eta_mins=[3e-4, 1e-6]
    )
    for step in (0, 1, 46000, 92000, 92001, 100000, 196000, 299999, 300000, 400000):
        schedule.load_state_dict({"last_epoch": step})
        progress = min(max(step - 92000, 0) / 208000, 1)
        expected = 3e-4 if step <= 92000 else 1e-6 + (3e-4 - 1e-6) * (1 + math.cos(math.pi * progress)) / 2
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)
    assert schedule.get_last_lr() == pytest.approx([1e-6])


def test_cosine_restarts_with_weights_and_lowest_rates():
    values = rates(
        lr_scheduler.CosineAnnealingRestartCyclicLR,
        8,
        periods=[2, 4],
        restart_weights=[1, 0.5],
        eta_mins=[0.05, 0.02],
    )
    # η_min + w · (lr − η_min) · (1 + cos πp)/2
    first = [0.05 + 0.05 * (1 + math.cos(math.pi * i / 2)) / 2 for i in range(3)]
    second = [0.02 + 0.5 * 0.08 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(1, 5)]
    assert values == pytest.approx([*first, *second, 0.02])


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_cosine_restarts_resume_anywhere(steps):
    def build():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        return optimizer, lr_scheduler.CosineAnnealingRestartCyclicLR(optimizer, [2, 4], [1, 0.5], [0.05, 0.02])

    (_, scheduler), (other_optimizer, other) = build(), build()
    for _ in range(steps):
        scheduler.optimizer.step()
        scheduler.step()
    other.load_state_dict(scheduler.state_dict())
    other_optimizer.load_state_dict(scheduler.optimizer.state_dict())
    for _ in range(5):
        for schedule in (scheduler, other):
            schedule.optimizer.step()
            schedule.step()
        assert scheduler.get_last_lr() == other.get_last_lr()
        assert scheduler.optimizer.param_groups[0]["lr"] == other_optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"periods": [2, 4], "restart_weights": [1], "eta_mins": [0, 0]}, "2 periods but 1 restart_weights"),
        ({"periods": [2, 4], "restart_weights": [1, 1], "eta_mins": [0]}, "2 periods but 1 eta_mins"),
        ({"periods": [2, 0], "restart_weights": [1, 1], "eta_mins": [0, 0]}, "periods must be positive"),
    ],
)
def test_periods_that_make_no_schedule_are_refused(options, message):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match=message):
        lr_scheduler.CosineAnnealingRestartCyclicLR(optimizer, **options)
