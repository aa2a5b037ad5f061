"""What passes are given besides an image, what takes the place of inner outputs, and the features they give."""

import pytest
import torch
from torch import nn

from basicsr.distill.frozen import FrozenNetwork

from .helpers import Counted, context, images

# Features.


class Windowed(Counted):
    """Windows of 4×4 as rows of the batch: ``mix`` gives (B·windows, 16, 3); ``head`` is a map."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 3, 1)
        self.mix = nn.Linear(3, 3)
        self.last = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        self.note(x)
        x = self.head(x)
        batch, channels, height, width = x.shape
        windows = x.view(batch, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1)
        tokens = self.mix(windows.reshape(-1, 16, channels))
        windows = tokens.view(batch, height // 4, width // 4, 4, 4, channels).permute(0, 5, 1, 3, 2, 4)
        return self.last(windows.reshape(x.shape))


@pytest.fixture
def windowed():
    torch.manual_seed(0)
    net = Windowed()
    source = FrozenNetwork(net, "t")
    source.taps.add("mix"), source.taps.add("head")
    return net, source


def test_each_pass_of_a_joined_batch_has_its_own_features(windowed):
    net, source = windowed
    views = {"one": images(1, seed=1), "three": images(3, seed=2)}
    ctx = context(images(), t=source)
    for key, view in views.items():
        ctx.want("t", key, view)
    together = {key: ctx.run("t", key) for key in views}
    assert net.passes == [4]
    for key, view in views.items():
        alone = context(view, t=source).run("t")
        assert together[key].features["mix"].shape == (4 * len(view), 16, 3), "four windows of each image"
        assert together[key].features.keys() == {"mix", "head"}
        for name, feature in alone.features.items():
            torch.testing.assert_close(together[key].features[name], feature)
        torch.testing.assert_close(together[key].output, alone.output)


def test_a_replaced_output_runs_alone_and_gradients_flow_to_it(windowed):
    """The student's feature through the teacher's rest, as CrossKD does."""
    net, source = windowed
    ctx = context(images(), t=source)
    feature = images(seed=5).requires_grad_()
    ctx.want("t", "cross", ctx.lq, replace={"head": feature})
    ctx.want("t", "view", images(seed=1))
    crossed = ctx.run("t", "cross")
    assert net.calls == [(2, True)], "by itself, with gradients since the feature has them"
    head, net.head = net.head, nn.Identity()  # what follows the head, applied to the feature
    torch.testing.assert_close(crossed.output, net(feature))
    net.head = head
    weights = torch.rand_like(crossed.output)
    (own,) = torch.autograd.grad((crossed.output * weights).sum(), feature)
    net.head = nn.Identity()
    (expected,) = torch.autograd.grad((net(feature) * weights).sum(), feature)
    net.head = head
    assert own.abs().sum() > 0
    torch.testing.assert_close(own, expected)
    net.calls.clear()
    ctx.run("t"), ctx.run("t", "view")
    assert net.passes == [4], "the others run together"
    assert all(p.grad is None for p in net.parameters())


def test_a_replaced_output_runs_alone_also_without_gradients(windowed):
    net, source = windowed
    ctx = context(images(), t=source)
    view, feature = images(seed=1), images(seed=5)
    ctx.want("t", "cross", ctx.lq, replace={"head": feature})
    ctx.want("t", "view", view)
    plain = ctx.run("t", "view")
    crossed = ctx.run("t", "cross")
    assert net.calls == [(2, False), (2, False)]
    assert torch.equal(crossed.features["head"], feature)
    torch.testing.assert_close(plain.output, net(view))


def test_a_pass_and_the_same_with_a_replaced_output_need_two_keys(windowed):
    _, source = windowed
    ctx = context(images(), t=source)
    ctx.want("t", "view", ctx.lq)
    with pytest.raises(ValueError, match="two different inputs"):
        ctx.want("t", "view", ctx.lq, replace={"head": images(seed=5)})


# Further inputs.


class Prompted(Counted):
    """``strength · x + prompt``, the prompt a number for each image or one for all."""

    def forward(self, x, prompt=None, strength=1.0):
        self.note(x)
        x = strength * x
        return x if prompt is None else x + prompt.view(-1, 1, 1, 1)


@pytest.fixture
def prompted():
    net = Prompted()
    return net, FrozenNetwork(net, "t")


def test_inputs_with_a_row_for_each_image_are_joined(prompted):
    net, source = prompted
    ctx = context(images(), t=source)
    one, three = images(1, seed=1), images(3, seed=2)
    ctx.want("t", "one", one, prompt=torch.tensor([5.0]), strength=2.0)
    ctx.want("t", "three", three, prompt=torch.tensor([1.0, 2.0, 3.0]), strength=2.0)
    torch.testing.assert_close(ctx.run("t", "one").output, 2 * one + 5)
    expected = torch.stack([2 * image + number for number, image in enumerate(three, 1)])
    torch.testing.assert_close(ctx.run("t", "three").output, expected)
    assert net.passes == [4]


def test_inputs_that_differ_run_apart(prompted):
    net, source = prompted
    ctx = context(images(), t=source)
    calls = {
        "plain": {},
        "weak": {"strength": 0.5},
        "strong": {"strength": 2.0},
        "shared": {"prompt": torch.tensor(5.0)},
        "double": {"prompt": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        "single": {"prompt": torch.tensor([1.0, 2.0])},
    }
    for seed, (key, inputs) in enumerate(calls.items()):
        ctx.want("t", key, images(seed=seed), **inputs)
    for seed, (key, inputs) in enumerate(calls.items()):
        alone = Prompted()(images(seed=seed), **inputs)
        torch.testing.assert_close(ctx.run("t", key).output, alone.float())
    assert net.passes == [2] * 6


def test_gradients_follow_an_input(prompted):
    _, source = prompted
    ctx = context(images(), t=source)
    prompt = torch.tensor([1.0, 2.0], requires_grad=True)
    ctx.want("t", "view", images(seed=1), prompt=prompt)
    ctx.run("t", "view").output.sum().backward()
    assert prompt.grad.tolist() == [3 * 64, 3 * 64]


def test_one_image_with_two_prompts_needs_two_keys(prompted):
    _, source = prompted
    ctx = context(images(), t=source)
    ctx.want("t", "view", ctx.lq, prompt=torch.tensor([1.0, 2.0]))
    ctx.want("t", "view", ctx.lq, prompt=torch.tensor([1.0, 2.0]))
    for prompt in ({"prompt": torch.tensor([1.0, 3.0])}, {}, {"strength": 2.0}):
        with pytest.raises(ValueError, match="two different inputs"):
            ctx.want("t", "view", ctx.lq, **prompt)


def test_one_tensor_given_to_two_passes_is_not_joined():
    """Whether it has a row for each image, or is for the whole batch, cannot be told from its length."""

    class Prompted(Counted):
        def forward(self, x, bank):
            self.note(x)
            assert bank.shape == (2, 5)
            return x + bank.sum()

    net = Prompted()
    ctx = context(images(), t=FrozenNetwork(net, "t"))
    bank = torch.ones(2, 5)
    ctx.want("t", "one", images(seed=1), bank=bank)
    ctx.want("t", "two", images(seed=2), bank=bank)
    for key, seed in (("one", 1), ("two", 2)):
        torch.testing.assert_close(ctx.run("t", key).output, images(seed=seed) + 10)
    assert net.passes == [2, 2]
