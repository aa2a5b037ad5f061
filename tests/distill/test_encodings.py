"""Encodings: which images are encoded together, with which gradients, and how often."""

import pytest
import torch
from torch import nn

from basicsr.distill.encoders import BatchImage, Encoding, FrozenEncoder, PassOutput
from basicsr.distill.frozen import FrozenNetwork

from .helpers import Counted, Doubler, FiveLevels, context, distil, images, network, small_batch, student, take_step


@pytest.fixture
def net():
    torch.manual_seed(0)
    return FiveLevels()


@pytest.fixture
def encoder(net):
    return FrozenEncoder(FrozenNetwork(net, "vqgan"))


def make_context(lq=None, gt=None):
    return context(images(2, 16) if lq is None else lq, gt, g=student(Doubler(0.2)), t=FrozenNetwork(Doubler(), "t"))


def expected_levels(net, image):
    with torch.no_grad():
        levels = FiveLevels.features(net, image)
    net.calls.clear()
    return levels


def assert_levels(encoding, net, image):
    levels = expected_levels(net, image)
    assert list(encoding.features) == [f"level{i}" for i in range(1, 6)]
    for own, other in zip(encoding.levels, levels):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


def test_images_of_one_size_and_gradient_are_encoded_together(net, encoder):
    ctx = make_context(gt=images(2, 32, seed=1))
    ctx.want("t", "view", images(3, 16, seed=2))
    ctx.want("t", "small", images(1, 8, seed=3))
    teacher, view, small = PassOutput("t"), PassOutput("t", "view"), PassOutput("t", "small")
    ctx.want_encoding(encoder, PassOutput("g"), teacher, view, small, BatchImage("gt"))
    encodings = {s: ctx.encoding(encoder, s) for s in (PassOutput("g"), teacher, view, small, BatchImage("gt"))}
    assert net.calls == [(2, True), (7, False), (1, False)]
    for source, encoding in encodings.items():
        image = ctx.gt if source == BatchImage("gt") else ctx.run(*source).output.detach()
        assert_levels(encoding, net, image)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_who_asks_first_changes_nothing(net, encoder, first):
    """The images are joined in the order in which they were announced."""
    ctx = make_context(gt=images(2, 32, seed=1))
    ctx.want("t", "view", images(2, 16, seed=2))
    sources = [BatchImage("gt"), PassOutput("t"), PassOutput("t", "view")]
    ctx.want_encoding(encoder, *sources)
    seen = []
    net.convs[0].register_forward_hook(lambda module, args, output: seen.append(args[0]))
    ctx.encoding(encoder, sources[first])
    (joined,) = seen
    assert torch.equal(joined, torch.cat([ctx.gt, ctx.run("t").output, ctx.run("t", "view").output]))


def test_gradients_follow_the_image_and_stop_at_the_encoder(net, encoder):
    ctx = make_context()
    ctx.want_encoding(encoder, PassOutput("g"), PassOutput("t"))
    own, other = ctx.encoding(encoder, PassOutput("g")), ctx.encoding(encoder, PassOutput("t"))
    assert all(level.requires_grad for level in own.levels)
    assert not any(level.requires_grad for level in other.levels)
    output = ctx.output.detach().requires_grad_()
    (expected,) = torch.autograd.grad(FiveLevels.features(net, output)[-1].square().sum(), output)
    (gradient,) = torch.autograd.grad(own.levels[-1].square().sum(), ctx.output, retain_graph=True)
    torch.testing.assert_close(gradient, expected)
    own.levels[-1].sum().backward()
    assert all(p.grad is None for p in net.parameters())


def test_two_terms_share_an_encoding(net, encoder):
    """Also where each has made the encoder itself: what is equal is shared; another range of the input is not."""
    ctx = make_context()
    same = FrozenEncoder(encoder.network)
    for one in (encoder, same):
        ctx.want_encoding(one, PassOutput("g"))
    assert ctx.encoding(encoder, PassOutput("g")) is ctx.encoding(same, PassOutput("g"))
    assert net.passes == [2]
    other = FrozenEncoder(encoder.network, "[-1,1]")
    ctx.want_encoding(other, PassOutput("g"))
    assert_levels(ctx.encoding(other, PassOutput("g")), net, 2 * ctx.output.detach() - 1)


def test_the_latent_continues_from_the_features(net, encoder):
    ctx = make_context()
    ctx.want_encoding(encoder, PassOutput("g"), PassOutput("t"))
    features = ctx.encoding(encoder, PassOutput("g"))
    latent = ctx.latent(encoder, PassOutput("g"))
    assert ctx.latent(encoder, PassOutput("g")) is latent, "kept"
    assert net.passes == [2] and net.latents == 1, "the image is not encoded again"
    torch.testing.assert_close(latent, net.to_latent(features.levels[-1]))
    assert latent.requires_grad
    assert not ctx.latent(encoder, PassOutput("t")).requires_grad


def test_an_image_that_was_not_announced_is_encoded_by_itself(net, encoder):
    ctx = make_context(gt=images(2, 32, seed=1))
    encoding = ctx.encoding(encoder, BatchImage("gt"))
    assert net.passes == [2]
    assert_levels(encoding, net, ctx.gt)


def test_announcing_an_encoding_announces_the_pass_over_the_input_alone(encoder):
    ctx = make_context()
    ctx.want_encoding(encoder, PassOutput("t"), PassOutput("t", "view"))
    with pytest.raises(ValueError, match="the pass 'view' of network_t was not requested"):
        ctx.encoding(encoder, PassOutput("t", "view"))


@pytest.mark.parametrize(("with_gradient", "expected"), [(False, [16, 4]), (True, [20])])
def test_on_a_cpu_sixteen_images_at_a_time_where_there_are_no_gradients(net, encoder, with_gradient, expected):
    ctx = make_context(images(20, 8))
    source = PassOutput("g" if with_gradient else "t")
    ctx.want_encoding(encoder, source)
    encoding = ctx.encoding(encoder, source)
    assert net.passes == expected
    assert_levels(encoding, net, ctx.run(*source).output.detach())


def test_some_images_of_an_encoding():
    encoding = Encoding({"a": torch.arange(6.0).view(3, 2)})
    assert encoding[torch.tensor([2, 0])].features["a"].tolist() == [[4, 5], [0, 1]]
    assert encoding[slice(1, 3)].features["a"].tolist() == [[2, 3], [4, 5]]
    assert encoding[slice(0, 3)] is encoding and encoding[slice(None)] is encoding


class Layers(Counted):
    """An encoder that gives a dict of feature maps, as VGG does."""

    def forward(self, x):
        self.note(x)
        return {"conv1": 2 * x, "conv2": x[..., ::2, ::2]}


def test_a_network_that_gives_a_dict_is_an_encoder_without_a_codebook():
    net = Layers()
    encoder = FrozenEncoder(FrozenNetwork(net, "vgg"))
    assert encoder.codebook is None
    ctx = make_context()
    ctx.want_encoding(encoder, PassOutput("g"))
    features = ctx.encoding(encoder, PassOutput("g")).features
    torch.testing.assert_close(features["conv1"], 2 * ctx.output)
    torch.testing.assert_close(features["conv2"], ctx.output[..., ::2, ::2])


def test_a_network_that_gives_an_image_is_no_encoder():
    with pytest.raises(TypeError, match="it gives an image; an encoder gives a dict of feature maps"):
        FrozenEncoder(FrozenNetwork(nn.Identity(), "t")).encode(images())


def test_terms_on_different_ranges_have_encodings_of_their_own():
    batch = small_batch()
    distillation = distil({"a": {"type": "DMM"}, "b": {"type": "DMM", "input_range": "[-1,1]"}, "c": {"type": "DMM"}})
    _, losses = take_step(distillation, batch.lq, output=batch.output)
    assert sorted(network(distillation, "vqgan").calls) == [(2, False)] * 2 + [(2, True)] * 2
    assert losses["l_a"] == losses["l_c"] != losses["l_b"]
