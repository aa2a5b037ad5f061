"""The image-level contrast against a plain re-derivation in float64."""

import pytest
import torch

from basicsr.distill import build_term
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import ARCH_REGISTRY

from .helpers import NETWORKS, Doubler, distil, doubled, network, small_batch, take_step

TEACHERS_SHIFT = 0.125  # exact in float32, too
LEVELS = [f"level{i}" for i in range(1, 6)]
WEIGHTS = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0]


@pytest.fixture
def batch():
    return small_batch()


def make(networks=NETWORKS, **options):
    """A distillation by the term alone; the encoder is FiveLevels, in float64."""
    distillation = distil({"cl": {"type": "ContrastKD", "encoder": "vqgan", "layers": LEVELS, **options}}, networks)
    with torch.no_grad():
        network(distillation, "t").shift.fill_(TEACHERS_SHIFT)
    return distillation


def cubic(t):
    """The kernel of MATLAB's bicubic (Keys, a = −1/2)."""
    t = abs(t)
    return 1.5 * t**3 - 2.5 * t**2 + 1 if t <= 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def enlarged(image):
    """×2 by that kernel, whose weights are normalised where it reaches beyond the border; clipped."""

    def matrix(size):
        rows = torch.zeros(2 * size, size, dtype=torch.float64)
        for i in range(2 * size):
            centre = (i + 0.5) / 2 - 0.5
            for j in range(size):
                rows[i, j] = cubic(j - centre)
        return rows / rows.sum(1, keepdim=True)

    height, width = image.shape[-2:]
    return (matrix(height) @ image @ matrix(width).T).clamp(0, 1)


def expected_value(distillation, anchor, positive, negatives, layers=LEVELS, weights=WEIGHTS, square=False):
    """The ratio form; each negative is a batch of images."""
    encoder = network(distillation, "vqgan")

    def see(image):
        with torch.no_grad():
            return [encoder.features(image)[LEVELS.index(layer)] for layer in layers]

    def mean(x, y):
        difference = x - y
        return (difference.square() if square else difference.abs()).mean().item()

    total, anchor, positive = 0.0, see(anchor), see(positive)
    for i, weight in enumerate(weights):
        far = sum(mean(anchor[i], see(negative)[i]) for negative in negatives)
        total += weight * mean(anchor[i], positive[i]) / (far + 1e-7)
    return total


def test_the_negative_is_the_enlarged_input(batch):
    distillation = make()
    _, losses = take_step(distillation, batch.lq, output=batch.output)
    positive = doubled(batch.lq, TEACHERS_SHIFT)
    expected = expected_value(distillation, batch.output, positive, [enlarged(batch.lq)])
    assert losses["l_cl"].item() == pytest.approx(expected, rel=1e-9)


def test_the_enlargement_is_matlab_s_inside():
    distillation = make()
    image = small_batch().lq[:1]
    found = distillation.terms["cl"].as_network(None, "enlarged", image)
    theirs = imresize(image[0], 2).clamp(0, 1)
    torch.testing.assert_close(found[0, :, 4:-4, 4:-4], theirs[:, 4:-4, 4:-4].to(found), rtol=0, atol=1e-9)


def test_some_layers_with_the_mean_square(batch):
    layers, weights = ["level4", "level2"], [0.5, 0.25]
    distillation = make(layers=layers, weights=weights, distance="L2")
    _, losses = take_step(distillation, batch.lq, output=batch.output)
    positive = doubled(batch.lq, TEACHERS_SHIFT)
    expected = expected_value(distillation, batch.output, positive, [enlarged(batch.lq)], layers, weights, square=True)
    assert losses["l_cl"].item() == pytest.approx(expected, rel=1e-9)


def test_the_ground_truth_as_the_positive_needs_no_teacher(batch):
    networks = {name: options for name, options in NETWORKS.items() if name != "t"}
    options = {"type": "ContrastKD", "encoder": "vqgan", "layers": LEVELS, "positive": "gt"}
    distillation = distil({"cl": options}, networks)
    gt = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    _, losses = take_step(distillation, batch.lq, gt, output=batch.output)
    expected = expected_value(distillation, batch.output, gt, [enlarged(batch.lq)])
    assert losses["l_cl"].item() == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match=r"kd_opt.cl: positive: gt, but the training data give no ground truth"):
        take_step(distillation, batch.lq, output=batch.output)


@pytest.mark.parametrize(("num_neg", "orders"), [(1, ["120"]), (2, ["120", "201"]), (9, ["120", "201"])])
def test_batch_mates_as_negatives(num_neg, orders):
    distillation = make(negatives="batch", num_neg=num_neg)
    generator = torch.Generator().manual_seed(4)
    lq = torch.rand(3, 3, 16, 16, dtype=torch.float64, generator=generator)
    output = torch.rand(3, 3, 32, 32, dtype=torch.float64, generator=generator).requires_grad_()
    _, losses = take_step(distillation, lq, output=output)
    negatives = [enlarged(lq[[int(i) for i in order]]) for order in orders]
    expected = expected_value(distillation, output, doubled(lq, TEACHERS_SHIFT), negatives)
    assert losses["l_cl"].item() == pytest.approx(expected, rel=1e-9)


def test_what_batch_mates_need(batch):
    distillation = make(negatives="batch")
    with pytest.raises(ValueError, match=r"kd_opt.cl: negatives: batch needs a batch of two images or more"):
        take_step(distillation, batch.lq[:1], output=batch.output[:1])
    with pytest.raises(ValueError, match=r"kd_opt.cl: ContrastKD compares the samples .* set train.accumulate to 1"):
        distil({"cl": {"type": "ContrastKD", "negatives": "batch"}}, accumulate=2)
    assert not build_term("cl", {"type": "ContrastKD"}).needs_whole_batch


@ARCH_REGISTRY.register()
class SameSize(Doubler):
    """×1."""

    def forward(self, x):
        self.note(x)
        return 0.9 * x + self.shift


def test_at_scale_1_the_negative_is_the_input_itself(batch):
    networks = {**NETWORKS, "g": {"type": "SameSize"}, "t": {"type": "SameSize"}}
    options = {"type": "ContrastKD", "encoder": "vqgan", "layers": LEVELS}
    from .helpers import options as run_options  # the patch of 16×16 is that of scale 2

    opt = run_options({"cl": options}, networks)
    opt["scale"] = 1
    from basicsr.archs import build_network
    from basicsr.distill.distillation import Distillation

    from .helpers import CPU, student

    torch.manual_seed(0)
    distillation = Distillation(opt, student(build_network(networks["g"])), average=None, trained=("g",), device=CPU)
    lq = batch.output.detach().float()
    output = lq.flip(-1).requires_grad_()
    _, losses = take_step(distillation, lq, output=output)
    expected = expected_value(distillation, output, 0.9 * lq + 0.1, [lq])
    assert losses["l_cl"].item() == pytest.approx(expected, rel=1e-5)


def test_gradient_reaches_the_student_alone(batch):
    distillation = make()
    _, losses = take_step(distillation, batch.lq, output=batch.output)
    losses["l_cl"].backward()
    assert batch.output.grad.any()
    for name in ("vqgan", "t"):
        assert all(p.grad is None for p in network(distillation, name).parameters())
    assert distillation.state() == {"cl": {}}


def test_layers_and_weights_are_checked():
    with pytest.raises(ValueError, match="there are 2 layers, but 5 weights; give one for each layer"):
        make(layers=["level1", "level2"])
    with pytest.raises(ValueError, match=r"kd_opt.cl: network_vqgan \(FiveLevels\) does not give relu1_1, .*level1"):
        distil({"cl": {"type": "ContrastKD", "encoder": "vqgan"}})
    with pytest.raises(ValueError, match="network_vgg is not defined"):
        distil({"cl": {"type": "ContrastKD"}})


def test_a_prediction_that_is_the_input_is_finite(batch):
    distillation = make()
    output = enlarged(batch.lq).requires_grad_()
    _, losses = take_step(distillation, batch.lq, output=output)
    losses["l_cl"].backward()
    assert losses["l_cl"].isfinite() and output.grad.isfinite().all()
