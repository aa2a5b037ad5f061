"""Feature taps: the outputs of a network's inner modules, recorded or replaced by forward hooks."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .module_glob import compile_glob


def slice_images(feature: Tensor, start: int, stop: int, total: int, name: str) -> Tensor:
    """The rows of a feature that belong to some images of its batch.

    Args:
        feature: ``(k·total, …)``: k rows for each image, those of one image together, as windowed tokens have them.
        start: The first image.
        stop: The image after the last one.
        total: Images in the batch.
        name: Of the tap, for the message.

    Returns:
        ``(k·(stop − start), …)``, a view.

    Raises:
        ValueError: If the first dimension is not a multiple of the number of images.
    """
    rows = len(feature) if feature.dim() else 0
    if not rows or rows % total:
        raise ValueError(
            f"'{name}' gives {tuple(feature.shape)} for {total} images; its first dimension must be a multiple of "
            f"them, so that each image's rows are known"
        )
    per_image = rows // total
    return feature[per_image * start : per_image * stop]


@dataclass
class _Recording:
    """What the hooks do while a :meth:`FeatureTaps.recording` is active."""

    watch: bool
    replace: dict[str, Tensor]
    features: dict[str, Tensor] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)


class FeatureTaps:
    """Records, and on request replaces, the outputs of chosen modules while :meth:`recording` is active.

    There is one permanent forward hook for each tapped module, so that a network may be compiled once its modules are
    tapped. PyTorch then compiles it once without recording, once with, and once for each set of replaced names; past
    its limit of 8 it warns and runs further ones uncompiled.

    Some networks change a tensor in place after the module that made it (an in-place activation after a tapped
    convolution). A recording that watches for it detects this, and such features are copied from then on.

    Args:
        net: The network, without any wrapper.
        label: Its name in messages: ``network_g``.

    Attributes:
        names: The taps: paths of modules, with ``#1`` or ``#key`` for one of several outputs.
    """

    def __init__(self, net: nn.Module, label: str) -> None:
        self.label = label
        self.names: list[str] = []
        self._modules = {path: module for path, module in net.named_modules() if path}
        self._outputs: dict[str, list[str]] = {}  # path → the keys of the outputs tapped there, '' for the only one
        self._copied: set[str] = set()
        self._replaced_before: set[str] = set()
        self._recording: _Recording | None = None

    def add(self, pattern: str) -> list[str]:
        """Tap the modules that a dotted path or glob names, in the order in which the network defines them.

        Args:
            pattern: A path such as ``layers.2`` or a glob such as ``layers.[24].blocks.*``; see
                :func:`~basicsr.distill.module_glob.compile_glob`. Of a module with several outputs, ``path#1`` names
                an item of a tuple or list and ``path#key`` one of a dict.

        Returns:
            The names of the taps: the matching paths, with what follows ``#``.

        Raises:
            ValueError: If nothing matches; the message lists near misses.
        """
        path_pattern, _, key = pattern.partition("#")
        expression = compile_glob(path_pattern)
        matches = [path for path in self._modules if expression.fullmatch(path)]
        if not matches:
            near = difflib.get_close_matches(path_pattern, self._modules, n=5, cutoff=0.4)
            hint = f"near misses: {', '.join(near)}" if near else f"it has, for instance: {', '.join(self._examples())}"
            raise ValueError(f"no module of {self.label} matches '{path_pattern}'; {hint}")
        for path in matches:
            if path not in self._outputs:
                self._outputs[path] = []
                self._modules[path].register_forward_hook(self._hook(path, self._outputs[path]))
            if key not in self._outputs[path]:
                self._outputs[path].append(key)
                self.names.append(_name(path, key))
        return [_name(path, key) for path in matches]

    def _examples(self) -> list[str]:
        shallow = [path for path in self._modules if path.count(".") <= 1]
        return shallow[:12]

    def _hook(self, path: str, keys: list[str]) -> Callable[[nn.Module, Any, Any], Any]:
        def visit(module: nn.Module, args: Any, output: Any) -> Any:
            if self._recording is None:
                self._refuse_recomputation(path, keys)
                return None
            replaced = False
            for key in keys:
                own = self._select(path, key, output)
                given = self._visit(self._recording, _name(path, key), own)
                if given is not None:
                    output, replaced = _replace_output(output, key, given), True
            return output if replaced else None

        return visit

    def _visit(self, recording: _Recording, name: str, own: Tensor) -> Tensor | None:
        """Record one output. Returns the tensor that replaces it, if any."""
        if name in recording.features:
            raise ValueError(
                f"{self.label}: '{name}' runs more than once in a forward pass, so its output is ambiguous; tap "
                f"another module"
            )
        copied = name in self._copied
        given = recording.replace.get(name)
        if given is None:
            recording.features[name] = own.clone() if copied else own
        else:
            if given.shape != own.shape:
                raise ValueError(
                    f"{self.label}: the output of '{name}' is {tuple(own.shape)} and cannot be replaced by a tensor "
                    f"{tuple(given.shape)}"
                )
            recording.features[name] = given
            # Under autocast the rest of the network expects what the module would have given.
            given = given.to(own.dtype, copy=copied)
        if recording.watch:
            recording.versions[name] = recording.features[name]._version
        return given

    def _select(self, path: str, key: str, output: Any) -> Tensor:
        """The output of a module that a tap names."""
        if not key and isinstance(output, Tensor):
            return output
        parts = _parts(output)
        if isinstance(parts.get(key), Tensor):
            return parts[key]
        tensors = [f"'{path}#{key}'" for key, part in parts.items() if isinstance(part, Tensor)]
        if isinstance(output, Tensor):
            tensors = [f"'{path}'"]
        advice = f"tap {' or '.join(tensors)}" if tensors else "tap a module inside or after it"
        found = "one tensor" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        name = f", of which '#{key}' is not a tensor" if key else ", not a tensor"
        raise ValueError(f"{self.label}: the output of '{path}' is {found}{name}; {advice}")

    def _refuse_recomputation(self, path: str, keys: list[str]) -> None:
        """Refuse activation checkpointing of a replaced output: the backward pass would recompute the original."""
        if torch.compiler.is_compiling() or not self._replaced_before or torch._C._current_graph_task_id() == -1:
            return
        if any(_name(path, key) in self._replaced_before for key in keys):
            raise RuntimeError(
                f"{self.label}: an output of '{path}' has been replaced, and the backward pass recomputes it, so the "
                f"gradients would be wrong; switch activation checkpointing off in this network (use_checkpoint: false)"
            )

    @contextmanager
    def recording(
        self, watch: bool = False, replace: Mapping[str, Tensor] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Inside the block, one forward pass fills the returned dict: name of the tap → output.

        Args:
            watch: Whether to detect features that are changed in place afterwards. From the end of the block on, they
                are copied when recorded. Compiled code does not show such changes: watch before compiling.
            replace: Name of a tap → the tensor, of the same shape, that replaces that output. It is what is recorded,
                and gradients flow to it.

        Raises:
            ValueError: If the output to replace is not tapped, has another shape, or did not run.
        """
        replace = dict(replace or {})
        for name in replace:
            if name not in self.names:
                tapped = ", ".join(self.names) or "nothing"
                raise ValueError(f"{self.label}: '{name}' is to be replaced but not tapped; tap it (tapped: {tapped})")
        self._replaced_before |= replace.keys()
        self._recording = recording = _Recording(watch, replace)
        try:
            yield recording.features
        finally:
            self._recording = None
        absent = replace.keys() - recording.features.keys()
        if absent:
            raise ValueError(f"{self.label}: {', '.join(sorted(absent))} was to be replaced but did not run")
        self._copied |= {name for name, was in recording.versions.items() if recording.features[name]._version != was}


def _name(path: str, key: str) -> str:
    return f"{path}#{key}" if key else path


def _parts(output: Any) -> dict[str, Any]:
    """The items of a tuple, list or dict by the key that addresses each."""
    if isinstance(output, dict):
        return {str(key): value for key, value in output.items()}
    if isinstance(output, (tuple, list)):
        return {str(index): value for index, value in enumerate(output)}
    return {}


def _replace_output(output: Any, key: str, value: Tensor) -> Any:
    """A module's output with one of its tensors replaced; the module's own containers are not changed."""
    if isinstance(output, Tensor):
        return value
    if isinstance(output, dict):
        changed = output.copy()
        changed.update({name: value for name in output if str(name) == key})
        return changed
    items = [*output]
    items[int(key)] = value
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*items)
    return type(output)(items)
