"""Attention between channels against loops in float64 that follow the formula one pair of channels at a time."""

import math

import pytest
import torch

from basicsr.archs import channel_attention as module
from basicsr.archs.channel_attention import channel_attention, fastest_form

FORMS = ["matmul", "sdpa"]


def channels(batch=2, heads=2, number=5, pixels=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, batch, heads, number, pixels, generator=generator, dtype=torch.float64)
    return q, k, v, torch.rand(heads, 1, 1, generator=generator, dtype=torch.float64) + 0.5


def by_hand(q, k, v, temperature):
    out = torch.empty_like(q)
    for b, h, i in ((b, h, i) for b in range(q.shape[0]) for h in range(q.shape[1]) for i in range(q.shape[2])):
        cosines = [
            float(q[b, h, i] @ k[b, h, j]) / max(float(q[b, h, i].norm()), 1e-12) / max(float(k[b, h, j].norm()), 1e-12)
            for j in range(q.shape[2])
        ]
        weights = [math.exp(float(temperature[h]) * cosine) for cosine in cosines]
        out[b, h, i] = sum(weight / sum(weights) * v[b, h, j] for j, weight in enumerate(weights))
    return out


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e5])
def test_equals_the_formula(form, scale):
    q, k, v, temperature = channels()
    q[0, 1, 2] = 0  # a channel without a length
    expected = by_hand(q, k, v, temperature)
    torch.testing.assert_close(
        channel_attention(q * scale, k * scale, v, temperature, form), expected, rtol=0, atol=1e-12
    )
    single = channel_attention(*((x * s).float() for x, s in zip((q, k, v, temperature), (scale, scale, 1, 1))), form)
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form):
    q, k, v, temperature = channels(batch=1, number=3, pixels=4)
    inputs = [x.requires_grad_() for x in (q, k, v, temperature)]
    assert torch.autograd.gradcheck(lambda *x: channel_attention(*x, form), inputs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_do_not_overflow(form, dtype):
    """The products of channels before their division by the lengths would be 1e8."""
    q, k, v, temperature = channels(pixels=4096)
    exact = by_hand(q, k, v, temperature)
    out = channel_attention((q * 200).to(dtype), (k * 200).to(dtype), v.to(dtype), temperature.to(dtype), form)
    assert out.dtype == dtype
    assert (out.double() - exact).abs().max() < 0.03


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_unless_it_is_measured_the_form_follows_from_what_the_cpu_computes_natively(dtype, monkeypatch):
    q = channels()[0].to(dtype)
    for emulated in ((), (torch.bfloat16,)):
        monkeypatch.setattr(module, "EMULATED", emulated)
        module.FORMS.clear()
        assert fastest_form(q) == ("sdpa" if dtype in emulated else "matmul")
    module.FORMS.clear()


@pytest.mark.parametrize("grad", [True, False])
def test_what_is_timed_is_what_is_computed(grad):
    computations = module._computations((3, 1, 2, 4, 16), torch.float32, grad)
    assert tuple(computations) == module.FORMS.forms
    for compute in computations.values():
        compute()
