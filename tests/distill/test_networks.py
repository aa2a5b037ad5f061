"""The networks that terms see: how they are found, built, probed and refused."""

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.distill.distillation import Distillation
from basicsr.distill.term import KDTerm
from basicsr.utils.options.sections.datasets import channels_of
from basicsr.utils.registry import ARCH_REGISTRY, KD_REGISTRY

from .helpers import CPU, NETWORKS, Counted, build, distil, network, options, small_batch, student, take_step


@ARCH_REGISTRY.register()
class Body(Counted):
    """×2, of ``body.0`` … ``body.3`` of one width."""

    def __init__(self, width=4):
        super().__init__()
        self.head = nn.Conv2d(3, width, 1)
        self.body = nn.Sequential(*(nn.Conv2d(width, width, 1) for _ in range(4)))
        self.tail = nn.Sequential(nn.Conv2d(width, 3, 1), nn.Upsample(scale_factor=2))

    def forward(self, x):
        self.note(x)
        return self.tail(self.body(self.head(x)))


@ARCH_REGISTRY.register()
class Restless(nn.Module):
    """×2 with batch statistics and dropout, whose passes leave traces."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, x):
        return self.up(self.drop(self.norm(x)))


def random_state_unchanged(block):
    before = torch.get_rng_state()
    block()
    return torch.equal(torch.get_rng_state(), before)


# Probing.


def test_one_forward_of_each_network_for_all_taps():
    pairs = [[f"body.{i}", f"body.{i}"] for i in range(4)]
    networks = {"g": {"type": "Body"}, "t": {"type": "Body", "width": 6}}
    terms = {name: {"type": "FitNets", "pairs": pairs} for name in ("one", "other")} | {"kd": {"type": "LogitsKD"}}
    distillation = build(terms, networks)
    assert network(distillation, "g").calls == [(2, False)]
    assert network(distillation, "t").calls == [(2, False)]
    assert network(distillation, "g_ema").calls == []


def test_a_tap_that_comes_later_is_probed_for():
    networks = {"g": {"type": "Body"}, "t": {"type": "Body", "width": 6}}
    own = build({"kd": {"type": "LogitsKD"}}, networks).networks
    assert own.tap("t", "body.1") == {"body.1": (1, 6, 16, 16)}
    assert own.tap("t", "body.*") == {f"body.{i}": (1, 6, 16, 16) for i in range(4)}
    assert own.shape_at("t", "body.1", scale=2) == (1, 6, 32, 32)
    assert own.output_shape("g") == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("section", "channels"),
    [
        ({}, 3),
        ({"color": "y"}, 1),
        ({"channels": 1}, 1),
        ({"channels": 3}, 3),
        ({"sets": {"noise": {"channels": 1, "weight": 1}, "rain": {"color": "y", "weight": 1}}}, 1),
        ({"sets": {"noise": {"weight": 1}}}, 3),
    ],
)
def test_patches_have_the_channels_of_the_training_set(section, channels):
    """Of luma, of grey images, and of a mixture of either."""
    assert channels_of({"gt_size": 8, **section}) == channels


def test_probing_leaves_no_trace():
    """Neither in the statistics of a network in training nor in the random numbers nor in its mode."""
    networks = {"g": {"type": "Restless"}, "t": {"type": "Restless"}}
    distillation = build({}, networks)
    own = distillation.networks
    before = {key: value.clone() for key, value in network(distillation, "g").state_dict().items()}
    network(distillation, "t")
    for name in ("g", "t", "g_ema"):
        assert random_state_unchanged(lambda name=name: own.output_shape(name))
    after = network(distillation, "g").state_dict()
    assert after["norm.num_batches_tracked"] == 0
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert network(distillation, "g").training and not network(distillation, "t").training


def test_a_network_that_cannot_run_on_a_patch():
    class Odd(nn.Module):
        def forward(self, x):
            return x.view(1, 1)

    ARCH_REGISTRY.register(Odd)
    message = r"kd_opt.kd: network_t cannot run on a patch \(2, 3, 16, 16\)"
    with pytest.raises(ValueError, match=message):
        build({"kd": {"type": "LogitsKD"}}, {**NETWORKS, "t": {"type": "Odd"}})


# The student's weights.


def test_source_and_copy():
    networks = build({}).networks
    assert networks.source("student") is networks["g"].net and networks.source("ema") is networks["g_ema"].net
    networks.source("ema").shift.data.fill_(0.7)
    networks.source("student").shift.data.fill_(0.6)
    for name, value in (("ema", 0.7), ("student", 0.6)):
        copied = networks.copy_of(name)
        assert copied.shift.item() == pytest.approx(value)
        assert not copied.training and not copied.shift.requires_grad
        copied.shift.data.fill_(0.0)
        assert networks.source(name).shift.item() == pytest.approx(value)
    with pytest.raises(ValueError, match="g_ema is the student's average; set train.ema_decay above 0"):
        build({}, average=False).networks.copy_of("ema")


# Refusals.


def test_outputs_of_different_shapes():
    message = (
        r"train.kd_opt.kd: network_g gives an image of shape \(1, 3, 32, 32\) and network_t one of \(1, 3, 16, 16\); "
        r"they must agree \(check upscale and the number of output channels\)"
    )
    same_size = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 1}
    with pytest.raises(ValueError, match=message):
        build({"kd": {"type": "LogitsKD"}}, {**NETWORKS, "t": same_size})


def test_a_network_that_is_not_a_section():
    with pytest.raises(ValueError, match="network_his: must be a section with a type, not True .*DCKDModel"):
        build({}, {**NETWORKS, "his": True})


VGG = {"type": "VGGFeatureExtractor", "layer_name_list": ["conv1_1"], "vgg_type": "vgg11", "weights": "random"}


@pytest.mark.parametrize(
    ("name", "arguments", "runtime", "message"),
    [
        ("x", {}, {}, "network_x is not defined; frozen networks: network_t, network_vqgan, network_vgg"),
        ("g", {}, {}, "encoder: g is not a frozen network; name one that is, such as a VGG or a VQGAN"),
        ("g_ema", {}, {}, "encoder: g_ema is not a frozen network"),
        ("t", {}, {}, r"network_t \(Doubler\) is not an encoder: it gives an image"),
        ("vgg", {"latent": True}, {}, r"network_vgg \(VGGFeatureExtractor\) has no codebook; name a VQGAN"),
        ("vgg", {"layers": ["conv1_1", "conv5_4"]}, {}, r"does not give conv5_4; it gives conv1_1"),
        ("vqgan", {"layers": ["level6"]}, {}, "does not give level6; it gives level1, .*, level5, latent"),
        ("vgg", {}, {"vgg": {"mean": [0.5] * 3}}, "runtime.vgg: mean and std are for teachers; .* set by input_range"),
        ("vgg", {}, {"vgg": {"precision": "fp16"}}, "runtime.vgg.precision: .* in fp16 they vanish .* use bf16"),
    ],
)
def test_encoders_that_do_not_fit(name, arguments, runtime, message):
    distillation = build({}, {**NETWORKS, "vgg": VGG}, runtime=runtime)
    with pytest.raises(ValueError, match=message):
        distillation.networks.encoder(name, **arguments)


def test_an_encoder_that_cannot_take_the_images():
    message = "network_vgg cannot encode the training's 32×32 images"
    shrinking = {**VGG, "layer_name_list": ["pool5"], "weights": "random"}
    networks = {**NETWORKS, "vgg": shrinking}
    distillation = build({}, networks)
    assert distillation.networks.encoding_shapes(distillation.networks.encoder("vgg"))["pool5"] == (1, 512, 1, 1)
    distillation = build({}, {**networks, "g": {"type": "Quarter"}})
    with pytest.raises(ValueError, match=message.replace("32×32", "8×8")):
        distillation.networks.encoder("vgg")


@ARCH_REGISTRY.register()
class Quarter(nn.Module):
    """A quarter of the height and width, doubled."""

    def forward(self, x):
        return x[..., ::2, ::2]


# Which networks are built, and when.


def test_a_network_that_nobody_uses_is_named_and_not_built(log):
    distillation = build({"kd": {"type": "LogitsKD"}}, {**NETWORKS, "t_2": {"type": "Doubler"}})
    assert list(distillation.networks.frozen.built) == ["t"]
    unused = [message for message in log.messages if "is not built" in message]
    assert unused == [f"network_{name} is not built, since no term or loss names it." for name in ("vqgan", "t_2")]
    assert "t_2" in distillation.networks and "t_9" not in distillation.networks


@KD_REGISTRY.register()
class Ensemble(KDTerm):
    """Names its teachers in options of its own shape, and asks for them in ``forward`` only."""

    def __init__(self, teachers: list[dict]):
        super().__init__()
        self.teachers = teachers

    def forward(self, ctx):
        return sum((ctx.output - ctx.run(teacher["name"]).output).abs().mean() for teacher in self.teachers)


def test_networks_that_options_name_are_built_in_the_order_of_the_options():
    networks = {**NETWORKS, "t_2": {"type": "Doubler"}, "t_3": {"type": "Doubler"}}
    terms = {"many": {"type": "Ensemble", "teachers": [{"name": "t_3"}, {"name": "t_2"}]}, "kd": {"type": "LogitsKD"}}
    assert list(build(terms, networks).networks.frozen.built) == ["t", "t_2", "t_3"]


@KD_REGISTRY.register()
class Secretive(KDTerm):
    """Says only in ``forward`` which network it uses."""

    def forward(self, ctx):
        return (ctx.output - ctx.run("t_2").output).abs().mean()


def test_a_network_that_forward_alone_names_is_built_at_its_first_use_without_a_trace(log):
    """In the random numbers, so that a resumed run draws what an uninterrupted one does."""
    networks = {**NETWORKS, "t_2": {"type": "Body"}}
    distillation = distil({"x": {"type": "Secretive"}}, networks, dtype=torch.float32)
    assert list(distillation.networks.frozen.built) == []
    assert random_state_unchanged(lambda: take_step(distillation, small_batch().lq.float()))
    built = distillation.networks.frozen.built["t_2"]
    assert not built.net.training and not any(p.requires_grad for p in built.parameters())
    assert built.net.passes == [2]
    take_step(distillation, small_batch().lq.float())
    assert distillation.networks.frozen.built["t_2"] is built and built.net.passes == [2, 2]
    assert "network_t_2 has RANDOM weights: path.pretrain_network_t_2 is not set." in log.messages


def test_its_random_weights_depend_on_its_name_alone():
    """A run that is resumed before its first use has another random state than one that was not."""
    networks = {**NETWORKS, "t_2": {"type": "Body"}}
    weights = []
    for seed in (1, 2):
        distillation = distil({"x": {"type": "Secretive"}}, networks, dtype=torch.float32)
        torch.manual_seed(seed)
        take_step(distillation, small_batch().lq.float())
        weights.append(network(distillation, "t_2").state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_network_that_the_recipe_trains_is_no_teacher():
    opt = options({"kd": {"type": "LogitsKD", "teacher": "d"}}, {**NETWORKS, "d": {"type": "Doubler"}})
    own = student(build_network(opt["network_g"]))
    with pytest.raises(ValueError, match="train.kd_opt.kd: network_d is trained by the recipe"):
        Distillation(opt, own, average=None, trained=("g", "d"), device=CPU).start()
