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
from .module_output import replace_output, select_output


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


@dataclass(frozen=True)
class _Tap:
    """One tapped output of a module.

    Attributes:
        path: Of the module.
        key: Of one of several outputs; '' for the only one.
        run: Which run of a module that runs several times in a forward pass: its number from 0, ``last`` or ``mean``;
            '' for the only one.
    """

    path: str
    key: str = ""
    run: str = ""

    @property
    def name(self) -> str:
        return self.path + (f"#{self.key}" if self.key else "") + (f"@{self.run}" if self.run else "")


@dataclass
class _Recording:
    """What the hooks do while a :meth:`FeatureTaps.recording` is active."""

    watch: bool
    replace: dict[str, Tensor]
    features: dict[str, Tensor] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)  # path → how often the module has run
    versions: dict[str, int] = field(default_factory=dict)


class FeatureTaps:
    """Records, and on request replaces, the outputs of chosen modules while :meth:`recording` is active.

    There is one permanent forward hook for each tapped module, so that a network may be compiled once its modules are
    tapped. PyTorch then compiles it once without recording, once with, and once for each set of replaced names; past
    its limit of 8 it warns and runs further ones uncompiled.

    A module that runs several times in a forward pass, as in a recurrent network, has several outputs, and a plain path
    is refused as ambiguous. ``path@2`` is the output of its third run, ``path@last`` that of the last, ``path@mean``
    the mean of all.

    Some networks change a tensor in place after the module that made it (an in-place activation after a tapped
    convolution). A recording that watches for it detects this, and such features are copied from then on.

    Args:
        net: The network, without any wrapper.
        label: Its name in messages: ``network_g``.

    Attributes:
        names: The taps: paths of modules, with ``#1`` or ``#key`` for one of several outputs, and ``@last``, ``@mean``
            or ``@2`` for modules that run several times.
    """

    def __init__(self, net: nn.Module, label: str) -> None:
        self.label = label
        self.names: list[str] = []
        self._modules = {path: module for path, module in net.named_modules() if path}
        self._taps: dict[str, list[_Tap]] = {}  # by the path of the module
        self._copied: set[str] = set()
        self._replaced_before: set[str] = set()
        self._recording: _Recording | None = None

    def add(self, pattern: str) -> list[str]:
        """Tap the modules that a dotted path or glob names, in the order in which the network defines them.

        Args:
            pattern: A path such as ``layers.2`` or a glob such as ``layers.[24].blocks.*``; see
                :func:`~basicsr.distill.module_glob.compile_glob`. Of a module with several outputs, ``path#1`` names
                an item of a tuple or list and ``path#key`` one of a dict. Of one that runs several times in a forward
                pass, ``path@2`` names the third run, ``path@last`` the last one, and ``path@mean`` the mean of all.

        Returns:
            The names of the taps: the matching paths, with what follows ``#`` and ``@``.

        Raises:
            ValueError: If nothing matches; the message lists near misses. If what follows ``@`` is not a run.
        """
        outputs, at, run = pattern.partition("@")
        if at and not (run.isdecimal() or run in ("last", "mean")):
            raise ValueError(
                f"'{pattern}': after @ comes last, mean, or the number of the run, from 0, of a module that runs "
                f"several times in a forward pass, and not '{run}'"
            )
        path_pattern, _, key = outputs.partition("#")
        expression = compile_glob(path_pattern)
        matches = [path for path in self._modules if expression.fullmatch(path)]
        if not matches:
            near = difflib.get_close_matches(path_pattern, self._modules, n=5, cutoff=0.4)
            hint = f"near misses: {', '.join(near)}" if near else f"it has, for instance: {', '.join(self._examples())}"
            raise ValueError(f"no module of {self.label} matches '{path_pattern}'; {hint}")
        taps = [_Tap(path, key, run) for path in matches]
        for tap in taps:
            if tap.path not in self._taps:
                self._taps[tap.path] = []
                self._modules[tap.path].register_forward_hook(self._hook(tap.path, self._taps[tap.path]))
            if tap not in self._taps[tap.path]:
                self._taps[tap.path].append(tap)
                self.names.append(tap.name)
        return [tap.name for tap in taps]

    def _examples(self) -> list[str]:
        shallow = [path for path in self._modules if path.count(".") <= 1]
        return shallow[:12]

    def _hook(self, path: str, taps: list[_Tap]) -> Callable[[nn.Module, Any, Any], Any]:
        def visit(module: nn.Module, args: Any, output: Any) -> Any:
            if self._recording is None:
                self._refuse_recomputation(path, taps)
                return None
            run = self._recording.runs.get(path, 0)
            self._recording.runs[path] = run + 1
            replaced = False
            for tap in taps:
                if tap.run.isdecimal() and int(tap.run) != run:
                    continue
                own = select_output(output, path, tap.key, self.label)
                given = self._visit(self._recording, tap, own)
                if given is not None:
                    output, replaced = replace_output(output, tap.key, given), True
            return output if replaced else None

        return visit

    def _visit(self, recording: _Recording, tap: _Tap, own: Tensor) -> Tensor | None:
        """Record one output. Returns the tensor that replaces it, if any."""
        name = tap.name
        if name in recording.features and not tap.run:
            raise ValueError(
                f"{self.label}: '{name}' runs more than once in a forward pass, so its output is ambiguous; tap "
                f"'{name}@last', '{name}@0' (the first run) or '{name}@mean', or another module"
            )
        if tap.run == "mean":  # the sum until the end; of a copy, which the network does not overwrite
            summed = recording.features.get(name)
            recording.features[name] = own.clone() if summed is None else _add(summed, own, name, self.label)
            return None
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

    def _refuse_recomputation(self, path: str, taps: list[_Tap]) -> None:
        """Refuse activation checkpointing of a replaced output: the backward pass would recompute the original."""
        if torch.compiler.is_compiling() or not self._replaced_before or torch._C._current_graph_task_id() == -1:
            return
        if any(tap.name in self._replaced_before for tap in taps):
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
            ValueError: If the output to replace is not tapped, is that of one run of several, has another shape, or did
                not run; or if a module did not run as often as a tap names.
        """
        replace = dict(replace or {})
        for name in replace:
            if name not in self.names:
                tapped = ", ".join(self.names) or "nothing"
                raise ValueError(f"{self.label}: '{name}' is to be replaced but not tapped; tap it (tapped: {tapped})")
            if "@" in name:
                raise ValueError(f"{self.label}: '{name}' is one run of several, and cannot be replaced")
        self._replaced_before |= replace.keys()
        self._recording = recording = _Recording(watch, replace)
        try:
            yield recording.features
        finally:
            self._recording = None
        absent = replace.keys() - recording.features.keys()
        if absent:
            raise ValueError(f"{self.label}: {', '.join(sorted(absent))} was to be replaced but did not run")
        self._finish_runs(recording)
        self._copied |= {name for name, was in recording.versions.items() if recording.features[name]._version != was}

    def _finish_runs(self, recording: _Recording) -> None:
        """Take the means over the runs of modules, and require those that are named by number."""
        for path, runs in recording.runs.items():
            for tap in self._taps[path]:
                if tap.run == "mean":
                    recording.features[tap.name] = recording.features[tap.name] / runs
                elif tap.name not in recording.features:
                    raise ValueError(
                        f"{self.label}: '{tap.name}' names run {tap.run}, but '{path}' ran {runs} times in a forward "
                        f"pass; they are numbered from 0"
                    )


def _add(summed: Tensor, own: Tensor, name: str, label: str) -> Tensor:
    if summed.shape != own.shape:
        raise ValueError(
            f"{label}: '{name}' is a mean of outputs of different shapes, {tuple(summed.shape)} and "
            f"{tuple(own.shape)}; name one run, such as '{name.removesuffix('mean')}last'"
        )
    return summed + own
