"""Loading ahead of the training: by a thread, and onto the GPU."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

_END = object()


class _Failure:
    """Carries an exception from the reading thread to the reader."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class PrefetchGenerator:
    """Reads an iterable ahead in a thread.

    An exception of the iterable is raised where its item would have come. Closing it, or dropping it, ends the thread
    after the item that is being read.

    Args:
        generator: What to read.
        num_prefetch_queue: How many items to hold at most.
    """

    def __init__(self, generator: Iterable[Any], num_prefetch_queue: int) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._free = threading.Semaphore(num_prefetch_queue)
        self._stop = threading.Event()
        self._last: Any = None
        # The thread must not hold this object, or dropping it would never end the thread.
        self._thread = threading.Thread(
            target=_read_ahead, args=(iter(generator), self._items, self._free, self._stop), daemon=True
        )
        self._thread.start()

    def __iter__(self) -> PrefetchGenerator:
        return self

    def __next__(self) -> Any:
        item = self._items.get() if self._last is None else self._last
        if item is _END or isinstance(item, _Failure):
            self._last = item
            raise StopIteration if item is _END else item.error
        self._free.release()
        return item

    def close(self) -> None:
        """End the thread and wait for it. No more items are returned."""
        self._stop.set()
        self._free.release()
        self._thread.join()
        self._last = _END

    def __del__(self) -> None:
        self._stop.set()
        self._free.release()


def _read_ahead(
    source: Iterator[Any], items: queue.SimpleQueue[Any], free: threading.Semaphore, stop: threading.Event
) -> None:
    try:
        while True:
            free.acquire()
            if stop.is_set():
                return
            items.put(next(source))
    except StopIteration:
        items.put(_END)
    except BaseException as error:  # any exception must reach the reader, which would otherwise wait for ever
        items.put(_Failure(error))


class PrefetchDataLoader(DataLoader):
    """A loader whose batches a thread collects ahead. Iterating it again ends the previous iteration.

    Args:
        num_prefetch_queue: How many batches to hold at most.
        **kwargs: The arguments of :class:`torch.utils.data.DataLoader`.
    """

    def __init__(self, num_prefetch_queue: int, **kwargs: Any) -> None:
        self.num_prefetch_queue = num_prefetch_queue
        self._ahead: PrefetchGenerator | None = None
        super().__init__(**kwargs)

    def __iter__(self) -> PrefetchGenerator:
        if self._ahead is not None:
            # Persistent workers serve one iteration at a time.
            self._ahead.close()
        self._ahead = PrefetchGenerator(super().__iter__(), self.num_prefetch_queue)
        return self._ahead


class CPUPrefetcher:
    """Returns a loader's batches one by one, then None.

    Args:
        loader: The loader.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader
        self._iterator: Iterator[Any] | None = None

    def next(self) -> Any | None:
        """The next batch, or None at the end of the epoch."""
        if self._iterator is None:
            self.reset()
        return next(self._iterator, None)

    def reset(self) -> None:
        """Start an epoch."""
        self._iterator = iter(self._loader)


class CUDAPrefetcher:
    """Like :class:`CPUPrefetcher`, with the next batch copied to the GPU while the current one is used.

    The copies overlap only from page-locked memory (``pin_memory: true``).

    Args:
        loader: The loader.
        opt: The options of the run; with ``num_gpu: 0`` batches stay on the CPU.
    """

    def __init__(self, loader: Iterable[Any], opt: dict[str, Any]) -> None:
        self._loader = CPUPrefetcher(loader)
        self._stream = torch.cuda.Stream() if opt["num_gpu"] != 0 else None
        self._batch: Any | None = None
        self._started = False

    def next(self) -> Any | None:
        """The next batch, or None at the end of the epoch."""
        if not self._started:
            self.reset()
        batch = self._batch
        if batch is not None and self._stream is not None:
            current = torch.cuda.current_stream()
            current.wait_stream(self._stream)
            # Memory allocated on the copying stream must not be reused there while this stream still reads it.
            _each_tensor(batch, lambda tensor: tensor.record_stream(current))
        self._preload()
        return batch

    def reset(self) -> None:
        """Start an epoch."""
        self._started = True
        self._loader.reset()
        self._preload()

    def _preload(self) -> None:
        self._batch = self._loader.next()
        if self._batch is not None and self._stream is not None:
            with torch.cuda.stream(self._stream):
                self._batch = _each_tensor(self._batch, lambda tensor: tensor.cuda(non_blocking=True))


def _each_tensor(batch: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """Apply a function to the tensors of nested dicts and lists."""
    if torch.is_tensor(batch):
        return function(batch)
    if isinstance(batch, dict):
        return {key: _each_tensor(value, function) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [_each_tensor(value, function) for value in batch]
    return batch
