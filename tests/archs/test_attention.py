"""Window attention against loops in float64 that follow the formula one pair of tokens at a time."""

import math

import pytest
import torch

from basicsr.archs import attention
from basicsr.archs.attention import (
    fastest_form,
    relative_position_bias,
    relative_position_index,
    shift_mask,
    window_attention,
)

FORMS = ["matmul", "sdpa"]


def tokens(batch=2, windows=3, heads=2, n=4, dim=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(3, batch, windows, heads, n, dim, generator=generator, dtype=torch.float64)
    bias = torch.randn(heads, n, n, generator=generator, dtype=torch.float64)
    mask = -100.0 * (torch.rand(windows, n, n, generator=generator) < 0.3)
    mask.diagonal(dim1=1, dim2=2).zero_()
    return qkv.to(dtype), bias.to(dtype), mask.to(dtype)


def by_hand(qkv, bias, mask, scale):
    """softmax(scale · q kᵀ + bias + mask) v, one query at a time."""
    q, k, v = qkv
    out = torch.empty_like(q)
    for b, w, h, i in ((b, w, h, i) for b in range(q.shape[0]) for w in range(q.shape[1])
                       for h in range(q.shape[2]) for i in range(q.shape[3])):  # fmt: skip
        logits = [scale * float(q[b, w, h, i] @ k[b, w, h, j]) + float(bias[h, i, j]) + float(mask[w, i, j])
                  for j in range(q.shape[3])]  # fmt: skip
        weights = [math.exp(x - max(logits)) for x in logits]
        out[b, w, h, i] = sum(x / sum(weights) * v[b, w, h, j] for j, x in enumerate(weights))
    return out


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_formula(form, masked):
    qkv, bias, mask = tokens()
    expected = by_hand(qkv, bias, mask if masked else torch.zeros_like(mask), 0.3)
    out = window_attention(qkv, bias, mask if masked else None, scale=0.3, form=form)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_the_default_scale_is_that_of_the_head_width(form):
    qkv, bias, mask = tokens(dim=9)
    expected = by_hand(qkv, bias, mask, 1 / 3)
    torch.testing.assert_close(window_attention(qkv, bias, mask, form=form), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("masked", [False, True])
def test_gradients(form, masked):
    qkv, bias, mask = tokens(batch=2, windows=2, heads=2, n=3, dim=2)
    function = lambda x, b: window_attention(x, b, mask[:2] if masked else None, form=form)  # noqa: E731
    assert torch.autograd.gradcheck(function, (qkv.requires_grad_(), bias.requires_grad_()))
    assert torch.autograd.gradcheck(lambda b: function(qkv.detach(), b), (bias,))
    assert torch.autograd.gradcheck(lambda x: function(x, bias.detach()), (qkv,))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("windows", [1, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_both_forms_agree_and_leave_their_inputs_alone(batch, windows, masked):
    qkv, bias, mask = tokens(batch, windows, heads=3, n=16, dim=10, dtype=torch.float32)
    mask = mask if masked else None
    before = [x.clone() for x in (qkv, bias) + ((mask,) if masked else ())]
    results = {}
    for form in FORMS:
        x, b = qkv.clone().requires_grad_(), bias.clone().requires_grad_()
        out = window_attention(x, b, mask, form=form)
        out.square().sum().backward()
        with torch.no_grad():
            torch.testing.assert_close(window_attention(qkv, bias, mask, form=form), out.detach())
        results[form] = out.detach(), x.grad, b.grad
    for one, other in zip(*results.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for x, y in zip(before, (qkv, bias) + ((mask,) if masked else ()), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_is_as_near_as_its_precision_allows(form):
    qkv, bias, mask = tokens(n=16, dim=10)
    exact = window_attention(qkv, bias, mask, form="sdpa")
    out = window_attention(qkv.bfloat16(), bias.float(), mask.float(), form=form)
    assert out.dtype == torch.bfloat16
    assert (out.double() - exact).abs().max() < 0.06


def test_the_dtype_of_the_tokens_holds_under_autocast():
    qkv, bias, mask = tokens(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = window_attention(qkv.requires_grad_(), bias, mask, form="matmul")
    torch.testing.assert_close(out.double(), by_hand(qkv.detach(), bias, mask, 5**-0.5).double(), rtol=0, atol=1e-5)


def test_dropout_is_left_to_pytorch_and_unbiased():
    qkv, bias, _ = tokens(n=16)
    assert fastest_form(qkv, 0.1) == "sdpa"
    torch.manual_seed(0)
    mean = torch.stack([window_attention(qkv, bias, dropout_p=0.2) for _ in range(400)]).mean(0)
    assert (mean - window_attention(qkv, bias)).abs().max() < 0.25


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_unless_it_is_measured_the_form_follows_from_what_the_cpu_computes_natively(dtype, monkeypatch):
    qkv, _, _ = tokens(dtype=dtype)
    for emulated in ((), (torch.bfloat16,)):
        monkeypatch.setattr(attention, "EMULATED", emulated)
        attention.FORMS.clear()
        assert fastest_form(qkv) == ("sdpa" if dtype in emulated else "matmul")
    attention.FORMS.clear()


@pytest.mark.parametrize("grad", [True, False])
def test_what_is_timed_is_what_is_computed(grad):
    computations = attention._computations((3, 1, 2, 2, 4, 5), torch.float32, grad)
    assert tuple(computations) == attention.FORMS.forms
    for compute in computations.values():
        compute()


@pytest.mark.parametrize("window", [1, 2, 7])
def test_the_bias_depends_on_the_offset_alone(window):
    table = torch.randn((2 * window - 1) ** 2, 3)
    bias = relative_position_bias(table, relative_position_index(window))
    grid = table.view(2 * window - 1, 2 * window - 1, 3)
    for i in range(window * window):
        for j in range(window * window):
            dy, dx = i // window - j // window, i % window - j % window
            assert torch.equal(bias[:, i, j], grid[dy + window - 1, dx + window - 1])


@pytest.mark.parametrize(
    ("height", "width", "window", "shift"), [(4, 4, 4, 2), (8, 12, 4, 2), (14, 7, 7, 3), (6, 6, 3, 1)]
)
def test_the_mask_separates_what_the_shift_brings_together(height, width, window, shift):
    mask = shift_mask(height, width, window, shift)
    rows, columns = height // window, width // window
    assert mask.shape == (rows * columns, window**2, window**2)
    for index in range(rows * columns):
        # Where each token of the window stood before the roll; those that crossed the border came from the other side.
        crossed = []
        for i in range(window**2):
            y = index // columns * window + i // window + shift
            x = index % columns * window + i % window + shift
            crossed.append((y >= height, x >= width))
        for i in range(window**2):
            for j in range(window**2):
                assert mask[index, i, j] == (0.0 if crossed[i] == crossed[j] else -100.0)
