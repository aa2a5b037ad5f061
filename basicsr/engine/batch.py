"""The batch of one iteration: every key that the training sets gave, and which rows belong to which domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


class Batch(Mapping[str, Any]):
    """Key → values, of one training set or of several.

    A *domain* is one training set: ``train`` if it is the only one, ``s`` and ``t`` for ``train_s`` and ``train_t``.
    If several domains have a key, their values are concatenated in the order of the domains, so that one pass of a
    network sees them all. If one domain has it, the value has the rows of that domain only.

    Args:
        domains: Domain → key → values. Tensors have the samples in their first dimension.

    Attributes:
        rows: Domain → its rows among all samples, a slice.

    Raises:
        ValueError: If a key's tensors have shapes that cannot be joined.
    """

    def __init__(self, domains: Mapping[str, Mapping[str, Any]]) -> None:
        self._domains = {name: dict(values) for name, values in domains.items()}
        self.rows: dict[str, slice] = {}
        start = 0
        for name, values in self._domains.items():
            self.rows[name] = slice(start, start + _count(values))
            start = self.rows[name].stop
        keys = dict.fromkeys(key for values in self._domains.values() for key in values)
        self._joined = {key: self._join(key) for key in keys}

    @classmethod
    def of(cls, data: Mapping[str, Any], device: torch.device) -> Batch:
        """The batch that the training loop passes to ``feed_data``, with its tensors moved to a device.

        Args:
            data: A data set's batch; or, of a recipe with several streams, stream name → batch.
            device: Where the tensors are to be.
        """
        several = bool(data) and all(isinstance(value, Mapping) for value in data.values())
        domains = {domain_of(name): values for name, values in data.items()} if several else {"train": data}

        def move(value: Any) -> Any:
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        return cls({name: tree_map(move, dict(values)) for name, values in domains.items()})

    def __getitem__(self, key: str) -> Any:
        return self._joined[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._joined)

    def __len__(self) -> int:
        return len(self._joined)

    def rows_of(self, key: str) -> slice | Tensor:
        """The rows, among all samples, for which a key has values: a slice, or indices where they are scattered."""
        owners = [self.rows[name] for name, values in self._domains.items() if key in values]
        if all(one.stop == other.start for one, other in zip(owners, owners[1:])):
            return slice(owners[0].start, owners[-1].stop)
        return torch.cat([torch.arange(rows.start, rows.stop) for rows in owners])

    def select(self, tensor: Tensor, key: str) -> Tensor:
        """The rows of a tensor with one for each sample, such as a network's output, for which ``key`` has values."""
        rows = self.rows_of(key)
        is_whole = isinstance(rows, slice) and rows.indices(len(tensor)) == (0, len(tensor), 1)
        return tensor if is_whole else tensor[rows]

    def replaced(self, **values: Any) -> Batch:
        """The batch of one domain with other values for some keys.

        Raises:
            ValueError: If there are several domains, since the value could belong to any.
        """
        if len(self._domains) > 1:
            raise ValueError(f"a batch of the domains {', '.join(self._domains)} is made by Batch.of alone")
        ((name, own),) = self._domains.items()
        return Batch({name: {**own, **values}})

    def chunks(self, parts: int) -> list[Batch]:
        """Equal parts of the batch, each with its share of every domain.

        Raises:
            ValueError: If a domain's samples cannot be divided so.
        """
        if parts == 1:
            return [self]
        for name, rows in self.rows.items():
            if (rows.stop - rows.start) % parts:
                raise ValueError(
                    f"a batch of {rows.stop - rows.start} samples ({name}) cannot be divided into {parts} equal parts"
                )
        return [
            Batch({name: _part(values, part, parts) for name, values in self._domains.items()}) for part in range(parts)
        ]

    def _join(self, key: str) -> Any:
        return _join(key, {name: values[key] for name, values in self._domains.items() if key in values})


def _join(key: str, found: Mapping[str, Any]) -> Any:
    """The values of several domains as one: tensors row by row, lists item by item, sections and tuples within."""
    values = list(found.values())
    if len(values) == 1:
        return values[0]
    if all(isinstance(value, Tensor) and value.dim() for value in values):
        shapes = {name: tuple(value.shape[1:]) for name, value in found.items()}
        if len(set(shapes.values())) > 1:
            shown = ", ".join(f"train_{name} gives {shape}" for name, shape in shapes.items())
            raise ValueError(
                f"the training sets' '{key}' are joined into one batch, so they must have one shape: {shown}; use "
                f"crops of one size (gt_size)"
            )
        return torch.cat(values)
    if all(isinstance(value, Mapping) for value in values):
        names = dict.fromkeys(name for value in values for name in value)
        return {n: _join(f"{key}.{n}", {d: value[n] for d, value in found.items() if n in value}) for n in names}
    if all(_holds_tensors(value) for value in values) and len({len(value) for value in values}) == 1:
        return [_join(f"{key}.{i}", {d: value[i] for d, value in found.items()}) for i in range(len(values[0]))]
    if all(isinstance(value, list) for value in values):
        return [item for value in values for item in value]
    return values


def _holds_tensors(value: Any) -> bool:
    """Whether a value is a sequence of tensors, such as a collated pair of numbers, rather than one item per sample."""
    return isinstance(value, (list, tuple)) and any(isinstance(item, (Tensor, Mapping)) for item in value)


def domain_of(stream: str) -> str:
    """The domain of a training set's section: ``s`` of ``train_s``; ``train`` of ``train``."""
    return stream.removeprefix("train_")


def _count(values: Mapping[str, Any]) -> int:
    """The number of samples: the input's, or the first tensor's where there is no input."""
    first = values.get("lq", next((value for value in values.values() if isinstance(value, Tensor)), None))
    return len(first) if isinstance(first, Tensor) and first.dim() else 0


def _part(values: Mapping[str, Any], part: int, parts: int) -> dict[str, Any]:
    """A part of each value that has one row or item per sample; others are for the whole batch, such as a kernel."""
    count = _count(values)
    rows = slice(part * (count // parts), (part + 1) * (count // parts))

    def cut(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: cut(item) for name, item in value.items()}
        if _holds_tensors(value):
            return [cut(item) for item in value]
        per_sample = (isinstance(value, Tensor) and value.dim() > 0) or isinstance(value, (list, tuple))
        return value[rows] if per_sample and len(value) == count else value

    return {key: cut(value) for key, value in values.items()}
