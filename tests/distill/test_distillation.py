"""What a distillation does with its terms: logs, refusals, states, parameter groups."""

import pytest
import torch
from torch import nn

from basicsr.distill.term import KDTerm
from basicsr.utils.registry import KD_REGISTRY

from .helpers import batch_of, build, distil, network, small_batch, take_step


@KD_REGISTRY.register()
class Talkative(KDTerm):
    """Logs in ``prepare`` and in ``forward``."""

    def prepare(self, ctx):
        ctx.log("early", 1.5)

    def forward(self, ctx):
        ctx.log("mean", ctx.output.mean())
        ctx.log("share", 0.25)
        return {"a": ctx.output.mean(), "b": 2 * ctx.output.mean()}


@KD_REGISTRY.register()
class Pairwise(KDTerm):
    """Compares samples with each other."""

    needs_whole_batch = True

    def forward(self, ctx):
        return ctx.output.mean()


@KD_REGISTRY.register()
class Trained(KDTerm):
    """Has parameters of two learning rates, one of them frozen."""

    def __init__(self):
        super().__init__()
        self.adapter = nn.Linear(2, 2)
        self.slow = nn.Parameter(torch.ones(()))
        self.fixed = nn.Parameter(torch.ones(()), requires_grad=False)

    def parameter_groups(self):
        return [{"params": list(self.adapter.parameters())}, {"params": [self.slow], "lr": 1e-5}]

    def forward(self, ctx):
        return self.slow * ctx.output.mean()


@pytest.fixture
def warnings(log):
    return lambda: [record.getMessage() for record in log.records if record.levelname == "WARNING"]


def test_what_terms_log_has_their_names():
    distillation = distil({"quiet": {"type": "LogitsKD"}, "one": {"type": "Talkative"}, "two": {"type": "Talkative"}})
    ctx, losses = take_step(distillation, small_batch().lq)
    logs = distillation.pop_logs()
    mean = ctx.output.mean().item()
    expected = {f"{name}_{key}": value for name in ("one", "two") for key, value in (("early", 1.5), ("share", 0.25))}
    assert {key: float(value) for key, value in logs.items()} == pytest.approx(
        {**expected, "one_mean": mean, "two_mean": mean}
    )
    assert not logs["one_mean"].requires_grad
    assert distillation.pop_logs() == {}
    assert list(losses) == ["l_quiet", "l_one_a", "l_one_b", "l_two_a", "l_two_b"]


def test_every_part_of_a_term_is_weighted():
    distillation = distil({"x": {"type": "Talkative", "loss_weight": 3.0, "start": 2, "ramp": 2}})
    for iteration, weight in ((1, None), (2, 1.5), (3, 3.0)):
        ctx, losses = take_step(distillation, small_batch().lq, iteration=iteration)
        mean = ctx.output.mean().item()
        expected = {} if weight is None else {"l_x_a": weight * mean, "l_x_b": weight * 2 * mean}
        assert {name: value.item() for name, value in losses.items()} == pytest.approx(expected)
        distillation.after_step(iteration)


def test_an_iteration_that_was_not_ended_is_refused():
    """As a recipe's own iteration would leave histories where they are, and the terms' own networks untrained."""
    distillation = distil({"kd": {"type": "LogitsKD"}})
    for _ in range(2):  # two parts of one batch
        take_step(distillation, small_batch().lq, iteration=1)
    with pytest.raises(ValueError, match="iteration 1 was distilled but not ended: .*train_own.*after_step"):
        take_step(distillation, small_batch().lq, iteration=2)


def test_names_that_clash_are_refused():
    distillation = distil({"x": {"type": "Talkative"}, "x_a": {"type": "LogitsKD"}})
    with pytest.raises(ValueError, match="train.kd_opt.x_a: l_x_a is the name of another loss; rename the term"):
        take_step(distillation, small_batch().lq)
    distillation = distil({"pix": {"type": "LogitsKD"}})
    lq = small_batch().lq
    ctx = distillation.context(1, batch_of(lq), lambda: network(distillation, "g")(lq))
    with pytest.raises(ValueError, match="train.kd_opt.pix: l_pix is the name of another loss"):
        distillation(ctx, {"l_pix": ctx.output.mean()})


def test_a_term_over_the_whole_batch_and_a_divided_batch_are_refused():
    build({"x": {"type": "Pairwise"}}, accumulate=1)
    build({"x": {"type": "LogitsKD"}}, accumulate=4)
    message = "train.kd_opt.x: Pairwise compares the samples .* train.accumulate divides the batch into 4 parts; set"
    with pytest.raises(ValueError, match=message):
        build({"x": {"type": "Pairwise"}}, accumulate=4)


def test_without_terms_it_does_nothing():
    for terms in ({}, None, {"kd": None}):
        distillation = build(terms)
        lq = small_batch().lq.float()
        calls = []

        def run(lq=lq, calls=calls, distillation=distillation):
            calls.append(1)
            return network(distillation, "g")(lq)

        ctx = distillation.context(1, batch_of(lq), run)
        assert distillation(ctx, {"l_pix": ctx.output.mean()}) == {}
        assert calls == [1] and ctx.output.requires_grad
        distillation.after_step(1)
        assert distillation.train_own(1) == {} and distillation.pop_logs() == {}
        assert distillation.parameter_groups() == [] and distillation.optimizers == [] and distillation.state() == {}
        assert list(distillation.networks.frozen.built) == []


def test_groups_of_parameters_keep_their_options():
    distillation = build({"kd": {"type": "LogitsKD"}, "x": {"type": "Trained"}})
    term = distillation.terms["x"]
    adapter, slow = distillation.parameter_groups()
    assert adapter.keys() == {"params"} and [id(p) for p in adapter["params"]] == [
        id(term.adapter.weight),
        id(term.adapter.bias),
    ]
    assert slow == {"params": [term.slow], "lr": 1e-5}


def test_the_trained_parameters_are_a_term_s_groups_by_default():
    pairs = [["up", "up"]]
    distillation = build({"x": {"type": "FitNets", "pairs": pairs, "adapter": "conv"}, "cl": {"type": "DCR"}})
    (group,) = distillation.parameter_groups()
    assert [p.shape for p in group["params"]] == [(3, 3, 1, 1), (3,)]


def test_the_state_of_the_terms_is_restored():
    terms = {"kd": {"type": "LogitsKD"}, "cl": {"type": "DCR"}, "x": {"type": "Trained"}}
    distillation, other = build(terms), build(terms)
    distillation.terms["cl"].history.shift.data.fill_(0.4)
    distillation.terms["x"].slow.data.fill_(7.0)
    state = distillation.state()
    assert list(state) == ["kd", "cl", "x"] and list(state["cl"]) == ["history.shift"]
    other.load_state(state)
    assert other.terms["cl"].history.shift.item() == pytest.approx(0.4) and other.terms["x"].slow.item() == 7


def test_a_state_of_other_terms_is_refused():
    state = build({"kd": {"type": "LogitsKD"}}).state()
    message = "training state holds the distillation terms kd, and train.kd_opt names cl, in this order"
    with pytest.raises(ValueError, match=message):
        build({"cl": {"type": "DCR"}}).load_state(state)
    both = {"a": {"type": "Trained"}, "b": {"type": "Trained"}, "kd": {"type": "LogitsKD"}}
    with pytest.raises(ValueError, match="holds the distillation terms a, b, kd, and train.kd_opt names kd, b, a, in"):
        build(dict(reversed(both.items()))).load_state(build(both).state())
    build({"kd": both["kd"], "a": both["a"], "b": both["b"]}).load_state(build(both).state())
    with pytest.raises(ValueError, match="holds the distillation terms kd, and train.kd_opt names none"):
        build({}).load_state(state)
    with pytest.raises(ValueError, match="holds the distillation terms none, and train.kd_opt names kd"):
        build({"kd": {"type": "LogitsKD"}}).load_state({})


def test_a_state_of_another_program_starts_terms_afresh_with_a_warning(warnings):
    distillation = build({"kd": {"type": "LogitsKD"}, "cl": {"type": "DCR"}})
    network(distillation, "g_ema").shift.data.fill_(0.7)
    history = distillation.terms["cl"].history.shift.item()
    known = len(warnings())
    distillation.load_state(None)
    (warning,) = warnings()[known:]
    assert "made by another program and holds nothing of the distillation terms cl: they start afresh" in warning
    assert distillation.terms["cl"].history.shift.item() == history
    build({"kd": {"type": "LogitsKD"}}).load_state(None)
    assert len([message for message in warnings() if "another program" in message]) == 1, "logits keep nothing"
