import numpy as np
import pytest

import basicsr.metrics
from basicsr.metrics import calculate_metric, calculate_niqe, calculate_psnr
from basicsr.utils.registry import METRIC_REGISTRY


@pytest.fixture
def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (96, 192, 3), dtype=np.uint8) for name in ("img", "img2")}


@pytest.fixture
def registered():
    """Register metrics for one test."""
    added = []

    def add(metric):
        METRIC_REGISTRY.register(metric)
        added.append(metric.__name__)

    yield add
    for name in added:
        del METRIC_REGISTRY._objects[name]


def test_passes_the_options_and_leaves_them_alone(images):
    opt = {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True, "better": "higher"}
    before = dict(opt)
    assert calculate_metric(images, opt) == calculate_psnr(**images, crop_border=4, test_y_channel=True)
    assert opt == before


def test_a_metric_without_reference_gets_one_image(images):
    opt = {"type": "calculate_niqe", "crop_border": 0, "better": "lower"}
    assert calculate_metric(images, opt) == calculate_niqe(images["img"], 0)
    assert calculate_metric({"img": images["img"]}, opt) == calculate_niqe(images["img"], 0)


def test_a_users_metric_with_open_arguments_gets_everything(images, registered):
    def count_arguments(img, **kwargs):
        return sorted(kwargs)

    registered(count_arguments)
    assert calculate_metric(images, {"type": "count_arguments", "crop_border": 1}) == ["crop_border", "img2"]


def test_no_type(images):
    with pytest.raises(ValueError, match=r"a metric needs the key 'type', as in .*'crop_border': 0"):
        calculate_metric(images, {"crop_border": 0})


def test_unknown_type(images):
    with pytest.raises(KeyError, match="Did you mean 'calculate_psnr'"):
        calculate_metric(images, {"type": "calculate_psn"})


def test_every_name_of_the_package_exists():
    for name in basicsr.metrics.__all__:
        assert getattr(basicsr.metrics, name).__name__ == name
        assert name in dir(basicsr.metrics)
    with pytest.raises(AttributeError, match="has no attribute 'calculate_nothing'"):
        _ = basicsr.metrics.calculate_nothing
