"""The distillation of a run, which any recipe holds: frozen networks, terms, and what they train and save."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from basicsr.engine.batch import Batch
from basicsr.engine.compute.distributed import broadcast_tensors
from basicsr.engine.compute.step import GradientStep, without_gradients
from basicsr.engine.compute.timing import StepTimer
from basicsr.utils.logger import get_root_logger
from basicsr.utils.options.sections import LoggerOptions, TrainOptions
from basicsr.utils.preserved import preserved_state

from .context import KDContext
from .gradient_log import GradientComparison, disable_donated_buffers
from .networks import Networks
from .own_training import OwnTraining
from .student import StudentNetwork
from .term_parts import errors_naming, groups_of
from .term_setup import TermSetup, build_terms, require_divisible_batches
from .wiring import wiring_report


class Distillation:
    """The terms of ``train.kd_opt`` and the frozen networks that they use. Without terms it does nothing.

    Call :meth:`context`, then the object, for each part of the batch; :meth:`train_own` after the student's step; and
    :meth:`after_step` at the end of the iteration.

    Args:
        opt: The options of the run.
        student: ``network_g``.
        average: Its moving average, or None.
        trained: The suffixes of the networks that the recipe trains.
        device: Where the networks are.
        timer: Measures the parts of a step.

    Attributes:
        terms: The terms by their name in ``train.kd_opt``.
        networks: What the terms see of the run.
        used: Whether :meth:`context` has been called.

    Raises:
        ValueError: If a term cannot be used; the message names it and says why.
    """

    def __init__(
        self,
        opt: Mapping[str, Any],
        student: StudentNetwork,
        *,
        average: nn.Module | None,
        trained: Iterable[str],
        device: torch.device,
        timer: StepTimer | None = None,
    ) -> None:
        self._opt = opt
        self._student = student
        self._timer = timer
        train = TrainOptions.of(opt["train"])
        self._print_freq = LoggerOptions.of(opt.get("logger")).print_interval
        self.networks = Networks(opt, student, average=average, trained=trained, device=device)
        sections = {name: section for name, section in (opt["train"].get("kd_opt") or {}).items() if section}
        self.terms = build_terms(sections, device)
        require_divisible_batches(self.terms, train.accumulate)
        if self.terms and isinstance(student.wrapped, DataParallel):
            raise ValueError(
                "distillation on several GPUs needs one process each: start with torchrun (--launcher pytorch)"
            )
        self.used = False
        self._unfinished: int | None = None
        self._own = OwnTraining(device, train.max_bad_steps, timer)
        self._logs: dict[str, Any] = {}
        self._returned: dict[str, weakref.ref] = {}
        TermSetup(self.terms, self.networks, self._own).run(sections)

    def start(self) -> None:
        """Compile the frozen networks and log what each term compares. Call it when terms and losses are built."""
        self.networks.free_probes()
        frozen = self.networks.frozen.built
        if any(term.schedule.log_grad for term in self.terms.values()):
            disable_donated_buffers()
        for network in frozen.values():
            network.runtime.compile_in_place(network.net)
        if self.terms:
            get_root_logger().info(wiring_report(self._student, frozen, self.terms, self._opt))
        for name in self.networks.frozen.unused:
            get_root_logger().warning(f"network_{name} is not built, since no term or loss names it.")

    # What is trained.

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The groups of the terms' parameters that train with the student."""
        own = {id(p) for p in self._own.parameters}
        groups = [group for term in self.terms.values() for group in groups_of(term)]
        groups = [{**group, "params": [p for p in group["params"] if id(p) not in own]} for group in groups]
        return [group for group in groups if group["params"]]

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The terms' own optimisers."""
        return self._own.optimizers

    @property
    def steps(self) -> list[GradientStep]:
        """The terms' own gradient steps."""
        return self._own.steps

    def idle_parameters(self, iteration: int) -> set[int]:
        """The ids of the parameters of terms that are not active."""
        active = self._active(iteration)
        idle = [term for name, term in self.terms.items() if name not in active]
        return {id(p) for term in idle for p in term.parameters()}

    # One iteration.

    def context(self, iteration: int, batch: Batch, run_student: Callable[[], Tensor]) -> KDContext:
        """Run the student, record its features, and let the terms request passes and encodings.

        Args:
            iteration: From 1.
            batch: The batch, or a part of it.
            run_student: Returns the student's output for ``batch["lq"]``.

        Raises:
            ValueError: If an earlier iteration was not ended by :meth:`after_step`.
        """
        if self.terms and self._unfinished not in (None, iteration):
            raise ValueError(
                f"train.kd_opt: iteration {self._unfinished} was distilled but not ended: your own optimize_parameters "
                f"must call self.distillation.train_own(iteration) after the step of optim_g, and "
                f"self.distillation.after_step(iteration) at the end"
            )
        self.used, self._unfinished = True, iteration
        ctx = KDContext(iteration, batch, self.networks.find, self._timer)
        ctx.record("g", run_student)
        for name, term in self._active(iteration).items():
            with ctx.logging_as(name), errors_naming(name):
                term.prepare(ctx)
        return ctx

    def _active(self, iteration: int) -> dict[str, Any]:
        return {name: term for name, term in self.terms.items() if term.schedule.weight(iteration) != 0}

    def __call__(self, ctx: KDContext, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weighted terms of a batch, by their names in the log.

        Args:
            ctx: From :meth:`context`.
            losses: The supervised losses, with which ``log_grad`` compares the terms' gradients.

        Raises:
            ValueError: If a term returns anything but scalars, or a name that another loss has.
        """
        active = self._active(ctx.iteration)
        supervised = sum(losses.values()) if losses else None
        compare = GradientComparison(self._student.net.parameters(), supervised)
        weighted: dict[str, Tensor] = {}
        with without_gradients(self._own.parameters):
            for name, term in active.items():
                with ctx.part("terms"), ctx.logging_as(name), errors_naming(name):
                    parts = self._parts(name, term(ctx))
                weight = term.schedule.weight(ctx.iteration)
                own = {label: weight * value for label, value in parts.items()}
                clash = own.keys() & (losses.keys() | weighted.keys())
                if clash:
                    raise ValueError(
                        f"train.kd_opt.{name}: {', '.join(sorted(clash))} is the name of another loss; rename the term"
                    )
                if own and term.schedule.log_grad and ctx.iteration % self._print_freq == 0:
                    self._logs |= compare(name, sum(own.values()))
                weighted |= own
        self._logs |= ctx.logs
        self._returned = {label: weakref.ref(value) for label, value in weighted.items()}
        self._own.add_batch(ctx, active)
        return weighted

    def require_term_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Require that no loss of the recipe has replaced a term's of the same name.

        Raises:
            ValueError: If one has.
        """
        lost = [label for label, value in self._returned.items() if losses.get(label) is not value()]
        if lost:
            raise ValueError(
                f"train.kd_opt: the recipe's own loss {', '.join(lost)} replaces a term's; rename the term"
            )

    @staticmethod
    def _parts(name: str, value: Any, alone: str = "") -> dict[str, Tensor]:
        """What a term returned, by the names in the log."""
        parts = value if isinstance(value, dict) else {alone: value}
        for part in parts.values():
            if not (isinstance(part, Tensor) and part.numel() == 1):
                found = f"a tensor {tuple(part.shape)}" if isinstance(part, Tensor) else f"a {type(part).__name__}"
                raise ValueError(f"train.kd_opt.{name}: a term returns a scalar tensor or a dict of them, not {found}")
        return {f"l_{name}_{label}".rstrip("_"): part for label, part in parts.items()}

    def train_own(self, iteration: int, others: Collection[str] = ()) -> dict[str, Tensor]:
        """Take the steps of the terms' own optimisers, on the passes of this iteration.

        Args:
            iteration: The iteration.
            others: The names of the iteration's other losses.

        Returns:
            Their losses by their names in the log.

        Raises:
            ValueError: If one has the name of another loss.
        """
        loss_of = {name: partial(self._own_loss, name) for name in self._active(iteration)}
        return self._own.train(iteration, loss_of, others)

    def _own_loss(self, name: str, ctx: KDContext) -> dict[str, Tensor]:
        with ctx.logging_as(name), errors_naming(name):
            losses = self._parts(name, self.terms[name].own_loss(ctx), alone="own")
        self._logs |= ctx.logs
        return losses

    def try_own(self, iteration: int) -> list[Tensor]:
        """What :meth:`train_own` would minimise; nothing is trained."""
        return self._own.try_losses({name: partial(self._own_loss, name) for name in self._active(iteration)})

    @contextmanager
    def on_trial(self) -> Iterator[None]:
        """A block whose iterations leave terms, networks and what is kept between iterations as they were."""
        frozen = [network.net for network in self.networks.frozen.built.values()]
        with preserved_state(self, self._own, self.terms, *frozen), self._student.unwrapped():
            yield

    def after_step(self, iteration: int) -> None:
        """Call every term's :meth:`~basicsr.distill.term.KDTerm.after_step`, active or not."""
        for term in self.terms.values():
            term.after_step(self.networks, iteration)
        # Such as a discriminator's batch statistics, which each rank takes from its own part of the batch.
        broadcast_tensors([b for term in self.terms.values() for b in term.buffers() if b.is_floating_point()])
        self._unfinished = None

    def pop_logs(self) -> dict[str, Any]:
        """The values that terms logged in the last iteration; of a divided batch, those of the last part."""
        logs, self._logs = self._logs, {}
        return logs

    # Files.

    def state(self) -> dict[str, Any]:
        """The terms' state for the training state. Their optimisers are saved with the recipe's."""
        return {name: term.state_dict() for name, term in self.terms.items()}

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Restore the terms.

        Args:
            state: What :meth:`state` gave; None from a training state of another program, which holds no terms: they
                start as in a new run (a history network from the student or its average), with a warning.

        Raises:
            ValueError: If the run was made with other terms.
        """
        if state is None:
            names = [name for name, term in self.terms.items() if term.state_dict()]
            if names:
                get_root_logger().warning(
                    f"The training state was made by another program and holds nothing of the distillation terms "
                    f"{', '.join(names)}: they start afresh, a history network as a copy of the student or its average."
                )
            return
        # The optimisers hold what terms train in the order of the terms.
        trained = [name for name, term in self.terms.items() if any(p.requires_grad for p in term.parameters())]
        if state.keys() != self.terms.keys() or [name for name in state if name in trained] != trained:
            raise ValueError(
                f"the training state holds the distillation terms {', '.join(state) or 'none'}, and train.kd_opt names "
                f"{', '.join(self.terms) or 'none'}, in this order; resume with the options of the run, "
                f"or start a new run from its weights (path.pretrain_network_g)"
            )
        for name, term in self.terms.items():
            term.load_state_dict(state[name])
