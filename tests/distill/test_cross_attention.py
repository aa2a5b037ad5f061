"""Attention in blocks against the formula with the whole matrix of scores."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from basicsr.distill import cross_attention as module
from basicsr.distill.cross_attention import cross_attention

AXES = ("keys", "queries")


def vectors(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def three(dtype=torch.float64, images=2, queries=7, keys=5, width=4):
    """Queries, keys and values of different numbers and widths."""
    sizes = ((queries, 3), (keys, 3), (keys, width))
    return [vectors(images, *size, dtype=dtype, seed=seed) for seed, size in enumerate(sizes)]


def naive(query, key, value, temperature, axis):
    """The formula, exponential by exponential."""
    scores = torch.einsum("bnc,bmc->bnm", query, key) / temperature
    weights = (scores - scores.amax((1, 2), keepdim=True)).exp()
    return torch.einsum("bnm,bmd->bnd", weights / weights.sum(2 if axis == "keys" else 1, keepdim=True), value)


@pytest.fixture(params=[(2**20, 128), (40, 1), (10, 2), (1, 1)], ids=["one block", "images", "rows", "single rows"])
def block_size(request, monkeypatch):
    for name, value in zip(("BLOCK_SCORES", "BLOCK_ROWS"), request.param):
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("axis", AXES)
def test_it_is_the_formula_in_blocks_of_any_size(block_size, axis):
    inputs = three()
    upstream = torch.randn(2, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    results = []
    for attend in (naive, lambda *args: cross_attention(*args, form="blocks")):
        out = attend(*inputs, 0.7, axis)
        results.append((out, *torch.autograd.grad(out, inputs, upstream)))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("axis", AXES)
def test_gradcheck(block_size, axis):
    assert torch.autograd.gradcheck(lambda q, k, v: cross_attention(q, k, v, 0.6, axis, form="blocks"), three())


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("trained", [(0,), (1,), (2,), (0, 2)])
def test_gradients_of_some_inputs_alone(axis, trained):
    inputs = [x.detach().requires_grad_(i in trained) for i, x in enumerate(three())]
    wanted = [inputs[i] for i in trained]
    results = [
        torch.autograd.grad(attend(*inputs, 0.7, axis).square().sum(), wanted) for attend in (naive, cross_attention)
    ]
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", ["blocks", "sdpa"])
def test_float32_is_within_a_millionth(form):
    inputs = three(torch.float32, queries=300, keys=200, width=3)
    out = cross_attention(*inputs, 0.5, form=form)
    exact = naive(*(x.double() for x in inputs), 0.5, "keys")
    assert (out - exact).abs().max() < 1e-6 * exact.abs().max()
    upstream = torch.ones_like(out)
    gradients = torch.autograd.grad(out, inputs, upstream)
    expected = torch.autograd.grad(exact, inputs, upstream.double())
    for one, other in zip(gradients, expected):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5)


def test_by_hand():
    """One query, two keys with scores ln 3 and 0: weights 3/4 and 1/4; over the queries there is nothing to share."""
    query = torch.tensor([[[1.0]]], dtype=torch.float64)
    key = torch.tensor([[[3.0], [1.0]]], dtype=torch.float64).log()
    value = torch.tensor([[[4.0], [8.0]]], dtype=torch.float64)
    assert cross_attention(query, key, value, 1.0).item() == pytest.approx(0.75 * 4 + 0.25 * 8, rel=1e-12)
    assert cross_attention(query, key, value, 1.0, "queries").item() == pytest.approx(4 + 8, rel=1e-12)
    assert cross_attention(query, key, value, 0.5).item() == pytest.approx(0.9 * 4 + 0.1 * 8, rel=1e-12)


@pytest.mark.parametrize("axis", AXES)
def test_a_temperature_of_a_millionth_chooses_the_highest_score(axis):
    query, key, value = (x.float().detach().requires_grad_() for x in three(images=1, queries=6, keys=6))
    out = cross_attention(query, key, value, 1e-6, axis)
    scores = query[0] @ key[0].mT
    chosen = torch.zeros(6, 6)
    if axis == "keys":
        chosen[torch.arange(6), scores.argmax(1)] = 1
    else:
        chosen[scores.argmax(0), torch.arange(6)] = 1
    torch.testing.assert_close(out[0], chosen @ value[0])
    (gradient,) = torch.autograd.grad(out.sum(), value)
    torch.testing.assert_close(gradient[0], chosen.mT @ torch.ones_like(value[0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_are_computed_in_float32(dtype):
    inputs = [x.detach().to(dtype) for x in three()]
    expected = cross_attention(*(x.float() for x in inputs), 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        out = cross_attention(*inputs, 0.1, form="blocks")
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("axis", AXES)
def test_one_query_one_key_one_channel(axis):
    query, key, value = (vectors(1, 1, 1, seed=seed) for seed in range(3))
    out = cross_attention(query, key, value, 0.3, axis)
    assert torch.equal(out, value)
    assert torch.autograd.grad(out.sum(), query)[0].item() == 0


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, torch.Tensor):
                self.elements = max(self.elements, made.untyped_storage().nbytes() // made.element_size())
        return result


@pytest.mark.parametrize(("axis", "form"), [("keys", "blocks"), ("queries", "blocks"), ("keys", "sdpa")])
def test_no_tensor_has_the_size_of_the_scores(monkeypatch, axis, form):
    monkeypatch.setattr(module, "BLOCK_SCORES", 2**12)
    monkeypatch.setattr(module, "BLOCK_ROWS", 4)
    positions = 1024
    query, key, value = (vectors(1, positions, 4, dtype=torch.float32, seed=seed) for seed in range(3))
    with LargestTensor() as largest:
        cross_attention(query, key, value, 1.0, axis, form=form).square().sum().backward()
    assert query.grad.any()
    assert largest.elements <= 8 * positions, "4 channels, or 4 rows of scores; the scores are 1024 times as many"
    with LargestTensor() as largest:
        naive(query, key, value, 1.0, axis)
    assert largest.elements == positions**2


def test_the_form_is_measured_where_it_may_be(monkeypatch):
    asked = []
    monkeypatch.setattr(module.FORMS, "fastest", lambda *args: asked.append(args[1:3]) or "blocks")
    inputs = [x.detach().requires_grad_(i != 1) for i, x in enumerate(three(torch.float32))]
    cross_attention(*inputs, 1.0)
    assert not asked, "values of another width are not measured"
    query, key = inputs[:2]
    out = cross_attention(query, key, key, 1.0)
    assert asked == [(("8N", "3C", "grad"), "sdpa")]
    assert (out - naive(query.double(), key.double(), key.double(), 1.0, "keys")).abs().max() < 1e-6


def test_both_forms_can_be_timed():
    for compute in module._computations((1, 8, 3), torch.float32, True).values():
        compute()
