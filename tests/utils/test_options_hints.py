"""Type hints of a plug-in's own classes are advice; those of this package are binding."""

import copy
from collections.abc import Sequence

import pytest
import yaml
from torch import nn

from basicsr.utils.options import read_options
from basicsr.utils.options.errors import OptionError
from basicsr.utils.registry import ARCH_REGISTRY, KD_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY

OPTIONS = {
    "name": "run",
    "model_type": "SRModel",
    "scale": 2,
    "datasets": {"test": {"name": "S", "type": "SingleImageDataset", "dataroot_lq": "lq"}},
    "network_g": {"type": "HintedNet"},
    "path": {"pretrain_network_g": "x.pth"},
    "val": {"metrics": {"m": {"type": "hinted_metric"}}},
}


class HintedNet(nn.Module):
    def __init__(self, depths: int = 4, ratio: float = 2.0, names: Sequence[str] = (), upscale: int = 2) -> None:
        super().__init__()


def hinted_metric(img, border: int = 0) -> float:
    return 0.0


@pytest.fixture
def read(tmp_path, monkeypatch):
    for registry in (ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, KD_REGISTRY):
        registry.keys()
        monkeypatch.setattr(registry, "_objects", dict(registry._objects))
    ARCH_REGISTRY.register(HintedNet)
    METRIC_REGISTRY.register(hinted_metric)

    def read(network=(), metric=(), **options):
        opt = copy.deepcopy(OPTIONS) | options
        opt["network_g"] |= dict(network)
        opt["val"]["metrics"]["m"] |= dict(metric)
        file = tmp_path / "x.yml"
        file.write_text(yaml.safe_dump(opt))
        return read_options(file)

    return read


def hints(notices):
    return [notice for notice in notices if "hints at" in notice]


def test_values_that_fit_are_not_mentioned(read):
    assert hints(read({"depths": 3, "ratio": 2, "names": ["a"]}, {"border": 1})[1]) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("depths", [6, 6], "an integer, not [6, 6]"),  # a list where the author once had a number
        ("depths", 4.5, "an integer, not 4.5"),
        ("ratio", "auto", "a number, not 'auto'"),
        ("names", [1], "a list of strings, not [1]"),
    ],
)
def test_a_value_that_contradicts_a_hint_is_a_notice(read, key, value, said):
    opt, notices = read({key: value})
    assert opt["network_g"][key] == value
    (notice,) = hints(notices)
    assert notice.startswith(f"network_g.{key} (") and notice.endswith(f": HintedNet hints at {said}")


def test_so_with_metrics(read):
    (notice,) = hints(read(metric={"border": "4"})[1])
    assert notice.startswith("val.metrics.m.border (")
    with pytest.raises(OptionError, match="better .*: must be one of"):  # a key of every metric
        read(metric={"better": "bigger"})


def test_keys_are_not_advice(read):
    with pytest.raises(OptionError, match="network_g.depth .*: unknown key; did you mean 'depths'"):
        read({"depth": 3})


def test_hints_of_this_package_are_binding(read):
    network = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 2, "num_feat": "64"}
    with pytest.raises(OptionError, match="num_feat .*: must be an integer"):
        read(network_g=network)
