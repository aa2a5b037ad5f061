import pytest
import torch
from torch import nn

from basicsr.engine.compute.ema import update_ema


def test_parameters_and_buffers_are_averaged():
    ema, net = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    with torch.no_grad():
        ema.weight.fill_(2.0)
        net.weight.fill_(4.0)
        ema.running_mean.fill_(1.0)
        net.running_mean.fill_(-1.0)
        net.num_batches_tracked.fill_(7)
    update_ema(ema, net, 0.75)
    assert ema.weight.item() == pytest.approx(2.5)
    assert ema.running_mean.item() == pytest.approx(0.5)
    assert ema.num_batches_tracked.item() == 7
    assert net.weight.item() == 4.0


def test_decay_zero_copies_exactly():
    torch.manual_seed(0)
    ema, net = nn.Linear(5, 5), nn.Linear(5, 5)
    update_ema(ema, net, 0)
    assert torch.equal(ema.weight, net.weight)
    assert ema.weight.data_ptr() != net.weight.data_ptr()


def test_many_steps_equal_the_closed_form():
    """With a constant network, ema_n = net + decay^n (ema_0 − net)."""
    ema, net = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    start = ema.weight.detach().clone()
    for _ in range(50):
        update_ema(ema, net, 0.9)
    torch.testing.assert_close(ema.weight, net.weight + 0.9**50 * (start - net.weight), rtol=1e-12, atol=1e-12)


def test_constant_buffers_stay_as_they_are():
    """Tables such as attention masks must not drift by rounding."""
    ema, net = nn.Module(), nn.Module()
    for module in (ema, net):
        module.register_buffer("mask", torch.tensor([0.0, -100.0, 0.1, float("-inf")]))
    for _ in range(10):
        update_ema(ema, net, 0.999)
    assert torch.equal(ema.mask, net.mask)
