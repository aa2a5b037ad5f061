"""Applies a function to many items in several processes, with a progress bar."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

import cv2
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # items in work per process, so that results do not pile up in memory


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], num_workers: int, description: str = ""
) -> Iterator[tuple[Item, Result | OSError | ValueError]]:
    """Apply a function to each item, in the items' order.

    Args:
        function: A function of a module, or a partial of one. If it raises OSError or ValueError for an item,
            the others are still processed.
        items: The items; they, and the results, must be picklable.
        num_workers: Number of processes, at most that of the cores; with fewer than 2, this process does the work.
        description: Label of the progress bar, which is shown in a terminal.

    Yields:
        Each item with its result, or with the exception.
    """
    with tqdm(total=len(items), desc=description, unit="image", disable=None) as bar:
        for outcome in _outcomes(function, items, min(num_workers, os.cpu_count() or 1)):
            bar.update()
            yield outcome


def _outcomes(function: Callable[[Any], Any], items: Sequence[Any], num_workers: int) -> Iterator[tuple[Any, Any]]:
    if num_workers < 2:
        for item in items:
            yield item, _attempt(function, item)
        return
    # 0, not 1: to change the number of OpenCV's threads hangs in a process forked while there are some.
    pool = ProcessPoolExecutor(num_workers, initializer=cv2.setNumThreads, initargs=(0,))
    waiting: deque[tuple[Any, Future[Any]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(_attempt, function, item)))
            if len(waiting) >= _AHEAD * num_workers:
                done, future = waiting.popleft()
                yield done, future.result()
        for item, future in waiting:
            yield item, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(function: Callable[[Any], Any], item: Any) -> Any:
    try:
        return function(item)
    except (OSError, ValueError) as error:
        return error
