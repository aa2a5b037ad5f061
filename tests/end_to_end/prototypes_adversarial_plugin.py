"""A plug-in: an adversarial distillation term, which trains a discriminator of its own."""

import torch
import torch.nn.functional as F
from torch import nn

from basicsr.distill.term import KDTerm
from basicsr.utils.registry import KD_REGISTRY


@KD_REGISTRY.register()
class Adversarial(KDTerm):
    """``−mean D(S(lq))``, where D learns to tell the student's images from the teacher's (hinge loss).

    ``trains`` names ``torch.optim``'s class; ``broken`` lets D's loss be infinite at one iteration.
    """

    def __init__(self, teacher: str = "t", lr: float = 1e-3, trains: str = "Adam", broken: int = 0):
        super().__init__()
        self.teacher, self.lr, self.trains, self.broken = teacher, lr, trains, broken
        self.discriminator = nn.Sequential(nn.Conv2d(3, 4, 4, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))

    def optimizers(self, networks):
        return [getattr(torch.optim, self.trains)(self.discriminator.parameters(), lr=self.lr)]

    def prepare(self, ctx):
        ctx.want(self.teacher)

    def forward(self, ctx):
        return -self.discriminator(ctx.output).mean()

    def own_loss(self, ctx):
        real, fake = self.discriminator(ctx.run(self.teacher).output), self.discriminator(ctx.output)
        ctx.log("gap", real.mean() - fake.mean())
        loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        return loss / 0 if ctx.iteration == self.broken else loss
