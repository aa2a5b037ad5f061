import pytest

import basicsr.losses
from basicsr.losses import CharbonnierLoss, build_loss


def test_builds_and_leaves_the_options_alone():
    opt = {"type": "CharbonnierLoss", "loss_weight": 0.5, "reduction": "sum"}
    loss = build_loss(opt)
    assert isinstance(loss, CharbonnierLoss)
    assert (loss.loss_weight, loss.reduction) == (0.5, "sum")
    assert opt == {"type": "CharbonnierLoss", "loss_weight": 0.5, "reduction": "sum"}


def test_no_type():
    with pytest.raises(ValueError, match=r"a loss needs the key 'type', as in .*'loss_weight': 1"):
        build_loss({"loss_weight": 1})


def test_unknown_type():
    with pytest.raises(KeyError, match="Did you mean 'L1Loss'"):
        build_loss({"type": "L1Los"})


def test_every_name_of_the_package_exists():
    for name in basicsr.losses.__all__:
        assert getattr(basicsr.losses, name).__name__ == name
        assert name in dir(basicsr.losses)
    with pytest.raises(AttributeError, match="has no attribute 'NoLoss'"):
        _ = basicsr.losses.NoLoss
