"""What a distillation term sees of one iteration. Passes and encodings are computed once and shared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from basicsr.engine.batch import Batch
from basicsr.engine.compute.timing import StepTimer

from .encoders import BatchImage, Encoding, Encodings, FrozenEncoder, PassOutput, Source
from .passes import INPUT, Pass, PassContext, Passes, PassNetwork


class KDContext(PassContext):
    """One batch as the terms see it.

    Before any term is computed, the ``prepare`` of each requests passes and encodings. So a network gets all inputs of
    one size in one pass, and an encoder all its images.

    Args:
        iteration: From 1; 0 in trial passes before the training.
        batch: The batch, or the part of it that is being computed.
        find: From a name to the network.
        timer: Measures the passes of the networks.

    Attributes:
        batch: Every key of the data sets.
        logs: The values given to :meth:`log`, by their names in the log.
        scratch: A dict in which a term passes values from ``prepare`` to ``forward``; it lasts one iteration.
    """

    def __init__(
        self, iteration: int, batch: Batch, find: Callable[[str], PassNetwork], timer: StepTimer | None = None
    ) -> None:
        self.iteration = iteration
        self.batch = batch
        self.scratch: dict[Any, Any] = {}
        self.logs: dict[str, Any] = {}
        self._logging_as = ""
        self._find = find
        self._timer = timer
        part = _parts(timer)
        self._passes = Passes(find, part)
        self._encodings = Encodings(part)

    def part(self, name: str) -> AbstractContextManager:
        """Context manager whose time is logged as a part of the step."""
        return _parts(self._timer)(name)

    # The batch.

    @property
    def lq(self) -> Tensor:
        """The input ``(B, C, h, w)``, the rows of all domains."""
        return self.batch[INPUT]

    @property
    def gt(self) -> Tensor | None:
        """The target ``(B, C, H, W)`` of the rows that have one; None where no data set gives it."""
        return self.batch.get("gt")

    @property
    def rows(self) -> Mapping[str, slice]:
        """Domain → its rows: ``train``, or ``s`` and ``t`` for the sets ``train_s`` and ``train_t``."""
        return self.batch.rows

    # Passes.

    @property
    def output(self) -> Tensor:
        """The student's output ``(B, C, H, W)``, with gradients."""
        return self.run("g").output

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
        """Request a pass. Passes of equal shape and gradient run as one batch. What is not requested does not run.

        Args:
            network: ``g`` (the student), ``g_ema`` (its average), the suffix of a frozen ``network_<x>``, or the name
                of a term that offers ``as_network``.
            key: A name for the image. Terms that request one key with one image share the pass.
            image: ``(N, C, h, w)``; the batch's input when absent, which is what the key ``lq`` means.
            grad: Whether the pass has gradients. By default the student's has, and another network's if one of its
                inputs has.
            replace: Tapped path → the tensor that replaces that module's output.
            **inputs: Further arguments of the network's ``forward``. A tensor with a row for each image is
                concatenated with those of the passes in the same batch.

        Raises:
            ValueError: If another image has that key, or there is no such network.
        """
        if image is None:
            if key != INPUT:
                raise ValueError(
                    f"the pass '{key}' of {network} needs its image: ctx.want('{network}', '{key}', image)"
                )
            image = self.lq
        elif key == INPUT and image is not self.lq:
            raise ValueError(
                f"'{INPUT}' is the batch's own input; give the other image that {network} sees another key"
            )
        self._passes.want(network, key, image, grad=grad, replace=replace, inputs=inputs)

    def run(self, network: str, key: str = INPUT) -> Pass:
        """The result of a requested pass, or of the pass over the batch's own input: output and tapped features.

        Raises:
            ValueError: If it was not requested, or there is no such network.
        """
        if key == INPUT and not self._passes.has(network, key):
            self.want(network)
        return self._passes.run(network, key, self)

    def teacher(self, name: str = "t") -> Pass:
        """A teacher's pass over ``lq``: ``run(name)``."""
        return self.run(name)

    def record(self, network: str, run: Callable[[], Tensor]) -> Pass:
        """Run a network over ``lq`` by a function of the caller, and record its pass with its tapped features.

        Args:
            network: The network.
            run: Returns the output.
        """
        source = self._find(network)
        with source.taps.recording() as features:
            output = run()
        result = Pass(output, {path: feature.to(output.dtype) for path, feature in features.items()})
        self._passes.add(network, INPUT, self.lq, result)
        return result

    # Encodings.

    def want_encoding(self, encoder: FrozenEncoder, *sources: Source) -> None:
        """Request encodings of images: :class:`PassOutput`, :class:`BatchImage`.

        Args:
            encoder: From :meth:`basicsr.distill.networks.Networks.encoder`.
            *sources: The images. An image that two terms request is encoded once.
        """
        for source in sources:
            if isinstance(source, PassOutput) and source.key == INPUT and not self._passes.has(*source):
                self.want(source.network)
        self._encodings.want(encoder, sources)

    def encoding(self, encoder: FrozenEncoder, source: Source) -> Encoding:
        """The feature maps of an image by layer, with gradients if the image has them."""
        return self._encodings.get(encoder, source, self._image_of)

    def latent(self, encoder: FrozenEncoder, source: Source) -> Tensor:
        """The latent ``(N, D, h, w)`` of an image."""
        return self._encodings.latent(encoder, source, self._image_of)

    def _image_of(self, source: Source) -> Tensor:
        return self.batch[source.key] if isinstance(source, BatchImage) else self.run(*source).output

    # Logging.

    def log(self, name: str, value: Tensor | float) -> None:
        """Log a number that is not minimised, as ``<term>_<name>``.

        Args:
            name: Letters, digits and ``_``.
            value: A scalar.
        """
        name = f"{self._logging_as}_{name}" if self._logging_as else name
        self.logs[name] = value.detach() if isinstance(value, Tensor) else value

    @contextmanager
    def logging_as(self, term: str) -> Iterator[None]:
        """Context manager in which logged values belong to a term."""
        before, self._logging_as = self._logging_as, term
        try:
            yield
        finally:
            self._logging_as = before

    def detached(self) -> KDContext:
        """The same iteration without gradients to the student, for a term's own loss."""
        other = KDContext(self.iteration, self.batch, self._find, self._timer)
        other.scratch = tree_map(lambda kept: kept.detach() if isinstance(kept, Tensor) else kept, self.scratch)
        other._passes = self._passes.detached()
        return other


def _parts(timer: StepTimer | None) -> Callable[[str | None], AbstractContextManager]:
    """A function of its own, not a method: passes hold it, and a step's tensors must be freed without cycles."""
    return lambda name: timer.part(name) if timer and name else nullcontext()
