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
from torch.utils.data import DataLoader

from basicsr.data import build_dataloader, build_dataset
from basicsr.data.stream import TrainingStream, build_streams
from basicsr.engine.run.host_memory import disable_malloc_trim
from basicsr.engine.run.launch import launch
from basicsr.engine.run.loop import TrainingLoop
from basicsr.engine.run.peers import coordinated_exit
from basicsr.engine.run.resume import find_resume_state
from basicsr.engine.run.resume import find_resume_state as load_resume_state  # noqa: F401  (BasicSR's name)
from basicsr.engine.run.retention import BestKeeper
from basicsr.engine.run.signals import StopSignals
from basicsr.models import build_model
from basicsr.utils.logger import get_env_info, get_root_logger, init_tb_logger, init_wandb_logger
from basicsr.utils.misc import get_time_str, make_exp_dirs, mkdir_and_rename
from basicsr.utils.options import dict2str, parse_options


def init_tb_loggers(opt: dict) -> Any:
    """The TensorBoard writer that the options ask for (and Weights & Biases beside it), or None."""
    options = opt["logger"]
    if (options.get("wandb") or {}).get("project") and "debug" not in opt["name"]:
        if not options.get("use_tb_logger"):
            raise ValueError("logger.wandb mirrors TensorBoard: set logger.use_tb_logger to true as well")
        init_wandb_logger(opt)
    if options.get("use_tb_logger") and "debug" not in opt["name"]:
        return init_tb_logger(log_dir=osp.join(opt["root_path"], "tb_logger", opt["name"]))
    return None


def create_streams(opt: dict, logger: Any) -> tuple[TrainingStream, ...]:
    """The training sets that the recipe declares, in its order; what they are is logged."""
    streams = build_streams(opt)
    total_iters = int(opt["train"]["total_iter"])
    for stream in streams:
        images, steps = len(stream.sampler.dataset), len(stream.loader)
        logger.info(
            f"Training statistics{f' of {stream.name}' if len(streams) > 1 else ''}:\n"
            f"\tNumber of train images: {images}\n"
            f"\tDataset enlarge ratio: {stream.dataset_opt.get('dataset_enlarge_ratio', 1)}\n"
            f"\tBatch size per gpu: {stream.dataset_opt['batch_size_per_gpu']}\n"
            f"\tWorld size (gpu number): {opt['world_size']}\n"
            f"\tRequire iter number per epoch: {steps}\n"
            f"\tTotal epochs: {math.ceil(total_iters / steps)}; iters: {total_iters}."
        )
    return streams


def create_val_loaders(opt: dict, logger: Any) -> list[DataLoader]:
    """The loaders of the validation sets."""
    loaders = []
    for name, dataset_opt in opt["datasets"].items():
        if dataset_opt["phase"] == "val":
            dataset = build_dataset(dataset_opt)
            loaders.append(
                build_dataloader(dataset, dataset_opt, opt["num_gpu"], opt["dist"], None, opt["manual_seed"])
            )
            logger.info(f"Number of val images/folders in {dataset_opt['name']}: {len(dataset)}")
        elif dataset_opt["phase"] != "train":
            raise ValueError(
                f"datasets.{name}: in training a section is named train… or val…, not '{dataset_opt['phase']}'"
            )
    return loaders


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


def prepare_run(opt: dict, args: Any) -> tuple[Any, dict | None]:
    """Make the run's folders and logs; find the state to resume from.

    Returns:
        The TensorBoard writer or None, and the training state or None.
    """
    resume_state = find_resume_state(opt)
    if resume_state is None:
        make_exp_dirs(opt)
        if opt["logger"].get("use_tb_logger") and "debug" not in opt["name"] and opt["rank"] == 0:
            mkdir_and_rename(osp.join(opt["root_path"], "tb_logger", opt["name"]))
    else:  # the state may be another run's, and this run's folder new
        for key in ("experiments_root", "models", "training_states", "visualization"):
            os.makedirs(opt["path"][key], exist_ok=True)
    if opt["dist"]:
        dist.barrier()  # the folders exist from here on
    args.record.keep_in(opt["path"]["experiments_root"])
    logger = get_root_logger(log_file=osp.join(opt["path"]["log"], f"train_{opt['name']}_{get_time_str()}.log"))
    logger.info(get_env_info())
    logger.info(dict2str(opt))
    for notice in args.notices:
        logger.warning(notice)
    return init_tb_loggers(opt), resume_state


def train(opt: dict, args: Any, best: BestKeeper) -> None:
    """Build what the options describe, and train it."""
    tb_logger, resume_state = prepare_run(opt, args)
    logger = get_root_logger()
    streams, val_loaders = create_streams(opt, logger), create_val_loaders(opt, logger)
    model = build_model(opt)
    if resume_state:
        model.resume_training(resume_state)
        logger.info(f"Resuming training from epoch: {resume_state['epoch']}, iter: {resume_state['iter']}.")
    try:
        with StopSignals() as signals:
            loop = TrainingLoop(
                opt,
                model,
                streams=streams,
                val_loaders=val_loaders,
                tb_logger=tb_logger,
                best=best,
                signals=signals,
            )
            if resume_state:
                loop.resume(resume_state)
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
    best = BestKeeper(opt)  # refuses a wrong logger.keep_best before anything is made
    with coordinated_exit():
        train(opt, args, best)


def main() -> None:
    """Run :func:`train_pipeline` as a program."""
    launch(train_pipeline)


if __name__ == "__main__":
    main()
