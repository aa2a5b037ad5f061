"""A TensorBoard writer that outlives a full disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from .full_disk import is_disk_full
from .logger import get_root_logger

_WAIT = 60  # seconds between attempts to go on
_SPACE = 1 << 20  # bytes that must be free for one


class TensorBoardWriter:
    """PyTorch's ``SummaryWriter``, with its methods; what comes while the disk is full is left out.

    A ``SummaryWriter`` writes in a thread of its own, which ends with the first error; each later call then raises that
    error. Here the log gets a line with the level ERROR, and a new writer, with a new file in the same folder, is
    opened when there is space again.

    Args:
        log_dir: The folder.

    Raises:
        OSError: If the first file cannot be written.
    """

    def __init__(self, log_dir: str) -> None:
        self._log_dir = log_dir
        self._writer: SummaryWriter | None = SummaryWriter(log_dir=log_dir)
        self._next_attempt = 0.0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or not callable(getattr(SummaryWriter, name, None)):
            raise AttributeError(f"a TensorBoard writer has no method '{name}'")
        return partial(self._call, name)

    @property
    def log_dir(self) -> str:
        """The folder."""
        return self._log_dir

    def close(self) -> None:
        """Write what is pending."""
        if self._writer is not None:
            self._call("close")

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._writer is None and not self._reopen():
                return None
            return getattr(self._writer, name)(*args, **kwargs)
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._writer, self._next_attempt = None, time.monotonic() + _WAIT
            get_root_logger().error(
                f"The disk is full: TensorBoard's curves in {self._log_dir} have a gap from here on, until there is "
                f"space again ({error})."
            )
            return None

    def _reopen(self) -> bool:
        if time.monotonic() < self._next_attempt:
            return False
        self._next_attempt = time.monotonic() + _WAIT
        if shutil.disk_usage(self._log_dir).free < _SPACE:
            return False
        self._writer = SummaryWriter(log_dir=self._log_dir)
        get_root_logger().info(f"There is space again: TensorBoard's curves in {self._log_dir} go on.")
        return True
