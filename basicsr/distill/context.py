"""What a distillation term may look at in one iteration; everything costly is computed once and shared."""

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

    Before any term is computed, each one's ``prepare`` announces what it will ask for. So a network sees all its inputs
    of one size in one pass, and an encoder all its images.

    Args:
        iteration: From 1; 0 while networks are tried out before the training.
        batch: The batch, or the part of it that is being computed.
        find: The network of a name.
        timer: Takes the time of the networks, when given.

    Attributes:
        batch: Everything that the data sets gave, by key.
        logs: What :meth:`log` was given, by the name in the log.
        scratch: For what a term keeps from ``prepare`` to ``forward``, by a key of its own; it ends with the iteration.
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
        """Count the time inside as that of a part of the step with this name, in the log."""
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
        """Announce a pass. Passes of equal shape and gradient run together, and what is not asked for does not run.

        Args:
            network: ``g`` (the student), ``g_ema`` (its average), the suffix of a frozen ``network_<x>``, or the name
                of a term that offers ``as_network``.
            key: A name for the image. Terms that announce one key and one image share the pass.
            image: ``(N, C, h, w)``; the batch's input when absent, which is what the key ``lq`` means.
            grad: Whether the pass has gradients. By default the student's has, and another network's if something that
                it is given has.
            replace: Tapped path → the tensor that takes the place of that module's output.
            **inputs: Further arguments of the network's ``forward``. A tensor with a row for each image is joined with
                those of the passes beside it.

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
        """An announced pass, or the one over the batch's own input: its output and its tapped features.

        Raises:
            ValueError: If it was not announced, or there is no such network.
        """
        if key == INPUT and not self._passes.has(network, key):
            self.want(network)
        return self._passes.run(network, key, self)

    def teacher(self, name: str = "t") -> Pass:
        """A teacher's pass over ``lq``: ``run(name)``."""
        return self.run(name)

    def record(self, network: str, run: Callable[[], Tensor]) -> Pass:
        """Run a network over ``lq`` in a way of the caller's own, and keep its pass with its tapped features.

        Args:
            network: The network.
            run: Gives the output.
        """
        source = self._find(network)
        with source.taps.recording() as features:
            output = run()
        result = Pass(output, {path: feature.to(output.dtype) for path, feature in features.items()})
        self._passes.put(network, INPUT, self.lq, result)
        return result

    # Encodings.

    def want_encoding(self, encoder: FrozenEncoder, *sources: Source) -> None:
        """Announce images that are to be encoded: :class:`PassOutput`, :class:`BatchImage`.

        Args:
            encoder: From :meth:`basicsr.distill.networks.Networks.encoder`.
            *sources: The images. What two terms announce is encoded once.
        """
        for source in sources:
            if isinstance(source, PassOutput) and source.key == INPUT and not self._passes.has(*source):
                self.want(source.network)
        self._encodings.want(encoder, sources)

    def encoding(self, encoder: FrozenEncoder, source: Source) -> Encoding:
        """The feature maps of an image by layer, with gradients where the image has them."""
        return self._encodings.get(encoder, source, self._image_of)

    def latent(self, encoder: FrozenEncoder, source: Source) -> Tensor:
        """The latent ``(N, D, h, w)`` of the same."""
        return self._encodings.latent(encoder, source, self._image_of)

    def _image_of(self, source: Source) -> Tensor:
        return self.batch[source.key] if isinstance(source, BatchImage) else self.run(*source).output

    # What is only looked at.

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
        """A block in which what is logged is this term's."""
        before, self._logging_as = self._logging_as, term
        try:
            yield
        finally:
            self._logging_as = before

    def detached(self) -> KDContext:
        """The same iteration without gradients to the student, for what a term trains by itself."""
        other = KDContext(self.iteration, self.batch, self._find, self._timer)
        other.scratch = tree_map(lambda kept: kept.detach() if isinstance(kept, Tensor) else kept, self.scratch)
        other._passes = self._passes.detached()
        return other


def _parts(timer: StepTimer | None) -> Callable[[str | None], AbstractContextManager]:
    """A function of its own, not a method: passes hold it, and a step's tensors must be freed without cycles."""
    return lambda name: timer.part(name) if timer and name else nullcontext()
