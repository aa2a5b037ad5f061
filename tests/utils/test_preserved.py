"""Objects that were tried out are as they were."""

from collections import deque

import pytest
import torch
from torch import nn

from basicsr.utils.preserved import preserved_state


class Owner(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
        self.register_buffer("queue", torch.zeros(2))
        self.plain, self.items, self.names, self.last = torch.ones(1), [1], {"a": torch.zeros(1)}, deque([1], maxlen=2)
        self.count, self.kinds = 0, {1}


def disturb(owner):
    owner.train()
    owner.inner(torch.rand(2, 1, 2, 2)).sum().backward()
    owner.queue += 1
    owner.plain.add_(1)
    owner.items.append(2)
    owner.names["b"] = 1
    owner.names["a"] += 1
    owner.last += [2, 3]
    owner.kinds.add(2)
    owner.count += 1
    owner.late = nn.Linear(1, 1)
    owner.register_buffer("new", torch.zeros(1))
    del owner.inner[1].running_mean


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_restored(fails):
    owner = Owner().eval()
    items, norm, queue = owner.items, owner.inner[1], owner.queue
    before = {name: value.clone() for name, value in owner.state_dict().items()}
    try:
        with preserved_state(owner):
            disturb(owner)
            assert owner.state_dict().keys() != before.keys() and owner.inner[0].weight.grad is not None
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert owner.items is items and owner.inner[1] is norm and owner.queue is queue
    assert (owner.items, owner.count, owner.kinds, owner.last) == ([1], 0, {1}, deque([1])) and owner.last.maxlen == 2
    assert owner.names == {"a": torch.zeros(1)} and torch.equal(owner.plain, torch.ones(1)) and not owner.training
    assert {name: value.tolist() for name, value in owner.state_dict().items()} == {
        name: value.tolist() for name, value in before.items()
    }
    assert all(p.grad is None for p in owner.parameters())


def test_gradients_of_before_stay():
    layer = nn.Linear(1, 1)
    layer(torch.ones(1)).backward()
    gradient = layer.weight.grad.clone()
    with preserved_state(layer):
        layer.zero_grad()
        layer(torch.ones(1) * 5).backward()
    assert torch.equal(layer.weight.grad, gradient)
