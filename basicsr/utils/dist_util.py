"""Starts and queries torch.distributed: launchers, rank, world size."""

from __future__ import annotations

import functools
import os
import re
import socket
import subprocess
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from .rendezvous import LaunchError, Roster, assemble, read_rank_env

F = TypeVar("F", bound=Callable[..., Any])

JOIN_TIMEOUT = "BASICSR_JOIN_TIMEOUT"
"""Environment variable: seconds that the ranks wait for each other at the start; 300 when unset."""

# A rank that dies is noticed at once by its closed connections. This bounds the wait for a rank that hangs, and must
# exceed whatever one rank does while the others wait, such as a plug-in's own validation on rank 0.
_GROUP_TIMEOUT = timedelta(minutes=30)

_roster: Roster | None = None


def init_dist(launcher: str, backend: str | None = None, port: int | None = None) -> None:
    """Join the process group that the launcher describes in the environment.

    Args:
        launcher: ``pytorch`` (torchrun or torch.distributed.launch) or ``slurm``.
        backend: For GPU tensors, ``nccl`` unless named. Tensors on the CPU always go by ``gloo``, so that a machine
            with GPUs can also train on its CPU.
        port: Rendezvous port under slurm; otherwise MASTER_PORT, or 29500.

    Raises:
        ValueError: For another launcher.
        LaunchError: When the launcher's variables are absent or wrong, or not all ranks join within the time set by
            the environment variable ``BASICSR_JOIN_TIMEOUT``.
    """
    global _roster
    import torch
    import torch.distributed as dist

    if launcher == "slurm":
        _export_slurm_env(port)
    elif launcher != "pytorch":
        raise ValueError(f"--launcher {launcher}: expected none, pytorch or slurm")
    missing = [key for key in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if key not in os.environ]
    if missing:
        raise LaunchError(
            f"--launcher {launcher} needs the environment variables {', '.join(missing)}, which are not set. Start "
            "with `torchrun --nproc_per_node=N basicsr/train.py -opt … --launcher pytorch`, or leave --launcher out."
        )
    rank, world, master_port = read_rank_env(os.environ)
    timeout = float(os.environ.get(JOIN_TIMEOUT) or 300)
    _roster = assemble(rank, world, os.environ["MASTER_ADDR"], master_port, timeout)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
    dist.init_process_group(
        backend=group_backend(backend, torch.cuda.is_available()),
        store=_roster.store,
        rank=rank,
        world_size=world,
        timeout=_GROUP_TIMEOUT,
    )
    _roster.wait_until_connected(rank, timeout)


def group_backend(backend: str | None, cuda: bool) -> str:
    """The backends of a process group in torch's notation: ``gloo`` for the CPU, ``backend`` or ``nccl`` for GPUs."""
    return f"cpu:gloo,cuda:{backend or 'nccl'}" if cuda else "gloo"


def get_roster() -> Roster | None:
    """The processes of the run, and a store that they share; None without a launcher."""
    return _roster


def _export_slurm_env(port: int | None) -> None:
    """Translate SLURM's variables into torch.distributed's."""
    missing = [key for key in ("SLURM_PROCID", "SLURM_NTASKS") if key not in os.environ]
    if missing:
        raise LaunchError(
            f"--launcher slurm needs the environment variables {', '.join(missing)}, which are not set. "
            "Start with `srun … python basicsr/train.py -opt … --launcher slurm`."
        )
    env = os.environ
    env["RANK"] = env["SLURM_PROCID"]
    env["WORLD_SIZE"] = env["SLURM_NTASKS"]
    env["LOCAL_RANK"] = env.get("SLURM_LOCALID", "0")
    env.setdefault("MASTER_ADDR", first_slurm_host(env.get("SLURM_STEP_NODELIST") or env.get("SLURM_NODELIST", "")))
    if port is not None:
        env["MASTER_PORT"] = str(port)
    env.setdefault("MASTER_PORT", "29500")


def first_slurm_host(node_list: str) -> str:
    """The first host of a SLURM node list: ``gpu[03-05,9],cpu1`` → ``gpu03``; '' → this host.

    ``scontrol`` is asked where it exists, since only it knows every form.
    """
    if not node_list:
        return socket.gethostname()
    try:
        hosts = subprocess.run(
            ["scontrol", "show", "hostnames", node_list], capture_output=True, text=True, check=True
        ).stdout.split()
        if hosts:
            return hosts[0]
    except (OSError, subprocess.CalledProcessError):
        pass
    match = re.match(r"([^\[,]*)(?:\[([^\],-]*))?", node_list)
    assert match is not None
    return match.group(1) + (match.group(2) or "")


def get_dist_info() -> tuple[int, int]:
    """(rank, world size); (0, 1) outside a process group."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def master_only(func: F) -> F:
    """Decorator: the function runs on rank 0 only, and returns None on the other ranks."""

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if get_dist_info()[0] == 0:
            return func(*args, **kwargs)
        return None

    return wrapper  # type: ignore[return-value]
