"""What a process of the fixture ``launcher`` does; the names that are not defined here come with the call."""

import importlib
import multiprocessing
import os
import signal
import sys

import torch

os.setsid()
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background, which ignores it
output_file = os.open(output, os.O_WRONLY | os.O_APPEND)  # noqa: F821
for descriptor in (1, 2):
    os.dup2(output_file, descriptor)
sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
os.environ.update(environment)  # noqa: F821
sys.argv = [f"{entry}.py", *arguments]  # noqa: F821
torch.set_num_threads(1)
multiprocessing.set_start_method("fork", force=True)  # as in a process that was started by itself
importlib.import_module(f"basicsr.{entry}").main()  # noqa: F821
