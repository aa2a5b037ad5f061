"""Start and query torch.distributed: launchers, rank, world size."""

from __future__ import annotations

import functools
import os
import re
import socket
import subprocess
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def init_dist(launcher: str, backend: str | None = None, port: int | None = None) -> None:
    """Join the process group that the launcher describes in the environment.

    Args:
        launcher: ``pytorch`` (torchrun or torch.distributed.launch) or ``slurm``.
        backend: ``nccl`` where there is a GPU for this process, ``gloo`` otherwise, unless named.
        port: Rendezvous port under slurm; otherwise MASTER_PORT, or 29500.

    Raises:
        ValueError: For another launcher.
        RuntimeError: When the launcher's variables are absent.
    """
    import torch
    import torch.distributed as dist

    if launcher == "slurm":
        _adopt_slurm(port)
    elif launcher != "pytorch":
        raise ValueError(f"--launcher {launcher}: expected none, pytorch or slurm")
    missing = [key for key in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if key not in os.environ]
    if missing:
        raise RuntimeError(
            f"--launcher {launcher} needs the environment variables {', '.join(missing)}, which are not set. Start "
            "with `torchrun --nproc_per_node=N basicsr/train.py -opt … --launcher pytorch`, or leave --launcher out."
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", os.environ["RANK"])) % torch.cuda.device_count())
    dist.init_process_group(backend=backend or ("nccl" if torch.cuda.is_available() else "gloo"))


def _adopt_slurm(port: int | None) -> None:
    """Translate SLURM's variables into torch.distributed's."""
    missing = [key for key in ("SLURM_PROCID", "SLURM_NTASKS") if key not in os.environ]
    if missing:
        raise RuntimeError(
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
    """Make a function do nothing, and return None, on every rank but 0."""

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if get_dist_info()[0] == 0:
            return func(*args, **kwargs)
        return None

    return wrapper  # type: ignore[return-value]
