"""Distillation as a part that any recipe holds: the frozen networks, the terms, and what they train and keep."""

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
from basicsr.engine.compute.distributed import broadcast_module, broadcast_tensors
from basicsr.engine.compute.step import GradientStep, without_gradients
from basicsr.engine.compute.timing import StepTimer
from basicsr.utils.logger import get_root_logger
from basicsr.utils.option_types import strings_in
from basicsr.utils.preserved import preserved_state

from . import build_term
from .context import KDContext
from .gradient_log import GradientComparison, keep_buffers_of_backward
from .networks import Networks
from .own_training import OwnTraining
from .student import StudentNetwork
from .term_network import TermNetwork, is_network
from .term_parts import groups_of, naming, optimizers_of, own_attributes
from .wiring import wiring_report


class Distillation:
    """The terms of ``train.kd_opt`` and the frozen networks that they use. Without terms it does nothing.

    In each iteration, or in each part of a divided batch: :meth:`context`, then a call; after the student's step
    :meth:`train_own`, and at the end of the iteration :meth:`after_step`.

    Args:
        opt: The options of the run.
        student: ``network_g``.
        average: Its moving average, or None.
        trained: The suffixes of the networks that the recipe trains.
        device: Where the networks are.
        timer: Takes the time of the parts of a step.

    Attributes:
        terms: The terms by their name in ``train.kd_opt``.
        networks: What the terms see of the run.
        used: Whether an iteration has been distilled.

    Raises:
        ValueError: If a term cannot be used; the message names it and says why.
    """

    def __init__(
        self,
        opt: Mapping[str, Any],
        student: StudentNetwork,
        average: nn.Module | None,
        trained: Iterable[str],
        device: torch.device,
        timer: StepTimer | None = None,
    ) -> None:
        self._opt = opt
        self._student = student
        self._device = device
        self._timer = timer
        self._print_freq = (opt.get("logger") or {}).get("print_freq", 100)
        self.networks = Networks(opt, student, average, trained, device)
        self.terms = nn.ModuleDict()
        self.used = False
        self._unfinished: int | None = None
        self._ready: set[str] = set()
        self._own = OwnTraining(device, opt["train"].get("max_bad_steps", 100), timer)
        self._logs: dict[str, Any] = {}
        self._given: dict[str, weakref.ref] = {}
        sections = {name: section for name, section in (opt["train"].get("kd_opt") or {}).items() if section}
        for name, options in sections.items():
            if hasattr(self.terms, name):
                raise ValueError(f"train.kd_opt.{name}: this name is taken by PyTorch; choose another for the term")
            self.terms[name] = build_term(name, options).to(device)
        self._check_batch()
        self._set_up_terms(sections)

    def _check_batch(self) -> None:
        if self.terms and isinstance(self._student.wrapped, DataParallel):
            raise ValueError(
                "distillation on several GPUs needs one process each: start with torchrun (--launcher pytorch)"
            )
        parts = self._opt["train"].get("accumulate", 1)
        for name, term in self.terms.items():
            if term.needs_whole_batch and parts > 1:
                raise ValueError(
                    f"train.kd_opt.{name}: {type(term).__name__} compares the samples of a batch with each other, and "
                    f"train.accumulate divides the batch into {parts} parts; set train.accumulate to 1"
                )

    def _set_up_terms(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        as_networks = {name: TermNetwork(term) for name, term in self.terms.items() if is_network(term)}
        others = {name: type(term).__name__ for name, term in self.terms.items() if name not in as_networks}
        self.networks.offer(as_networks, others, self._set_up)
        # Those that an option of a term names are used by it.
        named = [strings_in(sections[name]) | strings_in(own_attributes(term)) for name, term in self.terms.items()]
        self.networks.frozen.build(set().union(*named))
        for name, term in self.terms.items():
            with naming(name):
                for network, pattern in term.taps():
                    self.networks[network].taps.add(pattern)
        for name in self.terms:
            self._set_up(name)
        for network in {network for term in self.terms.values() for network, _ in term.taps()}:
            self.networks.output_shape(network)  # also notices features that are overwritten in place

    def _set_up(self, name: str) -> None:
        """Set a term up, unless that has been done: a term that is a network comes before those that ask for it."""
        if name in self._ready:
            return
        self._ready.add(name)
        term = self.terms[name]
        with naming(name):
            term.setup(self.networks)
            term.to(self._device)
            optimizers = optimizers_of(term, self.networks)
            groups_of(term)
        broadcast_module(term)
        if optimizers:
            with naming(name):
                self._own.add(term, optimizers)

    def start(self) -> None:
        """End the preparation, when all that uses the frozen networks is built: compile them, log the wiring."""
        self.networks.end_probing()
        frozen = self.networks.frozen.built
        if any(term.schedule.log_grad for term in self.terms.values()):
            keep_buffers_of_backward()
        for network in frozen.values():
            network.runtime.have_compiled(network.net)
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
        """Run the student, its features recorded, and let the terms announce what they need.

        Args:
            iteration: From 1.
            batch: The batch, or a part of it.
            run_student: Gives the student's output for ``batch["lq"]``.

        Raises:
            ValueError: If an earlier iteration was not ended by :meth:`after_step`.
        """
        if self.terms and self._unfinished not in (None, iteration):
            raise ValueError(
                f"train.kd_opt: iteration {self._unfinished} was distilled but not ended: an optimize_parameters of "
                f"one's own calls self.distillation.train_own(iteration) after the step of optim_g, and "
                f"self.distillation.after_step(iteration) at the end"
            )
        self.used, self._unfinished = True, iteration
        ctx = KDContext(iteration, batch, self.networks.find, self._timer)
        ctx.record("g", run_student)
        for name, term in self._active(iteration).items():
            with ctx.logging_as(name), naming(name):
                term.prepare(ctx)
        return ctx

    def _active(self, iteration: int) -> dict[str, Any]:
        return {name: term for name, term in self.terms.items() if term.schedule.weight(iteration) != 0}

    def __call__(self, ctx: KDContext, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weighted terms of a batch by the name that they are logged under.

        Args:
            ctx: From :meth:`context`.
            losses: The supervised losses, which the terms' gradients are compared with on request.

        Raises:
            ValueError: If a term gives anything but scalars, or a name that another loss has.
        """
        active = self._active(ctx.iteration)
        supervised = sum(losses.values()) if losses else None
        compare = GradientComparison(self._student.net.parameters(), supervised)
        weighted: dict[str, Tensor] = {}
        with without_gradients(self._own.parameters):
            for name, term in active.items():
                with ctx.part("terms"), ctx.logging_as(name), naming(name):
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
        self._given = {label: weakref.ref(value) for label, value in weighted.items()}
        self._own.keep(ctx, active)
        return weighted

    def require_kept(self, losses: Mapping[str, Tensor]) -> None:
        """Refuse losses in which one of the recipe's own has taken the place of a term's with the same name.

        Raises:
            ValueError: If so.
        """
        lost = [label for label, value in self._given.items() if losses.get(label) is not value()]
        if lost:
            raise ValueError(
                f"train.kd_opt: the recipe's own loss {', '.join(lost)} takes the place of a term's; rename the term"
            )

    @staticmethod
    def _parts(name: str, value: Any, alone: str = "") -> dict[str, Tensor]:
        """What a term gave, by the name in the log."""
        parts = value if isinstance(value, dict) else {alone: value}
        for part in parts.values():
            if not (isinstance(part, Tensor) and part.numel() == 1):
                found = f"a tensor {tuple(part.shape)}" if isinstance(part, Tensor) else f"a {type(part).__name__}"
                raise ValueError(f"train.kd_opt.{name}: a term returns a scalar tensor or a dict of them, not {found}")
        return {f"l_{name}_{label}".rstrip("_"): part for label, part in parts.items()}

    def train_own(self, iteration: int, others: Collection[str] = ()) -> dict[str, Tensor]:
        """Train what the terms' own optimisers hold, on the passes of this iteration.

        Args:
            iteration: The iteration.
            others: The names of the iteration's other losses.

        Returns:
            Their losses by the name that they are logged under.

        Raises:
            ValueError: If one has the name of another loss.
        """
        loss_of = {name: partial(self._own_loss, name) for name in self._active(iteration)}
        return self._own.train(iteration, loss_of, others)

    def _own_loss(self, name: str, ctx: KDContext) -> dict[str, Tensor]:
        with ctx.logging_as(name), naming(name):
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
        """Let every term do what follows the student's update and its average's, active or not."""
        for term in self.terms.values():
            term.after_step(self.networks, iteration)
        # Such as a discriminator's batch statistics, which each rank takes from its own part of the batch.
        broadcast_tensors([b for term in self.terms.values() for b in term.buffers() if b.is_floating_point()])
        self._unfinished = None

    def take_logs(self) -> dict[str, Any]:
        """What is only looked at, of the last iteration: the last part's, of a divided batch."""
        logs, self._logs = self._logs, {}
        return logs

    # Files.

    def state(self) -> dict[str, Any]:
        """What the training state keeps of the terms. Their optimisers are kept with the recipe's."""
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
