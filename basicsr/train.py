"""Train what an option file describes: ``python basicsr/train.py -opt options/train/….yml``."""

import sys
from pathlib import Path

if not __package__:  # run as a file: this checkout comes before any other basicsr that may be installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.utils.openmp import limit_spinning

if "torch" not in sys.modules:
    limit_spinning()

import math
import os
from os import path as osp
from typing import Any

import torch.distributed as dist

from basicsr.engine.run.host_memory import disable_malloc_trim
from basicsr.engine.run.launch import launch, starting
from basicsr.engine.run.loop import TrainingLoop
from basicsr.engine.run.peers import Progress, coordinated_exit
from basicsr.engine.run.resume import find_resume_state as load_resume_state  # noqa: F401  (BasicSR's name)
from basicsr.engine.run.resume import tidy_up
from basicsr.engine.run.run_lock import RunLock, require_free
from basicsr.engine.run.signals import StopSignals
from basicsr.start import TrainingRun, build_training, create_streams, create_val_loaders
from basicsr.utils.held_log import HeldLog, hold_log
from basicsr.utils.logger import init_tb_logger, init_wandb_logger
from basicsr.utils.misc import get_time_str, mkdir_and_rename
from basicsr.utils.options import parse_options


def init_tb_loggers(opt: dict) -> Any:
    """The TensorBoard writer that the options ask for (and Weights & Biases beside it), or None."""
    options = opt["logger"]
    if (options.get("wandb") or {}).get("project") and "debug" not in opt["name"]:
        init_wandb_logger(opt)
    if options.get("use_tb_logger") and "debug" not in opt["name"]:
        return init_tb_logger(log_dir=osp.join(opt["root_path"], "tb_logger", opt["name"]))
    return None


def create_train_val_dataloader(opt: dict, logger: Any) -> tuple:
    """The loaders of all data sets as BasicSR returns them, for a plug-in with a training loop of its own.

    Returns:
        The training loader and its sampler, the validation loaders, and the numbers of epochs and of iterations.

    Raises:
        ValueError: If the recipe has several training sets; :func:`create_streams` returns those.
    """
    streams = create_streams(opt, logger)
    if len(streams) > 1:
        raise ValueError(f"{opt['model_type']} has {len(streams)} training sets; take them from create_streams")
    loader, total_iters = streams[0].loader, int(opt["train"]["total_iter"])
    total_epochs = math.ceil(total_iters / len(loader))
    return loader, streams[0].sampler, create_val_loaders(opt, logger), total_epochs, total_iters


def open_run(opt: dict, args: Any, training: TrainingRun, log: HeldLog) -> Any:
    """Make the run's folders and logs, now that it can start.

    Returns:
        The TensorBoard writer, or None.
    """
    for key in ("experiments_root", "models", "training_states", "visualization") if opt["rank"] == 0 else ():
        os.makedirs(opt["path"][key], exist_ok=True)
    if training.state is not None:
        tidy_up(opt, training.state)
    elif opt["logger"].get("use_tb_logger") and "debug" not in opt["name"] and opt["rank"] == 0:
        mkdir_and_rename(osp.join(opt["root_path"], "tb_logger", opt["name"]))
    if opt["dist"]:
        dist.barrier()  # the folders exist from here on
    args.record.keep_in(opt["path"]["experiments_root"])
    log.write_to(osp.join(opt["path"]["log"], f"train_{opt['name']}_{get_time_str()}.log"))
    return init_tb_loggers(opt)


def train(opt: dict, args: Any, progress: Progress) -> None:
    """Build what the options describe, and train it. Nothing is written before all of it stands."""
    folder = opt["path"]["experiments_root"]
    with hold_log() as log:
        with starting():
            require_free(folder)
            training = build_training(opt, args.notices, args.record.options)
            progress.ready()
            lock = RunLock(folder, is_new=training.state is None)
        with lock:
            progress.start()
            tb_logger = open_run(opt, args, training, log)
            run(opt, training, tb_logger)


def run(opt: dict, training: TrainingRun, tb_logger: Any) -> None:
    """Train to the end, or until a signal."""
    try:
        with StopSignals() as signals:
            loop = TrainingLoop(
                opt,
                training.model,
                streams=training.streams,
                val_loaders=training.val_loaders,
                tb_logger=tb_logger,
                best=training.best,
                identity=training.identity,
                signals=signals,
            )
            if training.state:
                loop.resume(training.state)
            loop.run()
    finally:
        if tb_logger:
            tb_logger.close()


def train_pipeline(root_path: str) -> None:
    """Everything from the command line to the trained network.

    Args:
        root_path: The folder below which ``experiments`` and ``tb_logger`` lie.

    Raises:
        SystemExit: With code 75 when SIGTERM or SIGINT stopped the run and it was saved; see docs/resume.md.
    """
    disable_malloc_trim()
    opt, args = parse_options(root_path, is_train=True)
    opt["root_path"] = root_path
    with coordinated_exit() as progress:
        train(opt, args, progress)


def main() -> None:
    """Run :func:`train_pipeline` as a program."""
    launch(train_pipeline)


if __name__ == "__main__":
    main()
