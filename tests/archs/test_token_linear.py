import pytest
import torch

from basicsr.archs import token_linear
from basicsr.archs.token_linear import TokenLinear


@pytest.mark.parametrize("form", ["linear", "conv"])
@pytest.mark.parametrize("tokens", [32, 7])
def test_it_is_a_linear_layer_in_each_form(tokens, form, monkeypatch):
    monkeypatch.setattr(token_linear, "DEFAULT", form)
    token_linear.FORMS.clear()
    layer = TokenLinear(5, 3)
    x = torch.randn(2, tokens, 5, requires_grad=True)
    upstream = torch.randn(2, tokens, 3)
    exact = x.double() @ layer.weight.double().T + layer.bias.double()
    expected = torch.autograd.grad(exact, (x, layer.weight, layer.bias), upstream.double())
    out = layer(x)
    assert ("Convolution" in _nodes(out)) == (form == "conv")
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=1e-5)
    for grad, reference in zip(
        torch.autograd.grad(out, (x, layer.weight, layer.bias), upstream), expected, strict=True
    ):
        torch.testing.assert_close(grad, reference, rtol=0, atol=1e-4)
    token_linear.FORMS.clear()


def _nodes(out) -> str:
    """The names of the operations that made a tensor."""
    names, waiting = [], [out.grad_fn]
    while waiting:
        node = waiting.pop()
        names.append(node.name())
        waiting += [following for following, _ in node.next_functions if following is not None]
    return " ".join(names)


def test_other_dtypes_and_autocast_take_the_linear_layer(monkeypatch):
    monkeypatch.setattr(TokenLinear, "_form", lambda *_: pytest.fail("no form is chosen there"))
    x = torch.randn(4, 5)
    assert TokenLinear(5, 3).double()(x.double()).dtype is torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert TokenLinear(5, 3)(x).dtype is torch.bfloat16


def test_what_is_timed_is_what_is_computed():
    for grad in (True, False):
        computations = token_linear._computations(16, 5, 3, grad)
        assert tuple(computations) == token_linear.FORMS.forms
        for compute in computations.values():
            compute()
