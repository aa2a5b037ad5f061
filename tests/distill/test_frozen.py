import torch
from torch import nn

from basicsr.distill.frozen import FrozenNetwork


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout(0.5))


def test_is_frozen_whatever_happens_around_it():
    frozen = FrozenNetwork(make_net(), "t")
    nn.ModuleList([frozen]).train()
    assert not any(module.training for module in frozen.modules())
    assert not any(p.requires_grad for p in frozen.parameters())
    x = torch.rand(2, 3, 8, 8)
    before = frozen.net[1].running_mean.clone()
    torch.testing.assert_close(frozen(x), frozen(x), rtol=0, atol=0)
    assert torch.equal(before, frozen.net[1].running_mean)


def test_gradients_reach_the_input_but_no_parameter():
    frozen = FrozenNetwork(make_net(), "vgg")
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    frozen(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in frozen.parameters())


def test_input_normalisation_and_its_inverse():
    mean, std = [0.5, 0.4, 0.3], [0.5, 0.25, 2.0]
    net = nn.Conv2d(3, 3, 1)
    frozen = FrozenNetwork(net, "t", mean=mean, std=std)
    x = torch.rand(1, 3, 4, 4)
    m, s = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(frozen(x), net((x - m) / s) * s + m)


def test_further_inputs_reach_the_network():
    class Prompted(nn.Module):
        def forward(self, x, prompt, strength=1.0):
            return strength * x + prompt

    x, prompt = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 1, 1)
    frozen = FrozenNetwork(Prompted(), "t", mean=[0.5] * 3, std=[0.25] * 3)
    expected = (2 * ((x - 0.5) / 0.25) + prompt) * 0.25 + 0.5
    torch.testing.assert_close(frozen(x, prompt=prompt, strength=2.0), expected)


def test_bf16_computes_roughly_the_same_and_returns_float32():
    net = nn.Conv2d(3, 3, 3)
    x = torch.rand(1, 3, 8, 8)
    exact = FrozenNetwork(net, "t")(x)
    rough = FrozenNetwork(net, "t", precision="bf16")(x)
    assert rough.dtype is torch.float32
    assert 0 < (rough - exact).abs().max() < 0.02


def test_weights_are_stored_as_autocast_makes_them():
    net = make_net()
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = net.eval()(x).float()
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    frozen = FrozenNetwork(net, "t", precision="bf16")
    assert frozen.net[0].weight.dtype == torch.bfloat16
    assert frozen.net[1].weight.dtype == torch.float32
    output = frozen(x)
    assert torch.equal(output, expected)
    assert torch.equal(torch.autograd.grad(output.square().sum(), x)[0], gradient)
