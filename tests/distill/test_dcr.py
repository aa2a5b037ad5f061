"""DCR against a plain re-derivation in float64, and the history network's life."""

import pytest
import torch
from torch import nn

from basicsr.distill.contrast import contrast
from basicsr.distill.encoders import Encoding
from basicsr.utils.registry import ARCH_REGISTRY

from .helpers import NETWORKS, distil, doubled, network, noisy_copy, small_batch, take_step

TEACHERS_SHIFT, HISTORYS_SHIFT = 0.125, -0.25  # exact in float32, too
WEIGHTS = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0]


@pytest.fixture
def batch():
    return small_batch()


def make(**options):
    """A distillation by DCR alone, its history network moved away from the student."""
    distillation = distil({"cl": {"type": "DCR", **options}})
    term = distillation.terms["cl"]
    with torch.no_grad():
        network(distillation, "t").shift.fill_(TEACHERS_SHIFT)
        term.history.shift.fill_(HISTORYS_SHIFT)
    return distillation, term


def encoding(*levels):
    return Encoding({f"level{i}": level for i, level in enumerate(levels, 1)})


def one_by_one(negatives, count):
    """Of each level of an encoding of N negatives of ``count`` images, the negatives."""
    return [level.split(count) for level in negatives.levels]


@pytest.mark.parametrize("input_range", ["[0,1]", "[-1,1]"])
def test_value(batch, input_range):
    distillation, term = make(input_range=input_range, num_neg=3)
    torch.manual_seed(5)
    _, losses = take_step(distillation, batch.lq, output=batch.output)
    torch.manual_seed(5)
    negatives = [batch.lq] + [noisy_copy(batch.lq) for _ in range(3)]
    encoder = network(distillation, "vqgan")

    def see(image):
        with torch.no_grad():
            return encoder.features(2 * image - 1 if input_range == "[-1,1]" else image)

    expected = 0.0
    anchor, positive = see(batch.output), see(doubled(batch.lq, TEACHERS_SHIFT))
    others = [see(doubled(image, HISTORYS_SHIFT)) for image in negatives]
    for i, weight in enumerate(WEIGHTS):
        near = (anchor[i] - positive[i]).abs().mean().item()
        far = sum((anchor[i] - other[i]).abs().mean().item() for other in others)
        expected += weight * near / (far + 1e-7)
    assert losses["l_cl"].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distance", ["L1", "L2"])
def test_contrast_by_hand(distance):
    """One level; the anchor is 1 or 2 away from the positive, and 4 and 3 from the two negatives."""
    anchor = encoding(torch.zeros(1, 1, 1, 2, dtype=torch.float64))
    positive = encoding(torch.tensor([1.0, 2.0], dtype=torch.float64).view(1, 1, 1, 2))
    negatives = encoding(torch.tensor([4.0, -4.0, 3.0, 3.0], dtype=torch.float64).view(2, 1, 1, 2))
    expected = {"L1": 0.5 * 1.5 / (4 + 3 + 1e-7), "L2": 0.5 * 2.5 / (16 + 9 + 1e-7)}[distance]
    assert contrast(anchor, positive, one_by_one(negatives, 1), [0.5], distance).item() == pytest.approx(
        expected, rel=1e-12
    )


def test_contrast_is_finite_where_everything_is_equal():
    same = encoding(torch.ones(1, 2, 3, 3, requires_grad=True))
    value = contrast(same, same, one_by_one(encoding(torch.ones(2, 2, 3, 3)), 1), [1.0], "L1")
    value.backward()
    assert value.item() == 0
    assert same.levels[0].grad.isfinite().all()


def test_gradient_reaches_the_student_alone(batch):
    distillation, term = make(num_neg=1)
    _, losses = take_step(distillation, batch.lq, output=batch.output)
    losses["l_cl"].backward()
    assert batch.output.grad.abs().sum() > 0
    for module in (network(distillation, "vqgan"), network(distillation, "t"), term.history):
        assert all(p.grad is None for p in module.parameters())
    anchor = torch.rand(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    positive, negatives = (encoding(torch.rand(n, 2, 3, 3, dtype=torch.float64)) for n in (1, 2))
    others = one_by_one(negatives, 1)
    assert torch.autograd.gradcheck(lambda a: contrast(encoding(a), positive, others, [0.7], "L1"), [anchor])


@pytest.mark.parametrize(
    ("iteration", "updates"), [(1000, True), (999, False), (100_000, True), (101_000, False), (102_000, True)]
)
def test_history_follows_the_average_where_an_update_is_due(iteration, updates):
    distillation, term = make(step=[1000, 2000], update_decay=0.1)
    network(distillation, "g_ema").shift.data.fill_(0.8)
    distillation.after_step(iteration)
    expected = 0.1 * HISTORYS_SHIFT + 0.9 * 0.8 if updates else HISTORYS_SHIFT
    assert term.history.shift.item() == pytest.approx(expected)


def test_history_follows_the_student_on_request():
    distillation, term = make(step=[5], update_decay=0.25, history_source="student")
    network(distillation, "g_ema").shift.data.fill_(0.8)
    network(distillation, "g").shift.data.fill_(0.4)
    distillation.after_step(5)
    assert term.history.shift.item() == pytest.approx(0.25 * HISTORYS_SHIFT + 0.75 * 0.4)
    assert not any(p.requires_grad for p in term.parameters())


def test_the_last_step_holds_on():
    distillation, term = make(step=[10, 7])
    network(distillation, "g_ema").shift.data.fill_(0.8)
    for iteration, updates in ((950_010, False), (950_012, True)):  # 950,012 = 7 · 135,716
        before = term.history.shift.item()
        distillation.after_step(iteration)
        assert (term.history.shift.item() != before) == updates


def test_history_is_in_the_state_and_trains_nothing():
    distillation, term = make()
    distillation.terms.train()
    assert term.training and not term.history.training
    assert list(term.state_dict()) == ["history.shift"]
    assert not any(p.requires_grad for p in term.parameters())
    assert distillation.parameter_groups() == []


@ARCH_REGISTRY.register()
class DoublerWithStatistics(nn.Module):
    """×2 with batch norm."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, x):
        return self.up(self.norm(x))


def test_statistics_of_batch_norm_are_copied_at_an_update():
    networks = {**NETWORKS, "g": {"type": "DoublerWithStatistics"}}
    distillation = distil({"cl": {"type": "DCR", "step": [2], "update_decay": 0.5}}, networks)
    average, history = network(distillation, "g_ema").norm, distillation.terms["cl"].history.norm
    average.running_mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
    average.running_var.fill_(4.0)
    average.num_batches_tracked.fill_(9)
    average.weight.data.fill_(3.0)
    distillation.after_step(1)
    assert history.running_mean.tolist() == [0, 0, 0] and history.weight.tolist() == [1, 1, 1]
    distillation.after_step(2)
    assert torch.equal(history.running_mean, average.running_mean)
    assert torch.equal(history.running_var, average.running_var)
    assert history.num_batches_tracked.item() == 9
    assert history.weight.tolist() == [2, 2, 2], "parameters move halfway"


def test_what_it_follows_and_the_number_of_weights_are_checked():
    with pytest.raises(ValueError, match=r"kd_opt.cl: history_source: ema follows .* set train.ema_decay above 0"):
        distil({"cl": {"type": "DCR"}}, average=False)
    with pytest.raises(ValueError, match=r"kd_opt.cl: network_vqgan has 5 levels, but there are 2 weights"):
        distil({"cl": {"type": "DCR", "weights": [1.0, 1.0]}})
