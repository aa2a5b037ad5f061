"""One gradient step: accumulated, clipped, guarded, scaled; expected updates by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from basicsr.engine.compute.step import GradientStep, without_gradients

CPU = torch.device("cpu")


def make(rate=0.5, **options):
    """A linear map of 3 numbers, its step by gradient descent."""
    torch.manual_seed(0)
    net = nn.Linear(3, 1, bias=False).double()
    return net, GradientStep([torch.optim.SGD(net.parameters(), lr=rate)], CPU, net=net, **options)


def data(count=6):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, n, dtype=torch.float64, generator=generator) for n in (3, 1)]


def squares(net):
    """The mean square between the map's output and the target, of a part (x, target)."""
    return lambda part: {"l_pix": (net(part[0]) - part[1]).square().mean()}


def gradient(weight, x, target):
    """d/dw mean (x w − t)² = 2/N Σ (x w − t) x."""
    return 2 / len(x) * ((x @ weight.t() - target) * x).sum(0, keepdim=True)


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_parts_give_the_gradient_and_the_loss_of_the_whole_batch(parts):
    net, step = make()
    x, target = data()
    before = net.weight.detach().clone()
    losses = step(1, list(zip(x.chunk(parts), target.chunk(parts))), squares(net))
    torch.testing.assert_close(net.weight.detach(), before - 0.5 * gradient(before, x, target), rtol=1e-12, atol=1e-15)
    assert losses["l_pix"].item() == pytest.approx((x @ before.t() - target).square().mean().item(), rel=1e-12)
    assert not losses["l_pix"].requires_grad


def test_gradients_of_an_earlier_step_are_gone():
    net, step = make()
    x, target = data()
    net.weight.grad = torch.full_like(net.weight, 1e3)
    before = net.weight.detach().clone()
    step(1, [(x, target)], squares(net))
    torch.testing.assert_close(net.weight.detach(), before - 0.5 * gradient(before, x, target))


def test_losses_are_added_unless_they_are_combined_otherwise():
    net, step = make()
    x, target = data()
    before = net.weight.detach().clone()

    def losses_of(part):
        return {"l_a": net(x).sum(), "l_b": 3 * net(x).sum()}

    returned = step(1, [None], losses_of)
    torch.testing.assert_close(net.weight.detach(), before - 0.5 * 4 * x.sum(0, keepdim=True))
    assert returned["l_b"].item() == pytest.approx(3 * returned["l_a"].item())
    before = net.weight.detach().clone()
    step(1, [None], losses_of, combine=lambda losses: losses["l_b"] - losses["l_a"])
    torch.testing.assert_close(net.weight.detach(), before - 0.5 * 2 * x.sum(0, keepdim=True))


def test_a_part_without_losses_adds_nothing():
    net, step = make()
    x, target = data()
    before = net.weight.detach().clone()
    losses = step(1, [None, (x, target)], lambda part: {} if part is None else squares(net)(part))
    torch.testing.assert_close(net.weight.detach(), before - 0.25 * gradient(before, x, target))
    assert losses["l_pix"].item() == pytest.approx((x @ before.t() - target).square().mean().item() / 2)


def test_without_losses_everything_stays_as_it_is():
    net = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1.0, weight_decay=0.5)
    step = GradientStep([optimizer], CPU, net=net)
    before = net.weight.detach().clone()
    assert step(1, [None, None], lambda part: {}) == {}
    assert torch.equal(net.weight, before) and net.weight.grad is None
    assert not optimizer.state
    assert step.guard.report() is None


def test_clipping_shortens_a_long_gradient_of_the_network():
    net, step = make(clip=1e-2)
    x, target = data()
    before = net.weight.detach().clone()
    expected = gradient(before, x, target)
    assert expected.norm() > 1e-2
    step(1, [(x, target)], squares(net))
    moved = (net.weight.detach() - before) / -0.5
    torch.testing.assert_close(moved, 1e-2 * expected / expected.norm(), rtol=1e-4, atol=0)


def test_clipping_leaves_a_short_gradient_and_what_is_not_the_network():
    net, _ = make()
    other = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    step = GradientStep([torch.optim.SGD([*net.parameters(), other], lr=1.0)], CPU, net=net, clip=1.0)
    before = net.weight.detach().clone()
    step(1, [None], lambda part: {"l": 0.1 * net.weight.sum() + 100 * other})
    torch.testing.assert_close(net.weight.detach(), before - 0.1)
    assert other.item() == pytest.approx(2.0 - 100)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_that_is_not_finite_is_skipped_by_all_optimisers(bad, scaled):
    """Also by those whose own gradients are finite; the next step is taken again."""
    nets = [nn.Linear(2, 1, bias=False) for _ in range(2)]
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.1) for net in nets]
    step = GradientStep(optimizers, CPU, net=nets[0], scaled=scaled)
    before = [net.weight.detach().clone() for net in nets]

    def losses_of(factor):
        return {"l_good": nets[0].weight.sum(), "l_bad": factor * nets[1].weight.sum()}

    step(7, [1.0, bad], losses_of)
    assert all(torch.equal(net.weight, old) for net, old in zip(nets, before))
    assert not any(optimizer.state for optimizer in optimizers)
    assert step.guard.report() == "1 step(s) were skipped; at iteration 7, the first, l_bad was not finite"
    step(8, [1.0], losses_of)
    for net, old in zip(nets, before):
        torch.testing.assert_close(net.weight.detach(), old - 0.1, rtol=1e-5, atol=1e-6)
    assert step.guard.report() is None


def test_too_many_skipped_steps_end_the_training():
    net, step = make(max_bad_steps=2)
    for iteration in (1, 2):
        step(iteration, [None], lambda part: {"l": math.nan * net.weight.sum()})
    with pytest.raises(FloatingPointError, match=r"2 in a row reach train.max_bad_steps \(2\)"):
        step.guard.report()


def test_every_optimiser_takes_the_step_at_its_own_rate():
    net, _ = make()
    other = nn.Parameter(torch.zeros(2))
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1), torch.optim.SGD([other], lr=0.2)]
    step = GradientStep(optimizers, CPU, net=net)
    before = net.weight.detach().clone()
    step(1, [None], lambda part: {"l": net.weight.sum() + 3 * other.sum()})
    torch.testing.assert_close(net.weight.detach(), before - 0.1)
    torch.testing.assert_close(other.detach(), torch.full((2,), -0.6))
    assert [id(p) for p in step.parameters] == [id(net.weight), id(other)]


def test_a_scaled_loss_gives_the_same_step():
    """What the loss is multiplied by is taken out of the gradient before it is clipped and used."""
    weights = []
    for scaled in (False, True):
        net, step = make(scaled=scaled, clip=0.5)
        net.float()
        x, target = (t.float() for t in data())
        seen = []
        net.weight.register_hook(lambda grad, seen=seen: seen.append(grad.clone()))
        before = net.weight.detach().clone()
        step(1, [(x, target)], squares(net))
        assert step.scaler.get_scale() == (65536.0 if scaled else 1.0)
        expected = (65536 if scaled else 1) * gradient(before, x, target)
        torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-6)
        weights.append(net.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-6, atol=1e-7)


def test_the_scale_halves_where_gradients_overflow_and_is_in_the_state():
    net, step = make(scaled=True)
    net.float()
    step(1, [None], lambda part: {"l": math.inf * net.weight.sum()})
    assert step.scaler.get_scale() == 32768.0
    state = copy.deepcopy(step.state())
    other = make(scaled=True)[1]
    other.load_state(state)
    assert other.scaler.get_scale() == 32768.0
    other.load_state({})  # of a run that was not scaled
    assert other.scaler.get_scale() == 32768.0
    plain = make()[1]
    assert plain.state() == {}
    plain.load_state(state)
    assert plain.scaler.get_scale() == 1.0


def test_parameters_without_gradients_in_a_block():
    trained, frozen = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False)
    x = torch.ones(1, requires_grad=True)
    with without_gradients([trained, frozen]):
        assert not trained.requires_grad
        (trained * frozen * x).backward()
    assert trained.grad is None and x.grad.item() == 1
    assert trained.requires_grad and not frozen.requires_grad
    with pytest.raises(RuntimeError, match="inside"), without_gradients([trained]):
        raise RuntimeError("inside")
    assert trained.requires_grad
