"""Terms as other authors write them: slips that must neither be silent nor change what other terms compute."""

import pytest
import torch
from torch import nn

from basicsr.distill.term import KDTerm
from basicsr.utils.registry import ARCH_REGISTRY, KD_REGISTRY

from .helpers import NETWORKS, distil, network, small_batch, take_step


@ARCH_REGISTRY.register()
class InPlace(nn.Module):
    """An activation in place after the only convolution."""

    def __init__(self, seed: int = 0):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.act = nn.ReLU(inplace=True)
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(3, 3, 1, 1, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x):
        return self.act(self.conv(x)).repeat_interleave(2, 2).repeat_interleave(2, 3)


@KD_REGISTRY.register()
class OnlyTaps(KDTerm):
    """Declares what it reads and needs no shapes."""

    def taps(self):
        yield "g", "conv"

    def forward(self, ctx):
        return ctx.run("g").features["conv"].mean()


def test_a_feature_overwritten_in_place_is_copied_though_no_term_asks_for_shapes():
    distillation = distil({"x": {"type": "OnlyTaps"}}, {"g": {"type": "InPlace"}})
    lq = small_batch().lq
    _, losses = take_step(distillation, lq)
    with torch.no_grad():
        expected = network(distillation, "g").conv(lq)
    assert (expected < 0).any()
    assert losses["l_x"].item() == pytest.approx(expected.mean().item())


@KD_REGISTRY.register()
class Generous(KDTerm):
    """Gives its optimisers and groups in various ways."""

    def __init__(self, way: str = "generator"):
        super().__init__()
        self.way = way
        self.factor = nn.Parameter(torch.tensor(1.0))
        self.other = nn.Parameter(torch.tensor(1.0))

    def parameter_groups(self):
        return {
            "tensor": [{"params": self.other, "lr": 0.5}],
            "parameters": [self.other],
        }.get(self.way, [])

    def optimizers(self, networks):
        optimizer = torch.optim.SGD([self.factor], lr=0.1)
        if self.way == "generator":
            return (one for one in [optimizer])
        return {"alone": optimizer, "names": ["Adam"]}.get(self.way, [])

    def prepare(self, ctx):
        ctx.scratch[self.name] = ctx.output * 2

    def forward(self, ctx):
        return ctx.output.mean()

    def own_loss(self, ctx):
        assert not ctx.scratch[self.name].requires_grad
        return self.factor * ctx.scratch[self.name].mean()


@pytest.mark.parametrize("way", ["generator", "alone"])
def test_optimisers_are_taken_as_a_generator_or_one_alone(way):
    distillation = distil({"x": {"type": "Generous", "way": way}})
    (optimizer,) = distillation.optimizers
    before = distillation.terms["x"].factor.item()
    ctx, _ = take_step(distillation, small_batch().lq)
    distillation.train_own(1)
    assert distillation.terms["x"].factor.item() == pytest.approx(before - 0.1 * 2 * ctx.output.mean().item())


def test_a_group_of_a_single_tensor():
    distillation = distil({"x": {"type": "Generous", "way": "tensor"}})
    assert distillation.parameter_groups() == [{"params": [distillation.terms["x"].other], "lr": 0.5}]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("names", r"kd_opt.x: optimizers\(\) returns a str; return a list of torch.optim's"),
        ("parameters", r"kd_opt.x: parameter_groups\(\) returns a Parameter; return a list of groups, as in"),
    ],
)
def test_what_is_not_an_optimiser_or_a_group(way, message):
    with pytest.raises(ValueError, match=message):
        distil({"x": {"type": "Generous", "way": way}})


@KD_REGISTRY.register()
class Circular(KDTerm):
    """A network that is another term's."""

    def __init__(self, other: str):
        super().__init__()
        self.other = other

    def as_network(self, ctx, key, image):
        return ctx.run(self.other).output

    def forward(self, ctx):
        return ctx.run(self.name).output.mean()


@pytest.mark.parametrize("others", [{"a": "a"}, {"a": "b", "b": "a"}])
def test_terms_as_networks_in_a_circle(others):
    distillation = distil({name: {"type": "Circular", "other": other} for name, other in others.items()})
    with pytest.raises(ValueError, match="the network of train.kd_opt.a requests its own pass 'lq'; .*circle"):
        take_step(distillation, small_batch().lq)


@KD_REGISTRY.register()
class Talker(KDTerm):
    """A network that logs, asked for by others."""

    def as_network(self, ctx, key, image):
        ctx.log("asked", 3.0)
        return ctx.run("t").output

    def forward(self, ctx):
        return {}


def test_what_a_network_logs_has_its_own_name():
    distillation = distil({"kd": {"type": "LogitsKD", "teacher": "talker"}, "talker": {"type": "Talker"}})
    distillation.pop_logs()
    take_step(distillation, small_batch().lq)
    assert distillation.pop_logs() == {"talker_asked": 3.0}


@KD_REGISTRY.register()
class Careless(KDTerm):
    """Fails where it is told to."""

    def __init__(self, where: str):
        super().__init__()
        self.where = where

    def prepare(self, ctx):
        if self.where == "prepare":
            ctx.want("nobody")

    def forward(self, ctx):
        if self.where == "rows":
            return ctx.output[ctx.rows["s"]].mean()
        return ctx.run("g", "never").output.mean()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("prepare", "train.kd_opt.x: network_nobody is not defined"),
        ("forward", "train.kd_opt.x: the pass 'never' of network_g was not requested"),
    ],
)
def test_errors_of_an_iteration_name_the_term(where, message):
    with pytest.raises(ValueError, match=message):
        take_step(distil({"x": {"type": "Careless", "where": where}}), small_batch().lq)


def test_other_errors_have_a_note_with_the_term():
    with pytest.raises(KeyError) as caught:
        take_step(distil({"x": {"type": "Careless", "where": "rows"}}), small_batch().lq)
    notes = getattr(caught.value, "__notes__", ["train.kd_opt.x"])  # Python 3.10 has none
    assert "train.kd_opt.x" in notes[0]


@pytest.mark.parametrize(
    "term",
    [
        {"type": "LogitsKD"},
        {"type": "LCR", "prob": 0.0},
        {"type": "DUKD", "zoom_in": False},
        {"type": "DMM"},
        {"type": "DCR", "num_neg": 0},
    ],
)
def test_no_target_moves_towards_the_student(term):
    """A teacher that trains, such as a learnt mean of teachers, is a constant for the terms that imitate it."""
    networks = {**NETWORKS, "t_2": {"type": "Doubler", "shift": 0.9}}
    terms = {"x": {**term, "teacher": "mean"}, "mean": {"type": "Learnt"}}
    distillation = distil(terms, networks)
    batch = small_batch()
    _, losses = take_step(distillation, batch.lq, output=batch.output)
    losses["l_x"].backward()
    gradient = distillation.terms["mean"].factor.grad
    assert gradient is None or gradient == 0


@KD_REGISTRY.register()
class Learnt(KDTerm):
    """``factor`` times a teacher."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def as_network(self, ctx, key, image):
        if key != "lq":
            ctx.want("t", key, image)
        return self.factor * ctx.run("t", key).output

    def forward(self, ctx):
        return {}


def test_a_loss_of_the_recipe_s_own_may_not_take_a_term_s_place():
    distillation = distil({"kd": {"type": "LogitsKD"}})
    _, losses = take_step(distillation, small_batch().lq)
    distillation.require_term_losses(losses | {"l_own": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="the recipe's own loss l_kd replaces a term's; rename the term"):
        distillation.require_term_losses(losses | {"l_kd": torch.tensor(1.0)})


def test_passes_that_were_announced_can_be_read_in_own_loss():
    distillation = distil({"x": {"type": "Late"}})
    take_step(distillation, small_batch().lq)
    assert list(distillation.train_own(1)) == ["l_x_own"]


@KD_REGISTRY.register()
class Late(KDTerm):
    """Announces a pass that its own loss alone reads."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def optimizers(self, networks):
        return [torch.optim.SGD([self.factor], lr=0.1)]

    def prepare(self, ctx):
        ctx.want("g", "later", ctx.lq.flip(2))

    def forward(self, ctx):
        return ctx.output.mean()

    def own_loss(self, ctx):
        image = ctx.run("g", "later").output
        assert not image.requires_grad
        return self.factor * image.mean()
