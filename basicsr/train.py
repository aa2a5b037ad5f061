"""Train what an option file describes: ``python basicsr/train.py -opt options/train/….yml``."""

import sys
from pathlib import Path

if not __package__:  # run as a file: this checkout comes before any other basicsr that may be installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import datetime
import math
import time
from os import path as osp
from typing import Any

import torch.distributed as dist
from torch.utils.data import DataLoader
from tqdm import tqdm

from basicsr.data import build_dataloader, build_dataset
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher
from basicsr.engine.resume import find_resume_state
from basicsr.models import build_model
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.logger import (
    AvgTimer,
    MessageLogger,
    get_env_info,
    get_root_logger,
    init_tb_logger,
    init_wandb_logger,
)
from basicsr.utils.misc import check_resume, get_time_str, make_exp_dirs, mkdir_and_rename
from basicsr.utils.options import OptionError, copy_opt_file, dict2str, parse_options
from basicsr.utils.paths import default_root


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


def create_train_val_dataloader(opt: dict, logger: Any) -> tuple:
    """The loaders of all data sets.

    Returns:
        The training loader and its sampler, the validation loaders, and the numbers of epochs and of iterations.
    """
    train_loader, train_sampler, val_loaders = None, None, []
    total_epochs = total_iters = 0
    for name, dataset_opt in opt["datasets"].items():
        phase = dataset_opt["phase"]
        dataset = build_dataset(dataset_opt)
        if phase == "train":
            ratio = dataset_opt.get("dataset_enlarge_ratio", 1)
            train_sampler = EnlargedSampler(dataset, opt["world_size"], opt["rank"], ratio, opt["manual_seed"])
            train_loader = build_dataloader(
                dataset, dataset_opt, opt["num_gpu"], opt["dist"], train_sampler, opt["manual_seed"]
            )
            total_iters = int(opt["train"]["total_iter"])
            total_epochs = math.ceil(total_iters / len(train_loader))
            logger.info(
                f"Training statistics:\n"
                f"\tNumber of train images: {len(dataset)}\n"
                f"\tDataset enlarge ratio: {ratio}\n"
                f"\tBatch size per gpu: {dataset_opt['batch_size_per_gpu']}\n"
                f"\tWorld size (gpu number): {opt['world_size']}\n"
                f"\tRequire iter number per epoch: {len(train_loader)}\n"
                f"\tTotal epochs: {total_epochs}; iters: {total_iters}."
            )
        elif phase == "val":
            val_loaders.append(
                build_dataloader(dataset, dataset_opt, opt["num_gpu"], opt["dist"], None, opt["manual_seed"])
            )
            logger.info(f"Number of val images/folders in {dataset_opt['name']}: {len(dataset)}")
        else:
            raise ValueError(f"datasets.{name}: in training a section is named train or val…, not '{phase}'")
    return train_loader, train_sampler, val_loaders, total_epochs, total_iters


def build_prefetcher(loader: DataLoader, opt: dict, logger: Any) -> CPUPrefetcher | CUDAPrefetcher:
    """What hands batches to the training loop, by ``prefetch_mode``."""
    if opt["datasets"]["train"].get("prefetch_mode") == "cuda" and opt["num_gpu"] != 0:
        logger.info("Use cuda prefetch dataloader")
        return CUDAPrefetcher(loader, opt)
    return CPUPrefetcher(loader)


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
    else:
        check_resume(opt, resume_state["iter"])
    if opt["dist"]:
        dist.barrier()  # the folders exist from here on
    copy_opt_file(args.opt, opt["path"]["experiments_root"])
    logger = get_root_logger(log_file=osp.join(opt["path"]["log"], f"train_{opt['name']}_{get_time_str()}.log"))
    logger.info(get_env_info())
    logger.info(dict2str(opt))
    for notice in args.notices:
        logger.warning(notice)
    return init_tb_loggers(opt), resume_state


def train_pipeline(root_path: str) -> None:
    """Everything from the command line to the trained network.

    Args:
        root_path: The folder below which ``experiments`` and ``tb_logger`` lie.
    """
    opt, args = parse_options(root_path, is_train=True)
    opt["root_path"] = root_path
    tb_logger, resume_state = prepare_run(opt, args)
    logger = get_root_logger()
    train_loader, sampler, val_loaders, total_epochs, total_iters = create_train_val_dataloader(opt, logger)
    model = build_model(opt)
    start_epoch = current_iter = 0
    if resume_state:
        model.resume_training(resume_state)
        start_epoch, current_iter = resume_state["epoch"], resume_state["iter"]
        logger.info(f"Resuming training from epoch: {start_epoch}, iter: {current_iter}.")
    batch_size = train_loader.batch_size
    val = opt.get("val") or {}
    val_freq = val.get("val_freq")
    message_logger = MessageLogger(opt, current_iter + 1, tb_logger)
    prefetcher = build_prefetcher(train_loader, opt, logger)

    def validate() -> None:
        for val_loader in val_loaders:
            model.validation(val_loader, current_iter, tb_logger, val.get("save_img", False))

    logger.info(f"Start training from epoch: {start_epoch}, iter: {current_iter}")
    if resume_state and val_freq and current_iter % val_freq == 0:
        validate()  # the state was saved before the validation of its iteration
    data_timer, iter_timer = AvgTimer(), AvgTimer()
    start_time = time.time()
    bar = tqdm(total=total_iters, initial=current_iter, unit="it", disable=opt["rank"] != 0 or not sys.stderr.isatty())
    epoch = start_epoch
    while current_iter < total_iters:
        sampler.set_epoch(epoch)
        if resume_state and epoch == start_epoch and resume_state.get("sampler"):
            sampler.set_position(resume_state["sampler"]["position"])
        position = sampler.position
        prefetcher.reset()
        data_timer.start()
        iter_timer.start()
        while current_iter < total_iters and (train_data := prefetcher.next()) is not None:
            data_timer.record()
            current_iter += 1
            position += batch_size
            model.update_learning_rate(current_iter, warmup_iter=opt["train"].get("warmup_iter", -1))
            model.feed_data(train_data)
            model.optimize_parameters(current_iter)
            iter_timer.record()
            bar.update()
            if current_iter % opt["logger"]["print_freq"] == 0:
                log_vars = {"epoch": epoch, "iter": current_iter, "lrs": model.get_current_learning_rate()}
                log_vars |= {"time": iter_timer.get_avg_time(), "data_time": data_timer.get_avg_time()}
                message_logger({**log_vars, **model.get_current_log()})
            if current_iter % opt["logger"]["save_checkpoint_freq"] == 0:
                logger.info("Saving models and training states.")
                model.sampler_state = {"position": position}
                model.save(epoch, current_iter)
            if val_freq and current_iter % val_freq == 0:
                validate()
            data_timer.start()
            iter_timer.start()
        epoch += 1
    bar.close()

    logger.info(f"End of training. Time consumed: {datetime.timedelta(seconds=int(time.time() - start_time))}")
    logger.info("Save the latest model.")
    model.save(epoch=-1, current_iter=-1)
    if val_freq and current_iter % val_freq != 0:
        validate()
    if tb_logger:
        tb_logger.close()
    if opt["dist"]:
        dist.barrier()
        dist.destroy_process_group()


def main() -> None:
    """Run :func:`train_pipeline`; wrong options are told in sentences, without a traceback."""
    try:
        train_pipeline(default_root())
    except OptionError as error:
        if get_dist_info()[0] == 0:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
