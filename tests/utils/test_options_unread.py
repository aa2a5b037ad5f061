"""Keys that published files carry and BasicSR never reads: notices, while a misspelling stays an error."""

import copy
from types import SimpleNamespace

import pytest
import yaml

from basicsr.models.sr_model import SRModel
from basicsr.utils.misc import check_resume
from basicsr.utils.options import read_options
from basicsr.utils.options.errors import OptionError
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

PAIRS = {"type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "lq", "io_backend": {"type": "disk"}}
TRAINING = {
    "name": "run",
    "model_type": "SRModel",
    "scale": 2,
    "datasets": {
        "train": {**PAIRS, "name": "D", "gt_size": 96, "batch_size_per_gpu": 4, "num_worker_per_gpu": 0},
        "val": {**PAIRS, "name": "Set5"},
    },
    "network_g": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 2},
    "path": {"pretrain_network_g": None},
    "train": {
        "total_iter": 100,
        "optim_g": {"type": "Adam", "lr": 1e-4},
        "scheduler": {"type": "MultiStepLR", "milestones": [5]},
        "pixel_opt": {"type": "L1Loss"},
    },
    "val": {"val_freq": 50},
    "logger": {"print_freq": 10, "save_checkpoint_freq": 50, "wandb": {"project": None}},
}
TEST = {
    "name": "test",
    "model_type": "SRModel",
    "scale": 2,
    "datasets": {"test_1": {"name": "S", "type": "SingleImageDataset", "dataroot_lq": "lq"}},
    "network_g": TRAINING["network_g"],
    "path": {"pretrain_network_g": "x.pth"},
    "val": {},
}
DECORATIVE = [  # as in the files of DAT, HAT, HiT-SR, MambaIR, PDD, Real-ESRGAN …
    (TRAINING, "datasets.train.task", "SR"),
    (TRAINING, "datasets.val.task", "sr"),
    (TRAINING, "logger.wandb.entity", "our-lab"),
    (TRAINING, "print_network", True),
    (TRAINING, "crop_border", None),
    (TRAINING, "path.param_key", "params_ema"),
    (TRAINING, "val.flip_seq", False),
    (TRAINING, "val.center_frame_only", False),
    (TEST, "val.use_chop", True),
    (TEST, "datasets.test_1.task", "SR"),
    (TEST, "datasets.test_1.filename_tmpl", "{}x2"),
    (TEST, "datasets.test_1.lq_size", 64),
    (TEST, "datasets.test_1.use_hflip", True),
    (TEST, "datasets.test_1.use_rot", True),
]


def changed(opt, **changes):
    opt = copy.deepcopy(opt)
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = opt
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return opt


@pytest.fixture
def read(tmp_path):
    def read(opt, **changes):
        file = tmp_path / "x.yml"
        file.write_text(yaml.safe_dump(changed(opt, **changes)))
        return read_options(file)

    return read


@pytest.mark.parametrize(("opt", "key", "value"), DECORATIVE, ids=[key for _, key, _ in DECORATIVE])
def test_a_decorative_key_is_a_notice(read, opt, key, value):
    _, before = read(opt)
    _, after = read(opt, **{key: value})
    (notice,) = [notice for notice in after if notice not in before and notice.startswith(f"{key} (")]
    assert "has no effect" in notice


def test_all_of_them_at_once(read):
    for opt in (TRAINING, TEST):
        keys = {key: value for base, key, value in DECORATIVE if base is opt}
        _, notices = read(opt, **keys)
        assert sorted(n.partition(" ")[0] for n in notices if "has no effect" in n) == sorted(keys)


@pytest.mark.parametrize("key", ["suffix", "save_img"])
def test_what_older_files_have_at_the_top_is_read_or_passed_over(read, key):
    value = {"suffix": "x", "save_img": True}[key]
    opt, notices = read(TEST, **{key: value})
    assert opt["val"][key] == value and any(notice.startswith(f"{key} (") for notice in notices)
    other = {"suffix": "y", "save_img": False}[key]
    opt, notices = read(TEST, **{key: value, f"val.{key}": other})
    assert opt["val"][key] == other and any(notice.startswith(f"{key} (") for notice in notices)


@pytest.mark.parametrize("task", ["CAR", "denoise", 3])
def test_another_degradation_is_refused_by_name(read, task):
    with pytest.raises(OptionError, match=rf"datasets.train.task .*: must be SR, not '?{task}'?: PairedImageDataset"):
        read(TRAINING, **{"datasets.train.task": task})


@pytest.mark.parametrize(
    "key",
    [
        "datasets.train.tasks",
        "datasets.train.use_hflp",
        "datasets.train.lq_size",
        "datasets.train.io_backend.entity",
        "logger.wandb.entitiy",
        "print_networks",
        "path.param_keys",
        "path.entity",
        "val.flip_sequence",
        "val.task",
        "train.print_network",
    ],
)
def test_a_misspelt_or_misplaced_key_stays_an_error(read, key):
    with pytest.raises(OptionError, match=rf"{key} .*: unknown key"):
        read(TRAINING, **{key: True})


def test_a_plug_in_reads_such_keys_itself(read, monkeypatch):
    """A dataset or a recipe that declares no keys may read any: DAT's dataset reads `task`."""
    for registry in (DATASET_REGISTRY, MODEL_REGISTRY):
        registry.keys()
        monkeypatch.setattr(registry, "_objects", dict(registry._objects))

    class DegradingDataset:
        def __init__(self, opt):
            self.task = opt["task"]

    class PluginModel(SRModel):
        pass

    DATASET_REGISTRY.register(DegradingDataset)
    MODEL_REGISTRY.register(PluginModel)
    opt, notices = read(
        TRAINING,
        **{"datasets.train.type": "DegradingDataset", "datasets.train.task": "CAR", "model_type": "PluginModel"},
        print_network=True,
    )
    assert opt["datasets"]["train"]["task"] == "CAR"
    assert all(
        any(n.startswith(f"{key} (") and "left to your own class" in n for n in notices)
        for key in ("datasets.train.task", "print_network")
    )


def test_networks_to_ignore_may_be_a_plain_string(read, tmp_path):
    read(TRAINING, **{"path.ignore_resume_networks": "network_g"})
    with pytest.raises(OptionError, match="ignore_resume_networks .*: there is no network_x"):
        read(TRAINING, **{"path.ignore_resume_networks": "network_x"})
    for name in ("g", "g_2"):
        (tmp_path / f"net_{name}_5.pth").touch()
    path = {"models": str(tmp_path), "ignore_resume_networks": "network_g_2"}
    check_resume({"network_g": {}, "network_g_2": {}, "path": path}, 5)  # one name is a part of the other
    assert SimpleNamespace(**path).pretrain_network_g == str(tmp_path / "net_g_5.pth")
    assert "pretrain_network_g_2" not in path
