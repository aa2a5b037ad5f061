"""A training on a mixture: a stopped run ends as one that was not stopped, and ranks and validation work."""

import copy
import json

import pytest

from ..helpers import assert_equal, content, finish, weights


@pytest.fixture
def options(options, images):
    """Noise and JPEG on the four images, three to one, at scale 1; 4 batches an epoch."""
    del options["network_t"], options["train"]["kd_opt"]
    clean = {"type": "DegradedImageDataset", "dataroot_gt": f"{images}/hr", "geometric_augs": True}
    noise, jpeg = {"type": "gaussian_noise", "sigma": [5, 30]}, {"type": "jpeg", "quality": [20, 60]}
    options |= {"model_type": "SRModel", "scale": 1}
    options["network_g"] = {"type": "DnCNN", "in_nc": 3, "out_nc": 3, "nc": 4, "nb": 3, "act_mode": "R"}
    options["datasets"]["train"] = {
        "name": "mix",
        "type": "MixedDataset",
        "gt_size": 16,
        "num_worker_per_gpu": 0,
        "batch_size_per_gpu": 2,
        "sets": {
            "noise": {**clean, "weight": 3, "degradations": [noise]},
            "jpeg": {**clean, "weight": 1, "degradations": [jpeg]},
        },
    }
    options["datasets"]["val"] = {**clean, "name": "val", "degradations": [noise, jpeg]}
    del options["datasets"]["val"]["geometric_augs"]
    return options


def test_a_stopped_run_ends_as_a_whole_one(runner, options):
    """Stopped in the middle of an epoch, and resumed with workers."""
    whole = runner.train(options | {"name": "whole"})
    stopped = copy.deepcopy(options)
    stopped["train"]["total_iter"] = 6
    stopped["logger"]["save_checkpoint_freq"] = 6
    runner.train(stopped)
    stopped["train"]["total_iter"] = 12
    stopped["datasets"]["train"]["num_worker_per_gpu"] = 2
    resumed = runner.train(stopped, "--auto_resume")
    assert_equal(weights(whole), weights(resumed), "weights")
    states = [content(folder / "training_states" / "12.state")["sampler"] for folder in (whole, resumed)]
    assert_equal(*states, "sampler")


def test_two_ranks_train_on_a_mixture(launcher, options):
    finish(launcher.start_ranks(2, options))
    assert weights(launcher.folder())["params"].keys()


def test_validation_is_the_same_every_time(runner, options):
    test = {key: options[key] for key in ("model_type", "scale", "num_gpu", "manual_seed", "network_g")}
    test |= {"datasets": {"test": options["datasets"]["val"]}, "val": {"metrics": options["val"]["metrics"]}}
    weights_file = runner.train(options) / "models" / "net_g_latest.pth"
    reports = []
    for name, seed in (("a", 1), ("b", 2)):
        run = test | {"name": name, "manual_seed": seed, "path": {"pretrain_network_g": str(weights_file)}}
        reports.append(json.loads((runner.test(run) / "results.json").read_text())["datasets"])
    assert reports[0] == reports[1]
