import pytest
import torch

from basicsr.engine.compute.finite import FiniteGuard, gradients, step_unless

GOOD = torch.ones(3)
NAN = torch.tensor([1.0, float("nan")])
INF = torch.tensor([float("inf"), 1.0])


def losses(**values):
    return {name: torch.tensor(value) for name, value in values.items()}


@pytest.fixture
def guard():
    return FiniteGuard(torch.device("cpu"), limit=3)


@pytest.mark.parametrize(
    ("grads", "bad"), [([GOOD, GOOD], 0.0), ([GOOD, NAN], 1.0), ([INF, GOOD], 1.0), ([], 0.0), ([GOOD * 1e20], 0.0)]
)
def test_decision(guard, grads, bad):
    assert guard.bad_step(1, losses(l_pix=1.0), grads).item() == bad


def test_names_the_first_loss_and_iteration(guard):
    guard.bad_step(1, losses(l_pix=1.0, l_kd=2.0), [GOOD])
    assert guard.report() is None
    guard.bad_step(2, losses(l_pix=1.0, l_kd=float("nan")), [NAN])
    guard.bad_step(3, losses(l_pix=float("inf"), l_kd=1.0), [NAN])
    assert guard.report() == "2 step(s) were skipped; at iteration 2, the first, l_kd was not finite"
    assert guard.report() is None, "a report is made once"


def test_losses_may_change_from_step_to_step(guard):
    guard.bad_step(1, losses(l_pix=1.0), [GOOD])
    guard.bad_step(2, losses(l_late=float("nan"), l_pix=1.0), [NAN])
    assert "l_late was not finite" in guard.report()


def test_gradients_may_overflow_while_losses_are_finite(guard):
    guard.bad_step(5, losses(l_pix=1.0), [INF])
    assert "at iteration 5, the first, the gradients were not finite" in guard.report()


def test_limit_counts_steps_in_a_row(guard):
    for iteration, grads in enumerate([NAN, NAN, GOOD, NAN, NAN], start=1):
        guard.bad_step(iteration, losses(l_pix=1.0), [grads])
    assert guard.report().startswith("4 step(s)")
    guard.bad_step(6, losses(l_pix=1.0), [NAN])  # the third in a row, over two reports
    with pytest.raises(FloatingPointError, match=r"3 in a row reach train.max_bad_steps \(3\)"):
        guard.report()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("bad", [0.0, 1.0])
def test_step_unless(fused, bad):
    parameter = torch.nn.Parameter(torch.ones(3))
    idle = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    optimizer = torch.optim.Adam([parameter, idle], lr=0.1, fused=fused)
    assert len(gradients([parameter, idle])) == 1
    step_unless(optimizer, torch.tensor(bad))
    assert torch.equal(parameter, torch.ones(3)) == bool(bad)
    assert len(optimizer.state) == (0 if bad else 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_fused_step_is_skipped_on_the_device():
    parameter = torch.nn.Parameter(torch.ones(3, device="cuda"))
    parameter.grad = torch.full((3,), float("nan"), device="cuda")
    optimizer = torch.optim.Adam([parameter], lr=0.1, fused=True)
    step_unless(optimizer, torch.ones((), device="cuda"))
    assert torch.equal(parameter.cpu(), torch.ones(3))
    assert not hasattr(optimizer, "found_inf")
