"""What methods ask of passes: teachers that see more, mixed paths, references, aggregates, students of other widths."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from basicsr.archs.edsr_arch import EDSR

from ..helpers import finish, logged_values, training_state, weights

PLUGIN = str(Path(__file__).with_name("prototypes_plugin.py"))


@pytest.fixture
def options(options):
    """The tiny options, without terms; what the tests are about is added."""
    options |= {"imports": [PLUGIN]}
    options["train"]["kd_opt"] = {}
    options["val"]["val_freq"] = 100
    return options


def step(model, batch, iteration=1):
    """One iteration; what it logs."""
    model.feed_data(batch)
    model.optimize_parameters(iteration)
    return model.get_current_log()


def count_forwards(monkeypatch):
    """The feature widths of the EDSRs that run a forward pass, and how many images each saw, from now on."""
    calls, forward = [], EDSR.forward

    def counted(self, x):
        calls.append((self.conv_first.out_channels, len(x)))
        return forward(self, x)

    monkeypatch.setattr(EDSR, "forward", counted)
    return calls


# The teacher sees the ground truth


@pytest.mark.parametrize("stacked", [False, True])
def test_a_teacher_that_sees_the_ground_truth(runner, options, batch, stacked):
    options["network_t"] = {"type": "StackedNet" if stacked else "GuidedNet"}
    options["train"]["kd_opt"] = {"priv": {"type": "Privileged", "stacked": stacked}}
    model = runner.build(options)
    lq, gt, teacher = batch["lq"], batch["gt"], model.frozen["t"].net
    with torch.no_grad():
        if stacked:
            phases = [gt[:, c, i::2, j::2] for c in range(3) for i in (0, 1) for j in (0, 1)]
            seen = torch.stack([*lq.unbind(1), *phases], 1)
            inner = torch.relu(F.conv2d(seen, teacher.body.weight, teacher.body.bias, padding=1))
            phases = F.conv2d(inner, teacher.tail.weight, teacher.tail.bias, padding=1)
            target = torch.zeros_like(gt)
            for index in range(12):
                target[:, index // 4, index % 4 // 2 :: 2, index % 2 :: 2] = phases[:, index]
        else:
            large = lq.repeat_interleave(2, 2).repeat_interleave(2, 3)
            inner = F.conv2d(torch.cat([large, gt], 1), teacher.body.weight, teacher.body.bias, padding=1)
            target = large + F.conv2d(inner.clamp(min=0), teacher.tail.weight, teacher.tail.bias, padding=1)
        expected = (model.net_g(lq) - target).abs().mean().item()
    assert step(model, batch)["l_priv"] == pytest.approx(expected, rel=1e-5)
    folder = runner.train(options)
    assert len(logged_values(folder, "l_priv")) == 12


# The student's feature goes on through the teacher


def run_tail(teacher, lq, feature, block):
    """EDSR from after a block on, the blocks called one by one."""
    for later in teacher.body[block + 1 :]:
        feature = later(feature)
    deep = teacher.conv_after_body(feature) + teacher.conv_first(lq - teacher.mean)
    return teacher.conv_last(teacher.upsample(deep)) + teacher.mean


@pytest.mark.parametrize("lr", [None, 0.3])
def test_the_student_s_feature_through_the_teacher_s_tail(runner, options, batch, lr):
    """Value and gradient are those of the tail run by itself; the student is trained by this term alone."""
    options["train"] |= {"ema_decay": 0, "optim_g": {"type": "SGD", "lr": 0.1}}
    options["train"].pop("pixel_opt")
    options["train"]["kd_opt"] = {"cross": {"type": "CrossKD", "student": "body.0", "path": "body.1", "lr": lr}}
    model = runner.build(options)
    assert model.get_current_learning_rate() == ([0.1, lr] if lr else [0.1])
    teacher, lq = model.frozen["t"].net, batch["lq"]
    student, adapter = copy.deepcopy(model.get_bare_model(model.net_g)), copy.deepcopy(model.terms["cross"].adapter)
    feature = adapter(student.body[0](student.conv_first(lq - student.mean)))
    loss = (run_tail(teacher, lq, feature, 1) - teacher(lq)).abs().mean()
    loss.backward()
    assert step(model, batch)["l_cross"] == pytest.approx(loss.item(), rel=1e-5)
    for own, by_hand, rate in ((model.net_g, student, 0.1), (model.terms["cross"].adapter, adapter, lr or 0.1)):
        for name, parameter in by_hand.named_parameters():
            moved = parameter.detach() - (0 if parameter.grad is None else rate * parameter.grad)
            torch.testing.assert_close(own.get_parameter(name).detach(), moved, rtol=1e-4, atol=1e-7)
    assert student.conv_first.weight.grad.norm() > 0
    assert student.body[1].conv1.weight.grad is None, "what lies behind the feature is not trained by it"
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("c++")), reason="torch.compile needs a C++ compiler")
def test_mixed_paths_in_a_compiled_teacher(runner, options):
    options["train"]["total_iter"] = 3
    terms = {"cross": {"type": "CrossKD", "student": "body.0", "path": "body.1"}}
    terms["mix"] = {"type": "CrossKD", "student": "body.1", "path": "body.2", "keep": 0.5}
    options["train"]["kd_opt"] = terms
    plain = runner.train({**copy.deepcopy(options), "name": "tiny_plain"})
    options["runtime"] = {"t": {"compile": True}}
    compiled = runner.train(options)
    for name in ("l_cross", "l_mix"):
        assert logged_values(compiled, name) == pytest.approx(logged_values(plain, name), rel=1e-3)
    for name, value in weights(compiled)["params"].items():
        torch.testing.assert_close(value, weights(plain)["params"][name], rtol=1e-3, atol=1e-4)


def test_mixed_paths_resume_with_their_masks(options, resumes_exactly):
    options["imports"].append(str(Path(__file__).with_name("fault_plugin.py")))
    mix = {"type": "CrossKD", "student": "body.1", "path": "body.2", "keep": 0.5}
    options["train"]["kd_opt"] = {"mix": {**mix, "lr": 4e-3}, "again": {**mix, "start": 6}}
    folder = resumes_exactly(options, "7:SIGKILL")
    state = training_state(folder)
    assert [group["lr"] for group in state["optimizers"][0]["param_groups"]] == [1e-3, 2e-3], "halved after iteration 6"
    assert len(logged_values(folder, "l_mix")) == 12
    assert logged_values(folder, "l_mix")[5:] != logged_values(folder, "l_again"), "each term has its own masks"


# The student's average as a reference


def test_the_average_as_a_reference(runner, options, batch):
    options["runtime"] = {"g": {"precision": "bf16"}}
    options["train"] |= {"optim_g": {"type": "SGD", "lr": 0.1}, "kd_opt": {"ref": {"type": "Reference"}}}
    model = runner.build(options)
    assert step(model, batch)["l_ref"] == 0.0, "the average starts as the student"
    lq = batch["lq"]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = (model.net_g(lq).float() - model.net_g_ema(lq).float()).abs().mean().item()
    assert expected > 0
    assert step(model, batch, 2)["l_ref"] == pytest.approx(expected, rel=1e-5)
    assert all(p.dtype is torch.float32 for p in (*model.net_g_ema.parameters(), *model.net_g.parameters()))
    folder = runner.train(options)
    assert logged_values(folder, "l_ref")[0] == 0.0
    assert logged_values(folder, "l_ref")[-1] > 0
    assert all(value.dtype is torch.float32 for value in weights(folder)["params_ema"].values())


def test_a_term_of_ours_takes_the_average_as_its_teacher(runner, options):
    options["train"]["kd_opt"] = {"self": {"type": "LogitsKD", "teacher": "g_ema"}}
    logged = logged_values(runner.train(options), "l_self")
    assert logged[0] == 0.0
    assert all(value > 0 for value in logged[1:])


# Several teachers as one


@pytest.mark.parametrize("learnt", [False, True])
def test_a_mean_of_teachers(runner, options, batch, monkeypatch, learnt):
    """It stands behind the term that uses it."""
    options["network_t_2"] = {**options["network_t"], "num_feat": 8}
    mean = {"type": "MeanTeacher", "teachers": ["t", "t_2"], "weights": [0.3, 0.7], "learnt": learnt}
    mean["log_grad"] = True  # of which there is none: it has no loss, or one that does not depend on the student
    options["train"] |= {"ema_decay": 0, "optim_g": {"type": "SGD", "lr": 0.1}}
    options["train"]["kd_opt"] = {"logits": {"type": "LogitsKD", "teacher": "mean"}, "mean": mean}
    model = runner.build(options)
    with torch.no_grad():
        student, one, two = (net(batch["lq"]) for net in (model.net_g, *(model.frozen[n].net for n in ("t", "t_2"))))
    mixed = 0.3 * one + 0.7 * two
    difference = student - mixed
    calls = count_forwards(monkeypatch)
    assert step(model, batch)["l_logits"] == pytest.approx(difference.abs().mean().item(), rel=1e-5)
    assert sorted(calls) == [(4, 2), (6, 2), (8, 2)], "student and teachers run once each"
    trained = torch.tensor([0.3, 0.7])
    if learnt:  # by its own loss alone: d/dw_i mean |Σ w T − gt| = mean sign(Σ w T − gt) · T_i
        trained -= 0.1 * torch.stack([((mixed - batch["gt"]).sign() * image).mean() for image in (one, two)])
    torch.testing.assert_close(model.terms["mean"].weights.detach(), trained)
    assert all(p.grad is None for name in ("t", "t_2") for p in model.frozen[name].parameters())

    options["train"]["optim_g"] = {"type": "Adam", "lr": 2e-3}
    calls.clear()
    folder = runner.train(options)
    images = [images for width, images in calls if width == 6]
    assert images[-12:] == [3] * 12
    assert images[:-12] == [2, 2], "one pass more to learn the shapes, and a trial"
    state = training_state(folder)
    assert torch.equal(state["terms"]["mean"]["weights"], torch.tensor([0.3, 0.7])) != learnt


def test_what_is_not_a_network_is_refused_as_a_teacher(runner, options):
    options["train"]["kd_opt"] = {
        "one": {"type": "LogitsKD"},
        "two": {"type": "LogitsKD", "teacher": "one"},
    }
    with pytest.raises(ValueError, match="kd_opt.two.*one.*is a term and not a network"):
        runner.train(options)


# A student of several widths


@pytest.mark.parametrize("norm", [False, True])
def test_a_slimmable_student(runner, options, batch, norm):
    options["network_g"] = {"type": "SlimmableNet", "width": 6, "norm": norm}
    options["train"] |= {"ema_decay": 0, "optim_g": {"type": "SGD", "lr": 0.1}}
    options["train"]["kd_opt"] = {
        "narrow": {"type": "LogitsKD", "teacher": "slim", "loss_weight": 0.5},
        "slim": {"type": "WideStudent", "width": 2, "loss_weight": 2.0},
    }
    model = runner.build(options)
    if norm:
        assert model.net_g.norm.num_batches_tracked == 0, "learning the shapes leaves no trace"
    twin = copy.deepcopy(model.net_g)
    whole, narrow = twin(batch["lq"]), twin(batch["lq"], width=2)
    losses = {"pix": F.l1_loss(whole, batch["gt"]), "narrow": 0.5 * F.l1_loss(whole, narrow.detach())}
    losses["slim"] = 2 * F.l1_loss(narrow, batch["gt"])
    sum(losses.values()).backward()
    logged = step(model, batch)
    assert {name: logged[f"l_{name}"] for name in losses} == pytest.approx(
        {name: loss.item() for name, loss in losses.items()}, rel=1e-5
    )
    for name, parameter in twin.named_parameters():
        moved = parameter.detach() - 0.1 * parameter.grad
        torch.testing.assert_close(model.net_g.get_parameter(name).detach(), moved, rtol=1e-4, atol=1e-6)
    folder = runner.train(options)
    assert len(logged_values(folder, "l_slim")) == 12
    assert weights(folder)["params"].keys() == twin.state_dict().keys()


# Samples that are compared with each other


def test_a_term_that_needs_the_whole_batch(runner, options, batch):
    options["train"]["kd_opt"] = {"rkd": {"type": "BatchDistances"}}
    model = runner.build(options)
    with torch.no_grad():
        colours = [net(batch["lq"]).mean((2, 3)) for net in (model.net_g, model.frozen["t"].net)]
    own, other = ((one[0] - one[1]).norm().item() for one in colours)
    assert step(model, batch)["l_rkd"] == pytest.approx((own - other) ** 2 / 2, rel=1e-3)
    options["train"]["accumulate"] = 3
    with pytest.raises(
        ValueError, match="kd_opt.rkd: BatchDistances compares the samples .* set train.accumulate to 1"
    ):
        runner.train(options)


# Several processes


def test_two_ranks_do_what_one_does(launcher, options):
    """With half of the batch each; passes of the student, its features and learnt weights under DDP."""
    options["network_g"] = {"type": "SlimmableNet", "width": 6}
    options["network_t_2"] = {**options["network_t"], "num_feat": 8}
    mean = {"type": "MeanTeacher", "teachers": ["t", "t_2"], "weights": [0.3, 0.7], "learnt": True}
    options["train"]["kd_opt"] = {
        "logits": {"type": "LogitsKD", "teacher": "mean"},
        "mean": mean,
        "narrow": {"type": "LogitsKD", "teacher": "slim"},
        "slim": {"type": "WideStudent", "width": 2},
        "cross": {"type": "CrossKD", "student": "first", "path": "body.1"},
        "ref": {"type": "Reference"},
    }
    for world in (1, 2):
        options["datasets"]["train"]["batch_size_per_gpu"] = 4 // world
        runs = launcher.start_ranks(world, {**options, "name": f"world_{world}"})
        finish(runs)
    folders = [launcher.folder(f"world_{world}") for world in (1, 2)]
    for name in ("l_logits", "l_narrow", "l_slim", "l_cross", "l_ref"):
        one, two = (logged_values(folder, name) for folder in folders)
        assert len(one) == 12
        assert two == pytest.approx(one, rel=2e-3, abs=1e-6)
    one, two = (training_state(f)["terms"] for f in folders)
    torch.testing.assert_close(two["mean"]["weights"], one["mean"]["weights"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(two["cross"], one["cross"], rtol=1e-3, atol=1e-4)
