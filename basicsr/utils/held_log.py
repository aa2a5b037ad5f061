"""The log of a run while it has no file yet."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler

from .logger import get_root_logger


class HeldLog:
    """What was logged since the run began to start, for the file that it gets when it has started."""

    def __init__(self) -> None:
        self._records = MemoryHandler(sys.maxsize, flushLevel=logging.CRITICAL + 1, flushOnClose=False)

    def write_to(self, log_file: str) -> None:
        """Open the run's log file, and write to it what is held; from now on the logger writes there itself.

        Ranks above 0 have no file.
        """
        logger = get_root_logger()
        logger.removeHandler(self._records)
        get_root_logger(log_file=log_file)
        for handler in _files(logger):
            self._records.setTarget(handler)
            self._records.flush()

    @property
    def warnings(self) -> list[str]:
        """The warnings that are held."""
        return [record.getMessage() for record in self._records.buffer if record.levelno >= logging.WARNING]


@contextmanager
def hold_log(silent: bool = False) -> Iterator[HeldLog]:
    """Hold what is logged in the block. The file of an earlier run of this process is closed.

    Args:
        silent: Whether to hold it only, and print nothing.
    """
    logger = get_root_logger()
    for handler in _files(logger):
        logger.removeHandler(handler)
        handler.close()
    held = HeldLog()
    before = logger.handlers[:]
    if silent:
        logger.handlers.clear()
    logger.addHandler(held._records)
    try:
        yield held
    finally:
        logger.removeHandler(held._records)
        if silent:
            logger.handlers[:] = before


def _files(logger: logging.Logger) -> list[logging.Handler]:
    return [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
