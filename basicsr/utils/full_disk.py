"""What a full disk means to a run: what is written beside its checkpoints is left out, and the training goes on."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from .logger import get_root_logger

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # no space, or none left of the user's share


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an exception, or one that it was raised from, says that the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def tolerate_full_disk(what: str, when: bool = True) -> Iterator[None]:
    """Log an error and go on after the block if something in it cannot be written since the disk is full.

    Args:
        what: What is then not written, for the log.
        when: False raises such errors, as all others.
    """
    try:
        yield
    except OSError as error:
        if not (when and is_disk_full(error)):
            raise
        get_root_logger().error(f"The disk is full: {what} is not written ({error}).")
