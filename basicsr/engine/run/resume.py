"""Finding the training state to continue from, and the place in the training data that it was saved at.

Nothing is written or deleted while it is looked for: what a killed run has left goes by :func:`tidy_up`, when the run
that continues has started. The checkpoints of another continuation are then set aside.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from basicsr.data.stream import TrainingStream
from basicsr.engine.checkpoint import find_damage
from basicsr.engine.run.retention import keep_newest
from basicsr.engine.run.set_aside import iteration_of, last_valid, set_aside
from basicsr.engine.run.state_form import what_is_wrong
from basicsr.utils.atomic_file import file_hash, remove_leftovers
from basicsr.utils.dist_util import get_dist_info, get_roster, master_only
from basicsr.utils.logger import get_root_logger
from basicsr.utils.misc import check_resume
from basicsr.utils.weights import load_file


def find_resume_state(opt: dict) -> dict[str, Any] | None:
    """The training state to continue from, with ``path`` pointed at its networks; None for a new run.

    ``--auto_resume``, and a launcher that restarts the run, take the newest state of the run that is whole, with the
    networks saved beside it, and warn of each newer one that is not. Where there is none, and without these,
    ``path.resume_state`` is taken. Rank 0 chooses for all ranks. The files stay as they are.

    Raises:
        FileNotFoundError, ValueError: If ``path.resume_state`` names a file that is absent, damaged or no training
            state, or its networks are; or if a rank does not see the file that rank 0 has chosen.
        OSError: If the folder of the training states cannot be read.
    """
    rank, world = get_dist_info()
    roster = get_roster()
    if world > 1 and roster is not None and roster.restarted:
        opt["auto_resume"] = True
    choice = [_choose(opt) if rank == 0 else None]
    if world > 1:
        dist.broadcast_object_list(choice, src=0)
    opt["path"]["resume_state"] = choice[0]
    if choice[0] is None:
        return None
    file = Path(choice[0])
    if not file.is_file():
        raise FileNotFoundError(
            f"rank {rank} on host {socket.gethostname()} does not see {file}, from which rank 0 continues: the run's "
            f"folder must lie on a file system that all machines share"
        )
    state = load_file(file)
    _use_networks(opt, file, state)
    return state


@master_only
def tidy_up(opt: dict, state: dict[str, Any]) -> None:
    """Delete what a killed run has left: files that were not written to their end, and checkpoints that
    ``logger.keep_last`` does not keep. Set aside the checkpoints of another continuation.

    Args:
        opt: The options, as :func:`find_resume_state` has left them.
        state: The state that the run continues from.
    """
    own, file = Path(opt["path"]["training_states"]), Path(opt["path"]["resume_state"])
    models, is_own = Path(opt["path"]["models"]), is_own_state(opt)
    for folder in (own, models):
        remove_leftovers(folder)
    set_aside(Path(opt["path"]["experiments_root"]), own, models, file, state["iter"] if is_own else -1)
    keep = opt["logger"].get("keep_last")
    if keep and is_own:
        # The run may have ended between writing this state and deleting older ones.
        keep_newest(file.parent, _models_of(file), _networks(state), state["iter"], keep)


def sampler_state(streams: Sequence[TrainingStream]) -> dict[str, Any]:
    """Where the training data stand, for the key ``sampler`` of a training state.

    Returns:
        ``position`` in the epoch of the first stream, which is the epoch of the run; where there are several streams,
        also ``streams``: name → ``{"epoch": …, "position": …}``.
    """
    state: dict[str, Any] = {"position": streams[0].position}
    if len(streams) > 1:
        state["streams"] = {s.name: {"epoch": s.epoch, "position": s.position} for s in streams}
    return state


def restore_streams(state: dict[str, Any], streams: Sequence[TrainingStream], world: int) -> None:
    """Let every stream start where the training state was saved.

    BasicSR's states have no ``sampler``: every stream starts at the beginning of the state's epoch.

    Args:
        state: The training state, maybe of a run with another number of ranks.
        streams: The streams, before their first batch.
        world: Number of ranks now.

    Raises:
        ValueError: If the state was made by a run with other streams.
    """
    sampler = state.get("sampler")
    several = len(streams) > 1
    if sampler:
        saved, own = sampler.get("streams", {}), [stream.name for stream in streams] if several else []
        if saved.keys() != set(own):
            raise ValueError(
                f"the training state holds the positions of {_named(saved)}, and the recipe draws from {_named(own)}; "
                f"resume with the options of the run, or start a new run from its weights (path.pretrain_network_g)"
            )
    for stream in streams:
        name = stream.name if several and sampler else None
        epoch = state["epoch"] if name is None else sampler["streams"][name]["epoch"]
        stream.start_at(epoch, resume_position(state, world, stream.sampler.num_samples, name), state["iter"])


def resume_position(state: dict[str, Any], world: int, epoch_length: int, stream: str | None = None) -> int:
    """How many samples of its epoch each rank has consumed.

    Args:
        state: The training state, maybe of a run with another number of ranks.
        world: Number of ranks now.
        epoch_length: Samples of an epoch for each of them.
        stream: Which of several training streams; None where there is a single one.
    """
    sampler = state.get("sampler") or {}
    position = (sampler if stream is None else sampler["streams"][stream]).get("position", 0)
    saved_world = len(state.get("rng", [])) or world
    return position if saved_world == world else min(position * saved_world // world, epoch_length)


def _named(streams: Collection[str]) -> str:
    return f"the streams {', '.join(streams)}" if streams else "one stream"


def is_own_state(opt: dict) -> bool:
    """Whether the training state that ``path.resume_state`` names lies in the run's own folder."""
    path = opt["path"]
    return Path(path["resume_state"]).parent.resolve() == Path(path["training_states"]).resolve()


def _choose(opt: dict) -> str | None:
    path = opt["path"]
    if opt.get("auto_resume"):
        for file in sorted(_own_states(opt), key=lambda f: iteration_of(f) or 0, reverse=True):
            damage = _damage(file, iteration_of(file))
            if damage is None:
                return str(file)
            get_root_logger().warning(f"{file.name} is passed over: {damage}. Looking for an earlier state.")
    if path.get("resume_state"):
        damage = _damage(Path(path["resume_state"]))
        if damage:
            raise ValueError(f"path.resume_state: {path['resume_state']} cannot be continued from: {damage}")
        return path["resume_state"]
    return None


def _own_states(opt: dict) -> list[Path]:
    """The run's training states, without those that are being set aside."""
    folder = Path(opt["path"]["training_states"])
    try:
        files = list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise type(error)(
            f"--auto_resume: the folder {folder} cannot be read ({error.strerror or error}), so it is not known what "
            f"to continue from"
        ) from error
    limit = last_valid(Path(opt["path"]["experiments_root"]))
    return [file for file in files if (n := iteration_of(file)) is not None and (limit is None or n <= limit)]


def _damage(file: Path, iteration: int | None = None) -> str | None:
    """What is wrong with a training state or its networks, or that it is of another iteration; None if nothing is."""
    damage = find_damage(file)
    if damage:
        return f"the file {damage}"
    state = load_file(file)
    wrong = what_is_wrong(state, iteration)
    if wrong:
        return f"the file is no training state: {wrong}"
    hashes = state.get("network_hashes", {})
    for name in dict.fromkeys((*_networks(state), *hashes)):
        damage = find_damage(_models_of(file) / name)
        if damage is None and name in hashes and file_hash(_models_of(file) / name) != hashes[name]:
            damage = "is not the file that was saved with it, but one of another time or run"
        if damage:
            return f"its network {name} {damage}"
    return None


def _networks(state: dict[str, Any]) -> list[str]:
    """The networks of a training state; one made by BasicSR does not name them, but has at least this one."""
    return state.get("networks", [f"net_g_{state['iter']}.pth"])


def _models_of(file: Path) -> Path:
    """The networks' folder beside that of a training state, which need not be this run's own."""
    return file.resolve().parent.parent / "models"


def _use_networks(opt: dict, file: Path, state: dict[str, Any]) -> None:
    path = opt["path"]
    own = path["models"]
    path["models"] = str(_models_of(file))
    check_resume(opt, state["iter"])
    path["models"] = own
