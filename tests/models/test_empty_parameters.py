"""Networks with parameters of no elements train: published ones have them, as in a layer that is switched off."""

import math

import pytest
import torch
from torch import nn

from basicsr.engine.compute.finite import FiniteGuard
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import ARCH_REGISTRY


class EmptyPartsNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 1, 1)
        self.prompt = nn.Parameter(torch.zeros(0, 3))

    def forward(self, x):
        return self.conv(x) + self.prompt.sum()


@pytest.mark.parametrize("train", [{}, {"clip_grad_norm": 0.1}, {"ema_decay": 0.9, "accumulate": 2}])
def test_such_a_network_trains(monkeypatch, train):
    ARCH_REGISTRY.keys()
    monkeypatch.setattr(ARCH_REGISTRY, "_objects", {**ARCH_REGISTRY._objects, "EmptyPartsNet": EmptyPartsNet})
    options = {
        "total_iter": 10,
        "optim_g": {"type": "Adam", "lr": 1e-2},
        "scheduler": {"type": "MultiStepLR", "milestones": [5]},
        "pixel_opt": {"type": "L1Loss"},
        **train,
    }
    model = SRModel(
        {
            "num_gpu": 0,
            "is_train": True,
            "dist": False,
            "network_g": {"type": "EmptyPartsNet"},
            "path": {},
            "train": options,
        }
    )
    before = model.net_g.conv.weight.detach().clone()
    model.feed_data({"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(2, 3, 8, 8)})
    model.optimize_parameters(1)
    assert model.net_g.prompt.grad.shape == (0, 3)
    assert not torch.equal(model.net_g.conv.weight, before)
    assert math.isfinite(model.get_current_log()["l_pix"])


def test_gradients_of_no_elements_alone_are_finite():
    guard = FiniteGuard(torch.device("cpu"), limit=3)
    assert guard.bad_step(1, {"l_pix": torch.tensor(1.0)}, [torch.zeros(0, 3)]) == 0
    assert guard.bad_step(2, {"l_pix": torch.tensor(1.0)}, [torch.zeros(0), torch.tensor([math.nan])]) == 1


@pytest.mark.parametrize("layer", [nn.Upsample(scale_factor=1), nn.Conv2d(3, 3, 1).requires_grad_(False)])
def test_a_network_with_nothing_to_train_is_refused(monkeypatch, layer):
    ARCH_REGISTRY.keys()
    monkeypatch.setattr(ARCH_REGISTRY, "_objects", {**ARCH_REGISTRY._objects, "Fixed": lambda: nn.Sequential(layer)})
    options = {
        "total_iter": 10,
        "optim_g": {"type": "Adam", "lr": 1e-2},
        "scheduler": {"type": "MultiStepLR", "milestones": [5]},
        "pixel_opt": {"type": "L1Loss"},
    }
    opt = {"num_gpu": 0, "is_train": True, "dist": False, "network_g": {"type": "Fixed"}, "path": {}, "train": options}
    with pytest.raises(ValueError, match="network_g: Sequential has no parameters that need gradients"):
        SRModel(opt)
