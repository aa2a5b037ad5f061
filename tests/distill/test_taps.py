import copy
import gc
import weakref
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from basicsr.distill.taps import FeatureTaps, slice_images


class Net(nn.Module):
    """Twelve blocks, an in-place activation, and a module with several outputs whose second goes on."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
        self.pair = Pair()

    def forward(self, x):
        return self.pair(self.body(self.act(self.head(x))))[1] * 3


class Pair(nn.Module):
    def forward(self, x):
        return x, x + 1


class Deep(nn.Module):
    """``body.0`` … ``body.11``, each of two parts."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleList(nn.ModuleDict({"a": nn.Identity(), "b": nn.Identity()}) for _ in range(12))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def run(taps, net, watch=False, replace=None):
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    with taps.recording(watch, replace) as features:
        output = net(x)
    return x, features, output


def test_records_the_module_s_output(net):
    taps = FeatureTaps(net, "network_g")
    assert taps.add("body.1") == ["body.1"]
    x, features, _ = run(taps, net)
    torch.testing.assert_close(features["body.1"], net.body(torch.relu(net.head(x))), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("body.*", ["body.0", "body.1"]),
        ("*", ["head", "act", "body", "pair"]),
        ("**.1", ["body.1"]),
        ("**.head", ["head"]),
        ("head*", ["head"]),
        ("pair#1", ["pair#1"]),
        ("p*#1", ["pair#1"]),
    ],
)
def test_globs_match_in_the_order_of_definition(net, pattern, expected):
    taps = FeatureTaps(net, "network_g")
    assert taps.add(pattern) == taps.add(pattern) == taps.names == expected


@pytest.mark.parametrize(
    ("pattern", "blocks"),
    [
        ("body.[246]", [2, 4, 6]),
        ("body.[0-3]", [0, 1, 2, 3]),
        ("body.[!0-7]", [8, 9]),
        ("body.?", list(range(10))),
        ("body.1[01]", [10, 11]),
        ("body.??", [10, 11]),
        ("body.{11,3,7}", [3, 7, 11]),
        ("body.{[02],1?}", [0, 2, 10, 11]),
    ],
)
def test_globs_over_numbers(pattern, blocks):
    assert FeatureTaps(Deep(), "network_g").add(pattern) == [f"body.{i}" for i in blocks]
    assert FeatureTaps(Deep(), "network_g").add(f"{pattern}.[!a]") == [f"body.{i}.b" for i in blocks]


def test_a_character_class_does_not_match_a_dot():
    with pytest.raises(ValueError, match="no module of network_g matches"):
        FeatureTaps(Deep(), "network_g").add("body[!x]1")


def test_a_class_that_is_none(net):
    with pytest.raises(ValueError, match=r"'body.\[3-1\]' is not a valid glob: bad character range"):
        FeatureTaps(net, "network_g").add("body.[3-1]")


def test_no_match_lists_near_misses(net):
    with pytest.raises(ValueError, match=r"no module of network_g matches 'boddy.1'; near misses: body.1"):
        FeatureTaps(net, "network_g").add("boddy.1")


def test_records_only_while_recording(net):
    taps = FeatureTaps(net, "network_g")
    taps.add("head")
    _, features, _ = run(taps, net)
    before = features["head"]
    net(torch.randn(1, 3, 5, 5))
    assert features["head"] is before


def test_a_feature_changed_in_place_is_copied_once_that_is_known(net):
    taps = FeatureTaps(net, "network_g")
    taps.add("head")
    _, features, _ = run(taps, net)
    assert (features["head"] >= 0).all(), "the in-place activation has overwritten it"
    run(taps, net, watch=True)
    x, features, _ = run(taps, net)
    torch.testing.assert_close(features["head"], net.head(x), rtol=0, atol=0)


class Values(NamedTuple):
    mean: Tensor
    count: int
    scaled: Tensor


class Several(nn.Module):
    """One module of each kind of output, the product of their tensors as the network's."""

    def __init__(self):
        super().__init__()
        self.tuple = Calls(lambda x: (x, 2 * x))
        self.list = Calls(lambda x: [x, 3 * x])
        self.dict = Calls(lambda x: {"a": x, "b": 5 * x, "n": 1})
        self.named = Calls(lambda x: Values(x, 1, 7 * x))

    def forward(self, x):
        return self.tuple(x)[1] + self.list(x)[1] + self.dict(x)["b"] + self.named(x).scaled


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(("name", "factor"), [("tuple#1", 2), ("list#1", 3), ("dict#b", 5), ("named#2", 7)])
def test_one_of_several_outputs(name, factor):
    net = Several()
    taps = FeatureTaps(net, "network_g")
    assert taps.add(name) == [name]
    x = torch.rand(1, 2)
    with taps.recording() as features:
        net(x)
    torch.testing.assert_close(features, {name: factor * x})
    with taps.recording(replace={name: 100 * x}) as features:
        output = net(x)
    assert features[name] is not None
    torch.testing.assert_close(output, (17 - factor + 100) * x)


def test_two_outputs_of_one_module():
    net = Several()
    taps = FeatureTaps(net, "network_g")
    assert [taps.add("tuple#0"), taps.add("tuple#1")] == [["tuple#0"], ["tuple#1"]]
    x = torch.rand(1, 2)
    with taps.recording() as features:
        net(x)
    torch.testing.assert_close(features, {"tuple#0": x, "tuple#1": 2 * x})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tuple", r"the output of 'tuple' is a tuple, not a tensor; tap 'tuple#0' or 'tuple#1'"),
        ("dict", r"the output of 'dict' is a dict, not a tensor; tap 'dict#a' or 'dict#b'$"),
        ("tuple#2", r"the output of 'tuple' is a tuple, of which '#2' is not a tensor; tap 'tuple#0' or 'tuple#1'"),
        ("named#1", r"the output of 'named' is a Values, of which '#1' is not a tensor; tap 'named#0' or 'named#2'"),
        ("none", r"the output of 'none' is a NoneType, not a tensor; tap a module inside or after it"),
        ("one#0", r"the output of 'one' is one tensor, of which '#0' is not a tensor; tap 'one'"),
    ],
)
def test_outputs_that_are_not_a_tensor(name, message):
    net = Several()
    net.none, net.one = Calls(lambda x: None), Calls(lambda x: x)
    taps = FeatureTaps(net, "network_t")
    taps.add(name)
    with pytest.raises(ValueError, match=f"network_t: {message}"), taps.recording():
        getattr(net, name.partition("#")[0])(torch.rand(1, 2))


def test_module_that_runs_twice():
    shared = nn.Sequential(nn.Identity())
    shared.append(shared[0])
    taps = FeatureTaps(shared, "network_g")
    taps.add("0")
    with pytest.raises(ValueError, match="'0' runs more than once"), taps.recording():
        shared(torch.zeros(1))


def test_the_network_continues_from_a_replacement_and_gradients_flow_to_it_alone(net):
    taps = FeatureTaps(net, "network_t")
    taps.add("body.0")
    given = torch.randn(2, 4, 5, 5, requires_grad=True)
    _, features, output = run(taps, net, replace={"body.0": given})
    assert features["body.0"] is given
    expected = (net.body[1](given) + 1) * 3
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    output.square().sum().backward()
    torch.testing.assert_close(given.grad, torch.autograd.grad(expected.square().sum(), given)[0], rtol=0, atol=0)
    assert net.head.weight.grad is None and net.body[0].weight.grad is None
    assert net.body[1].weight.grad is not None


def test_features_after_a_replacement_follow_from_it(net):
    taps = FeatureTaps(net, "network_t")
    taps.add("body.*")
    given = torch.randn(2, 4, 5, 5)
    _, features, _ = run(taps, net, replace={"body.0": given})
    torch.testing.assert_close(features["body.1"], net.body[1](given), rtol=0, atol=0)


def test_a_replacement_is_not_overwritten_by_the_network(net):
    taps = FeatureTaps(net, "network_t")
    taps.add("head")
    run(taps, net, watch=True)
    given = torch.randn(2, 4, 5, 5, requires_grad=True)
    before = given.detach().clone()
    _, features, output = run(taps, net, replace={"head": given})
    assert torch.equal(given, before) and features["head"] is given
    torch.testing.assert_close(output, (net.body(torch.relu(given)) + 1) * 3, rtol=0, atol=0)


def test_a_replacement_by_the_feature_itself_changes_nothing_under_autocast(net):
    """Recorded features are handed on in float32; the network goes on in its own precision."""
    taps = FeatureTaps(net, "network_t")
    taps.add("body.0")
    with torch.autocast("cpu", torch.bfloat16):
        _, features, output = run(taps, net)
        _, _, again = run(taps, net, replace={"body.0": features["body.0"].float()})
    assert output.dtype == again.dtype == torch.bfloat16
    assert torch.equal(output, again)


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        ({"body.1": torch.zeros(2, 4, 5, 5)}, r"'body.1' is to be replaced but not tapped; tap it \(tapped: body.0"),
        ({"body.0": torch.zeros(2, 4, 5, 6)}, r"'body.0' is \(2, 4, 5, 5\) and .* by a tensor \(2, 4, 5, 6\)"),
        ({"idle": torch.zeros(1)}, r"network_t: idle was to be replaced but did not run"),
    ],
)
def test_replacements_that_cannot_be(net, replace, message):
    net.idle = nn.Identity()
    taps = FeatureTaps(net, "network_t")
    taps.add("body.0")
    taps.add("idle")
    with pytest.raises(ValueError, match=message):
        run(taps, net, replace=replace)
    _, features, _ = run(taps, net)
    assert features.keys() == {"body.0"}, "the next pass is recorded as usual"


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 2)

    def forward(self, x):
        return checkpoint(lambda x: self.second(self.first(x).sin()).sin(), x, use_reentrant=False)


def test_a_feature_of_a_checkpointed_part_has_its_gradient():
    net = Checkpointed()
    taps = FeatureTaps(net, "network_g")
    taps.add("first")
    x = torch.randn(3, 2)
    with taps.recording() as features:
        net(x)
    (gradient,) = torch.autograd.grad(features["first"].square().sum(), net.first.weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(net.first(x).square().sum(), net.first.weight)[0])


def test_a_replacement_that_would_be_recomputed_is_refused():
    net = Checkpointed()
    taps = FeatureTaps(net, "network_g")
    taps.add("first")
    with taps.recording(replace={"first": torch.randn(3, 2)}):
        output = net(torch.randn(3, 2))
    with pytest.raises(RuntimeError, match=r"'first' has been replaced, .* switch activation checkpointing off"):
        output.sum().backward()


@pytest.mark.parametrize("replace", [False, True])
def test_nothing_of_a_step_stays(net, replace):
    taps = FeatureTaps(net, "network_g")
    taps.add("body.0")
    given = torch.randn(2, 4, 5, 5)
    _, features, output = run(taps, net, replace={"body.0": given} if replace else None)
    alive = [weakref.ref(tensor) for tensor in (*features.values(), output, given)]
    del features, output, given
    gc.collect()
    assert [ref() for ref in alive] == [None] * 3


@pytest.mark.parametrize(
    ("backend", "ways"),
    [("aot_eager", [None, "body.0", None, "pair#1", "head", "body.0"]), ("inductor", ["body.0", None])],
)
def test_recording_and_replacing_in_a_compiled_network(net, backend, ways):
    """The hooks are part of the compiled code, and recording may be switched on and off between calls."""
    eager = copy.deepcopy(net)
    pairs = []
    for network in (eager, net):
        taps = FeatureTaps(network, "network_t")
        for name in ("head", "body.0", "pair#1"):
            taps.add(name)
        run(taps, network, watch=True)
        pairs.append((taps, network))
    torch._dynamo.reset()
    net.compile(fullgraph=True, backend=backend)
    x = torch.randn(2, 3, 5, 5)

    def compare(name=None):
        results = []
        for taps, network in pairs:
            given = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
            _, features, output = run(taps, network, replace={name: given} if name else None)
            inputs = [given, network.head.weight]
            gradients = torch.autograd.grad(output.square().sum(), inputs, allow_unused=True, materialize_grads=True)
            assert [g.any().item() for g in gradients] == [name is not None, name is None]
            assert name is None or features[name] is given
            results.append((features, output, gradients))
        torch.testing.assert_close(*results)

    for name in ways:
        torch.testing.assert_close(net(x), eager(x))
        compare(name)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for name in ways:
        compare(name)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs, "each way is compiled once"


def test_cut_gives_each_image_its_windows():
    feature = torch.arange(12.0).view(12, 1)  # 4 images of 3 windows
    assert slice_images(feature, 1, 3, 4, "x")[:, 0].tolist() == [3, 4, 5, 6, 7, 8]
    assert slice_images(feature, 3, 4, 12, "x")[:, 0].tolist() == [3]


@pytest.mark.parametrize("feature", [torch.zeros(5, 2), torch.zeros(0, 2), torch.tensor(1.0)])
def test_cut_refuses_rows_that_are_no_multiple(feature):
    with pytest.raises(ValueError, match=r"'attn' gives .* for 2 images; its first dimension must be a multiple"):
        slice_images(feature, 0, 1, 2, "attn")


# Modules that run several times in a forward pass.


class Recurrent(nn.Module):
    """``cell`` runs three times, each time on twice its output."""

    def __init__(self, overwrites: bool = False):
        super().__init__()
        self.cell = nn.Linear(2, 2)
        self.overwrites = overwrites

    def forward(self, x):
        for _ in range(3):
            x = self.cell(x)
            x = x.mul_(2) if self.overwrites else x * 2
        return x


def runs_of(net, x):
    """The outputs of the cell, written out."""
    outputs = []
    for _ in range(3):
        outputs.append(x @ net.cell.weight.T + net.cell.bias)
        x = outputs[-1] * 2
    return outputs


@pytest.mark.parametrize("overwrites", [False, True])
def test_a_run_of_several_is_named(overwrites):
    torch.manual_seed(0)
    net, x = Recurrent(overwrites), torch.rand(4, 2)
    taps = FeatureTaps(net, "network_g")
    names = ["cell@0", "cell@1", "cell@last", "cell@mean"]
    assert [taps.add(name) for name in names] == [[name] for name in names]
    with taps.recording(watch=True):
        net(x)
    with taps.recording() as features:
        net(x)
    first, second, third = runs_of(net, x)
    expected = [first, second, third, (first + second + third) / 3]
    torch.testing.assert_close(features, dict(zip(names, expected)))
    gradients = torch.autograd.grad(features["cell@mean"].square().sum(), net.cell.weight)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected[-1].square().sum(), net.cell.weight))


def test_a_module_that_runs_once_has_one_run(net):
    taps = FeatureTaps(net, "network_g")
    for name in ("body.0@last", "body.0@mean", "body.0@0", "body.0", "pair#1@last"):
        taps.add(name)
    _, features, output = run(taps, net)
    for name in ("body.0@last", "body.0@mean", "body.0@0"):
        assert torch.equal(features[name], features["body.0"])
    assert torch.equal(features["pair#1@last"] * 3, output)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "cell",
            r"network_g: 'cell' runs more than once .* tap 'cell@last', 'cell@0' \(the first run\) or 'cell@mean'",
        ),
        ("cell@3", r"'cell@3' names run 3, but 'cell' ran 3 times in a forward pass; they are numbered from 0"),
        ("cell@first", r"'cell@first': after @ comes last, mean, or the number of the run, from 0, .* not 'first'"),
        ("cell@", r"after @ comes last"),
        ("sell@last", r"no module of network_g matches 'sell'; near misses: cell"),
    ],
)
def test_runs_that_are_not(pattern, message):
    net = Recurrent()
    taps = FeatureTaps(net, "network_g")
    with pytest.raises(ValueError, match=message):
        taps.add(pattern)
        with taps.recording():
            net(torch.rand(1, 2))


def test_a_mean_needs_equal_shapes():
    net = nn.Sequential(nn.Identity(), nn.Flatten())
    net.append(net[0])
    taps = FeatureTaps(net, "network_g")
    taps.add("0@mean")
    message = r"'0@mean' is a mean of outputs of different shapes, .* such as '0@last'"
    with pytest.raises(ValueError, match=message), taps.recording():
        net(torch.rand(1, 2, 3))


def test_one_run_of_several_cannot_be_replaced():
    net = Recurrent()
    taps = FeatureTaps(net, "network_t")
    taps.add("cell@last")
    replace, message = {"cell@last": torch.zeros(1, 2)}, "'cell@last' is one run of several, and cannot be replaced"
    with pytest.raises(ValueError, match=message), taps.recording(replace=replace):
        net(torch.rand(1, 2))


def test_runs_in_a_compiled_network():
    torch.manual_seed(0)
    net, x = Recurrent(), torch.rand(4, 2)
    taps = FeatureTaps(net, "network_g")
    for name in ("cell@1", "cell@last", "cell@mean"):
        taps.add(name)
    torch._dynamo.reset()
    net.compile(fullgraph=True, backend="aot_eager")
    for _ in range(2):
        net(x)
        with taps.recording() as features:
            net(x)
        _, second, third = outputs = runs_of(net, x)
        expected = {"cell@1": second, "cell@last": third, "cell@mean": sum(outputs) / 3}
        torch.testing.assert_close(features, expected)
