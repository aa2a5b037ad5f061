import platform

import pytest
import torch

from basicsr.utils import machine

CPUINFO = """processor\t: 0
model name\t: {name}
flags\t\t: fpu avx2 {flags}
processor\t: 1
model name\t: another
flags\t\t: amx_bf16
"""


@pytest.fixture
def cpu(tmp_path, monkeypatch):
    """Makes the machine's CPU another one, as /proc/cpuinfo tells; PyTorch itself sees no unit."""

    def make(text):
        (tmp_path / "cpuinfo").write_text(text)
        clear()

    def clear():
        for function in (machine.cpu_flags, machine.cpu_name, machine.cpu_unit):
            function.cache_clear()

    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "_torch_supports", lambda name: False)
    yield make
    clear()


@pytest.mark.parametrize(
    ("flags", "bf16", "fp16"),
    [
        ("", None, None),
        ("avx512f avx512_vnni", None, None),
        ("avx512_bf16", "AVX-512-bf16", None),
        ("avx512_fp16", None, "AVX-512-fp16"),
        ("avx512_bf16 amx_bf16 amx_fp16", "AMX", "AMX"),
    ],
)
def test_units_of_x86(cpu, flags, bf16, fp16):
    cpu(CPUINFO.format(name="A CPU", flags=flags))
    assert machine.cpu_unit(torch.bfloat16) == bf16
    assert machine.cpu_unit(torch.float16) == fp16
    assert machine.cpu_name() == "A CPU"


def test_units_of_arm(cpu, monkeypatch):
    cpu("Features\t: fp asimd asimdhp bf16\n")
    assert machine.cpu_unit(torch.bfloat16) is None  # a flag of that name on another processor
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    machine.cpu_unit.cache_clear()
    assert machine.cpu_unit(torch.bfloat16) == "ARM's bf16"
    assert machine.cpu_unit(torch.float16) == "ARM's asimdhp"


def test_without_cpuinfo_pytorch_is_asked(cpu, monkeypatch):
    machine.CPUINFO.unlink(missing_ok=True)
    machine.cpu_flags.cache_clear()
    assert machine.cpu_unit(torch.bfloat16) is None
    monkeypatch.setattr(machine, "_torch_supports", lambda name: "bf16" in name)
    machine.cpu_unit.cache_clear()
    assert machine.cpu_unit(torch.bfloat16) == "AVX-512-bf16"
    machine.cpu_name.cache_clear()
    assert machine.cpu_name()


def test_the_name_of_the_machine_is_fit_for_a_folder(cpu):
    cpu(CPUINFO.format(name="Some/Brand(R) CPU @ 2.4 GHz", flags=""))
    name = machine.machine_name()
    assert name.startswith("some-brand-r-cpu-2.4-ghz-")
    assert name.endswith(f"torch-{torch.__version__}".lower())
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.+-")
