"""The learnt balance of losses: values by hand, gradients, and where its minimum lies."""

import math

import pytest
import torch

from basicsr.engine.compute.balance import UncertaintyBalance


def balance(**log_scales):
    made = UncertaintyBalance(log_scales)
    for name, value in log_scales.items():
        made.log_scales[name].data = torch.tensor(value, dtype=torch.float64)
    return made


def losses(**values):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def test_value():
    """exp(−s) L + s: with s = ln 2, L = 6 it is 3 + ln 2; with s = −ln 3, L = 5 it is 15 − ln 3."""
    made = balance(l_pix=math.log(2), l_kd=-math.log(3))
    expected = 3 + math.log(2) + 15 - math.log(3)
    assert made(losses(l_pix=6.0, l_kd=5.0)).item() == pytest.approx(expected, rel=1e-12)


def test_it_starts_as_the_plain_sum():
    made = UncertaintyBalance(["l_pix", "l_kd"])
    assert made(losses(l_pix=6.0, l_kd=5.0)).item() == 11.0
    assert made.weights() == {"weight_pix": 1.0, "weight_kd": 1.0}


def test_gradients():
    made = balance(l_pix=0.3, l_kd=-0.7)

    def value(pix, kd, log_scale_pix, log_scale_kd):
        own = {"log_scales.l_pix": log_scale_pix, "log_scales.l_kd": log_scale_kd}
        return torch.func.functional_call(made, own, ({"l_pix": pix, "l_kd": kd},))

    inputs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.5, 0.2, 0.3, -0.7)]
    assert torch.autograd.gradcheck(value, inputs)


@pytest.mark.parametrize("size", [0.02, 1.0, 40.0])
def test_the_minimum_over_a_scale_lies_at_the_logarithm_of_the_loss(size):
    made = balance(l_pix=math.log(size))
    least = made(losses(l_pix=size))
    least.backward()
    assert made.log_scales["l_pix"].grad.item() == pytest.approx(0, abs=1e-12)
    assert least.item() == pytest.approx(1 + math.log(size))
    for elsewhere in (-0.3, 0.3):
        assert balance(l_pix=math.log(size) + elsewhere)(losses(l_pix=size)) > least
    assert made.weights()["weight_pix"].item() == pytest.approx(1 / size)


def test_the_parts_of_one_term_share_a_weight():
    """exp(−ln 2)·(6 + 2) + ln 2: the scale is added once."""
    made = balance(l_up=math.log(2), l_pix=0.0)
    assert made(losses(l_up_in=6.0, l_up_out=2.0)).item() == pytest.approx(4 + math.log(2))


def test_the_longest_name_that_fits_is_meant():
    made = balance(l_kd=math.log(2), l_kd_2=math.log(4))
    assert made(losses(l_kd_2=8.0)).item() == pytest.approx(2 + math.log(4))
    assert made(losses(l_kd_2_in=8.0)).item() == pytest.approx(2 + math.log(4))
    assert made(losses(l_kd=8.0)).item() == pytest.approx(4 + math.log(2))


@pytest.mark.parametrize("name", ["l_other", "l_pixel", "l_p"])
def test_a_loss_of_no_section_is_added_as_it_is(name):
    """Such as one that a recipe computes itself."""
    made = balance(l_pix=math.log(2))
    assert made(losses(l_pix=4.0, **{name: 3.0})).item() == pytest.approx(2 + math.log(2) + 3)
    assert made(losses(**{name: 3.0})).item() == pytest.approx(3)


def test_scales_are_in_the_state():
    state = balance(l_pix=0.5).state_dict()
    other = UncertaintyBalance(["l_pix"])
    other.load_state_dict(state)
    assert other.weights()["weight_pix"].item() == pytest.approx(math.exp(-0.5))
