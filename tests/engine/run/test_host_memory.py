"""What is done with freed memory, seen in a process of its own by the pages it holds."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys, torch
from basicsr.engine.run.host_memory import disable_malloc_trim

def resident():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))

if sys.argv[1] == "keep":
    disable_malloc_trim()
buffer = torch.ones(2**26)  # 256 MiB
full = resident()
del buffer
print(full - resident())
"""

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs Linux with glibc")


def run(how, **environment):
    command = [sys.executable, "-c", PROGRAM, how]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment or None)
    return int(result.stdout)


@needs_glibc
def test_freed_buffers_stay():
    assert run("keep") < 50
    assert run("default") > 200


@needs_glibc
def test_settings_of_the_environment_hold(monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1048576")
    assert run("keep") > 200
