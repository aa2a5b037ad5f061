"""Objects that are tried out, and afterwards are as they were."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def preserved_state(*owners: object) -> Iterator[None]:
    """A block after which objects have the attributes that they had before, with the values of before.

    Restored are attributes that were bound, added or deleted; what a list, dict, set or deque among them held; and
    tensors among them, or in such a container, that were changed in place, such as a module's buffers. The values of
    parameters are not looked at. Their gradients are put aside, so that the block begins without.

    Args:
        *owners: The objects. A module stands for its sub-modules as well.
    """
    objects: dict[int, object] = {}
    for owner in owners:
        for each in owner.modules() if isinstance(owner, nn.Module) else (owner,):
            objects[id(each)] = each
    kept = [(each, _Attributes(each)) for each in objects.values()]
    modules = [each for each in objects.values() if isinstance(each, nn.Module)]
    gradients = [(p, p.grad) for each in modules for p in each.parameters(recurse=False)]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for each, attributes in kept:
            attributes.restore(each)
        for parameter, gradient in gradients:
            parameter.grad = gradient


class _Attributes:
    def __init__(self, owner: object) -> None:
        self._values = dict(vars(owner))
        self._contents = [(v, copy(v)) for v in self._values.values() if type(v) in (list, dict, set, deque)]
        tensors = {id(t): t for value in self._values.values() for t in _tensors(value)}
        self._tensors = [(tensor, tensor.detach().clone()) for tensor in tensors.values()]

    def restore(self, owner: object) -> None:
        vars(owner).clear()
        vars(owner).update(self._values)
        for container, content in self._contents:
            container.clear()
            (container.extend if isinstance(container, (list, deque)) else container.update)(content)
        with torch.no_grad():
            for tensor, values in self._tensors:
                if not torch.equal(tensor, values):  # not by its version, which batch norm leaves as it is
                    tensor.copy_(values)


def _tensors(value: Any) -> Iterable[Tensor]:
    """The tensors to restore among an attribute and what it holds."""
    items: Iterable[Any] = (value,)
    if type(value) in (list, tuple, set, deque):
        items = value
    elif type(value) is dict:
        items = value.values()
    return [t for t in items if isinstance(t, Tensor) and not isinstance(t, nn.Parameter) and not t.is_inference()]
