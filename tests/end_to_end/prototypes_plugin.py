"""A plug-in: what published methods ask of a distillation term, each reduced to a few lines."""

import torch
import torch.nn.functional as F
from torch import nn

from basicsr.distill.term import KDTerm
from basicsr.utils.registry import ARCH_REGISTRY, KD_REGISTRY, LOSS_REGISTRY


@ARCH_REGISTRY.register()
class GuidedNet(nn.Module):
    """×2, from the input and, by name, a guide of the output's size."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.body = nn.Conv2d(6, width, 3, padding=1)
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x, gt):
        large = F.interpolate(x, scale_factor=2)
        return large + self.tail(torch.relu(self.body(torch.cat([large, gt], 1))))


@ARCH_REGISTRY.register()
class StackedNet(nn.Module):
    """×2, from an input stacked upon the four phases of a ground truth: 3 + 12 channels."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.body = nn.Conv2d(15, width, 3, padding=1)
        self.tail = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, x):
        return F.pixel_shuffle(self.tail(torch.relu(self.body(x))), 2)


@ARCH_REGISTRY.register()
class SlimmableNet(nn.Module):
    """×2; ``width`` says how many of its channels are used, all by default. Batch norm has statistics for all."""

    def __init__(self, width: int = 6, norm: bool = False):
        super().__init__()
        self.width = width
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.last = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, x, width=None):
        used = torch.arange(self.width, device=x.device) < (width or self.width)
        inner = torch.relu(self.norm(self.first(x))) * used.view(1, -1, 1, 1)
        return F.pixel_shuffle(self.last(inner), 2)


@KD_REGISTRY.register()
class Privileged(KDTerm):
    """``mean |S(lq) − T(lq, gt)|``: the teacher sees the ground truth, by name or stacked upon the input."""

    def __init__(self, teacher: str = "t", stacked: bool = False):
        super().__init__()
        self.teacher = teacher
        self.stacked = stacked

    def prepare(self, ctx):
        if self.stacked:
            ctx.want(self.teacher, "privileged", torch.cat([ctx.lq, F.pixel_unshuffle(ctx.gt, 2)], 1))
        else:
            ctx.want(self.teacher, "privileged", ctx.lq, gt=ctx.gt)

    def forward(self, ctx):
        return F.l1_loss(ctx.output, ctx.run(self.teacher, "privileged").output)


@KD_REGISTRY.register()
class CrossKD(KDTerm):
    """``mean |T_tail(r(F_S)) − T|``: the student's feature goes on through the teacher; r is a 1×1 convolution.

    With ``keep`` above 0 the teacher's feature stays at so large a part of the positions (MiPKD's mixture). ``lr`` is
    the learning rate of r, the student's when absent.
    """

    def __init__(self, student: str, path: str, keep: float = 0.0, lr: float | None = None, teacher: str = "t"):
        super().__init__()
        self.student, self.path, self.keep, self.lr, self.teacher = student, path, keep, lr, teacher

    def parameter_groups(self):
        return [{"params": list(self.adapter.parameters()), "lr": self.lr}] if self.lr else super().parameter_groups()

    def taps(self):
        return [("g", self.student), (self.teacher, self.path)]

    def setup(self, networks):
        (own,), (other,) = networks.tap("g", self.student).values(), networks.tap(self.teacher, self.path).values()
        self.adapter = nn.Conv2d(own[1], other[1], 1).to(networks.device)

    def prepare(self, ctx):
        mixed = self.adapter(ctx.run("g").features[self.student])
        if self.keep:
            mask = torch.rand(len(mixed), 1, *mixed.shape[2:], device=mixed.device) < self.keep
            mixed = torch.where(mask, ctx.run(self.teacher).features[self.path], mixed)
        ctx.want(self.teacher)
        ctx.want(self.teacher, self.name, ctx.lq, replace={self.path: mixed})

    def forward(self, ctx):
        return F.l1_loss(ctx.run(self.teacher, self.name).output, ctx.run(self.teacher).output)


@KD_REGISTRY.register()
class Reference(KDTerm):
    """``mean |S(lq) − E(lq)|``, E the student's average."""

    def prepare(self, ctx):
        ctx.want("g_ema")

    def forward(self, ctx):
        return F.l1_loss(ctx.output, ctx.run("g_ema").output)


@KD_REGISTRY.register()
class BatchDistances(KDTerm):
    """The distances between the batch's mean colours, the student's beside the teacher's (RKD)."""

    needs_whole_batch = True

    def __init__(self, teacher: str = "t"):
        super().__init__()
        self.teacher = teacher

    def prepare(self, ctx):
        ctx.want(self.teacher)

    def forward(self, ctx):
        distances = [torch.pdist(ctx.run(name).output.mean((2, 3))) for name in ("g", self.teacher)]
        return F.smooth_l1_loss(*distances)


@KD_REGISTRY.register()
class DomainGap(KDTerm):
    """The student's and the teacher's change from one domain to the other, in their images' mean colours."""

    def prepare(self, ctx):
        ctx.want("t")

    def forward(self, ctx):
        s, t = ctx.rows["s"], ctx.rows["t"]
        student, teacher = (ctx.run(name).output.mean((2, 3)) for name in ("g", "t"))
        ctx.log("rows", float(s.stop - s.start + 100 * (t.stop - t.start)))
        change = [colours[s].mean(0) - colours[t].mean(0) for colours in (student, teacher)]
        return (change[0] - change[1]).abs().mean()


@KD_REGISTRY.register()
class MeanTeacher(KDTerm):
    """A weighted mean of several teachers' images, for other terms; ``learnt`` weights learn to restore the target."""

    def __init__(self, teachers: list[str], weights: list[float], learnt: bool = False):
        super().__init__()
        self.teachers = teachers
        self.learnt = learnt
        weights = torch.tensor(weights)
        if learnt:
            self.weights = nn.Parameter(weights)
        else:
            self.register_buffer("weights", weights)

    def prepare(self, ctx):
        for teacher in self.teachers:
            ctx.want(teacher)

    def as_network(self, ctx, key, image):
        for teacher in self.teachers:
            ctx.want(teacher, key, image)
        return sum(w * ctx.run(teacher, key).output for w, teacher in zip(self.weights, self.teachers))

    def forward(self, ctx):
        return F.l1_loss(ctx.run(self.name).output, ctx.gt) if self.learnt else {}


@KD_REGISTRY.register()
class WideStudent(KDTerm):
    """The student at another width: a network for other terms, supervised by itself."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def prepare(self, ctx):
        ctx.want(self.name)

    def as_network(self, ctx, key, image):
        ctx.want("g", f"{self.name}.{key}", image, width=self.width)
        return ctx.run("g", f"{self.name}.{key}").output

    def forward(self, ctx):
        return F.l1_loss(ctx.run(self.name).output, ctx.gt)


@LOSS_REGISTRY.register()
class EdgeLoss(nn.Module):
    """L1 between horizontal differences."""

    def __init__(self, loss_weight: float = 1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred, target):
        return self.loss_weight * F.l1_loss(pred.diff(dim=-1), target.diff(dim=-1))
