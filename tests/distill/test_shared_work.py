"""What DCKD's terms compute in common, and what a step leaves behind."""

import gc
import inspect
import weakref

import pytest
import torch
from torch import nn

from basicsr.utils.registry import KD_REGISTRY

from .helpers import distil, network, small_batch, take_step

DCKD = {
    "ts": {"type": "LogitsKD"},
    "lcr": {"type": "LCR"},
    "cl": {"type": "DCR", "num_neg": 4},
    "ce": {"type": "DMM"},
}


def test_everything_costly_is_shared():
    """All DCKD terms together: one teacher pass, one encoder pass with gradients, one without."""
    batch = small_batch()
    distillation = distil(DCKD)
    take_step(distillation, batch.lq, output=batch.output)
    assert network(distillation, "g").passes == []
    assert network(distillation, "t").passes == [4]
    assert distillation.terms["cl"].history.passes == [10]
    encoder = network(distillation, "vqgan")
    assert sorted(encoder.calls) == [(2, True), (12, False)]


@pytest.mark.parametrize("order", [["cl", "ce", "lcr", "ts"], ["ce", "ts", "cl", "lcr"]])
def test_the_order_of_the_terms_changes_neither_passes_nor_values(order):
    batch = small_batch()
    unrandom = {"lcr": {"prob": 0.0}, "cl": {"gaussian_noise_prob": 0.0}}
    values = []
    for names in (DCKD, order):
        distillation = distil({name: {**DCKD[name], **unrandom.get(name, {})} for name in names})
        with torch.no_grad():
            distillation.terms["cl"].history.shift.fill_(-0.2)
        _, losses = take_step(distillation, batch.lq, output=batch.output)
        values.append({name: value.item() for name, value in losses.items()})
        assert network(distillation, "t").passes == [4]
        assert sorted(network(distillation, "vqgan").calls) == [(2, True), (12, False)]
    assert list(values[1]) == [f"l_{name}" for name in order]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_images_encoded_a_few_at_a_time_give_the_same(monkeypatch):
    """What the CPU does with many images."""
    batch = small_batch()
    values = []
    for chunk in (100, 5):
        distillation = distil({"cl": DCKD["cl"], "ce": DCKD["ce"]})
        history = distillation.terms["cl"].history
        with torch.no_grad():
            history.shift.fill_(-0.2)
        monkeypatch.setattr("basicsr.engine.compute.runtime.CPU_CHUNK", chunk)
        torch.manual_seed(5)
        _, losses = take_step(distillation, batch.lq, output=batch.output)
        values.append(losses)
    encoder = network(distillation, "vqgan")
    assert sorted(encoder.calls) == [(2, False), (2, True), (5, False), (5, False)]
    assert history.passes == [5, 5]
    assert values[0].keys() == values[1].keys()
    for name, value in values[0].items():
        assert value.item() == pytest.approx(values[1][name].item(), rel=1e-12)


def test_a_step_leaves_nothing_behind():
    """What terms and encodings hold is freed with the context, without waiting for the cyclic garbage collector."""
    batch = small_batch()
    distillation = distil({**DCKD, "up": {"type": "DUKD"}})
    take_step(distillation, batch.lq, torch.rand(2, 3, 32, 32, dtype=torch.float64), batch.output)
    gc.collect()
    gc.disable()
    try:
        ctx, losses = take_step(distillation, batch.lq, torch.rand(2, 3, 32, 32, dtype=torch.float64), batch.output)
        freed = [weakref.ref(ctx), weakref.ref(ctx.run("t").output), weakref.ref(losses["l_cl"])]
        del ctx, losses
        assert [reference() for reference in freed] == [None, None, None]
    finally:
        gc.enable()


def tensors_in(value):
    """The tensors in nested containers and objects other than modules."""
    if isinstance(value, torch.Tensor):
        return [value]
    if hasattr(value, "__dict__") and not isinstance(value, (nn.Module, type)):
        value = vars(value)
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, (list, tuple, set)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


BUILT_IN = sorted(name for name, term in KD_REGISTRY if term.__module__.startswith("basicsr."))


def own_options(name):
    """Options with which a term can be built."""
    parameters = inspect.signature(KD_REGISTRY.get(name)).parameters
    if "layers" in parameters:
        return {"encoder": "vqgan", "layers": [f"level{i}" for i in range(1, 6)]}
    return {"pairs": [["up", "up"]]} if "pairs" in parameters else {}


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_term_keeps_a_tensor_of_the_step(name):
    batch = small_batch()
    distillation = distil({"x": {"type": name, **own_options(name)}})
    ctx = weakref.ref(take_step(distillation, batch.lq, torch.rand(2, 3, 32, 32, dtype=torch.float64))[0])
    assert ctx() is None
    for module in distillation.terms["x"].modules():
        held = {key: value for key, value in vars(module).items() if key not in ("_parameters", "_buffers", "seen")}
        assert {key: found for key, value in held.items() if (found := tensors_in(value))} == {}
