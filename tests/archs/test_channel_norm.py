"""Layer norm over channels against its formula in float64, in each of its forms."""

import pytest
import torch

from basicsr.archs.channel_norm import LayerNorm2d, channel_norm


def by_hand(x, weight, bias, eps):
    out = torch.empty_like(x)
    for b, i, j in ((b, i, j) for b in range(x.shape[0]) for i in range(x.shape[2]) for j in range(x.shape[3])):
        pixel = x[b, :, i, j]
        mean = sum(pixel) / len(pixel)
        variance = sum((value - mean) ** 2 for value in pixel) / len(pixel)
        top = pixel if bias is None else pixel - mean
        out[b, :, i, j] = top / (variance + eps).sqrt() * weight + (0 if bias is None else bias)
    return out


def pixels(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64) * 3 + 2
    return x, *torch.randn(2, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_the_formula(with_bias, memory_format):
    x, weight, bias = pixels()
    bias = bias if with_bias else None
    expected = by_hand(x, weight, bias, 1e-3)
    x = x.contiguous(memory_format=memory_format)
    torch.testing.assert_close(channel_norm(x, weight, bias, 1e-3), expected, rtol=0, atol=1e-12)
    small = [None if value is None else value.float() for value in (x, weight, bias)]
    torch.testing.assert_close(channel_norm(*small, 1e-3).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("with_bias", [True, False])
def test_bfloat16_is_summed_in_float32(with_bias):
    x, weight, bias = (value.bfloat16() for value in pixels())
    bias = bias if with_bias else None
    out = channel_norm(x, weight, bias, 1e-5)
    exact = by_hand(x.double(), weight.double(), bias.double() if with_bias else None, 1e-5)
    assert out.dtype == torch.bfloat16
    assert ((out.double() - exact).abs() <= exact.abs() / 100 + 0.01).all()


@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients(with_bias):
    inputs = [value.requires_grad_() for value in pixels()[: 3 if with_bias else 2]]
    assert torch.autograd.gradcheck(lambda x, w, b=None: channel_norm(x, w, b, 1e-3), inputs)


def test_the_module_starts_as_plain_normalisation():
    x = torch.randn(1, 6, 2, 2) + 5
    out = LayerNorm2d(6)(x)
    torch.testing.assert_close(out, (x - x.mean(1, True)) / (x.var(1, False, True) + 1e-6).sqrt())


def test_the_same_with_and_without_gradients_and_of_frozen_weights():
    x, weight, bias = pixels()
    with torch.no_grad():
        expected = channel_norm(x, weight, bias, 1e-3)
    kept = x.clone()
    out = channel_norm(x.requires_grad_(), weight, bias, 1e-3)  # as in a frozen encoder
    assert torch.equal(out, expected) and torch.equal(x, kept)
    (grad,) = torch.autograd.grad(out.square().sum(), x)
    formula = by_hand(x, weight, bias, 1e-3)
    torch.testing.assert_close(grad, torch.autograd.grad(formula.square().sum(), x)[0], rtol=0, atol=1e-10)
    trained = weight.clone().requires_grad_()
    (grad,) = torch.autograd.grad(channel_norm(kept, trained, bias, 1e-3).square().sum(), trained)
    formula = by_hand(kept, trained, bias, 1e-3)
    torch.testing.assert_close(grad, torch.autograd.grad(formula.square().sum(), trained)[0], rtol=0, atol=1e-10)


def test_gradients_of_gradients_are_refused():
    x, weight, bias = (value.requires_grad_() for value in pixels())
    (grad,) = torch.autograd.grad(channel_norm(x, weight, bias, 1e-3).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grad.square().sum(), x)
