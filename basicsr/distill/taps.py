"""Feature taps: the outputs of a network's inner modules, recorded by forward hooks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class FeatureTaps:
    """Records the outputs of chosen modules while :meth:`recording` is active.

    Some networks change a tensor in place after the module that made it (an in-place activation after a tapped
    convolution). A recording that watches for it detects this, and such features are copied from then on.

    Args:
        net: The network, without any wrapper.
        label: How messages call it: ``network_g``.
    """

    def __init__(self, net: nn.Module, label: str) -> None:
        self.label = label
        self.modules = {path: module for path, module in net.named_modules() if path}
        self.paths: list[str] = []
        self._copied: set[str] = set()
        self._record: dict[str, Tensor] | None = None
        self._versions: dict[str, int] = {}
        self._watching = False

    def add(self, pattern: str) -> list[str]:
        """Tap the modules that a dotted path or glob names, in the order in which the network defines them.

        Args:
            pattern: A path such as ``layers.2``; ``*`` stands for one part of a path, ``**`` for any number.

        Returns:
            The matching paths.

        Raises:
            ValueError: If nothing matches; the message lists near misses.
        """
        expression = re.compile(_glob_to_regex(pattern))
        matches = [path for path in self.modules if expression.fullmatch(path)]
        if not matches:
            near = difflib.get_close_matches(pattern, self.modules, n=5, cutoff=0.4)
            hint = f"near misses: {', '.join(near)}" if near else f"it has, for instance: {', '.join(self._some())}"
            raise ValueError(f"no module of {self.label} matches '{pattern}'; {hint}")
        for path in matches:
            if path not in self.paths:
                self.paths.append(path)
                self.modules[path].register_forward_hook(self._hook(path))
        return matches

    def _some(self) -> list[str]:
        shallow = [path for path in self.modules if path.count(".") <= 1]
        return shallow[:12]

    def _hook(self, path: str) -> Any:
        def record(module: nn.Module, args: Any, output: Any) -> None:
            if self._record is None:
                return
            if not isinstance(output, Tensor):
                raise ValueError(
                    f"{self.label}: the output of '{path}' is a {type(output).__name__}, not a tensor; tap a module "
                    f"inside or after it"
                )
            if path in self._record:
                raise ValueError(
                    f"{self.label}: '{path}' runs more than once in a forward pass, so its output is ambiguous; tap "
                    f"another module"
                )
            self._record[path] = output.clone() if path in self._copied else output
            if self._watching:
                self._versions[path] = self._record[path]._version

        return record

    @contextmanager
    def recording(self, watch: bool = False) -> Iterator[dict[str, Tensor]]:
        """Inside the block, forward passes fill the returned dict: path → output.

        Args:
            watch: Whether to notice features that are changed in place afterwards; from the end of the block on, those
                are copied when they are recorded.
        """
        self._record = record = {}
        self._watching = watch
        try:
            yield record
        finally:
            self._record = None
        if watch:
            self._copied |= {path for path, feature in record.items() if feature._version != self._versions[path]}


def _glob_to_regex(pattern: str) -> str:
    parts = {"**.": r"(?:.*\.)?", "**": ".*", "*": r"[^.]*"}
    return "".join(parts.get(token, re.escape(token)) for token in re.split(r"(\*\*\.|\*\*|\*)", pattern))
