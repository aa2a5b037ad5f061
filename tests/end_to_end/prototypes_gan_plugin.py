"""A plug-in: an adversarial recipe that says nothing of distillation, and what writes down what each rank holds."""

import os

import torch
import torch.nn.functional as F
from torch import nn

from basicsr.archs import build_network
from basicsr.engine.compute.step import GradientStep, without_gradients
from basicsr.losses import build_loss
from basicsr.models.sr_model import SRModel
from basicsr.utils.options import sections
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY


@ARCH_REGISTRY.register()
class PatchDiscriminator(nn.Module):
    """Two convolutions: a score for each patch."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.first = nn.Conv2d(3, width, 4, stride=2)
        self.last = nn.Conv2d(width, 1, 3)

    def forward(self, x):
        return self.last(F.leaky_relu(self.first(x), 0.2))


@LOSS_REGISTRY.register()
class LogisticGANLoss(nn.Module):
    """The logistic loss of scores; ``loss_weight`` weighs the generator's."""

    def __init__(self, loss_weight: float = 0.1):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, scores, real):
        return F.softplus(-scores if real else scores).mean()


@MODEL_REGISTRY.register()
class SmallGANModel(SRModel):
    """Trains ``network_g`` against ``network_d``."""

    trained = ("g", "d")

    class TrainOptions(SRModel.TrainOptions):
        gan_opt: sections.LossOptions

    def init_training_settings(self):
        path = self.opt["path"]
        self.net_d = self.model_to_device(build_network(self.opt["network_d"])).train()
        if path.get("pretrain_network_d"):
            self.load_network(self.net_d, path["pretrain_network_d"], True, path.get("param_key_d") or "params")
        self.cri_gan = build_loss(self.opt["train"]["gan_opt"])
        super().init_training_settings()

    def setup_optimizers(self):
        super().setup_optimizers()
        options = dict(self.opt["train"]["optim_d"])
        self.optimizer_d = self.get_optimizer(options.pop("type"), self.net_d.parameters(), **options)
        self.optimizers.append(self.optimizer_d)
        self.step_d = GradientStep([self.optimizer_d], self.device, net=self.net_d, timer=self.timer)

    def compute_losses(self, current_iter, batch=None):
        losses = super().compute_losses(current_iter, batch)
        with without_gradients(list(self.net_d.parameters())):
            losses["l_g_gan"] = self.cri_gan.loss_weight * self.cri_gan(self.net_d(self.output), real=True)
        return losses

    def train_others(self, current_iter, parts):
        return self.step_d(current_iter, list(zip(parts, self.outputs)), lambda pair: self.losses_d(*pair))

    def losses_d(self, batch, fake):
        scores = self.net_d(torch.cat([batch["gt"], fake]))
        real, fake = scores.chunk(2)
        return {"l_d_real": self.cri_gan(real, real=True), "l_d_fake": self.cri_gan(fake, real=False)}

    def steps(self):
        return [*super().steps(), self.step_d]

    def save(self, epoch, current_iter):
        self.save_network(self.net_d, "net_d", current_iter)
        super().save(epoch, current_iter)


if "TELL" in os.environ:
    optimize_parameters = SRModel.optimize_parameters

    def telling(self, current_iter):
        """Append to ``<TELL>_<rank>`` the sums of what the rank trains besides the student."""
        optimize_parameters(self, current_iter)
        nets = [*self.terms.values(), *([self.net_d] if hasattr(self, "net_d") else [])]
        with open(f"{os.environ['TELL']}_{self.opt['rank']}", "a") as file:
            print(*(p.detach().double().abs().sum().item().hex() for net in nets for p in net.parameters()), file=file)

    SRModel.optimize_parameters = telling
