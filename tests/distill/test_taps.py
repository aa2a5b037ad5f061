import pytest
import torch
from torch import nn

from basicsr.distill.taps import FeatureTaps


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
        self.pair = Pair()

    def forward(self, x):
        return self.pair(self.body(self.act(self.head(x))))[0]


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def run(taps, net, watch=False):
    x = torch.randn(1, 3, 5, 5)
    with taps.recording(watch) as features:
        net(x)
    return x, features


def test_records_the_module_s_output(net):
    taps = FeatureTaps(net, "network_g")
    assert taps.add("body.1") == ["body.1"]
    x, features = run(taps, net)
    torch.testing.assert_close(features["body.1"], net.body(torch.relu(net.head(x))), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("body.*", ["body.0", "body.1"]),
        ("*", ["head", "act", "body", "pair"]),
        ("**.1", ["body.1"]),
        ("**.head", ["head"]),
        ("head*", ["head"]),
    ],
)
def test_globs_match_in_the_order_of_definition(net, pattern, expected):
    assert FeatureTaps(net, "network_g").add(pattern) == expected


def test_records_only_while_recording(net):
    taps = FeatureTaps(net, "network_g")
    taps.add("head")
    _, features = run(taps, net)
    before = features["head"]
    net(torch.randn(1, 3, 5, 5))
    assert features["head"] is before


def test_a_feature_changed_in_place_is_copied_once_that_is_known(net):
    taps = FeatureTaps(net, "network_g")
    taps.add("head")
    x, features = run(taps, net)
    assert (features["head"] >= 0).all(), "the in-place activation has overwritten it"
    run(taps, net, watch=True)
    x, features = run(taps, net)
    torch.testing.assert_close(features["head"], net.head(x), rtol=0, atol=0)


def test_no_match_lists_near_misses(net):
    with pytest.raises(ValueError, match=r"no module of network_g matches 'boddy.1'; near misses: body.1"):
        FeatureTaps(net, "network_g").add("boddy.1")


def test_output_that_is_no_tensor(net):
    taps = FeatureTaps(net, "network_t")
    taps.add("pair")
    with pytest.raises(ValueError, match="network_t: the output of 'pair' is a tuple"):
        run(taps, net)


def test_module_that_runs_twice():
    shared = nn.Sequential(nn.Identity())
    shared.append(shared[0])
    taps = FeatureTaps(shared, "network_g")
    taps.add("0")
    with pytest.raises(ValueError, match="'0' runs more than once"), taps.recording():
        shared(torch.zeros(1))
