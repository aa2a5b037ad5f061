"""Logging: the run's text log in BasicSR's format (plot scripts scrape it), TensorBoard, and timers."""

from __future__ import annotations

import datetime
import logging
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
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


class LogFile(logging.FileHandler):
    """A run's log file. When it cannot be written to, because the disk is full, that is said once on the screen and the
    run goes on; lines are written again as soon as they can be."""

    _failed = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # by ourselves: StreamHandler would print the traceback of each failure
            self.stream.write(self.format(record) + self.terminator)
            self.stream.flush()
            self._failed = False
        except OSError as error:
            if not self._failed:
                print(f"The log {self.baseFilename} cannot be written to for now: {error}", file=sys.stderr, flush=True)
            self._failed = True
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


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
        file_handler = LogFile(log_file, mode="a", encoding="utf-8")
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


class ScalarLog:
    """A TensorBoard writer that does not end the run when the disk is full.

    The events that could not be written are lost; an error says so once. A new file is begun every minute, until there
    is space again.

    Args:
        log_dir: The folder of the event files.
    """

    def __init__(self, log_dir: str) -> None:
        from torch.utils.tensorboard import SummaryWriter  # its package is imported only here

        self._make = lambda: SummaryWriter(log_dir=log_dir)
        self._writer: Any = None
        self._failed = False
        self._next_try = 0.0
        self._attempt(lambda writer: None)

    def add_scalar(self, tag: str, value: Any, step: int) -> None:
        """Write an event; as ``SummaryWriter.add_scalar``."""
        self._attempt(lambda writer: writer.add_scalar(tag, value, step))

    def __getattr__(self, name: str) -> Any:
        """What else a plug-in calls, such as ``add_image``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self._attempt(lambda writer: getattr(writer, name)(*args, **kwargs))

    def close(self) -> None:
        """Write what is still held, and close the file."""
        if self._writer is not None:
            self._attempt(lambda writer: writer.close())

    def _attempt(self, action: Callable[[Any], Any]) -> Any:
        try:
            if self._writer is None:
                if time.monotonic() < self._next_try:
                    return None
                self._writer = self._make()
            result = action(self._writer)
        except OSError as error:
            if not self._failed:
                get_root_logger().error(
                    f"TensorBoard's events cannot be written for now: {error}. The training goes on."
                )
            self._failed, self._writer, self._next_try = True, None, time.monotonic() + 60
            return None
        return result


@master_only
def init_tb_logger(log_dir: str) -> Any:
    """A TensorBoard writer."""
    return ScalarLog(log_dir)


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
