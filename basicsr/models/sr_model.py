"""The plain recipe: a network, an input, a target, and a pixel loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from basicsr.archs import build_network
from basicsr.engine.padding import run_padded
from basicsr.losses import build_loss
from basicsr.utils import option_schema as schema
from basicsr.utils.logger import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY

from .base_model import BaseModel


@MODEL_REGISTRY.register()
class SRModel(BaseModel):
    """Trains ``network_g`` to map ``lq`` to ``gt``.

    Each iteration is ``compute_losses`` → ``update_parameters`` → EMA; a subclass changes what it needs.

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

    def __init__(self, opt: dict) -> None:
        super().__init__(opt)
        self.net_g = self.model_to_device(build_network(opt["network_g"]))
        self.print_network(self.net_g)
        if opt["path"].get("pretrain_network_g"):
            self._load_generator(self.net_g, "params" if self.is_train else "params_ema")
        if self.is_train:
            self.init_training_settings()

    def _load_generator(self, net: nn.Module, default_key: str) -> None:
        path = self.opt["path"]
        strict = path.get("strict_load_g", True)
        self.load_network(net, path["pretrain_network_g"], strict, path.get("param_key_g") or default_key)

    def init_training_settings(self) -> None:
        """Prepare for training: average, losses, optimiser, schedule."""
        self.net_g.train()
        self.ema_decay = self.opt["train"].get("ema_decay", 0)
        if self.ema_decay > 0:
            get_root_logger().info(f"Use Exponential Moving Average with decay: {self.ema_decay}")
            self._init_ema()
        self.build_losses()
        self.setup_optimizers()
        self.setup_schedulers()

    def _init_ema(self) -> None:
        self.net_g_ema = build_network(self.opt["network_g"]).to(self.device).requires_grad_(False)
        if self.opt["path"].get("pretrain_network_g"):
            path = self.opt["path"]
            self.load_network(self.net_g_ema, path["pretrain_network_g"], path.get("strict_load_g", True), "params_ema")
        else:
            self.model_ema(0)
        self.net_g_ema.eval()

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
        self.output = self.net_g(self.lq)
        return self.supervised_losses()

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
        losses = self.compute_losses(current_iter)
        if losses:
            self.update_parameters(losses)
        self.log_dict = self.reduce_loss_dict(losses)
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def update_parameters(self, losses: dict[str, Tensor]) -> None:
        """Minimise the sum of the losses by one step of the optimiser: the seam for precision and accumulation."""
        self.optimizer_g.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        self.after_backward()
        self.optimizer_g.step()

    def after_backward(self) -> None:
        """Between the backward pass and the step: clip the gradients' norm where ``train`` asks for it."""
        train = self.opt["train"]
        limit = train.get("clip_grad_norm") or (0.01 if train.get("use_grad_clip") else None)
        if limit:
            nn.utils.clip_grad_norm_(self.net_g.parameters(), limit)

    @torch.no_grad()
    def test(self) -> None:
        """Restore ``lq`` into ``output`` with the averaged weights, or the trained ones where there is no average."""
        net = self.net_g_ema if hasattr(self, "net_g_ema") else self.get_bare_model(self.net_g)
        was_training = net.training
        net.eval()
        self.output = run_padded(net, self.lq, (self.opt.get("val") or {}).get("window_size") or 1)
        net.train(was_training)

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
