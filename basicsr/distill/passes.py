"""The forward passes of one iteration. Each is requested by name, and runs once, when its result is first read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .taps import FeatureTaps, slice_images

INPUT = "lq"
"""The key of the pass over the batch's own input."""


@dataclass
class Pass:
    """One forward pass.

    Attributes:
        output: ``(N, C, H, W)``.
        features: The tapped features by module path, of the same N images.
    """

    output: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)

    def detached(self) -> Pass:
        """The same without gradients."""
        return Pass(self.output.detach(), {path: feature.detach() for path, feature in self.features.items()})


class PassContext(ABC):
    """The part of the context that a network uses to request passes of other networks."""

    @abstractmethod
    def want(
        self,
        network: str,
        key: str = INPUT,
        image: Tensor | None = None,
        *,
        grad: bool | None = None,
        replace: Mapping[str, Tensor] | None = None,
        **inputs: Any,
    ) -> None:
        """Request a pass."""

    @abstractmethod
    def run(self, network: str, key: str = INPUT) -> Pass:
        """The result of a pass."""

    @abstractmethod
    def logging_as(self, term: str) -> AbstractContextManager[None]:
        """Context manager in which logged values belong to a term."""


class PassNetwork(ABC):
    """A network as distillation sees it.

    Attributes:
        label: Its name in messages: ``network_t``.
        part: The name of its passes in the timing log: ``teacher``.
        taps: Its feature taps.
        asks_for_passes: Whether it requests passes of other networks. Its own passes then run one by one.
    """

    label: str
    part: str | None
    taps: FeatureTaps
    asks_for_passes: bool = False

    @abstractmethod
    def run(self, image: Tensor, **inputs: Any) -> Tensor:
        """The output for images ``(N, C, h, w)``. The caller enables or disables gradients."""

    def wants_gradient(self, tensors: list[Tensor], student_is_constant: bool = False) -> bool:
        """Whether a pass has gradients by default: if one of its inputs has.

        Args:
            tensors: The inputs of the pass.
            student_is_constant: Whether the student is constant, as where a term trains its own network.
        """
        return any(tensor.requires_grad for tensor in tensors)

    def record(self, ctx: PassContext, key: str, image: Tensor, replace: Mapping[str, Tensor], **inputs: Any) -> Pass:
        """Run it and record the tapped features, in the dtype of the image.

        Args:
            ctx: The iteration.
            key: The key of the pass.
            image: ``(N, C, h, w)``.
            replace: Tapped path → the tensor that replaces that module's output.
            **inputs: Further arguments of its ``forward``.

        Raises:
            ValueError: If it returns anything but a tensor.
        """
        with self.taps.recording(replace=replace or None) as features:
            output = self.run(image, **inputs)
        require_image(output, self.label)
        return Pass(output, {path: feature.to(image.dtype) for path, feature in features.items()})


def require_image(output: Any, label: str) -> None:
    """Require that a network returns one tensor.

    Raises:
        ValueError: If it does not.
    """
    if not isinstance(output, Tensor):
        raise ValueError(
            f"{label} returns a {type(output).__name__}; distillation compares images: wrap it in a network that "
            f"returns the image alone"
        )


@dataclass
class _Request:
    """A requested pass, or one that was run elsewhere and added."""

    image: Tensor
    grad: bool
    replace: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    added: bool = False

    def is_same(self, other: _Request) -> bool:
        given, theirs = {**self.replace, **self.inputs}, {**other.replace, **other.inputs}
        return (
            _same(self.image, other.image)
            and self.replace.keys() == other.replace.keys()
            and given.keys() == theirs.keys()
            and all(_same(value, theirs[name]) for name, value in given.items())
        )

    def can_batch_with(self, other: _Request) -> bool:
        """Whether the two passes can run as one batch."""
        if self.replace or other.replace or self.grad != other.grad or self.inputs.keys() != other.inputs.keys():
            return False
        if self.image.shape[1:] != other.image.shape[1:] or self.image.dtype != other.image.dtype:
            return False
        pairs = [(value, other.inputs[name]) for name, value in self.inputs.items()]
        return all(_can_join(one, two, len(self.image), len(other.image)) for one, two in pairs)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one is other or (one.shape == other.shape and torch.equal(one, other))
    return one is other or (not isinstance(one, Tensor) and not isinstance(other, Tensor) and one == other)


def _can_join(one: Any, other: Any, count: int, other_count: int) -> bool:
    """Whether two values can be concatenated along the first dimension, or are one value for the whole batch.

    One tensor that both passes are given is not concatenated: its length does not show whether it has a row per image.
    """
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return _same(one, other)
    if one is other:
        return False
    per_image = one.dim() > 0 and other.dim() > 0 and len(one) == count and len(other) == other_count
    return per_image and one.shape[1:] == other.shape[1:] and one.dtype == other.dtype


class Passes:
    """The passes of one iteration.

    Args:
        find: From a name to the network.
        part: From a part of the step to the timer's context manager.
        student_is_constant: Whether the student is constant, as where a term trains its own network.
    """

    def __init__(
        self,
        find: Callable[[str], PassNetwork],
        part: Callable[[str | None], AbstractContextManager],
        student_is_constant: bool = False,
    ) -> None:
        self._find = find
        self._part = part
        self._student_is_constant = student_is_constant
        self._requests: dict[str, dict[str, _Request]] = {}
        self._done: dict[str, dict[str, Pass]] = {}
        self._running: set[tuple[str, str]] = set()

    def add(self, network: str, key: str, image: Tensor, result: Pass) -> None:
        """Add a pass that has run already."""
        self._requests.setdefault(network, {})[key] = _Request(image, result.output.requires_grad, added=True)
        self._done.setdefault(network, {})[key] = result

    def has(self, network: str, key: str) -> bool:
        """Whether a pass was requested."""
        return key in self._requests.get(network, {})

    def want(
        self,
        network: str,
        key: str,
        image: Tensor,
        *,
        grad: bool | None = None,
        replace: Mapping[str, Tensor] | None = None,
        inputs: Mapping[str, Any],
    ) -> None:
        """Request a pass; see :meth:`basicsr.distill.context.KDContext.want`."""
        given = [value for value in (image, *(replace or {}).values(), *inputs.values()) if isinstance(value, Tensor)]
        default = self._find(network).wants_gradient(given, self._student_is_constant)
        wanted = default if grad is None else grad
        request = _Request(image, wanted, dict(replace or {}), dict(inputs))
        known = self._requests.setdefault(network, {}).setdefault(key, request)
        if known is request:
            return
        if not known.is_same(request):
            raise ValueError(
                f"two different inputs of {self._find(network).label} are called '{key}' in one iteration: "
                f"{tuple(known.image.shape)} and {tuple(image.shape)}; give one of them another key"
            )
        takes_what_there_is = known.added and grad is None
        if known.grad != wanted and not takes_what_there_is:
            raise ValueError(
                f"the pass '{key}' of {self._find(network).label} is requested with and without gradients; use two keys"
            )

    def run(self, network: str, key: str, ctx: PassContext) -> Pass:
        """The result of a pass. All requested passes that can run in one batch with it are run, too."""
        done = self._done.setdefault(network, {})
        if key not in done:
            requests = self._requests.get(network, {})
            if key not in requests:
                known = ", ".join(requests) or "none"
                raise ValueError(
                    f"the pass '{key}' of {self._find(network).label} was not requested; request it in prepare() with "
                    f"ctx.want('{network}', '{key}', image). Requested: {known}"
                )
            wanted, source = requests[key], self._find(network)
            if (network, key) in self._running:
                raise ValueError(f"{source.label} requests its own pass '{key}'; terms that are networks form a circle")
            together = {
                name: request
                for name, request in requests.items()
                if name == key or (not source.asks_for_passes and name not in done and request.can_batch_with(wanted))
            }
            # The batch's own input comes first, so that the order of the terms changes nothing.
            together = dict(sorted(together.items(), key=lambda item: item[0] != INPUT))
            self._running.add((network, key))
            try:
                done.update(self._run_batched(source, together, ctx))
            finally:
                self._running.discard((network, key))
        return done[key]

    def _run_batched(self, network: PassNetwork, requests: dict[str, _Request], ctx: PassContext) -> dict[str, Pass]:
        keys, ones = list(requests), list(requests.values())
        counts = [len(request.image) for request in ones]

        def join(values: list[Any]) -> Any:
            return torch.cat(values) if len(values) > 1 and isinstance(values[0], Tensor) else values[0]

        inputs = {name: join([request.inputs[name] for request in ones]) for name in ones[0].inputs}
        with self._part(network.part), torch.set_grad_enabled(ones[0].grad):
            image = join([request.image for request in ones])
            whole = network.record(ctx, keys[0], image, ones[0].replace, **inputs)
        if len(ones) == 1:
            return {keys[0]: whole}
        results, start = {}, 0
        for name, count in zip(keys, counts):
            stop = start + count
            features = {path: slice_images(f, start, stop, sum(counts), path) for path, f in whole.features.items()}
            results[name] = Pass(whole.output[start:stop], features)
            start = stop
        return results

    def detached(self) -> Passes:
        """The passes that have run, without gradients. Further passes of the student have none either."""
        other = Passes(self._find, self._part, student_is_constant=True)
        for network, requests in self._requests.items():
            if self._find(network).asks_for_passes:
                continue  # such a term may be trained by its own loss, and so runs again
            for key, request in requests.items():
                image = request.image.detach() if request.image.requires_grad else request.image
                if key in self._done.get(network, {}):
                    other.add(network, key, image, self._done[network][key].detached())
                elif not request.replace:
                    inputs = tree_map(lambda v: v.detach() if isinstance(v, Tensor) else v, request.inputs)
                    other.want(network, key, image, inputs=inputs)
        return other
