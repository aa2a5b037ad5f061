"""Progressive training and mixing in whole runs: what is logged and fed, resuming, ranks, accumulation, refusals."""

import copy
import re
from pathlib import Path

import pytest
import torch

from basicsr.data.mixing import Mixing
from basicsr.data.stream import build_streams
from basicsr.distill.frozen import FrozenNetwork
from basicsr.models import trial
from basicsr.models.sr_model import SRModel
from basicsr.utils.options import read_options
from basicsr.utils.options.sections import MixingOptions

from ..helpers import EDSR, log_text, logged_values, weights

PLUGINS = [str(Path(__file__).with_name(name)) for name in ("fault_plugin.py", "two_stream_plugin.py")]
MIXING = {"mixup": True, "cutmix": True, "use_identity": True}
SCHEDULE = {"gt_sizes": [8, 16, 24], "mini_batch_sizes": [4, 2, 2], "iters": [5, 4, 6]}


@pytest.fixture
def options(options):
    """The KD run of conftest on patches of three sizes; an epoch has 12 samples, and ends inside the stages."""
    options["datasets"]["train"] |= {**SCHEDULE, "gt_size": 24, "batch_size_per_gpu": 4, "dataset_enlarge_ratio": 3}
    options["train"] |= {"total_iter": 15, "mixing_augs": MIXING}
    options["logger"]["save_checkpoint_freq"] = 5
    del options["val"], options["datasets"]["val"]
    return options


@pytest.fixture
def fed(monkeypatch):
    """What feed_data is given, in a run of this process."""
    batches = []
    original = SRModel.feed_data

    def feed_data(self, data):
        batches.append({key: value.clone() for key, value in data.items() if isinstance(value, torch.Tensor)})
        original(self, data)

    monkeypatch.setattr(SRModel, "feed_data", feed_data)
    monkeypatch.setattr("basicsr.start.try_step", lambda *_: None)
    return batches


@pytest.mark.parametrize("recipe", ["SRModel", "SwinIRModel", "KDModel", "DCKDModel"])
def test_stages_are_fed_and_logged(runner, options, fed, recipe):
    options["model_type"] = recipe
    if recipe == "DCKDModel":
        del options["train"]["kd_opt"]
        options["train"]["logits_opt"] = {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}
    folder = runner.train(options)
    shapes = [tuple(batch["gt"].shape) for batch in fed]
    assert shapes == [(4, 3, 8, 8)] * 5 + [(2, 3, 16, 16)] * 4 + [(2, 3, 24, 24)] * 6
    assert [batch["lq"].shape[-1] for batch in fed] == [4] * 5 + [8] * 4 + [12] * 6
    log = log_text(folder)
    changes = re.findall(r"INFO: (iter \d+: patch \d+, batch \d+)\n", log)
    assert changes == ["iter 1: patch 8, batch 4", "iter 6: patch 16, batch 2", "iter 10: patch 24, batch 2"]
    # 12 samples: 4+4+4 | 4+4 and 2+2 of the next stage | 2+2+2+2+2+2 | …
    epochs = [int(epoch) for epoch in re.findall(r"\[epoch: +(\d+), iter", log)]
    assert epochs == [0] * 3 + [1] * 4 + [2] * 6 + [3] * 2
    assert "Batch size per gpu: 4, then 2, then 2\n" in log and "Total epochs: 4; iters: 15." in log


def test_student_and_teacher_see_the_mixed_batch(runner, options, fed, monkeypatch):
    """Which is what Mixing makes of the batch of a run without it, for the seed and the iteration."""
    seen = []
    original = FrozenNetwork.run

    def run(self, image, *args, **kwargs):
        seen.append(image.clone())
        return original(self, image, *args, **kwargs)

    monkeypatch.setattr(FrozenNetwork, "run", run)
    runner.train(options)
    mixed, teacher = list(fed), list(seen)
    fed.clear()
    del options["train"]["mixing_augs"]
    runner.train(options | {"name": "plain"})
    mixing = Mixing(MixingOptions.of(MIXING), seed=7, rank=0)
    expected = [mixing(batch, iteration) for iteration, batch in enumerate(fed, start=1)]
    assert len(mixed) == 15
    for one, other in zip(mixed, expected):
        assert all(torch.equal(one[key], other[key]) for key in ("lq", "gt"))
    assert sum(not torch.equal(one["lq"], other["lq"]) for one, other in zip(mixed, fed)) >= 5
    for batch in mixed:
        assert any(torch.equal(image, batch["lq"]) for image in teacher)


def test_a_trial_changes_no_number(runner, options, monkeypatch):
    tried = runner.train(options)
    monkeypatch.setattr("basicsr.start.try_step", lambda *_: None)
    untried = runner.train(options | {"name": "untried"})
    for one, other in zip(weights(tried).values(), weights(untried).values()):
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_that_is_killed_ends_as_one_that_is_not(resumes_exactly, options, world):
    """Saved after iterations 5 (the end of a stage and not of an epoch) and 10; killed before and after changes."""
    options["imports"] = PLUGINS[:1]
    options["datasets"]["train"] |= {"num_worker_per_gpu": 1, "dataset_enlarge_ratio": 3 * world}
    faults = ["6:SIGKILL", "10:SIGKILL", "13:SIGKILL"] if world == 1 else ["7:SIGKILL"]
    resumes_exactly(options, *faults, world=world)


def test_two_streams_with_a_schedule_of_their_own(resumes_exactly, launcher, options):
    """The patches of both are of one size, the batches are not; one of the streams has no schedule of batches."""
    options |= {"model_type": "TwoStreamModel", "imports": PLUGINS}
    del options["network_t"], options["train"]["kd_opt"]
    train = options["datasets"].pop("train")
    options["datasets"] = {
        "train_s": train | {"name": "source"},
        "train_t": train | {"name": "target", "mini_batch_sizes": [1, 3, 2]},
    }
    folder = resumes_exactly(options, "6:SIGKILL", "9:SIGKILL")
    log = log_text(folder)
    assert "iter 6: patch 16, batch 2 (datasets.train_s)" in log
    assert "iter 6: patch 16, batch 3 (datasets.train_t)" in log


def test_accumulation_has_the_gradients_of_the_whole_batch(runner, options):
    """Of the mixed batch: it is mixed before it is divided."""
    options["train"] |= {"optim_g": {"type": "SGD", "lr": 0.05}}
    folders = []
    for parts in (1, 2):
        options["train"]["accumulate"] = parts
        folders.append(runner.train(options | {"name": f"parts_{parts}"}))
    one, two = (weights(folder)["params"] for folder in folders)
    assert all(torch.allclose(one[key], two[key], atol=1e-6) for key in one)
    assert logged_values(folders[0], "l_pix") == pytest.approx(logged_values(folders[1], "l_pix"), rel=1e-3)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_most_demanding_batches_are_tried(runner, options, monkeypatch, device):
    """On a GPU in full; on a CPU a corner of two samples. (No GPU is needed to see what would be computed there.)"""
    tried = []
    monkeypatch.setattr(
        trial, "_compute_gradients", lambda model, iteration, batch: tried.append((iteration, batch["gt"].shape))
    )
    options["datasets"]["train"] |= {"gt_sizes": [8, 40, 32], "mini_batch_sizes": [4, 2, 4], "gt_size": 40}
    model, streams = runner.build(options), streams_of(runner, options)
    model.device = torch.device(device)
    trial.try_step(model, streams)
    # the first batch; 40² is the largest patch, from iteration 6; 4·32² pixels are more than 2·40², from iteration 10
    # a corner of the LQ patches of 4, 20 and 16 pixels: those, since none has more than 31
    sides = {1: 8, 6: 40, 10: 32}
    counts = {1: 4, 6: 2, 10: 4} if device == "cuda" else {1: 2, 6: 2, 10: 2}
    assert tried[:3] == [(i, (counts[i], 3, sides[i], sides[i])) for i in (1, 6, 10)]
    assert len(tried) == 4, "and then the step as it is tried in every run"


def streams_of(runner, options):
    opt, _ = read_options(runner.write(options), is_train=True)
    opt |= {"dist": False, "rank": 0, "world_size": 1, "is_train": True, "num_gpu": 0}
    opt["datasets"]["train"] |= {"phase": "train", "scale": 2}
    return build_streams(opt)


def test_a_batch_that_does_not_fit_in_memory_is_told_with_its_sizes(runner, options, monkeypatch):
    def fail(model, iteration, batch):
        if iteration == 10:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee …")

    monkeypatch.setattr(trial, "_compute_gradients", fail)
    message = r"iteration 10 \(datasets.train: 2 samples of 24×24 GT pixels\) does not fit .* Tried to allocate 2 GiB"
    with pytest.raises(ValueError, match=message):
        trial.try_step(runner.build(options), streams_of(runner, options))


@pytest.mark.parametrize("backend", ["disk", "memmap"])
def test_a_patch_larger_than_an_image_is_refused_at_the_start(runner, options, images, tmp_path, backend):
    from basicsr.data.memmap.writer import create_memmap

    train = options["datasets"]["train"]
    train |= {"gt_sizes": [8, 16, 44], "gt_size": 44}
    if backend == "memmap":
        for role, folder in (("gt", "hr"), ("lq", "lr")):
            create_memmap(f"{images}/{folder}", str(tmp_path / f"{role}.memmap"))
            train[f"dataroot_{role}"] = str(tmp_path / f"{role}.memmap")
        train["io_backend"] = {"type": "memmap"}
    with pytest.raises(ValueError, match=r"2 of 4 GT .* smaller .* 44×44; .*img\.0\.png, 40×48 pixels"):
        runner.train(options)
    assert not runner.folder().exists()
    train["pad_small"] = True
    assert runner.train(options).exists()


IGNORANT = """
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.registry import DATASET_REGISTRY

@DATASET_REGISTRY.register()
class IgnorantPairs(PairedImageDataset):
    def __getitem__(self, index):
        return super().__getitem__(int(index))
"""


def test_a_plugins_dataset_that_knows_of_no_schedule(runner, options, tmp_path):
    plugin = tmp_path / "ignorant_dataset.py"
    plugin.write_text(IGNORANT)
    options |= {"imports": [str(plugin)]}
    train = options["datasets"]["train"]
    train["type"] = "IgnorantPairs"
    with pytest.raises(ValueError, match="IgnorantPairs gives 24×24.*gt_size_of"):
        runner.train(options)
    assert not runner.folder().exists()
    plain = copy.deepcopy(options)
    for key in SCHEDULE:
        del plain["datasets"]["train"][key]
    assert runner.train(plain | {"name": "plain"}).exists()


def test_another_schedule_takes_consent(runner, options):
    folder = runner.train(options)
    options["datasets"]["train"]["iters"] = [5, 5, 5]
    options["train"]["total_iter"] = 16
    with pytest.raises(ValueError, match=r"other options.*datasets\.train\.iters"):
        runner.train(options, "--auto_resume")
    assert folder.exists()


def test_a_plugins_own_loop_is_refused(runner, options):
    from basicsr.train import create_train_val_dataloader
    from basicsr.utils.logger import get_root_logger

    opt, _ = read_options(runner.write(options), is_train=True)
    opt |= {"dist": False, "rank": 0, "world_size": 1, "is_train": True}
    opt["datasets"]["train"] |= {"phase": "train", "scale": 2}
    with pytest.raises(ValueError, match="depend on the iteration"):
        create_train_val_dataloader(opt, get_root_logger())


def test_a_published_dialect_trains(runner, options):
    """Names of Restormer's files, in miniature."""
    options |= {"model_type": "ImageCleanModel", "network_g": {**EDSR, "num_feat": 4, "num_block": 1}}
    del options["network_t"], options["train"]["kd_opt"]
    options["datasets"]["train"]["type"] = "Dataset_PairedImage"
    options["train"] |= {
        "use_grad_clip": True,
        "scheduler": {
            "type": "CosineAnnealingRestartCyclicLR",
            "periods": [5, 10],
            "restart_weights": [1, 1],
            "eta_mins": [2e-3, 1e-6],
        },
    }
    log = log_text(runner.train(options))
    assert "use_grad_clip" in log and "is read as train.clip_grad_norm: 0.01" in log
    assert len(re.findall(r"iter: +[1-6], lr:\(2\.000e-03,\)", log)) == 6
