"""Terms that are networks for other terms."""

import pytest
import torch
from torch import nn

from basicsr.distill.term import KDTerm
from basicsr.utils.registry import KD_REGISTRY

from .helpers import NETWORKS, build, distil, network, small_batch, take_step


@KD_REGISTRY.register()
class MeanOfTeachers(KDTerm):
    """A network: ``factor`` times the mean of two teachers, the factor being known after ``setup`` alone."""

    def setup(self, networks):
        networks.require_same_output("t")
        self.factor = nn.Parameter(torch.tensor(0.5))
        self.asked = []

    def as_network(self, ctx, key, image):
        self.asked.append(key)
        if key != "lq":
            for name in ("t", "t_2"):
                ctx.want(name, key, image)
        return self.factor * (ctx.run("t", key).output + ctx.run("t_2", key).output) / 2

    def forward(self, ctx):
        return ctx.output.mean()


@pytest.mark.parametrize("first", ["kd", "mean"])
def test_a_term_is_a_network_for_those_before_and_after_it(first):
    networks = {**NETWORKS, "t_2": {"type": "Doubler", "shift": 0.9}}
    terms = {"kd": {"type": "LogitsKD", "teacher": "mean"}, "mean": {"type": "MeanOfTeachers"}}
    distillation = distil(dict(sorted(terms.items(), key=lambda item: item[0] != first)), networks)
    distillation.terms["mean"].asked.clear()
    batch = small_batch()
    _, losses = take_step(distillation, batch.lq, output=batch.output)
    teachers = [network(distillation, name) for name in ("t", "t_2")]
    assert [teacher.passes for teacher in teachers] == [[2], [2]]
    assert distillation.terms["mean"].asked == ["lq"]
    with torch.no_grad():
        target = 0.25 * (teachers[0](batch.lq) + teachers[1](batch.lq))
        assert losses["l_kd"].item() == pytest.approx((batch.output - target).abs().mean().item())
    losses["l_kd"].backward()
    assert batch.output.grad.abs().sum() > 0
    assert distillation.terms["mean"].factor.grad is None, "a target does not move towards the student"


def test_a_term_as_network_sees_views_too():
    networks = {**NETWORKS, "t_2": {"type": "Doubler", "shift": 0.9}}
    terms = {"lcr": {"type": "LCR", "teacher": "mean", "prob": 0.0}, "mean": {"type": "MeanOfTeachers"}}
    distillation = distil(terms, networks)
    batch = small_batch()
    _, losses = take_step(distillation, batch.lq, output=batch.output)
    teachers = [network(distillation, name) for name in ("t", "t_2")]
    assert [teacher.passes for teacher in teachers] == [[2], [2]]
    with torch.no_grad():
        target = 0.25 * (teachers[0](batch.lq) + teachers[1](batch.lq))
    assert losses["l_lcr"].item() == pytest.approx((batch.output - target).abs().mean().item())


def test_a_term_may_not_have_the_name_of_another_network():
    networks = {**NETWORKS, "t_2": {"type": "Doubler"}}
    message = "train.kd_opt.t_2 is a network for other terms, but network_t_2 is one already"
    with pytest.raises(ValueError, match=message):
        build({"t_2": {"type": "MeanOfTeachers"}}, networks)
    with pytest.raises(ValueError, match="train.kd_opt.g is a network"):
        build({"g": {"type": "MeanOfTeachers"}}, networks)
    build({"t_2": {"type": "LogitsKD"}}, networks)  # not a network


def test_a_term_that_is_not_a_network_is_not_found_as_one():
    with pytest.raises(ValueError, match="train.kd_opt.a: b .LogitsKD. is a term and not a network"):
        build({"a": {"type": "LogitsKD", "teacher": "b"}, "b": {"type": "LogitsKD"}})
