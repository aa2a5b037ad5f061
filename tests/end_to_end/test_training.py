"""Real runs in miniature: train, stop, resume, test; what is logged, saved, frozen and measured."""

import copy
import json
import re
import signal
from pathlib import Path

import pytest
import torch

from basicsr.archs import build_network

from ..helpers import assert_equal, finish, free_port, log_text, logged_values, to_test_options, training_state, weights

LOG_LINE = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO: \[tiny\.\.\]\[epoch:  0, iter:       1, lr:\(2\.000e-03,\)\] "
    r"\[eta: (\d+ days?, )?\d+:\d\d:\d\d, time \(data\): \d+\.\d{3} \(\d+\.\d{3}\)\] "
    r"l_pix: \d\.\d{4}e[+-]\d\d l_logits: \d\.\d{4}e[+-]\d\d l_feat: \d\.\d{4}e[+-]\d\d $",
    re.M,
)


def test_files_and_log_lines(runner, options):
    options["logger"]["use_tb_logger"] = True
    folder = runner.train(options)
    assert sorted(p.name for p in (folder / "models").iterdir()) == [
        "net_g_12.pth",
        "net_g_4.pth",
        "net_g_8.pth",
        "net_g_latest.pth",
    ]
    assert sorted(p.name for p in (folder / "training_states").iterdir()) == ["12.state", "4.state", "8.state"]
    log = log_text(folder)
    assert LOG_LINE.search(log), log
    assert re.search(
        r"INFO: Validation val\n\t # psnr: \d+\.\d{4}\tBest: \d+\.\d{4} @ \d+ iter\n\t # ssim: \d\.\d{4}\tBest: ", log
    )
    assert (folder / "tiny.yml").is_file()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(runner.root / "tb_logger" / "tiny"))
    events.Reload()
    assert {"losses/l_pix", "losses/l_logits", "losses/l_feat", "metrics/val/psnr"} <= set(events.Tags()["scalars"])


def test_training_lowers_the_loss(runner, options):
    options["train"] |= {"total_iter": 150, "scheduler": {"type": "MultiStepLR", "milestones": [120], "gamma": 0.5}}
    options["train"]["kd_opt"]["logits"]["loss_weight"] = 0.0
    options["val"]["val_freq"] = 30
    folder = runner.train(options)
    losses = logged_values(folder, "l_pix")
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    psnr = logged_values(folder, "# psnr")
    assert psnr[-1] > psnr[0] + 1


def test_existing_run_is_archived(runner, options):
    options["train"]["total_iter"] = 1
    runner.train(options)
    runner.train(options)
    names = sorted(path.name for path in (runner.root / "experiments").iterdir())
    assert len(names) == 2
    assert re.fullmatch(r"tiny_archived_\d{8}_\d{6}", names[1])


STOPPED = {"imports": [str(Path(__file__).with_name("stopping_plugin.py"))]}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop_at", [6, 9])
def test_resume_is_bit_identical(runner, options, monkeypatch, workers, stop_at):
    """Stopped in mid-epoch (an epoch has 5 iterations) and resumed: the same weights as without the stop."""
    options["datasets"]["train"]["num_worker_per_gpu"] = workers
    options["network_g"]["type"] = "NoisyEDSR"
    options |= STOPPED | {"model_type": "StoppingKDModel"}
    whole = runner.train({**copy.deepcopy(options), "name": "tiny_whole"})
    monkeypatch.setenv("STOP_AT", str(stop_at))
    with pytest.raises(KeyboardInterrupt):
        runner.train(options)
    monkeypatch.delenv("STOP_AT")
    resumed = runner.train(options, "--auto_resume")

    assert f"Resuming training from epoch: {0 if stop_at == 6 else 1}" in log_text(resumed)
    assert_equal(weights(whole), weights(resumed), "weights")
    states = [training_state(f) for f in (whole, resumed)]
    assert states[0]["best_metric_results"] == states[1]["best_metric_results"]
    assert states[0]["sampler"] == states[1]["sampler"]
    for name, value in states[0]["terms"]["feat"].items():
        assert torch.equal(value, states[1]["terms"]["feat"][name])


def test_resume_after_sigkill_from_the_last_whole_state(launcher, options):
    """A killed process, and then a torn newest file: the run continues from the last whole state, to the same end."""
    options |= STOPPED | {"model_type": "StoppingKDModel"}
    finish([launcher.start({**options, "name": "tiny_whole"})])
    assert launcher.start(options, STOP_AT="10", STOP_BY="SIGKILL").wait() == -signal.SIGKILL
    newest = launcher.folder() / "training_states" / "8.state"
    newest.write_bytes(newest.read_bytes()[:-200])
    run = launcher.start(options, "--auto_resume")
    finish([run])
    assert "8.state is passed over: the file is incomplete or damaged" in run.text
    assert "Resuming training from epoch: 0, iter: 4" in run.text
    assert_equal(weights(launcher.folder("tiny_whole")), weights(launcher.folder()), "weights")


def test_validation_and_test_agree(runner, options):
    """The same checkpoint gives the same numbers in training's validation and in test.py: both use the average."""
    folder = runner.train(options)
    validation = json.loads((folder / "validation.json").read_text())["datasets"]["val"]
    test_options = to_test_options(options, folder / "models" / "net_g_12.pth")
    test_options["val"]["save_img"] = True
    results = runner.test(test_options)
    report = json.loads((results / "results.json").read_text())
    assert report["datasets"]["val"] == validation
    assert report["weights_sha256"]
    assert "| val | 4 |" in (results / "results.md").read_text()
    images = sorted(path.name for path in (results / "visualization" / "val").iterdir())
    assert images[0] == "img.0_tiny_test.png"
    assert len(images) == 4


def test_frozen_networks_are_frozen(runner, options):
    """A teacher stays as it was and reaches neither optimiser nor files; adapters do not reach the student's."""
    from basicsr.models import build_model
    from basicsr.utils.options import read_options

    opt, _ = read_options(runner.write(options), is_train=True)
    opt |= {"dist": False, "rank": 0, "world_size": 1, "is_train": True}
    opt["datasets"]["train"]["phase"] = "train"
    model = build_model(opt)
    teacher = model.frozen["t"]
    before = copy.deepcopy(teacher.state_dict())
    optimised = {id(p) for group in model.optimizer_g.param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in teacher.parameters()}
    assert {id(p) for p in model.terms["feat"].parameters()} <= optimised
    gt = torch.rand(2, 3, 16, 16)
    for iteration in (1, 2, 3):
        model.net_g.train()
        model.feed_data({"lq": torch.rand(2, 3, 8, 8), "gt": gt})
        model.optimize_parameters(iteration)
        assert torch.equal(model.gt, gt), "the ground truth is never replaced"
    assert not teacher.net.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    folder = runner.train(options)
    assert not list((folder / "models").glob("net_t*"))
    student = set(build_network(options["network_g"]).state_dict())
    saved = weights(folder)
    assert set(saved) == {"params", "params_ema"}
    assert all(set(state) == student for state in saved.values()), "no adapter, no teacher"


def test_two_processes(runner, launcher, options):
    """torchrun and torch.distributed.launch, on two gloo processes, give the same run, also when it is stopped."""
    options["datasets"]["train"]["batch_size_per_gpu"] = 2
    options["path"] = {"experiments_root": str(runner.root / "experiments")}
    options |= STOPPED | {"model_type": "StoppingKDModel"}

    def run(module, name, **environment):
        launch = ("-m", module, "--nproc_per_node=2", f"--master_port={free_port()}", "basicsr/train.py")
        command = ("-opt", runner.write({**options, "name": name}), "--launcher", "pytorch")
        runner.run(*launch, *command, check=not environment, **environment)
        return runner.folder(name)

    one = run("torch.distributed.run", "tiny_run")
    other = run("torch.distributed.launch", "tiny_launch", STOP_AT="6", STOP_BY="SIGKILL")
    finish(launcher.start_ranks(2, {**options, "name": "tiny_launch"}, "--auto_resume"))
    assert "Resuming training from epoch: 0, iter: 4" in log_text(other)
    assert_equal(weights(one), weights(other), "weights")
    # two processes with two images each do what one process with four does
    options["datasets"]["train"]["batch_size_per_gpu"] = 4
    single = runner.train({**copy.deepcopy(options), "name": "tiny_single"})
    for name, value in weights(single)["params"].items():
        torch.testing.assert_close(value, weights(one)["params"][name], rtol=1e-4, atol=1e-5)
    # a hint stage, in which only inner features count
    options["datasets"]["train"]["batch_size_per_gpu"] = 2
    options["train"].pop("pixel_opt")
    options["train"]["kd_opt"]["feat"]["end"] = 4
    options["train"]["kd_opt"]["logits"]["start"] = 5
    finish(launcher.start_ranks(2, {**options, "name": "tiny_hint"}))
    assert re.search(r"iter: +2, .* l_feat: \S+ $", log_text(launcher.folder("tiny_hint")), re.M)
    # validation spread over the ranks equals a test of the same weights in one process
    report = json.loads((one / "validation.json").read_text())["datasets"]["val"]
    results = runner.test(to_test_options(options, one / "models" / "net_g_12.pth"))
    assert json.loads((results / "results.json").read_text())["datasets"]["val"] == report


def test_slurm_variables_start_a_process_group(runner, options):
    options["train"]["total_iter"] = 2
    options["path"] = {"experiments_root": str(runner.root / "experiments")}
    environment = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0", "MASTER_ADDR": "127.0.0.1"}
    command = ("-m", "basicsr.train", "-opt", runner.write(options), "--launcher", "slurm")
    runner.run(*command, **environment, MASTER_PORT=free_port())
    log = log_text(runner.folder())
    assert "dist: True" in log
    assert "world_size: 1" in log


def test_the_checkout_comes_before_an_installed_basicsr(runner, options, tmp_path):
    """``python basicsr/train.py`` uses its own checkout though another basicsr is first on the path."""
    other = tmp_path / "site" / "basicsr"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('the wrong basicsr')")
    options["train"]["total_iter"] = 1
    options["path"] = {"experiments_root": str(runner.root / "experiments")}
    runner.run("basicsr/train.py", "-opt", runner.write(options), PYTHONPATH=str(other.parent))


def test_a_wrong_option_ends_in_a_sentence(launcher, options):
    options["network_g"]["num_fet"] = options["network_g"].pop("num_feat")
    run = launcher.start(options)
    assert run.wait() == 2
    assert "Traceback" not in run.text
    assert re.search(r"network_g\.num_fet.*num_feat", run.text)
    assert not launcher.folder().parent.exists()


def test_debug_flag(runner, options):
    options["train"]["total_iter"] = 8
    options["logger"] = {"print_freq": 100, "save_checkpoint_freq": 100}
    runner.train(options, "--debug")
    folder = runner.folder("debug_tiny")
    assert (folder / "training_states" / "8.state").is_file()
    log = log_text(folder)
    assert log.count("l_pix: ") == 8, "a line for every iteration"
    assert "@ 8 iter" in log, "a validation at the eighth"


PLUGIN = """
import torch
from torch import nn
from basicsr.distill.term import KDTerm
from basicsr.utils.registry import ARCH_REGISTRY, KD_REGISTRY

@ARCH_REGISTRY.register()
class TinyNet(nn.Module):
    def __init__(self, width: int = 4, upscale: int = 2):
        super().__init__()
        self.body = nn.Conv2d(3, width, 3, padding=1)
        self.tail = nn.Sequential(nn.Conv2d(width, 3 * upscale**2, 3, padding=1), nn.PixelShuffle(upscale))

    def forward(self, x):
        return self.tail(torch.relu(self.body(x)))

@KD_REGISTRY.register()
class MeanKD(KDTerm):
    def __init__(self, teacher: str = "t"):
        super().__init__()
        self.teacher = teacher

    def setup(self, model):
        model.output_shape(self.teacher)

    def forward(self, ctx):
        difference = ctx.output.mean((2, 3)) - ctx.teacher(self.teacher).output.mean((2, 3))
        return {"abs": difference.abs().mean(), "square": (difference**2).mean()}
"""


def test_network_and_term_from_outside_the_package(runner, options):
    plugin = runner.root / "my_plugin.py"
    plugin.write_text(PLUGIN)
    options |= {"imports": [str(plugin)], "network_g": {"type": "TinyNet", "width": 5}}
    options["train"]["kd_opt"] = {"mean": {"type": "MeanKD", "loss_weight": 2.0}}
    folder = runner.train(options)
    assert re.search(r"l_pix: \S+ l_mean_abs: \S+ l_mean_square: \S+ ", log_text(folder))
    assert weights(folder)["params"]["body.weight"].shape == (5, 3, 3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"logits": {"type": "LogitsKD", "teacher": "t_2"}},
            r"kd_opt.logits.teacher .*: network_t_2 is not defined.*network_t",
        ),
        (
            {"feat": {"type": "FitNets", "pairs": [{"student": "bodi.0", "teacher": "body.0"}]}},
            r"kd_opt.feat: no module of network_g matches 'bodi.0'; near misses: body.0",
        ),
        (
            {"feat": {"type": "FitNets", "pairs": [{"student": "body.*", "teacher": "body.*"}]}},
            r"'body.\*' matches 2 modules of network_g \(body.0, body.1\) but 'body.\*' matches 3 of network_t",
        ),
        (
            {"feat": {"type": "FitNets", "pairs": [{"student": "upsample", "teacher": "body.0"}]}},
            r"differ in height and width",
        ),
    ],
)
def test_wiring_errors_come_before_training(runner, options, change, message):
    options["train"]["kd_opt"] = change
    with pytest.raises(ValueError, match=message):
        runner.train(options)


def test_teacher_of_another_scale_is_refused(runner, options):
    options["network_t"]["upscale"] = 4
    with pytest.raises(ValueError, match="network_g gives an image of shape .* they must agree"):
        runner.train(options)


def test_teacher_of_another_architecture_precision_and_normalisation(runner, options):
    options["network_t"] = {"type": "MSRResNet", "num_feat": 4, "num_block": 1, "upscale": 2}
    options["runtime"] = {"t": {"precision": "bf16", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    options["train"]["kd_opt"] = {"logits": {"type": "LogitsKD"}}
    folder = runner.train(options)
    assert re.search(r"network_t\s+MSRResNet\s+\S+\s+frozen\s+bf16\s+RANDOM", log_text(folder))


def test_two_teachers_and_a_schedule(runner, options):
    options["network_t_2"] = {**options["network_t"], "num_feat": 8}
    options["train"]["kd_opt"] = {
        "one": {"type": "LogitsKD", "start": 3, "end": 5},
        "two": {"type": "LogitsKD", "teacher": "t_2", "log_grad": True},
    }
    folder = runner.train(options)
    lines = [line for line in log_text(folder).splitlines() if "l_pix" in line]
    assert [("l_one" in line) for line in lines] == [i in (3, 4, 5) for i in range(1, 13)]
    assert all("grad_two: " in line and "cos_two: " in line for line in lines)


def test_without_ground_truth_only_distillation(runner, options):
    """Data-free distillation: a folder of inputs, no target, no pixel loss."""
    train = options["datasets"]["train"]
    train |= {"type": "SingleImageDataset"}
    train.pop("dataroot_gt"), train.pop("gt_size"), train.pop("use_hflip"), train.pop("use_rot")
    train |= {"batch_size_per_gpu": 1}
    options["train"].pop("pixel_opt")
    options["train"]["kd_opt"] = {"logits": {"type": "LogitsKD"}}
    folder = runner.train(options)
    assert "l_logits" in log_text(folder)
    assert "l_pix" not in log_text(folder)


def test_resume_with_other_terms_is_refused(runner, options):
    runner.train(options)
    options["train"]["kd_opt"].pop("feat")
    options["train"]["total_iter"] = 16
    with pytest.raises(ValueError, match="the training state holds the distillation terms logits, feat"):
        runner.train(options, "--auto_resume")


def test_perceptual_and_style_losses(runner, options):
    perceptual = {"type": "PerceptualLoss", "layer_weights": {"conv1_1": 0.1}, "weights": "random", "style_weight": 1.0}
    options["train"] |= {"perceptual_opt": perceptual, "total_iter": 40}
    log = log_text(runner.train(options))
    for name in ("l_percep", "l_style"):
        values = [float(value) for value in re.findall(rf"{name}: (\S+)", log)]
        assert sum(values[-5:]) < sum(values[:5])
