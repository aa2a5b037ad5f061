"""Which of a file's state dicts is taken, and that the log says so."""

import logging

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils.weights import find_state_dict, load_weights

NETWORK = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2}


@pytest.fixture
def log(caplog):
    logger = logging.getLogger("basicsr")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "basicsr"):
        yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def save(tmp_path):
    """Write a file whose state dicts, in this order, are filled with 1, 2 …"""

    def save(*keys):
        states = []
        for value in range(1, len(keys) + 1):
            net = build_network(NETWORK)
            states.append({name: torch.full_like(tensor, value) for name, tensor in net.state_dict().items()})
        torch.save(dict(zip(keys, states)) if keys != (None,) else states[0], tmp_path / "w.pth")
        return tmp_path / "w.pth"

    return save


def first_value(net):
    return next(net.parameters()).flatten()[0].item()


def warnings(log):
    messages = [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]
    return list(dict.fromkeys(messages))  # the logger may hand them on to the root's, or not


@pytest.mark.parametrize(
    ("keys", "asked", "taken", "value"),
    [
        (("params", "params_ema"), "params", "params", 1),
        (("params", "params_ema"), "params_ema", "params_ema", 2),
        (("params", "params_ema"), None, "params_ema", 2),
        (("params",), None, "params", 1),
        (("params", "mine"), "mine", "mine", 2),
        ((None,), "params", "the whole file", 1),
        ((None,), None, "the whole file", 1),
    ],
)
def test_the_key_that_was_taken_is_logged(save, log, keys, asked, taken, value):
    net = build_network(NETWORK)
    file = save(*keys)
    assert load_weights(net, file, param_key=asked) == []
    assert first_value(net) == value
    assert f"Loading EDSR from {file} [{taken}]." in log.text
    assert warnings(log) == []


@pytest.mark.parametrize(("there", "asked"), [("params", "params_ema"), ("params_ema", "params")])
def test_another_key_than_the_one_asked_for_is_a_warning(save, log, there, asked):
    file = save(there)
    load_weights(build_network(NETWORK), file, param_key=asked)
    assert f"Loading EDSR from {file} [{there}]." in log.text
    assert warnings(log) == [f"{file} has no '{asked}', but {there}: '{there}' is taken."]


def test_a_name_that_is_not_there_is_refused_with_those_that_are(save):
    with pytest.raises(
        ValueError, match=r"param_key: .*w\.pth holds no weights 'nope', but those of params, params_ema"
    ):
        load_weights(build_network(NETWORK), save("params", "params_ema"), param_key="nope")
    with pytest.raises(ValueError, match=r"holds no weights 'nope', but a state dict without a name"):
        load_weights(build_network(NETWORK), save(None), param_key="nope")
    assert find_state_dict({"state_dict": {"a": torch.ones(1)}}, "params")[1] == "state_dict"


def options(file, is_train=False, **path):
    return {
        "num_gpu": 0,
        "is_train": is_train,
        "dist": False,
        "network_g": NETWORK,
        "path": {"pretrain_network_g": str(file), **path},
        "train": {
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 1e-4},
            "scheduler": {"type": "MultiStepLR", "milestones": [5]},
            "pixel_opt": {"type": "L1Loss"},
            "total_iter": 10,
        },
    }


def test_recipes_warn_of_an_option_and_not_of_its_default(save, log):
    file = save("params")
    SRModel(options(file))
    SRModel(options(file, is_train=True))  # the average too starts from what there is
    assert warnings(log) == []
    SRModel(options(file, param_key_g="params_ema"))
    assert warnings(log) == [f"{file} has no 'params_ema', but params: 'params' is taken."]
    with pytest.raises(ValueError, match="holds no weights 'nope'"):
        SRModel(options(file, param_key_g="nope"))


def test_the_teachers_key_is_an_option_like_the_students(save, log):
    file = save("params")
    opt = options(None, is_train=True, pretrain_network_t=str(file), param_key_t="nope")
    opt["path"]["pretrain_network_g"] = None
    opt["network_t"] = NETWORK
    opt["train"]["kd_opt"] = {"logits": {"type": "LogitsKD"}}
    with pytest.raises(ValueError, match="holds no weights 'nope', but those of params"):
        SRModel(opt)


def test_a_plug_in_prints_different_keys(log):
    class Plugin(BaseModel):
        def __init__(self):
            self.opt = {}

    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    loaded = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(4), "1.weight": torch.ones(1, 3), "9.x": torch.ones(1)}
    Plugin()._print_different_keys_loading(net, loaded)
    assert warnings(log) == ["Current net - loaded net:\n  1.bias", "Loaded net - current net:\n  9.x"]
    assert set(loaded) == {"0.weight", "0.bias", "1.weight", "9.x"}
    Plugin()._print_different_keys_loading(net, loaded, strict=False)
    assert set(loaded) == {"0.weight", "0.bias.ignore", "1.weight", "9.x"}
    assert "ignore [0.bias]" in warnings(log)[-1]
