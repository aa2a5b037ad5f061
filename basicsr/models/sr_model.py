"""The plain recipe: a network, an input, a target, and a pixel loss."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from basicsr.archs import build_network
from basicsr.engine.compute.precision import resolve_precision
from basicsr.engine.finite import FiniteGuard, gradients, step_unless
from basicsr.engine.restore import Restorer, RestoreSettings
from basicsr.engine.runtime import NetworkRuntime
from basicsr.engine.timing import StepTimer
from basicsr.losses import build_loss
from basicsr.utils import option_schema as schema
from basicsr.utils.logger import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY

from .base_model import BaseModel


@MODEL_REGISTRY.register()
class SRModel(BaseModel):
    """Trains ``network_g`` to map ``lq`` to ``gt``.

    Each iteration is ``compute_losses`` → backward → ``update_parameters`` → EMA; a subclass changes what it needs.

    Attributes:
        net_g: The trained network, maybe wrapped in DDP.
        net_g_ema: Its moving average, when ``train.ema_decay`` is above 0.
        lq: Input, ``(B, C, h, w)``. gt: Target, ``(B, C, H, W)``. output: The network's output.
    """

    class TrainOptions(schema.TrainOptions):
        """Options of ``train`` that this recipe reads."""

        pixel_opt: schema.LossOptions | None = None
        """Loss between the output and the ground truth."""
        perceptual_opt: schema.LossOptions | None = None
        """Loss between features of the output and of the ground truth."""

    _restorer: Restorer | None = None

    def __init__(self, opt: dict) -> None:
        super().__init__(opt)
        self.runtime = self._own_runtime()
        self.net_g = self.model_to_device(self.runtime.lay_out(build_network(opt["network_g"])))
        self.print_network(self.net_g)
        if opt["path"].get("pretrain_network_g"):
            self._load_generator(self.net_g, "params" if self.is_train else "params_ema")
        if self.is_train:
            # Here, since plug-ins replace init_training_settings.
            self.timer = StepTimer(self.device)
            self.guard = FiniteGuard(self.device, opt["train"].get("max_bad_steps", 100))
            self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.runtime.precision == "fp16")
            self._prints = 0
            self.init_training_settings()

    def _own_runtime(self) -> NetworkRuntime:
        """How ``net_g`` computes in training. Validation and test always compute in fp32."""
        options = (self.opt.get("runtime") or {}).get("g") or {}
        for key in ("mean", "std"):
            if options.get(key) is not None:
                raise ValueError(f"runtime.g.{key}: only a frozen network can be given another normalisation")
        if not self.is_train:
            return NetworkRuntime()
        precision = resolve_precision(options.get("precision", "fp32"), self.device, "runtime.g.precision")
        return NetworkRuntime(**{**options, "precision": precision})

    def _load_generator(self, net: nn.Module, default_key: str) -> None:
        path = self.opt["path"]
        strict = path.get("strict_load_g", True)
        self.load_network(net, path["pretrain_network_g"], strict, path.get("param_key_g") or default_key)

    def init_training_settings(self) -> None:
        """Prepare for training: average, losses, optimiser, schedule."""
        train = self.opt["train"]
        self.net_g.train()
        self.accumulate = train.get("accumulate", 1)
        batch_size = self.opt["datasets"]["train"].get("batch_size_per_gpu", self.accumulate)
        if batch_size % self.accumulate:
            raise ValueError(
                f"train.accumulate: a batch of {batch_size} (batch_size_per_gpu) cannot be divided into "
                f"{self.accumulate} equal parts"
            )
        self.ema_decay = train.get("ema_decay", 0)
        if self.ema_decay > 0:
            get_root_logger().info(f"Use Exponential Moving Average with decay: {self.ema_decay}")
            self._init_ema()
        self.build_losses()
        self.runtime.have_compiled(self.get_bare_model(self.net_g))
        self.setup_optimizers()
        self.setup_schedulers()

    def _init_ema(self) -> None:
        net = self.runtime.lay_out(build_network(self.opt["network_g"]))
        self.net_g_ema = net.to(self.device).requires_grad_(False).eval()
        self.model_ema(0)  # also where a file is loaded: it may lack some of the weights
        if self.opt["path"].get("pretrain_network_g"):
            path = self.opt["path"]
            self.load_network(self.net_g_ema, path["pretrain_network_g"], path.get("strict_load_g", True), "params_ema")

    def build_losses(self) -> None:
        """Build the losses that ``train`` names."""
        train = self.opt["train"]
        self.cri_pix = build_loss(train["pixel_opt"]).to(self.device) if train.get("pixel_opt") else None
        self.cri_perceptual = (
            build_loss(train["perceptual_opt"]).to(self.device) if train.get("perceptual_opt") else None
        )
        self.check_losses()

    def check_losses(self) -> None:
        """Refuse options that leave nothing to minimise.

        Raises:
            ValueError: If there is no loss.
        """
        if self.cri_pix is None and self.cri_perceptual is None:
            raise ValueError("train: there is no loss; give at least one of pixel_opt and perceptual_opt")

    def trained_parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimiser updates; the log names those of ``net_g`` that need no gradients."""
        frozen = [name for name, p in self.net_g.named_parameters() if not p.requires_grad]
        if frozen:
            get_root_logger().warning(f"Params {', '.join(frozen)} will not be optimized.")
        return [p for p in self.net_g.parameters() if p.requires_grad]

    def setup_optimizers(self) -> None:
        options = dict(self.opt["train"]["optim_g"])
        self.optimizer_g = self.get_optimizer(options.pop("type"), self.trained_parameters(), **options)
        self.optimizers.append(self.optimizer_g)

    def feed_data(self, data: dict) -> None:
        """Take a batch: ``lq`` and, where there is one, ``gt``."""
        if hasattr(self, "timer"):
            self.timer.batch_arrived()
        self.lq = data["lq"].to(self.device, non_blocking=True)
        if "gt" in data:
            self.gt = data["gt"].to(self.device, non_blocking=True)
        elif hasattr(self, "gt"):
            del self.gt

    def compute_losses(self, current_iter: int) -> dict[str, Tensor]:
        """Run the network on the batch.

        Returns:
            The weighted losses by the name they are logged under; their sum is minimised.
        """
        self.run_student()
        return self.supervised_losses()

    def run_student(self) -> None:
        """Set ``output`` from ``lq``, in the precision of training."""
        with self.timer.part("student"):
            self.output = self.runtime.run(self.net_g, self.lq)

    def supervised_losses(self) -> dict[str, Tensor]:
        """The losses between ``output`` and ``gt``.

        Raises:
            ValueError: If a loss is asked for and the data have no ground truth.
        """
        losses: dict[str, Tensor] = {}
        if (self.cri_pix or self.cri_perceptual) and not hasattr(self, "gt"):
            raise ValueError(
                "train.pixel_opt and perceptual_opt compare with a ground truth, but datasets.train gives none; "
                "use a paired dataset, or remove these losses"
            )
        if self.cri_pix:
            losses["l_pix"] = self.cri_pix(self.output, self.gt)
        if self.cri_perceptual:
            perceptual, style = self.cri_perceptual(self.output, self.gt)
            if perceptual is not None:
                losses["l_percep"] = perceptual
            if style is not None:
                losses["l_style"] = style
        return losses

    def optimize_parameters(self, current_iter: int) -> None:
        """One iteration. When no loss counts at it, the network stays as it is."""
        self.timer.start(measure=current_iter % self.opt["logger"]["print_freq"] == 0)
        self.optimizer_g.zero_grad(set_to_none=True)
        losses = self._accumulate_gradients(current_iter)
        if losses:
            with self.timer.part("optimiser"):
                self.update_parameters(current_iter, losses)
        self.log_dict = self.reduce_loss_dict(losses)
        if self.ema_decay > 0:
            with self.timer.part("average"):
                self.model_ema(decay=self.ema_decay)
        self.timer.end()

    def _accumulate_gradients(self, current_iter: int) -> dict[str, Tensor]:
        """Losses and gradients of the batch, taken in ``train.accumulate`` parts to need less memory."""
        lq, gt = self.lq, getattr(self, "gt", None)
        sums: dict[str, Tensor] = {}
        for part in range(self.accumulate):
            if self.accumulate > 1:
                self.lq = lq.chunk(self.accumulate)[part]
                if gt is not None:
                    self.gt = gt.chunk(self.accumulate)[part]
            is_last = part == self.accumulate - 1
            wrapped = isinstance(self.net_g, DistributedDataParallel)
            with self.net_g.no_sync() if wrapped and not is_last else nullcontext():
                losses = self.compute_losses(current_iter)
                if losses:
                    with self.timer.part("backward"):
                        self.scaler.scale(sum(losses.values()) / self.accumulate).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach() / self.accumulate
        self.lq = lq
        if gt is not None:
            self.gt = gt
        return sums

    def update_parameters(self, current_iter: int, losses: dict[str, Tensor]) -> None:
        """One step of the optimiser, unless the gradients are not finite."""
        self.share_gradients()  # first of all, so that all ranks judge the same gradients
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer_g)
        self.after_backward()
        parameters = [p for group in self.optimizer_g.param_groups for p in group["params"]]
        bad = self.guard.bad_step(current_iter, losses, gradients(parameters))
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer_g)  # itself skips a step whose gradients are not finite
            self.scaler.update()
        else:
            step_unless(self.optimizer_g, bad)

    def share_gradients(self) -> None:
        """Average, over the ranks, the gradients that DDP does not see; there are none here."""

    def after_backward(self) -> None:
        """Between the backward pass and the step: clip the gradients' norm where ``train`` asks for it."""
        train = self.opt["train"]
        limit = train.get("clip_grad_norm") or (0.01 if train.get("use_grad_clip") else None)
        if limit:
            nn.utils.clip_grad_norm_(self.net_g.parameters(), limit)

    def get_current_log(self) -> dict[str, float]:
        """As in :class:`BaseModel`; also logs skipped steps, and now and then where the time of a step goes."""
        if hasattr(self, "guard"):
            logger = get_root_logger()
            skipped = self.guard.report()
            if skipped:
                logger.warning(skipped)
            if self._prints % 10 == 0 and self.timer.summary():
                logger.info(f"A step takes {self.timer.summary()}")
                self._advise_on_loading()
            self._prints += 1
        return super().get_current_log()

    def _advise_on_loading(self) -> None:
        if self.timer.loader_share() > 0.3:
            workers = self.opt["datasets"]["train"].get("num_worker_per_gpu", 0)
            get_root_logger().warning(
                f"{self.timer.loader_share():.0%} of the step is spent waiting for data: raise num_worker_per_gpu (now "
                f"{workers}) where there are idle cores, cut the images into sub-images, or use io_backend: memmap."
            )

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

    def extra_training_state(self) -> dict[str, Any]:
        return {"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}

    def load_extra_training_state(self, state: dict) -> None:
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
