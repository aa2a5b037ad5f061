"""A plug-in: a term and recipes that notice a trial, or fail in one."""

import torch

from basicsr.distill.term import KDTerm
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import KD_REGISTRY, MODEL_REGISTRY


@KD_REGISTRY.register()
class Transposed(KDTerm):
    """Compares the output with a teacher's of another shape, which is seen in forward alone."""

    def forward(self, ctx):
        teacher = ctx.teacher("t").output
        if teacher.shape[-1] != 2 * ctx.lq.shape[-1]:
            raise ValueError("unexpected")
        return (ctx.output - teacher[..., 1:]).abs().mean()


@MODEL_REGISTRY.register()
class OwnIteration(SRModel):
    """Does with its batches what no other recipe does: a trial would break it."""

    TrainOptions = SRModel.TrainOptions

    def feed_data(self, data):
        self.fed = getattr(self, "fed", 0) + self.net_g.training
        super().feed_data(data)

    def optimize_parameters(self, current_iter):
        assert current_iter > 4 or self.fed == current_iter, "a batch came that is not of the run"
        super().optimize_parameters(current_iter)


@MODEL_REGISTRY.register()
class Remembering(SRModel):
    """Keeps what its iterations have been, in the training state."""

    TrainOptions = SRModel.TrainOptions

    def init_training_settings(self):
        super().init_training_settings()
        self.count, self.history = torch.zeros(2), []

    def compute_losses(self, current_iter, batch=None):
        self.count += 1
        self.history.append(current_iter)
        return super().compute_losses(current_iter, batch)

    def extra_training_state(self):
        return {**super().extra_training_state(), "count": self.count, "history": self.history}


@KD_REGISTRY.register()
class Counting(KDTerm):
    """Keeps what it has seen, in several ways, and draws random numbers."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.register_buffer("seen", torch.zeros(()))
        self.iterations = []
        self.total = 0

    def forward(self, ctx):
        self.seen += 1
        self.total += 1
        self.iterations.append(ctx.iteration)
        return self.norm(ctx.output).abs().mean() * torch.rand(())

    def get_extra_state(self):
        return {"total": self.total, "iterations": self.iterations}

    def set_extra_state(self, state):
        self.total, self.iterations = state["total"], state["iterations"]
