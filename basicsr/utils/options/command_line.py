"""The command line of train.py and test.py, and the options it leads to."""

from __future__ import annotations

import argparse
import copy
import os
import random
from collections.abc import Mapping, Sequence
from os import path as osp
from typing import Any

from ..dist_util import get_dist_info, init_dist, master_only
from ..installation import find_conflict
from ..misc import set_random_seed
from .lookup import has_training_set
from .reading import read_options
from .record import OptionRecord

_records: dict[str, OptionRecord] = {}


def parse_options(
    root_path: str, is_train: bool | None = True, argv: Sequence[str] | None = None
) -> tuple[dict[str, Any], argparse.Namespace]:
    """Read the command line, load and check the option file, join the process group and seed.

    Args:
        root_path: The folder below which ``experiments`` and ``results`` lie.
        is_train: Whether for train.py; otherwise for test.py. When None, whether there is a training set.
        argv: The command line's arguments; the process's own when None.

    Returns:
        The options, with ``dist``, ``rank``, ``world_size``, ``auto_resume``, ``is_train`` and the run's folders
        filled in; and the arguments, with ``notices``, sentences for the log, and ``record``, the options as they were
        read, to be kept with the run.

    Raises:
        OptionError: With a sentence for everything that is wrong in the options.
    """
    args = _parser().parse_args(argv)
    opt, args.notices = read_options(args.opt, args.force_yml, is_train, check_files=True)
    conflict = find_conflict()
    if conflict is not None:
        args.notices.append(str(conflict))
    args.record = OptionRecord.of(args.opt, opt)  # now: the run's folder may be renamed, and the file be in it
    _records[args.opt] = args.record
    opt = copy.deepcopy(opt)
    if args.launcher is None:
        args.launcher = launcher_of(os.environ)
        if args.launcher != "none":
            place = f"RANK={os.environ['RANK']}, WORLD_SIZE={os.environ['WORLD_SIZE']}"
            args.notices.append(
                f"the environment is that of one of several processes of a run ({place}), as torchrun sets it: "
                f"--launcher {args.launcher} is assumed; --launcher none would make each a run of its own"
            )
    opt["dist"] = args.launcher != "none"
    if opt["dist"]:
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
        _join(args.launcher, opt.get("dist_params") or {})
    opt["rank"], opt["world_size"] = get_dist_info()
    opt["auto_resume"] = args.auto_resume
    opt["is_train"] = has_training_set(opt) if is_train is None else is_train
    _seed(opt)
    _settle_devices(opt, args.notices)
    if args.debug and not opt["name"].startswith("debug"):
        opt["name"] = f"debug_{opt['name']}"
    _settle_datasets(opt)
    _settle_paths(opt, root_path)
    if not opt["is_train"]:
        opt["val"] = opt.get("val") or {}
        opt["val"].setdefault("save_img", False)
    elif "debug" in opt["name"]:
        _shorten_intervals(opt)
    return opt, args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train or test what an option file describes.")
    parser.add_argument("-opt", "--opt", required=True, metavar="FILE", help="the option file")
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm"],
        help="who starts the ranks; seen by torchrun's environment when absent",
    )
    parser.add_argument("--auto_resume", action="store_true", help="continue from the last training state of the run")
    parser.add_argument("--debug", action="store_true", help="validate and save every 8 iterations, log every one")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by torch.distributed.launch")
    parser.add_argument(
        "--force_yml",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="override or add options, such as train:optim_g:lr=1e-4",
    )
    return parser


def launcher_of(env: Mapping[str, str]) -> str:
    """Who has started this process: ``pytorch`` where the environment names its place among several, else ``none``.

    SLURM's variables do not say it: a batch script has them too, and ``srun`` may start separate runs.
    """
    is_placed = all(env.get(key) for key in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    return "pytorch" if is_placed and env["WORLD_SIZE"].strip() not in ("0", "1") else "none"


def _join(launcher: str, dist_params: dict[str, Any]) -> None:
    import torch

    backend = dist_params.get("backend")
    if backend == "nccl" and not torch.cuda.is_available():
        backend = None  # published files ask for nccl; on a CPU they should run all the same
    init_dist(launcher, backend=backend, port=dist_params.get("port"))


def _seed(opt: dict[str, Any]) -> None:
    """Seed every generator, each rank differently. Without ``manual_seed`` one is drawn, the same for all ranks."""
    if opt.get("manual_seed") is None:
        seed = [random.randint(1, 10000)]
        if opt["dist"]:
            import torch.distributed as dist

            dist.broadcast_object_list(seed, src=0)
        opt["manual_seed"] = seed[0]
    set_random_seed(opt["manual_seed"] + opt["rank"])


def _settle_devices(opt: dict[str, Any], notices: list[str]) -> None:
    """Make ``num_gpu`` a number, at most what this machine has."""
    import torch

    present = torch.cuda.device_count()
    wanted = opt.get("num_gpu", "auto")
    opt["num_gpu"] = present if wanted == "auto" else min(wanted, present)
    if wanted != "auto" and wanted > present:
        devices = f"{present} GPU{'s' if present > 1 else ''}" if present else "the CPU"
        notices.append(f"num_gpu is {wanted}, but this machine has {present}: {devices} will be used")


def _settle_datasets(opt: dict[str, Any]) -> None:
    for section_name, dataset in opt["datasets"].items():
        dataset["phase"] = section_name.split("_")[0]
        if "scale" in opt:
            dataset["scale"] = opt["scale"]
        for key, value in dataset.items():
            if key.startswith("dataroot") and isinstance(value, str):
                dataset[key] = osp.expanduser(value)


def _settle_paths(opt: dict[str, Any], root_path: str) -> None:
    """Fill in ``path``: the run's folders."""
    path = opt["path"] = opt.get("path") or {}
    for key, value in path.items():
        if isinstance(value, str) and ("resume_state" in key or key.startswith("pretrain_network") or "_root" in key):
            path[key] = osp.expanduser(value)
    kind = "experiments" if opt["is_train"] else "results"
    root = osp.join(path.get(f"{kind}_root") or osp.join(root_path, kind), opt["name"])
    path[f"{kind}_root"] = path["log"] = root
    path["visualization"] = osp.join(root, "visualization")
    if opt["is_train"]:
        path["models"] = osp.join(root, "models")
        path["training_states"] = osp.join(root, "training_states")


def _shorten_intervals(opt: dict[str, Any]) -> None:
    if opt.get("val"):
        opt["val"]["val_freq"] = 8
    opt["logger"]["print_freq"] = 1
    opt["logger"]["save_checkpoint_freq"] = 8


@master_only
def copy_opt_file(opt_file: str, experiments_root: str) -> None:
    """Keep the options with a run, as :class:`OptionRecord` says: those that :func:`parse_options` has read.

    This is BasicSR's function; train.py keeps the record itself.
    """
    record = _records.get(opt_file)
    if record is None:  # the options were not parsed from a command line
        record = OptionRecord.of(opt_file, read_options(opt_file)[0])
    record.keep_in(experiments_root)
