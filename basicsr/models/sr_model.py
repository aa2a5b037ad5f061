"""The plain recipe: a network, an input, a target, and losses between its output and the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from basicsr.archs import build_network
from basicsr.distill.context import KDContext
from basicsr.distill.distillation import Distillation
from basicsr.distill.frozen import FrozenNetwork
from basicsr.distill.student import StudentNetwork
from basicsr.engine.batch import Batch
from basicsr.engine.compute.balance import UncertaintyBalance
from basicsr.engine.compute.distributed import batch_statistics, broadcast_tensors
from basicsr.engine.compute.precision import resolve_precision
from basicsr.engine.compute.runtime import NetworkRuntime
from basicsr.engine.compute.step import GradientStep, total
from basicsr.engine.compute.timing import StepTimer
from basicsr.engine.misfit import explaining_misfit
from basicsr.engine.restore.restorer import Restorer, RestoreSettings
from basicsr.utils.labelled import labelled
from basicsr.utils.logger import get_root_logger
from basicsr.utils.options import sections as schema
from basicsr.utils.options.streams import training_sets
from basicsr.utils.registry import MODEL_REGISTRY

from .base_model import BaseModel
from .plugin_support import require_no_terms, require_trained_terms, require_used_terms
from .supervision import SupervisedLosses, build_supervised_losses


@MODEL_REGISTRY.register()
class SRModel(BaseModel):
    """Trains ``network_g`` to map ``lq`` to ``gt``, and distils it where ``train.kd_opt`` names terms.

    An iteration is: losses and gradients of each part of the batch (:meth:`compute_losses`), the step of ``optim_g``,
    :meth:`train_others`, the terms' own steps, the average. A subclass changes what it needs.

    Attributes:
        net_g: The trained network, maybe wrapped in DDP.
        net_g_ema: Its moving average, when ``train.ema_decay`` is above 0.
        batch: What the data sets gave, by key.
        lq: Input, ``(B, C, h, w)``. gt: Target, ``(B, C, H, W)``, where there is one. output: The network's output.
        outputs: The outputs for the parts of the batch, without gradients, for :meth:`train_others`.
        distillation: The terms of ``train.kd_opt`` and their networks; without terms it does nothing.
        step_g: The gradient step of ``optim_g``.
    """

    class TrainOptions(schema.TrainOptions):
        """Options of ``train`` that this recipe reads."""

        pixel_opt: schema.SupervisedLossOptions | None = None
        """Loss between the output and the ground truth."""
        perceptual_opt: schema.SupervisedLossOptions | None = None
        """Loss between features of the output and of the ground truth."""
        kd_opt: dict[str, schema.KDTermOptions | None] | None = None
        """Distillation terms by the name they are logged under, in any recipe; one set to `~` is left out."""
        combine: Literal["sum", "uncertainty"] = "sum"
        """How the losses become one: their sum, or with learnt weights (Kendall et al., CVPR 2018),
        logged as `weight_<name>`."""

    _restorer: Restorer | None = None
    distillation: Distillation | None = None
    optimizer_g: torch.optim.Optimizer | None = None
    step_g: GradientStep | None = None
    batch: Batch | None = None
    balance: UncertaintyBalance | None = None

    def __init__(self, opt: dict) -> None:
        super().__init__(opt)
        self.runtime = self._own_runtime()
        with labelled("network_g"):
            net = build_network(opt["network_g"])
        self.net_g = self.model_to_device(self.runtime.to_memory_format(net))
        self.print_network(self.net_g)
        if opt["path"].get("pretrain_network_g"):
            self._load_generator(self.net_g, "params" if self.is_train else None)
        if self.is_train:
            # Here, since plug-ins replace init_training_settings.
            self.timer = StepTimer(self.device)
            self.train_options = self.TrainOptions.of(opt["train"])
            self.print_freq = schema.LoggerOptions.of(opt.get("logger")).print_interval
            self.supervised = SupervisedLosses()
            self._prints = 0
            self.init_training_settings()
            if self.distillation is None:
                self.distillation = self._no_distillation()
            self._use_plugin_losses()
            require_trained_terms(
                type(self).__name__, self.distillation, self.balance, self.optimizer_g, self.optimizers
            )
            if self.optimizer_g is not None:
                self.step_g = self._make_step()

    def _own_runtime(self) -> NetworkRuntime:
        """How ``net_g`` computes in training. Validation and test always compute in fp32."""
        if not self.is_train:
            return NetworkRuntime()
        options = schema.RuntimeOptions.of((self.opt.get("runtime") or {}).get("g"))
        precision = resolve_precision(options.precision, self.device, "runtime.g.precision")
        return NetworkRuntime(precision, options.channels_last, options.compile)

    def _load_generator(self, net: nn.Module, default_key: str | None) -> None:
        path = self.opt["path"]
        strict, key = path.get("strict_load_g", True), path.get("param_key_g") or default_key
        with explaining_misfit(self.opt, "network_g", self.get_bare_model(net), key):
            self.load_network(net, path["pretrain_network_g"], strict, key)

    def init_training_settings(self) -> None:
        """Prepare for training: average, losses, optimiser, schedule."""
        self.net_g.train()
        self.ema_decay = self.train_options.ema_decay
        if self.ema_decay > 0:
            get_root_logger().info(f"Use Exponential Moving Average with decay: {self.ema_decay}")
            self._init_ema()
        self.build_losses()
        self.runtime.compile_in_place(self.get_bare_model(self.net_g))
        self.setup_optimizers()
        self.setup_schedulers()

    def _no_distillation(self) -> Distillation:
        """A distillation without terms, for a plug-in whose own ``init_training_settings`` does not build it."""
        require_no_terms(type(self).__name__, self.opt["train"])
        return self.make_distillation()

    def _use_plugin_losses(self) -> None:
        """Use the losses that a plug-in, written for BasicSR, has set as ``cri_pix`` and ``cri_perceptual``."""
        self.supervised.replace("pix", getattr(self, "cri_pix", None))
        self.supervised.replace("percep", getattr(self, "cri_perceptual", None))

    def _init_ema(self) -> None:
        net = self.runtime.to_memory_format(build_network(self.opt["network_g"]))
        self.net_g_ema = net.to(self.device).requires_grad_(False).eval()
        self.model_ema(0)  # also where a file is loaded: it may lack some of the weights
        if self.opt["path"].get("pretrain_network_g"):
            path = self.opt["path"]
            self.load_network(self.net_g_ema, path["pretrain_network_g"], path.get("strict_load_g", True), None)

    def build_losses(self) -> None:
        """Build the losses that ``train`` names: the distillation terms, and the supervised losses."""
        train = self.opt["train"]
        self.distillation = self.make_distillation()
        networks = self.distillation.networks
        self.supervised = build_supervised_losses(train, self._loss_sections_of_recipe(), networks, self.device)
        losses = self.supervised.modules
        self.cri_pix, self.cri_perceptual = losses.get("pix"), losses.get("percep")  # what plug-ins call them
        self.check_losses()
        for name in self.distillation.terms:
            if f"l_{name}" in self.supervised.names:
                raise ValueError(f"train.kd_opt.{name}: l_{name} is the name of another loss; rename the term")
        if self.train_options.combine == "uncertainty":
            names = [*self.supervised.names, *(f"l_{name}" for name in self.distillation.terms)]
            self.balance = UncertaintyBalance(names).to(self.device)
        self.distillation.start()

    def make_distillation(self) -> Distillation:
        """The terms that the options name, with their networks."""
        student = StudentNetwork(self.net_g, self.runtime)
        average = getattr(self, "net_g_ema", None)
        return Distillation(
            self.opt, student, average=average, trained=self.trained, device=self.device, timer=self.timer
        )

    def _loss_sections_of_recipe(self) -> set[str]:
        """The loss sections that a subclass declares, and so builds itself."""
        declared = type(self).TrainOptions.model_fields.keys() - SRModel.TrainOptions.model_fields.keys()
        return {*declared, "kd_opt"}

    def check_losses(self) -> None:
        """Refuse options that leave nothing to minimise.

        Raises:
            ValueError: If there is no loss.
        """
        if not self.supervised.modules and not self.distillation.terms:
            raise ValueError("train: there is no loss; give at least one of pixel_opt, perceptual_opt and kd_opt")

    def setup_optimizers(self) -> None:
        """Make the optimiser of ``network_g``, with the terms' parameters in it, and the terms' own."""
        if self.distillation is None:
            self.distillation = self._no_distillation()
        options = dict(self.opt["train"]["optim_g"])
        self.optimizer_g = self.get_optimizer(options.pop("type"), self.trained_groups(), **options)
        self.optimizers.append(self.optimizer_g)
        self.optimizers += self.distillation.optimizers

    def trained_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of ``optim_g``: the network's with what has no options of its own, then the others.

        The log names the parameters of the network that need no gradients.
        """
        frozen = [name for name, p in self.net_g.named_parameters() if not p.requires_grad]
        if frozen:
            get_root_logger().warning(f"Params {', '.join(frozen)} will not be optimized.")
        parameters = [p for p in self.net_g.parameters() if p.requires_grad]
        groups = self.distillation.parameter_groups()
        for group in groups:
            if group.keys() == {"params"}:
                parameters += group["params"]
        if self.balance is not None:
            parameters += self.balance.parameters()
        if not parameters and not groups:
            name = type(self.get_bare_model(self.net_g)).__name__
            raise ValueError(f"network_g: {name} has no parameters that need gradients, so there is nothing to train")
        return [{"params": parameters}, *(group for group in groups if group.keys() != {"params"})]

    # One iteration.

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch: every key, of one data set or of each stream; ``lq`` and, where there is one, ``gt``."""
        if hasattr(self, "timer"):
            self.timer.batch_arrived()
        self.batch = Batch.of(data, self.device)
        self.lq = self.batch["lq"]
        if "gt" in self.batch:
            self.gt = self.batch["gt"]
        elif hasattr(self, "gt"):
            del self.gt

    def _current_batch(self) -> Batch:
        """The batch. A subclass's ``feed_data`` may have set ``lq`` and ``gt`` alone, as BasicSR's do."""
        own = {"lq": self.lq} | ({"gt": self.gt} if hasattr(self, "gt") else {})
        if self.batch is None:
            return Batch({"train": own})
        changed = {name: value for name, value in own.items() if self.batch.get(name) is not value}
        return self.batch.replaced(**changed) if changed else self.batch

    def compute_losses(self, current_iter: int, batch: Batch | None = None) -> dict[str, Tensor]:
        """Run the network on a batch.

        Args:
            current_iter: The iteration.
            batch: The batch or a part of it; what :meth:`feed_data` took when absent.

        Returns:
            The weighted losses by the name they are logged under.
        """
        batch = self._current_batch() if batch is None else batch
        ctx = self.distillation.context(current_iter, batch, lambda: self.run_student(batch))
        self.supervised.prepare(ctx)
        losses = self.supervised_losses(ctx)
        return losses | self.distillation(ctx, losses)

    def run_student(self, batch: Batch) -> Tensor:
        """The network's output for ``lq``, in the precision of training; also kept as ``output``."""
        with self.timer.part("student"):
            self.output = self.runtime.run(self.net_g, batch["lq"])
        return self.output

    def supervised_losses(self, ctx: KDContext) -> dict[str, Tensor]:
        """The losses between the output and the ground truth, of the rows that have one."""
        return self.supervised(ctx)

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The scalar that is minimised."""
        return total(losses) if self.balance is None else self.balance(losses)

    def optimize_parameters(self, current_iter: int) -> None:
        """One iteration. When no loss is active at it, the network stays as it is."""
        self.timer.start(measure=current_iter % self.print_freq == 0)
        parts = self._current_batch().chunks(self.train_options.accumulate)
        self.outputs = []
        losses = self.step_g(current_iter, parts, lambda part: self._losses_of_part(current_iter, part), self.combine)
        losses |= self.train_others(current_iter, parts)
        losses |= self.distillation.train_own(current_iter, losses)
        self.log_dict = self.reduce_loss_dict(losses) | self.distillation.pop_logs()
        if self.balance is not None:
            self.log_dict |= self.balance.weights()
        if self.ema_decay > 0:
            with self.timer.part("average"):
                if self.opt["dist"]:  # DDP would take rank 0's for all ranks in the next iteration only
                    broadcast_tensors(batch_statistics(self.net_g))
                self.model_ema(decay=self.ema_decay)
        self.distillation.after_step(current_iter)
        self.timer.end()

    def _losses_of_part(self, current_iter: int, part: Batch) -> dict[str, Tensor]:
        losses = self.compute_losses(current_iter, part)
        self.distillation.require_term_losses(losses)
        if losses and self.distillation.terms and isinstance(self.net_g, DistributedDataParallel):
            # DDP waits for every parameter that the output depends on, also where only inner features are compared.
            first = next(iter(losses))
            losses[first] = losses[first] + 0.0 * self.output.sum()
        self.outputs.append(self.output.detach())
        return losses

    def try_losses(self, current_iter: int) -> dict[str, Tensor]:
        """The losses that :meth:`optimize_parameters` would minimise on what :meth:`feed_data` took as one part of a
        batch; nothing is trained."""
        self.outputs = []
        return self._losses_of_part(current_iter, self._current_batch())

    def train_others(self, current_iter: int, parts: list[Batch]) -> dict[str, Tensor]:
        """Train the recipe's other networks, such as a discriminator, after the step of ``optim_g``.

        Args:
            current_iter: The iteration.
            parts: The parts of the batch; what the network made of them is in ``outputs``.

        Returns:
            The losses by the name they are logged under.
        """
        return {}

    def _make_step(self) -> GradientStep:
        train = self.train_options
        return GradientStep(
            [self.optimizer_g],
            self.device,
            net=self.net_g,
            outside=self._parameters_outside_ddp(),
            idle=self.distillation.idle_parameters,
            scaled=self.runtime.precision == "fp16",
            max_bad_steps=train.max_bad_steps,
            clip=train.clip_grad_norm,
            timer=self.timer,
        )

    def _parameters_outside_ddp(self) -> list[nn.Parameter]:
        own = {id(p) for p in self.net_g.parameters()}
        groups = self.optimizer_g.param_groups
        return [p for group in groups for p in group["params"] if id(p) not in own]

    # Logging, validation, files.

    def get_current_log(self) -> dict[str, float]:
        """As in :class:`BaseModel`; also logs skipped steps, and now and then where the time of a step goes.

        Raises:
            ValueError: If a plug-in's own iteration leaves out the distillation terms of the options.
        """
        if self.step_g is not None:
            if type(self).optimize_parameters is not SRModel.optimize_parameters:
                require_used_terms(type(self).__name__, self.distillation)
            logger = get_root_logger()
            for step in self.steps():
                skipped = step.guard.report()
                if skipped:
                    logger.warning(skipped)
            if self._prints % 10 == 0 and self.timer.summary():
                logger.info(f"A step takes {self.timer.summary()}")
                sets = training_sets(self.opt.get("datasets")).values()
                advice = self.timer.loading_advice([section.get("num_worker_per_gpu", 0) for section in sets])
                if advice:
                    logger.warning(advice)
            self._prints += 1
        return super().get_current_log()

    def test(self) -> None:
        """Restore ``lq`` into ``output`` with the averaged weights, or the trained ones where there is no average."""
        net = self.net_g_ema if hasattr(self, "net_g_ema") else self.get_bare_model(self.net_g)
        if self._restorer is None or self._restorer.net is not net:
            self._restorer = Restorer(net, RestoreSettings.from_options(self.opt.get("val")))
        self.output = self._restorer(self.lq)

    def get_current_visuals(self) -> dict[str, Tensor]:
        """The batch's images on the CPU: ``lq``, ``result`` and, where there is one, ``gt``."""
        visuals = {"lq": self.lq.detach().cpu(), "result": self.output.detach().cpu()}
        if hasattr(self, "gt"):
            visuals["gt"] = self.gt.detach().cpu()
        return visuals

    def save(self, epoch: int, current_iter: int) -> None:
        """Write the networks and the training state of an iteration (−1: the networks alone, as ``latest``)."""
        if hasattr(self, "net_g_ema"):
            self.save_network([self.net_g, self.net_g_ema], "net_g", current_iter, ["params", "params_ema"])
        else:
            self.save_network(self.net_g, "net_g", current_iter)
        self.save_training_state(epoch, current_iter)

    @property
    def frozen(self) -> dict[str, FrozenNetwork]:
        """The frozen networks by suffix."""
        return self.distillation.networks.frozen.built

    @property
    def terms(self) -> nn.ModuleDict:
        """The distillation terms by name."""
        return self.distillation.terms

    def steps(self) -> list[GradientStep]:
        """The gradient steps of an iteration."""
        return [self.step_g, *self.distillation.steps]

    def extra_training_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        if self.step_g is not None and self.step_g.state():
            state["scaler"] = self.step_g.state()
        if self.balance is not None:
            state["balance"] = self.balance.state_dict()
        if self.distillation is not None:
            state["terms"] = self.distillation.state()
        return state

    def load_extra_training_state(self, state: dict) -> None:
        if self.distillation is not None:
            self.distillation.load_state(state.get("terms"))
        if self.balance is not None and "balance" in state:
            self.balance.load_state_dict(state["balance"])
        if self.step_g is not None:
            self.step_g.load_state(state.get("scaler") or {})
