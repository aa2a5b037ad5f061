"""Passes: which run together, what they share, which have gradients, and what is refused."""

import pytest
import torch
from torch import nn

from basicsr.distill.frozen import FrozenNetwork
from basicsr.distill.student import AverageNetwork
from basicsr.distill.term import KDTerm
from basicsr.engine.compute.runtime import NetworkRuntime
from basicsr.utils.registry import KD_REGISTRY

from .helpers import NETWORKS, Doubler, context, distil, images, network, student, take_step


@pytest.fixture
def nets():
    return {"g": Doubler(0.2), "t": Doubler(), "g_ema": Doubler(0.3).requires_grad_(False)}


@pytest.fixture
def ctx(nets):
    average = AverageNetwork(nets["g_ema"], NetworkRuntime())
    return context(images(), g=student(nets["g"]), t=FrozenNetwork(nets["t"], "t"), g_ema=average)


def test_images_of_one_size_run_together_and_each_pass_has_its_own(ctx, nets):
    views = {"two": images(2, seed=1), "three": images(3, seed=2), "small": images(2, side=4, seed=3)}
    for key, view in views.items():
        ctx.want("t", key, view)
    ctx.want("t")
    results = {key: ctx.run("t", key).output for key in views}
    assert nets["t"].passes == [7, 2], "the batch's input, two and three; small"
    assert torch.equal(nets["t"].seen[0], torch.cat([ctx.lq, views["two"], views["three"]])), "the input comes first"
    for key, view in {**views, "lq": ctx.lq}.items():
        torch.testing.assert_close(results.get(key, ctx.run("t").output), nets["t"](view), rtol=0, atol=0)


def test_passes_with_gradients_run_apart(ctx, nets):
    ctx.want("g", "a", images(1, seed=1))
    ctx.want("g", "b", images(2, seed=2), grad=False)
    ctx.want("g", "c", images(3, seed=3), grad=True)
    outputs = {key: ctx.run("g", key).output for key in "abc"}
    assert nets["g"].calls == [(4, True), (2, False)]
    assert {key: output.requires_grad for key, output in outputs.items()} == {"a": True, "b": False, "c": True}


def test_what_nobody_asked_for_does_not_run(ctx, nets):
    ctx.want("t", "view", images(seed=1))
    assert nets["t"].passes == []
    ctx.run("g")
    assert nets["g"].passes == [2] and nets["t"].passes == []
    ctx.run("t", "view")
    assert nets["t"].passes == [2], "not over the batch's input"


def test_a_pass_announced_after_others_ran_runs_by_itself(ctx, nets):
    first = ctx.run("t").output
    ctx.want("t", "late", images(3, seed=1))
    ctx.run("t", "late")
    assert nets["t"].passes == [2, 3]
    assert ctx.run("t").output is first


# What is shared.


def test_one_image_under_one_key_is_one_pass(ctx, nets):
    view = images(seed=1)
    for image in (view, view, view.clone()):
        ctx.want("t", "view", image)
    assert ctx.run("t", "view") is ctx.run("t", "view")
    assert nets["t"].passes == [2]


@pytest.mark.parametrize("other", [images(seed=2), images(3, seed=1)])
def test_two_images_under_one_key_are_refused(ctx, other):
    ctx.want("t", "view", images(seed=1))
    with pytest.raises(ValueError, match=r"two different inputs of network_t are called 'view' in one iteration"):
        ctx.want("t", "view", other)
    ctx.want("g", "view", other)  # of another network it is another pass


def test_the_key_of_the_batch_s_input_is_not_given_to_another_image(ctx, nets):
    with pytest.raises(ValueError, match="'lq' is the batch's own input; give the other image that t sees another key"):
        ctx.want("t", "lq", images(seed=1))
    ctx.want("t", "lq", ctx.lq)
    ctx.run("t")
    assert nets["t"].passes == [2]


@pytest.mark.parametrize("order", [(None, False), (False, None), (True, False), (False, True)])
def test_one_pass_with_and_without_gradients_is_refused(ctx, order):
    """Whoever comes first: else the other one would go without its gradient, and nobody would notice."""
    view = images(seed=1)
    ctx.want("g", "view", view, grad=order[0])
    with pytest.raises(ValueError, match="'view' of network_g is requested with and without gradients; use two keys"):
        ctx.want("g", "view", view, grad=order[1])


def test_an_image_and_its_detached_copy_under_one_key_are_refused(ctx):
    image = images(seed=1).requires_grad_()
    ctx.want("t", "view", image.detach())
    with pytest.raises(ValueError, match="with and without gradients"):
        ctx.want("t", "view", image)


def test_the_student_s_recorded_pass_is_shared_as_it_is(ctx, nets):
    """Also where it was made without gradients, as in a trial."""
    with torch.no_grad():
        recorded = ctx.record("g", lambda: nets["g"](ctx.lq))
    ctx.want("g")
    assert ctx.run("g") is recorded and ctx.output is recorded.output
    assert nets["g"].passes == [2]


# Which passes have gradients.


@pytest.mark.parametrize(
    ("name", "of_image", "expected"),
    [
        ("g", False, True),
        ("g", True, True),
        ("t", False, False),
        ("t", True, True),
        ("g_ema", False, False),
        ("g_ema", True, True),
    ],
)
def test_gradients_by_default(ctx, nets, name, of_image, expected):
    image = images(seed=1).requires_grad_(of_image)
    ctx.want(name, "view", image)
    output = ctx.run(name, "view").output
    assert nets[name].calls == [(2, expected)] and output.requires_grad == expected
    if expected:
        output.sum().backward()
        assert (image.grad is not None) == of_image
    assert (nets[name].shift.grad is not None) == (name == "g"), "only the student's weights are trained"


def test_gradients_on_request(ctx, nets):
    image = images(seed=1).requires_grad_()
    ctx.want("t", "without", image, grad=False)
    ctx.want("g", "without", image, grad=False)
    for name in ("t", "g"):
        assert not ctx.run(name, "without").output.requires_grad
        assert nets[name].calls == [(2, False)]


def test_a_detached_context_gives_no_gradients_of_the_student(ctx, nets):
    """Neither by what has been run nor by further passes; other networks run as before."""
    image = images(seed=1)
    ctx.want("g", "view", image)
    ctx.run("g", "view")
    own = ctx.detached()
    assert torch.equal(own.run("g", "view").output, ctx.run("g", "view").output)
    assert not own.run("g", "view").output.requires_grad
    own.want("g", "further", images(seed=2))
    assert not own.run("g", "further").output.requires_grad
    assert nets["g"].calls == [(2, True), (2, False)]
    critic = images(seed=3).requires_grad_()
    own.want("t", "critic", critic)
    assert own.run("t", "critic").output.requires_grad


# In a distillation.


@KD_REGISTRY.register()
class FlippedKD(KDTerm):
    """Student and teacher see the flipped input."""

    def setup(self, networks):
        networks.require_same_output("t")

    def prepare(self, ctx):
        for name in ("g", "t"):
            ctx.want(name, "flipped", ctx.lq.flip(3))

    def forward(self, ctx):
        return (ctx.run("g", "flipped").output - ctx.run("t", "flipped").output).abs().mean()


def test_three_terms_on_one_view_cost_one_pass_of_each_network():
    distillation = distil({name: {"type": "FlippedKD"} for name in "abc"}, dtype=torch.float32)
    _, losses = take_step(distillation, images(side=16))
    assert network(distillation, "g").calls == [(2, True), (2, True)], "the input and the view"
    assert network(distillation, "t").calls == [(2, False)]
    assert losses["l_a"] == losses["l_b"] == losses["l_c"] and losses["l_a"].requires_grad


def test_a_term_on_a_view_runs_the_teacher_on_the_view_alone():
    distillation = distil({"lcr": {"type": "LCR", "prob": 1.0}}, dtype=torch.float32)
    take_step(distillation, images(side=16))
    assert network(distillation, "t").passes == [2]
    assert not torch.equal(network(distillation, "t").seen[0], images(side=16))


def test_a_term_that_is_not_active_asks_for_nothing():
    distillation = distil({"kd": {"type": "LogitsKD", "start": 5, "end": 6}}, dtype=torch.float32)
    for iteration in range(3, 9):
        take_step(distillation, images(side=16), iteration=iteration)
        distillation.after_step(iteration)
    assert network(distillation, "t").passes == [2, 2]


# Refusals.


def test_a_pass_that_was_not_announced(ctx):
    ctx.want("t", "view", images(seed=1))
    with pytest.raises(ValueError, match=r"'other' of network_t.*ctx.want\('t', 'other', image\). Requested: view"):
        ctx.run("t", "other")
    with pytest.raises(ValueError, match=r"Requested: none"):
        ctx.run("g", "other")
    with pytest.raises(ValueError, match=r"the pass 'other' of t needs its image: ctx.want\('t', 'other', image\)"):
        ctx.want("t", "other")


def test_a_network_that_does_not_exist():
    networks = {name: NETWORKS[name] for name in ("g", "t")}
    distillation = distil({"kd": {"type": "LogitsKD"}}, networks, average=False, dtype=torch.float32)
    ctx, _ = take_step(distillation, images(side=16))
    with pytest.raises(ValueError, match=r"network_t_9 is not defined; frozen networks: network_t. Add network_t_9"):
        ctx.want("t_9")
    with pytest.raises(ValueError, match="g_ema is the student's average; set train.ema_decay above 0"):
        ctx.run("g_ema")


def test_a_network_that_gives_several_images():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(
        ValueError, match="network_t returns a tuple; distillation compares images: wrap it in a network"
    ):
        context(images(), t=FrozenNetwork(Pair(), "t")).run("t")
