"""Terms over pairs of features, on small networks; the expected values are computed without the term's own parts."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from basicsr.archs.swinir_arch import SwinIR
from basicsr.distill import build_term
from basicsr.distill.feature_term import FeatureTerm
from basicsr.distill.taps import FeatureTaps, slice_images


class Maps(nn.Module):
    """``body.0`` … of one width; ``down`` at half the resolution."""

    def __init__(self, width, depth=8):
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*(nn.Conv2d(width, width, 1) for _ in range(depth)))
        self.down = nn.Conv2d(width, width, 2, stride=2)
        self.tokens = Tokens()
        self.small_tokens = Tokens()
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, x):
        x = self.body(self.head(x))
        self.tokens(x), self.small_tokens(self.down(x))
        return self.last(x)


class Tokens(nn.Module):
    """(B, C, H, W) to (B, H·W, C)."""

    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


class Windowed(nn.Module):
    """Windows of 4×4 as rows of the batch: ``mix`` gives (B·windows, 16, C)."""

    def __init__(self, width):
        super().__init__()
        self.head = nn.Conv2d(3, width, 1)
        self.mix = nn.Linear(width, width)
        self.tokens = Tokens()

    def forward(self, x):
        x = self.head(x)
        self.tokens(x)
        batch, channels, height, width = x.shape
        windows = x.view(batch, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1)
        return self.mix(windows.reshape(-1, 16, channels)).reshape(batch, -1, 16, channels)


class Networks:
    """Stands in for what the recipe offers to terms: every tap of the terms is probed at once."""

    device = torch.device("cpu")

    def __init__(self, *terms, patch=(8, 8), **nets):
        self.patch_size = patch
        self.nets = nets
        self.taps = {name: FeatureTaps(net, f"network_{name}") for name, net in nets.items()}
        self.forwards = Counter()
        for network, pattern in (tap for term in terms for tap in term.taps()):
            self.taps[network].add(pattern)
        self.shapes = {name: self._probe(name) for name in nets}
        for term in terms:
            term.setup(self)

    def _probe(self, network, scale=1):
        self.forwards[network] += 1
        size = [side * scale for side in self.patch_size]
        with torch.no_grad(), self.taps[network].recording(watch=True) as features:
            self.nets[network](torch.rand(2, 3, *size))
        return {name: tuple(slice_images(feature, 0, 1, 2, name).shape) for name, feature in features.items()}

    def tap(self, network, pattern):
        return {name: self.shapes[network][name] for name in self.taps[network].add(pattern)}

    def shape_at(self, network, name, scale):
        return self._probe(network, scale)[name]

    def context(self, image):
        """A step over the image: each network has run on it."""
        return Context({name: self._run(name, image) for name in self.nets})

    def _run(self, network, image):
        with self.taps[network].recording() as features:
            output = self.nets[network](image)
        return SimpleNamespace(output=output, features=features)


class Context:
    def __init__(self, passes):
        self.passes = passes
        self.wanted = []

    def want(self, network):
        self.wanted.append(network)

    def run(self, network):
        return self.passes[network]


def make(networks, pairs, patch=(8, 8), **options):
    """A term over these networks, and its pairs of features of a batch of 2."""
    torch.manual_seed(0)
    term = FeatureTerm(pairs, **options)
    world = Networks(term, patch=patch, **networks)
    image = torch.rand(2, 3, *patch)
    return term, world.context(image), image


def features(term, ctx):
    return list(term.matched_features(ctx))


@pytest.fixture
def nets():
    torch.manual_seed(0)
    return {"g": Maps(4), "t": Maps(6), "t_2": Maps(4)}


# Pairs and their wiring.


def wired(term):
    return [(row["student"], row["network"], row["module"]) for row in term.wiring()]


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ({"student": "body.1", "teacher": "body.2"}, [("body.1", "t", "body.2")]),
        (["body.1", "body.2"], [("body.1", "t", "body.2")]),
        ([["body.1", "down"], "body.[26]"], [("body.1", "t", "body.2"), ("down", "t", "body.6")]),
        (
            {"student": "body.[13]", "teacher": ["body.5", "body.0"], "network": "t_2"},
            [("body.1", "t_2", "body.5"), ("body.3", "t_2", "body.0")],
        ),
    ],
)
def test_pairs(nets, pair, expected):
    term, _, _ = make(nets, [pair], adapter="raw")
    assert wired(term) == expected


def test_prepare_announces_each_teacher_once(nets):
    pairs = [["body.0", "body.0"], {"student": "body.1", "teacher": "body.1", "network": "t_2"}, ["body.2", "body.2"]]
    term, ctx, _ = make(nets, pairs)
    term.prepare(ctx)
    assert ctx.wanted == ["t", "t_2"]


def test_one_forward_of_each_network_for_all_terms():
    pairs = [[f"body.{i}", f"body.{i}"] for i in range(4)]
    world = Networks(FeatureTerm(pairs), FeatureTerm(pairs, adapter="conv"), g=Maps(4), t=Maps(6))
    assert world.forwards == {"g": 1, "t": 1}


@pytest.mark.parametrize(
    ("pair", "options", "cell"),
    [
        (["body.0", "body.0"], {}, "Conv2d"),
        ({"student": "body.0", "teacher": "body.0", "network": "t_2"}, {}, "–"),
        (["down", "body.0"], {"resize": "student"}, "Conv2d, student resized"),
        (["body.0", "body.1"], {"resize": "student"}, "Conv2d"),
        (["tokens", "down"], {"resize": "teacher"}, "Linear, teacher resized"),
        (["body.0", "down"], {"adapter": "raw"}, "raw"),
    ],
)
def test_the_start_up_table_tells_what_is_done(nets, pair, options, cell):
    term, _, _ = make(nets, [pair], **options)
    (row,) = term.wiring()
    assert row["adapter"] == cell
    if cell == "Conv2d":
        assert (row["student_shape"], row["module_shape"]) == ((1, 4, 8, 8), (1, 6, 8, 8))


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        (["body.0"], {}, r"a pair is \{student: …, teacher: …\} or \[student, teacher\], not 'body.0'"),
        ([["body.0"]], {}, r"not \['body.0'\]"),
        ([[[], "body.0"]], {}, "names no module"),
        (
            [["body.[01]", "body.0"]],
            {},
            r"'body.\[01\]' matches 2 .* \(body.0, body.1\) but 'body.0' matches 1 of",
        ),
        (
            [["down", "body.0"]],
            {},
            "differ in height and width; choose .* or set resize: student or teacher",
        ),
        ([["small_tokens", "body.0"]], {}, "differ in height and width"),
        ([["body.0", "body.0"]], {"adapter": "none"}, "adapter: none, but the student's feature has 4 channels and"),
        ([["body.0", "body.0"]], {"adapter": "raw", "resize": "student"}, "resize: student has no effect"),
        ([["body.0", "body.0"]], {"layout": {"teacher": "tokens"}}, r"network_t 'body.0' has its own order of them"),
    ],
)
def test_refusals(nets, pairs, options, message):
    with pytest.raises(ValueError, match=message):
        make(nets, pairs, **options)


# Layouts.


def swinir(width):
    return SwinIR(img_size=8, embed_dim=width, depths=[2], num_heads=[2], window_size=4, upsampler="", upscale=1).eval()


ATTENTION = "layers.0.residual_group.blocks.1.attn"


@pytest.mark.parametrize(
    ("width", "layout", "forwards"),
    [(12, "auto", 1), (8, "auto", 2), (8, "nhwc", 1)],  # with 8 channels of an 8×8 patch, a larger one has to decide
)
def test_swinir_s_attention_is_read_as_nhwc(width, layout, forwards):
    torch.manual_seed(0)
    student, teacher = swinir(width), swinir(width)
    expected = {}
    for name, net in (("g", student), ("t", teacher)):
        net.get_submodule(ATTENTION).register_forward_hook(lambda m, i, out, name=name: expected.update({name: out}))
    term = FeatureTerm([[ATTENTION, ATTENTION]], layout=layout)
    world = Networks(term, g=student, t=teacher)
    ctx = world.context(torch.rand(2, 3, 8, 8))
    ((own, other),) = term.matched_features(ctx)
    assert expected["g"].shape == (2, 8, 8, width)
    for feature, raw in ((own, expected["g"]), (other, expected["t"])):
        for channel in range(width):
            assert torch.equal(feature[:, channel], raw[..., channel])
    assert world.forwards == {"g": forwards, "t": forwards}
    assert term.wiring()[0]["adapter"] == "student nhwc, teacher nhwc"


def test_attention_of_another_width_meets_a_convolution_s_map():
    """The adapter's 1×1 convolution acts on the channels, wherever the module has them."""
    term, ctx, _ = make({"g": swinir(12), "t": Maps(6)}, [[ATTENTION, "body.0"]])
    ((own, other),) = features(term, ctx)
    raw, (adapter,) = ctx.run("g").features[ATTENTION], term.adapters
    expected = torch.einsum("bhwc,oc->bohw", raw.double(), adapter.weight[:, :, 0, 0].double())
    torch.testing.assert_close(own.double(), expected + adapter.bias.view(1, -1, 1, 1).double())
    assert own.shape == other.shape == (2, 6, 8, 8)


def test_sides_of_different_layouts(nets):
    """A pair's own layout goes before the term's; a transposed map read as (B, H, W, C) has its H as channels."""
    layout = {"student": "nchw", "teacher": "nhwc"}
    pair = {"student": "body.0", "teacher": "body.0", "network": "t_2", "layout": layout}
    term, ctx, _ = make(nets, [pair], layout="tokens", adapter="raw")
    ((own, other),) = features(term, ctx)
    torch.testing.assert_close(own, ctx.run("g").features["body.0"], rtol=0, atol=0)
    torch.testing.assert_close(other, ctx.run("t_2").features["body.0"].permute(0, 3, 1, 2), rtol=0, atol=0)


def test_a_map_met_by_tokens_is_flattened(nets):
    term, ctx, _ = make(nets, [["tokens", "body.0"]])
    ((own, other),) = features(term, ctx)
    image = ctx.run("t").features["body.0"]
    assert own.shape == other.shape == (2, 64, 6)
    for position in range(64):
        assert torch.equal(other[:, position], image[:, :, position // 8, position % 8])


def gram(tokens):
    """(L, C) → (C, C), naively."""
    return sum(torch.outer(token, token) for token in tokens.double())


def test_windowed_tokens_of_a_longer_batch_give_each_image_its_own_gram_matrix():
    torch.manual_seed(0)
    term = FeatureTerm([["mix", "mix"]])
    world = Networks(term, g=Windowed(5), t=Windowed(5))
    images = torch.rand(4, 3, 8, 8)
    longer = world.context(images)
    for done in longer.passes.values():  # as a step gives them: of the last 2 of 4 images that ran together
        done.output = done.output[2:]
        done.features = {name: slice_images(feature, 2, 4, 4, name) for name, feature in done.features.items()}
    ((together, teacher),) = term.matched_features(longer)
    assert together.shape == teacher.shape == (2, 64, 5)
    for image, tokens in zip(images[2:], together):
        alone = world.nets["g"](image[None])[0].flatten(0, 1)
        torch.testing.assert_close(gram(tokens), gram(alone))


def test_windows_may_become_more_with_the_patch():
    term = FeatureTerm([["mix", "mix"]])
    world = Networks(term, g=Windowed(5), t=Windowed(5))
    ((own, other),) = term.matched_features(world.context(torch.rand(3, 3, 16, 16)))
    assert own.shape == other.shape == (3, 256, 5)


@pytest.mark.parametrize(("student", "teacher"), [("mix", "head"), ("mix", "tokens"), ("head", "mix")])
@pytest.mark.parametrize("resize", ["none", "student"])
def test_windows_do_not_meet_what_is_in_row_order(student, teacher, resize):
    message = "'mix' has its own order of them, by window; choose a module outside the windows"
    with pytest.raises(ValueError, match=message):
        make({"g": Windowed(5), "t": Windowed(5)}, [[student, teacher]], resize=resize)


# Resizing.


def bilinear(image, size):
    """(B, C, H, W) to another size by the definition: sample at (i + ½)·H/h − ½, the border repeated."""
    image = image.double()
    height, width = image.shape[2:]
    result = image.new_empty(*image.shape[:2], *size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * height / size[0] - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / size[1] - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            down, right = min(top + 1, height - 1), min(left + 1, width - 1)
            above = (1 - (x - left)) * image[:, :, top, left] + (x - left) * image[:, :, top, right]
            below = (1 - (x - left)) * image[:, :, down, left] + (x - left) * image[:, :, down, right]
            result[:, :, i, j] = (1 - (y - top)) * above + (y - top) * below
    return result


def as_map(feature, patch):
    """A map, or tokens of the patch's size or half of it as a map."""
    if feature.dim() == 4:
        return feature
    height, width = patch if feature.shape[1] == patch[0] * patch[1] else (patch[0] // 2, patch[1] // 2)
    return feature.reshape(len(feature), height, width, -1).permute(0, 3, 1, 2)


def adapted(adapter, image):
    weight = adapter.weight.double().flatten(1)
    return torch.einsum("bchw,oc->bohw", image.double(), weight) + adapter.bias.double().view(1, -1, 1, 1)


@pytest.mark.parametrize("patch", [(8, 8), (8, 12)])
@pytest.mark.parametrize(
    ("student", "teacher", "resize", "size"),
    [
        ("down", "body.0", "student", 1),
        ("body.0", "down", "student", 0.5),
        ("down", "body.0", "teacher", 0.5),
        ("body.0", "down", "teacher", 1),
        ("small_tokens", "body.0", "student", 1),
        ("tokens", "down", "student", 0.5),
        ("down", "tokens", "teacher", 0.5),
        ("small_tokens", "tokens", "student", 1),
    ],
)
def test_resizing(nets, student, teacher, resize, size, patch):
    term, ctx, _ = make(nets, [[student, teacher]], resize=resize, patch=patch)
    ((own, other),) = features(term, ctx)
    images = {
        "student": as_map(ctx.run("g").features[student], patch),
        "teacher": as_map(ctx.run("t").features[teacher], patch),
    }
    size = tuple(int(side * size) for side in patch)
    images[resize] = bilinear(images[resize], size)
    torch.testing.assert_close(own.double(), adapted(term.adapters[0], images["student"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other.double(), images["teacher"].double(), rtol=1e-5, atol=1e-6)
    assert own.shape == other.shape == (2, 6, *size)


def test_resizing_and_adapting_commute(nets):
    """So that the adapter may act at the smaller resolution; the larger is checked here."""
    term, ctx, _ = make(nets, [["down", "body.0"]], resize="student")
    ((own, _),) = features(term, ctx)
    large = bilinear(ctx.run("g").features["down"], (8, 8))
    torch.testing.assert_close(own.double(), adapted(term.adapters[0], large), rtol=1e-5, atol=1e-6)
    runs_at = []
    for pair in (["down", "body.0"], ["body.0", "down"]):
        term, ctx, _ = make(nets, [pair], resize="student")
        term.adapters[0].register_forward_hook(lambda m, args, out: runs_at.append(tuple(out.shape[2:])))
        features(term, ctx)
    assert runs_at == [(4, 4), (4, 4)]


def test_tokens_are_resized_only_where_their_grid_is_known():
    class Cropped(Maps):
        """Its tokens are of an image of which a column is missing."""

        def forward(self, x):
            self.tokens(x[..., 1:])
            return self.last(self.head(x))

    message = "the 56 tokens of network_g 'tokens' do not make a grid of the patch's aspect ratio 8×8, so that"
    with pytest.raises(ValueError, match=message):
        make({"g": Cropped(4), "t": Cropped(4)}, [["tokens", "head"]], resize="student")


# Adapters and gradients.


def test_raw_features_are_canonical_and_otherwise_as_they_are():
    term, ctx, _ = make({"g": Windowed(5), "t": Maps(6)}, [["mix", "down"], ["head", "tokens"]], adapter="raw")
    (windows, small), (image, tokens) = features(term, ctx)
    assert windows.shape == (2, 64, 5) and small.shape == (2, 6, 4, 4)
    assert image.shape == (2, 5, 8, 8) and tokens.shape == (2, 64, 6)
    assert not list(term.parameters())


def test_a_term_that_compares_no_channels_needs_no_adapter(nets):
    class Affinity(FeatureTerm):
        same_width = False

    term = Affinity([["body.0", "body.0"]])
    ctx = Networks(term, **nets).context(torch.rand(2, 3, 8, 8))
    ((own, other),) = term.matched_features(ctx)
    assert own.shape == (2, 4, 8, 8) and other.shape == (2, 6, 8, 8)
    assert not list(term.parameters())


def test_gradients_reach_student_and_adapter_and_not_the_teacher(nets):
    term, ctx, _ = make(nets, [["body.0", "body.0"]])
    ((own, other),) = features(term, ctx)
    assert not other.requires_grad
    F.mse_loss(own, other).backward()
    assert nets["g"].head.weight.grad.any() and term.adapters[0].weight.grad.any()
    assert nets["g"].last.weight.grad is None and nets["t"].head.weight.grad is None


def test_the_student_s_deeper_layers_may_teach_its_own(nets):
    term, ctx, _ = make(nets, [{"student": "body.0", "teacher": "body.7", "network": "g"}])
    ((own, other),) = features(term, ctx)
    F.mse_loss(own, other).backward()
    assert nets["g"].body[0].weight.grad.any() and nets["g"].body[7].weight.grad is None


# FitNets.


def fitnets(student, teacher, weight=None, bias=None):
    """FitNets' value for two given features, without networks."""
    kinds = ["nchw" if feature.dim() == 4 else "tokens" for feature in (student, teacher)]
    layout = dict(zip(("student", "teacher"), kinds))
    term = build_term("x", {"type": "FitNets", "pairs": [["f", "f"]], "layout": layout})
    shapes = {"g": tuple(student.shape), "t": tuple(teacher.shape)}
    networks = SimpleNamespace(
        tap=lambda network, name: {name: shapes[network]}, shape_at=print, patch_size=(8, 8), device="cpu"
    )
    term.setup(networks)
    if weight is not None:
        adapter = term.adapters[0]
        del adapter.weight, adapter.bias
        adapter.weight, adapter.bias = weight, bias
    passes = {
        network: SimpleNamespace(output=feature, features={"f": feature})
        for network, feature in (("g", student), ("t", teacher))
    }
    return term(Context(passes))


def test_fitnets_value_on_maps():
    student = torch.tensor([[[[1.0, 2.0]]]])  # (1, 1, 1, 2)
    teacher = torch.tensor([[[[1.0, 1.0]], [[0.0, 5.0]]]])  # (1, 2, 1, 2)
    weight, bias = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1), torch.tensor([0.0, -1.0])
    # adapted: channel 0 = 1, 2; channel 1 = 1, 3. squared differences: 0, 1, 1, 4
    assert fitnets(student, teacher, weight, bias).item() == pytest.approx(6 / 4)


def test_fitnets_value_on_tokens_against_a_map():
    teacher = torch.arange(12.0).view(1, 2, 2, 3)
    tokens = teacher.flatten(2).transpose(1, 2) + 2  # (1, 6, 2), each element 2 away
    assert fitnets(teacher, tokens).item() == pytest.approx(4.0)


def test_fitnets_gradient_reaches_student_and_adapter():
    torch.manual_seed(0)
    student = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    weight = torch.randn(3, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *inputs: fitnets(inputs[0], teacher, *inputs[1:]), [student, weight, bias])
