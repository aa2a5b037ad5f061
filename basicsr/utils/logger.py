"""Logging: the run's text log in BasicSR's format (plot scripts scrape it), TensorBoard, and timers."""

from __future__ import annotations

import contextlib
import datetime
import logging
import platform
import sys
import time
from typing import Any

from .dist_util import get_dist_info, master_only

LOG_FORMAT = "%(asctime)s %(levelname)s: %(message)s"


class _TqdmHandler(logging.StreamHandler):
    """Writes to stderr without tearing a progress bar that is being drawn there."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:  # the logging module's own contract: a failing handler reports, never raises
            self.handleError(record)


class _LogFile(logging.FileHandler):
    """A log file. Lines that cannot be written are missing in it, and the first of them is reported in a sentence."""

    _reported = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._reported:
            self._reported = True
            with contextlib.suppress(OSError):
                sys.stderr.write(f"Lines are missing in the log {self.baseFilename} from here on: {error}\n")


def get_root_logger(
    logger_name: str = "basicsr", log_level: int = logging.INFO, log_file: str | None = None
) -> logging.Logger:
    """The logger of that name, set up on first use; ranks above 0 log errors only.

    Args:
        logger_name: Name of the logger.
        log_level: Level of rank 0.
        log_file: A file to log to as well. Naming another file later moves the log there.
    """
    logger = logging.getLogger(logger_name)
    rank, _ = get_dist_info()
    if not getattr(logger, "_basicsr_ready", False):
        handler = _TqdmHandler()
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        logger.addHandler(handler)
        logger.propagate = False
        logger._basicsr_ready = True  # type: ignore[attr-defined]
        logger.setLevel(log_level if rank == 0 else logging.ERROR)
    elif rank != 0:  # the process group may have been joined since
        logger.setLevel(logging.ERROR)
    if log_file is not None and rank == 0:
        for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
            logger.removeHandler(handler)
            handler.close()
        file_handler = _LogFile(log_file, mode="a", encoding="utf-8")
        file_handler.setFormatter(logging.Formatter(LOG_FORMAT))
        logger.addHandler(file_handler)
    return logger


def write_to_log_file(message: str, error: BaseException) -> bool:
    """Write a message and an exception's traceback to the root logger's files, and not to the screen.

    Returns:
        Whether there is a file.
    """
    logger = get_root_logger()
    files = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
    trace = (type(error), error, error.__traceback__)
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, (), trace)
    for handler in files:
        handler.handle(record)
    return bool(files)


class AvgTimer:
    """Mean duration of a repeated step since the last ``window`` steps were complete.

    ``start()`` … ``record()`` … ``record()``: each record is the time since the last record or start.
    """

    def __init__(self, window: int = 200) -> None:
        self.window = window
        self.total_time = 0.0
        self.count = 0
        self.current_time = 0.0
        self.avg_time = 0.0
        self.start()

    def start(self) -> None:
        self.start_time = time.perf_counter()

    def record(self) -> None:
        now = time.perf_counter()
        self.current_time = now - self.start_time
        self.start_time = now
        self.total_time += self.current_time
        self.count += 1
        self.avg_time = self.total_time / self.count
        if self.count > self.window:
            self.total_time, self.count = 0.0, 0

    def get_current_time(self) -> float:
        return self.current_time

    def get_avg_time(self) -> float:
        return self.avg_time


class MessageLogger:
    """Prints one line of training progress, and writes it to TensorBoard.

    Args:
        opt: The options: ``name``, ``logger.print_freq``, ``logger.use_tb_logger``, ``train.total_iter``.
        start_iter: The first iteration of this process; the time left is estimated from it on.
        tb_logger: A TensorBoard writer, or None.
    """

    def __init__(self, opt: dict, start_iter: int = 1, tb_logger: Any = None) -> None:
        self.exp_name = opt["name"]
        self.interval = opt["logger"]["print_freq"]
        self.start_iter = start_iter
        self.max_iters = opt["train"]["total_iter"]
        self.use_tb_logger = opt["logger"].get("use_tb_logger", False)
        self.tb_logger = tb_logger
        self.start_time = time.time()
        self.logger = get_root_logger()

    def reset_start_time(self) -> None:
        self.start_time = time.time()

    @master_only
    def __call__(self, log_vars: dict) -> None:
        """Log one line.

        Args:
            log_vars: ``epoch``, ``iter``, ``lrs`` (a list), optionally ``time`` and ``data_time`` in seconds, and
                any further scalars, which are printed as they are named.
        """
        values = dict(log_vars)
        epoch, current_iter, lrs = values.pop("epoch"), values.pop("iter"), values.pop("lrs")
        message = f"[{self.exp_name[:5]}..][epoch:{epoch:3d}, iter:{current_iter:8,d}, lr:("
        message += "".join(f"{lr:.3e}," for lr in lrs) + ")] "
        if "time" in values:
            iter_time, data_time = values.pop("time"), values.pop("data_time")
            done = current_iter - self.start_iter + 1
            seconds_left = (time.time() - self.start_time) / done * (self.max_iters - current_iter - 1)
            eta = datetime.timedelta(seconds=int(max(seconds_left, 0)))
            message += f"[eta: {eta}, time (data): {iter_time:.3f} ({data_time:.3f})] "
        for key, value in values.items():
            message += f"{key}: {value:.4e} "
            if self.use_tb_logger and self.tb_logger is not None and "debug" not in self.exp_name:
                tag = f"losses/{key}" if key.startswith("l_") else key
                self.tb_logger.add_scalar(tag, value, current_iter)
        self.logger.info(message)


@master_only
def init_tb_logger(log_dir: str) -> Any:
    """A TensorBoard writer; its package is imported only here."""
    from .tensorboard_writer import TensorBoardWriter

    return TensorBoardWriter(log_dir)


@master_only
def require_log_packages(opt: dict) -> None:
    """Import what the logs need that the options ask for.

    Raises:
        ImportError: If TensorBoard or wandb is not installed.
    """
    options = opt["logger"]
    if "debug" in opt["name"]:
        return
    if options.get("use_tb_logger"):
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "logger.use_tb_logger needs the package tensorboard: pip install tensorboard, or set it to false"
            ) from error
    if (options.get("wandb") or {}).get("project"):
        _import_wandb()


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ImportError(
            "logger.wandb needs the package wandb: pip install 'basicsr-kd[wandb]', or remove logger.wandb"
        ) from error
    return wandb


@master_only
def init_wandb_logger(opt: dict) -> None:
    """Start Weights & Biases, which then mirrors what TensorBoard gets.

    Raises:
        ImportError: When wandb is not installed.
    """
    wandb = _import_wandb()
    options = opt["logger"]["wandb"]
    run_id = options.get("resume_id")
    wandb.init(
        id=run_id or wandb.util.generate_id(),
        resume="allow" if run_id else "never",
        name=opt["name"],
        config=opt,
        project=options["project"],
        sync_tensorboard=True,
    )


def get_env_info() -> str:
    """Versions that matter for reproducing a run, as text."""
    import torch

    from basicsr.version import __version__

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return (
        f"BasicSR-KD {__version__}, PyTorch {torch.__version__}, Python {platform.python_version()}, "
        f"{device}, {torch.get_num_threads()} threads, {platform.platform()}"
    )
