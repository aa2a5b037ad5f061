"""Terms that train a network of their own, such as a critic: constant in the student's step, trained after it."""

import math

import pytest
import torch
from torch import nn

from basicsr.distill.term import KDTerm
from basicsr.utils.registry import KD_REGISTRY

from .helpers import distil, network, small_batch, take_step


@KD_REGISTRY.register()
class Critic(KDTerm):
    """A factor that it trains itself, and an offset that trains with the student."""

    def __init__(self, size: float = 2.0):
        super().__init__()
        self.size = size
        self.factor = nn.Parameter(torch.tensor(size))
        self.offset = nn.Parameter(torch.tensor(0.0))
        self.seen = []

    def optimizers(self, networks):
        return [torch.optim.SGD([self.factor], lr=0.1)]

    def prepare(self, ctx):
        ctx.want("g", "flipped", ctx.lq.flip(3))

    def forward(self, ctx):
        assert not self.factor.requires_grad and self.offset.requires_grad
        ctx.run("g", "flipped")
        return self.factor * (ctx.output.mean() + self.offset)

    def own_loss(self, ctx):
        assert self.factor.requires_grad
        passes = ctx.output, ctx.run("g", "flipped").output, ctx.run("t").output
        self.seen.append([image.requires_grad for image in passes])
        ctx.log("mean", ctx.output.mean())
        return (self.factor * ctx.output.mean() - 1).square()


@KD_REGISTRY.register()
class FactorOfOutput(KDTerm):
    """A network that it trains itself: ``factor`` times the image."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def optimizers(self, networks):
        return [torch.optim.SGD([self.factor], lr=0.1)]

    def as_network(self, ctx, key, image):
        return self.factor * image.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def prepare(self, ctx):
        ctx.want(self.name)

    def forward(self, ctx):
        return (ctx.output - ctx.run(self.name).output).mean()

    def own_loss(self, ctx):
        ctx.want(self.name, "own", ctx.lq.flip(2))
        return ctx.run(self.name, "own").output.mean()


def make(terms=None):
    return distil(terms or {"critic": {"type": "Critic"}, "kd": {"type": "LogitsKD"}})


def test_its_parameters_are_not_the_student_s():
    distillation = make()
    term = distillation.terms["critic"]
    assert distillation.parameter_groups() == [{"params": [term.offset]}]
    (optimizer,) = distillation.optimizers
    assert optimizer.param_groups[0]["params"] == [term.factor]
    (step,) = distillation.steps
    assert step.optimizers == [optimizer]


def test_it_is_constant_in_the_student_s_step():
    distillation = make()
    term = distillation.terms["critic"]
    _, losses = take_step(distillation, small_batch().lq)
    assert term.factor.requires_grad, "until the end of the call only"
    losses["l_critic"].backward()
    assert term.factor.grad is None
    assert term.offset.grad.item() == pytest.approx(2.0)
    assert network(distillation, "g").shift.grad.item() == pytest.approx(2.0)


def test_it_is_trained_by_its_own_loss_on_passes_without_gradients():
    """d/df (f m − 1)² = 2 (f m − 1) m for the mean m of the output."""
    distillation = make()
    term = distillation.terms["critic"]
    ctx, _ = take_step(distillation, small_batch().lq)
    mean = ctx.output.mean().item()
    distillation.pop_logs()
    losses = distillation.train_own(1)
    assert term.factor.item() == pytest.approx(2.0 - 0.1 * 2 * (2.0 * mean - 1) * mean)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(
        {"l_critic_own": (2.0 * mean - 1) ** 2}
    )
    assert term.seen == [[False, False, False]]
    assert network(distillation, "g").shift.grad is None and term.offset.grad is None
    assert float(distillation.pop_logs()["critic_mean"]) == pytest.approx(mean)
    assert network(distillation, "g").passes == [2, 2] and network(distillation, "t").passes == [2], (
        "nothing runs again"
    )


@KD_REGISTRY.register()
class NamedTwice(KDTerm):
    """Gives ``label`` in the student's step, and again in its own."""

    def __init__(self, own: str = "x", label: str = "x"):
        super().__init__()
        self.own, self.label = own, label
        self.factor = nn.Parameter(torch.tensor(2.0))

    def optimizers(self, networks):
        return [torch.optim.SGD([self.factor], lr=0.1)]

    def forward(self, ctx):
        return {self.label: ctx.output.mean()}

    def own_loss(self, ctx):
        return {self.own: self.factor * ctx.output.mean()}


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"twice": {"own": "x"}}, "kd_opt.twice: own_loss gives l_twice_x, which is the name of another loss"),
        ({"kd": {"own": "a_y"}, "kd_a": {"own": "y", "label": "z"}}, "kd_opt.kd_a: own_loss gives l_kd_a_y, which"),
        ({"twice": {"own": "y"}}, None),
    ],
)
def test_a_name_that_another_loss_has_is_refused(terms, message):
    distillation = make({name: {"type": "NamedTwice", **section} for name, section in terms.items()})
    _, losses = take_step(distillation, small_batch().lq)
    if message is None:
        assert list(distillation.train_own(1, losses)) == ["l_twice_y"]
    else:
        with pytest.raises(ValueError, match=message):
            distillation.train_own(1, losses)


def test_parts_of_a_batch_are_one_step():
    distillation = make()
    term = distillation.terms["critic"]
    lq = small_batch().lq
    means = [take_step(distillation, part)[0].output.mean().item() for part in lq.split(1)]
    distillation.train_own(1)
    gradients = [2 * (2.0 * mean - 1) * mean for mean in means]
    assert term.factor.item() == pytest.approx(2.0 - 0.1 * sum(gradients) / 2)


def test_passes_are_let_go_after_the_step():
    distillation = make()
    take_step(distillation, small_batch().lq)
    assert distillation.train_own(1) != {}
    assert distillation.train_own(2) == {}


def test_it_is_not_trained_where_the_term_is_not_active():
    distillation = make({"critic": {"type": "Critic", "start": 3}})
    for iteration, trains in ((2, False), (3, True)):
        before = distillation.terms["critic"].factor.item()
        take_step(distillation, small_batch().lq, iteration=iteration)
        assert (distillation.train_own(iteration) != {}) == trains
        assert (distillation.terms["critic"].factor.item() != before) == trains
        distillation.after_step(iteration)


def test_each_term_trains_its_own():
    distillation = make({"a": {"type": "Critic"}, "b": {"type": "Critic", "size": 3.0}})
    ctx, _ = take_step(distillation, small_batch().lq)
    mean = ctx.output.mean().item()
    assert list(distillation.train_own(1)) == ["l_a_own", "l_b_own"]
    for name, size in (("a", 2.0), ("b", 3.0)):
        expected = size - 0.1 * 2 * (size * mean - 1) * mean
        assert distillation.terms[name].factor.item() == pytest.approx(expected)


def test_a_step_that_is_not_finite_is_skipped():
    distillation = make()
    term = distillation.terms["critic"]
    output = torch.full((2, 3, 32, 32), math.nan, dtype=torch.float64)
    take_step(distillation, small_batch().lq, output=output)
    distillation.train_own(1)
    assert term.factor.item() == 2.0
    assert "l_critic_own was not finite" in distillation.steps[0].guard.report()


def test_a_network_of_its_own_is_constant_as_a_pass_and_trained_by_passes_of_its_own_loss():
    distillation = make({"net": {"type": "FactorOfOutput"}})
    term = distillation.terms["net"]
    lq = small_batch().lq
    _, losses = take_step(distillation, lq)
    losses["l_net"].backward()
    assert term.factor.grad is None and network(distillation, "g").shift.grad is not None
    distillation.train_own(1)
    assert term.factor.item() == pytest.approx(2.0 - 0.1 * lq.mean().item())
