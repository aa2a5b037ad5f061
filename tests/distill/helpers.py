"""Networks small enough to follow by hand, a distillation around them, and a step of it."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.archs.latent_encoder import LatentEncoder
from basicsr.distill.context import KDContext
from basicsr.distill.distillation import Distillation
from basicsr.distill.student import StudentNetwork
from basicsr.engine.batch import Batch
from basicsr.engine.compute.runtime import NetworkRuntime
from basicsr.utils.registry import ARCH_REGISTRY

CPU = torch.device("cpu")


class Counted(nn.Module):
    """Notes, for each pass, the number of images and whether gradients were on."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def note(self, x):
        self.calls.append((len(x), torch.is_grad_enabled()))

    @property
    def passes(self):
        """The number of images of each pass."""
        return [count for count, _ in self.calls]


@ARCH_REGISTRY.register()
class Doubler(Counted):
    """×2 by nearest neighbours, of a function that depends on how the image is turned; ``seen`` has its inputs."""

    def __init__(self, shift: float = 0.1):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))
        self.up = nn.Upsample(scale_factor=2)
        self.seen = []

    def forward(self, x):
        self.note(x)
        self.seen.append(x.detach())
        return self.up(x**2 + 0.3 * x.roll((1, 2), (2, 3)) + self.shift)


def doubled(x, shift):
    """What :class:`Doubler` gives, written out: no network takes part."""
    inner = x**2 + 0.3 * torch.cat([x[..., -2:], x[..., :-2]], -1)[..., [-1, *range(x.shape[-2] - 1)], :] + shift
    return inner.repeat_interleave(2, -1).repeat_interleave(2, -2)


@ARCH_REGISTRY.register()
class FiveLevels(Counted, LatentEncoder):
    """Levels at strides 1, 2, 4, 8, 16, a latent of 6 channels, and a codebook of 10 entries."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(3 if i == 0 else 4, 4, 3, stride=1 if i == 0 else 2, padding=1) for i in range(5)
        )
        self.to_latent = nn.Conv2d(4, 6, 1)
        self.codes = nn.Parameter(torch.randn(10, 6))
        self.latents = 0

    @property
    def codebook(self):
        return self.codes

    def features(self, x):
        self.note(x)
        levels = []
        for conv in self.convs:
            x = torch.tanh(conv(x))
            levels.append(x)
        return levels

    def latent_from_features(self, levels):
        self.latents += 1
        return self.to_latent(levels[-1])


NETWORKS = {
    "g": {"type": "Doubler", "shift": 0.05},
    "t": {"type": "Doubler"},
    "vqgan": {"type": "FiveLevels"},
}


def options(terms, networks=NETWORKS, runtime=None, **train):
    """The options of a run ×2 with patches of 16×16."""
    return {
        "scale": 2,
        "datasets": {"train": {"phase": "train", "gt_size": 32}},
        **{f"network_{name}": section for name, section in networks.items()},
        "runtime": runtime or {},
        "path": {},
        "logger": {"print_freq": 2},
        "train": {"kd_opt": terms, **train},
    }


def build(terms, networks=NETWORKS, average=True, runtime=None, **train):
    """A distillation as a run builds it."""
    torch.manual_seed(0)
    opt = options(terms, networks, runtime, **train)
    own = student(build_network(opt["network_g"]))
    ema = build_network(opt["network_g"]).requires_grad_(False).eval() if average else None
    distillation = Distillation(opt, own, average=ema, trained=("g",), device=CPU)
    distillation.start()
    return distillation


def distil(terms, networks=NETWORKS, average=True, dtype=torch.float64, **train):
    """The same with networks in ``dtype`` that have not been run since they were probed."""
    distillation = build(terms, networks, average, **train)
    names = ["g", *(["g_ema"] if average else []), *distillation.networks.frozen.built]
    for net in [*(network(distillation, name) for name in names), distillation.terms]:
        net.to(dtype)
        for module in net.modules():
            if isinstance(module, Counted):
                module.calls.clear()
                getattr(module, "seen", []).clear()
    return distillation


def network(distillation, name):
    """A network without what surrounds it."""
    return distillation.networks[name].net


def batch_of(lq, gt=None):
    return Batch({"train": {"lq": lq} if gt is None else {"lq": lq, "gt": gt}})


def take_step(distillation, lq, gt=None, output=None, iteration=1):
    """What an iteration does up to the losses, the student giving ``output`` where that is said.

    Returns:
        The context and the weighted losses.
    """
    own = distillation.networks["g"]
    ctx = distillation.context(iteration, batch_of(lq, gt), lambda: own.run(lq) if output is None else output)
    return ctx, distillation(ctx, {})


def student(net):
    """A network as the student of passes."""
    return StudentNetwork(net, NetworkRuntime())


def context(lq, gt=None, **networks):
    """A context over networks as passes see them."""
    return KDContext(1, batch_of(lq, gt), networks.__getitem__)


def images(count=2, side=8, seed=0):
    """Random images in float32."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def small_batch():
    """Inputs of two images, and an output with gradients, in float64."""
    generator = torch.Generator().manual_seed(7)
    lq = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=generator)
    output = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=generator)
    return SimpleNamespace(lq=lq, output=output.requires_grad_())


# What is random in the terms, written out.

OPERATIONS = [lambda x: 1 - x, lambda x: x.flip(-2), lambda x: x.flip(-1), lambda x: x.transpose(-2, -1)]


def turned(image, chosen):
    """An image after those of: invert, flip the rows, flip the columns, transpose."""
    for operation, used in zip(OPERATIONS, chosen):
        image = operation(image) if used else image
    return image


def turned_back(image, chosen):
    """The inverse: each operation is its own inverse, so the same in reverse order."""
    for operation, used in zip(OPERATIONS[::-1], list(chosen)[::-1]):
        image = operation(image) if used else image
    return image


def how_turned(image, result):
    """Which operations make one image of another; there is one answer for an image without symmetries."""
    subsets = [[bool(index >> k & 1) for k in range(4)] for index in range(16)]
    fitting = [chosen for chosen in subsets if torch.equal(turned(image, chosen), result)]
    assert len(fitting) == 1, f"{len(fitting)} subsets of the operations fit"
    return fitting[0]


def noisy_copy(lq):
    """A degraded copy with noise alone: σ ~ U[1, 30]/255 for each image, grey for about half of them, clipped."""
    for _ in ("blur", "resize", "noise"):  # whether there is any
        torch.rand(())
    batch, _, height, width = lq.shape
    sigma = (1 + 29 * torch.rand(batch, 1, 1, 1)) / 255
    grey = torch.rand(batch, 1, 1, 1) < 0.5
    one, three = torch.randn(batch, 1, height, width), torch.randn(batch, 3, height, width)
    noise = torch.stack([(one[i] if grey[i] else three[i]).expand(3, height, width) for i in range(batch)])
    return (lq + (sigma * noise).to(lq)).clamp(0, 1)
