"""What a distillation term may look at in one iteration; everything costly is computed once and shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from basicsr.engine.timing import StepTimer

from .encoders import Encoding, InputRange, add_latent, encode
from .frozen import FrozenNetwork


@dataclass
class Pass:
    """One forward pass: the output, and the tapped features by module path."""

    output: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class _EncoderWork:
    """What one encoder is to encode, and what it has encoded."""

    images: dict[str, Callable[[], Tensor]] = field(default_factory=dict)
    done: dict[str, Encoding] = field(default_factory=dict)


class KDContext:
    """One batch as the terms see it.

    Before any term is computed, each one's ``prepare`` announces what it will ask for beyond the teachers' passes over
    ``lq``. So a teacher sees all its inputs in one pass, and an encoder all images without gradients in another.

    Args:
        iteration: From 1.
        lq: Input, ``(B, C, h, w)``.
        gt: Target, ``(B, C, H, W)``, or None.
        student: The student's pass, with gradients.
        frozen: The frozen networks by name.
        timer: Counts the frozen networks' time, when given.
        run_student: Runs the student on further inputs, with gradients.

    Attributes:
        output: The student's output, ``(B, C, H, W)``.
    """

    def __init__(
        self,
        iteration: int,
        lq: Tensor,
        gt: Tensor | None,
        student: Pass,
        frozen: Mapping[str, FrozenNetwork],
        timer: StepTimer | None = None,
        run_student: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.iteration = iteration
        self.lq = lq
        self.gt = gt
        self.student = student
        self._frozen = frozen
        self.run_student = run_student
        self._timer = timer
        self._passes: dict[str, dict[str, Pass]] = {}
        self._views: dict[str, dict[str, Tensor]] = {}
        self._encoders: dict[tuple[str, InputRange], _EncoderWork] = {}

    def part(self, name: str) -> AbstractContextManager:
        """Count the time inside as that of a part of the step with this name, in the log."""
        return self._timer.part(name) if self._timer else nullcontext()

    def _network(self, name: str) -> FrozenNetwork:
        if name not in self._frozen:
            known = ", ".join(f"network_{key}" for key in self._frozen) or "none is defined"
            raise ValueError(f"a distillation term asks for network_{name}; frozen networks: {known}")
        return self._frozen[name]

    @property
    def output(self) -> Tensor:
        return self.student.output

    def features(self, network: str) -> dict[str, Tensor]:
        """The tapped features of the student (``'g'``) or of a teacher, by module path."""
        return self.student.features if network == "g" else self.teacher(network).features

    # Teachers.

    def want_view(self, teacher: str, key: str, image: Tensor) -> None:
        """Announce that a teacher is to see another input; in the same pass if it has the shape of ``lq``.

        Args:
            teacher: The suffix of its ``network_<teacher>``.
            key: A name for the view, unique among the terms.
            image: ``(N, C, h', w')``.
        """
        assert teacher not in self._passes, "views are announced before the teacher has run"
        self._views.setdefault(teacher, {})[key] = image

    def teacher(self, name: str = "t") -> Pass:
        """A teacher's pass over ``lq``, without gradients; run when first asked for.

        Args:
            name: The suffix of its ``network_<name>``.
        """
        return self._run_teacher(name)["lq"]

    def view(self, teacher: str, key: str) -> Tensor:
        """A teacher's output for an announced view."""
        return self._run_teacher(teacher)[key].output

    def _run_teacher(self, name: str) -> dict[str, Pass]:
        if name not in self._passes:
            network = self._network(name)
            views = self._views.get(name, {})
            together = [key for key, image in views.items() if image.shape == self.lq.shape]
            batch = torch.cat([self.lq, *(views[key] for key in together)]) if together else self.lq
            with self.part("teacher"), torch.no_grad():
                with network.taps.recording() as features:
                    outputs = network(batch).chunk(1 + len(together))
                passes = {key: Pass(output) for key, output in zip(together, outputs[1:])}
                passes |= {key: Pass(network(image)) for key, image in views.items() if key not in passes}
            own = {path: feature[: len(self.lq)].float() for path, feature in features.items()}
            self._passes[name] = {"lq": Pass(outputs[0], own), **passes}
        return self._passes[name]

    # Encoders.

    def want_encoding(self, encoder: str, input_range: InputRange, images: Mapping[str, Callable[[], Tensor]]) -> None:
        """Announce images that are to be encoded without gradients, all of them in one pass.

        Args:
            encoder: The suffix of its ``network_<encoder>``.
            input_range: What images in [0, 1] are mapped to for it.
            images: Name → what makes the images ``(N, C, H, W)``, called once. What two terms announce under one name
                is encoded once, so it must be the same.
        """
        work = self._encoders.setdefault((encoder, input_range), _EncoderWork())
        assert not work.done, "images are announced before the encoder has run"
        work.images.update(images)

    def encoding(self, encoder: str, input_range: InputRange, name: str) -> Encoding:
        """The feature levels of the student's output (``'student'``, with gradients) or of announced images."""
        work = self._encoders[encoder, input_range]
        network = self._network(encoder)
        if name not in work.done:
            if name == "student":
                with self.part("encoder"):
                    work.done[name] = encode(network, self.output, input_range)
            else:
                batches = {key: make() for key, make in work.images.items()}
                work.images.clear()  # they hold this context, which would live on until Python looks for cycles
                with self.part("encoder"), torch.no_grad():
                    images = torch.cat(list(batches.values()))
                    parts = [encode(network, part, input_range).levels for part in network.runtime.portions(images)]
                    # A copy only where there are several parts: these are the step's largest tensors.
                    everything = Encoding([torch.cat(level) if len(level) > 1 else level[0] for level in zip(*parts)])
                ends = list(accumulate(len(images) for images in batches.values()))
                for key, start, end in zip(batches, [0, *ends], ends):
                    work.done[key] = everything[start:end]
        return work.done[name]

    def latent(self, encoder: str, input_range: InputRange, name: str) -> Tensor:
        """The latent ``(B, D, h, w)`` of the same, continued from the feature levels."""
        encoding = self.encoding(encoder, input_range, name)
        with self.part("encoder"), torch.set_grad_enabled(name == "student"):
            return add_latent(self._frozen[encoder], encoding)
