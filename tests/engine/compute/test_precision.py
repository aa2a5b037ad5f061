import logging

import pytest
import torch

from basicsr.engine.compute import precision
from basicsr.engine.compute.precision import native_bf16, resolve_precision, slowdown

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def unit(monkeypatch):
    """Gives the CPU a unit for 16 bits, or none; one layer then takes 7.25 times as long."""

    def give(name):
        monkeypatch.setattr(precision, "cpu_unit", lambda dtype: name)

    monkeypatch.setattr(precision, "slowdown", lambda dtype: 7.25)
    monkeypatch.setattr(precision, "cpu_name", lambda: "A CPU")
    monkeypatch.setattr(precision, "cpu_capability", lambda: "AVX2")
    return give


def test_auto_on_a_cpu_with_a_unit_for_bf16(unit, log):
    unit("AMX")
    assert resolve_precision("auto", CPU, "runtime.t.precision") == "bf16"
    assert log.messages == ["runtime.t.precision: auto is bf16, since this CPU (A CPU, AVX2) has AMX"]


def test_auto_on_a_cpu_without(unit, log):
    unit(None)
    assert resolve_precision("auto", CPU, "runtime.t.precision") == "fp32"
    assert log.messages == [
        "runtime.t.precision: auto is fp32, since this CPU (A CPU, AVX2) has neither AMX nor AVX-512-bf16"
    ]


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_on_cuda(capability, expected, monkeypatch, log):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    assert resolve_precision("auto", CUDA, "runtime.g.precision") == expected
    assert "A GPU has compute capability {}.{}".format(*capability) in log.messages[0]


def test_auto_elsewhere_is_fp32(log):
    assert resolve_precision("auto", torch.device("meta"), "runtime.g.precision") == "fp32"
    assert "not known" in log.messages[0]


def test_amd_gpus_are_not_judged_by_nvidias_numbers(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert native_bf16(CUDA)[0] is False


@pytest.mark.parametrize("wanted", ["bf16", "fp16"])
def test_what_is_emulated_is_done_with_a_warning(wanted, unit, log):
    unit(None)
    assert resolve_precision(wanted, CPU, "runtime.g.precision") == wanted
    [record] = log.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"runtime.g.precision: this CPU (A CPU, AVX2) emulates {wanted}: ")
    assert "7.2 times as long" in record.message


@pytest.mark.parametrize(
    ("wanted", "device", "name"),
    [("bf16", CPU, "AMX"), ("fp32", CPU, None), ("tf32", CPU, None), ("bf16", CUDA, None), ("fp16", CUDA, None)],
)
def test_else_nothing_is_said(wanted, device, name, unit, log):
    unit(name)
    assert resolve_precision(wanted, device, "runtime.g.precision") == wanted
    assert log.messages == []


def test_the_slowdown_is_measured_once():
    slowdown.cache_clear()
    first = slowdown(torch.bfloat16)
    assert first > 0
    assert slowdown(torch.bfloat16) == first
