"""Supervised losses by the name of their section: their values, when they are active, and which rows they see."""

import numpy as np
import pytest
import torch
from torch import nn

from basicsr.archs.vgg_arch import VGGFeatureExtractor
from basicsr.losses.perceptual_loss import PerceptualLoss
from basicsr.models.sr_model import SRModel
from basicsr.utils.options import sections as schema
from basicsr.utils.registry import LOSS_REGISTRY

from ..helpers import EDSR, recipe_options

STUDENT = {**EDSR, "num_feat": 4, "num_block": 1}
VGG = {"type": "VGGFeatureExtractor", "layer_name_list": ["conv1_1", "conv2_1"], "vgg_type": "vgg11"}


@LOSS_REGISTRY.register()
class BrightnessLoss(nn.Module):
    """The squared difference of the mean, and with ``parts`` that of the extremes too."""

    def __init__(self, loss_weight: float = 1.0, parts: bool = False):
        super().__init__()
        self.loss_weight = loss_weight
        self.parts = parts

    def forward(self, pred, target):
        mean = self.loss_weight * (pred.mean() - target.mean()).square()
        return {"mean": mean, "top": self.loss_weight * (pred.max() - target.max()).square()} if self.parts else mean


def options(**train):
    return recipe_options(STUDENT, scale=2, gt_size=16, optim_g={"type": "SGD", "lr": 0.0}, **train)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(2, 3, side, side, generator=generator) for name, side in (("lq", 8), ("gt", 16))}


def losses_of(model, batch, iteration=1):
    model.feed_data(batch)
    losses = {name: value.item() for name, value in model.compute_losses(iteration).items()}
    return losses, *(image.detach().double().numpy() for image in (model.output, model.batch["gt"]))


def test_any_section_of_a_registered_loss_is_one(batch):
    model = SRModel(
        options(
            pixel_opt={"type": "L1Loss", "loss_weight": 2.0},
            bright_opt={"type": "BrightnessLoss", "loss_weight": 100.0},
            second_opt={"type": "MSELoss", "loss_weight": 0.5},
            several_opt={"type": "BrightnessLoss", "parts": True},
        )
    )
    losses, output, gt = losses_of(model, batch)
    brightness = (output.mean() - gt.mean()) ** 2
    expected = {
        "l_pix": 2 * np.abs(output - gt).mean(),
        "l_bright": 100 * brightness,
        "l_second": 0.5 * ((output - gt) ** 2).mean(),
        "l_several_mean": brightness,
        "l_several_top": (output.max() - gt.max()) ** 2,
    }
    assert list(losses) == list(expected)
    assert losses == pytest.approx(expected, rel=1e-4)
    model.optimize_parameters(1)
    assert model.get_current_log() == pytest.approx(expected, rel=1e-4)


def test_start_and_end(batch):
    model = SRModel(options(pixel_opt={"type": "L1Loss", "end": 3}, late_opt={"type": "MSELoss", "start": 3}))
    names = {iteration: list(losses_of(model, batch, iteration)[0]) for iteration in (1, 2, 3, 4, 9)}
    assert names == {1: ["l_pix"], 2: ["l_pix"], 3: ["l_pix", "l_late"], 4: ["l_late"], 9: ["l_late"]}


def test_an_iteration_without_an_active_loss_leaves_the_network(batch):
    opt = options(pixel_opt={"type": "L1Loss", "start": 2})
    opt["train"]["optim_g"]["lr"] = 0.1
    model = SRModel(opt)
    before = [p.detach().clone() for p in model.net_g.parameters()]
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert all(torch.equal(p, old) for p, old in zip(model.net_g.parameters(), before))
    model.optimize_parameters(2)
    assert not all(torch.equal(p, old) for p, old in zip(model.net_g.parameters(), before))


def test_a_section_that_the_recipe_declares_is_left_to_it(batch):
    class OwnLossModel(SRModel):
        class TrainOptions(SRModel.TrainOptions):
            cycle_opt: schema.SupervisedLossOptions | None = None

    sections = {"pixel_opt": {"type": "L1Loss"}, "cycle_opt": {"type": "L1Loss"}}
    assert list(losses_of(OwnLossModel(options(**sections)), batch)[0]) == ["l_pix"]
    assert list(losses_of(SRModel(options(**sections)), batch)[0]) == ["l_pix", "l_cycle"]


def test_without_a_ground_truth_it_is_refused_where_a_loss_is_active(batch):
    model = SRModel(options(pixel_opt={"type": "L1Loss", "start": 2}))
    model.feed_data({"lq": batch["lq"]})
    assert model.compute_losses(1) == {}
    with pytest.raises(ValueError, match="compare with a ground truth, but datasets.train gives none"):
        model.compute_losses(2)


def test_only_rows_with_a_ground_truth_are_compared(batch):
    """Of two sets the second has none."""
    model = SRModel(options(pixel_opt={"type": "L1Loss"}))
    unpaired = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    model.feed_data({"train_s": batch, "train_t": {"lq": unpaired}})
    loss = model.compute_losses(1)["l_pix"].item()
    assert model.output.shape == (5, 3, 16, 16)
    output = model.output.detach().double()
    assert loss == pytest.approx((output[:2] - batch["gt"].double()).abs().mean().item(), rel=1e-5)


@pytest.fixture
def vgg_file(tmp_path):
    """Weights of a VGG, in torchvision's layout."""
    torch.manual_seed(5)
    file = str(tmp_path / "vgg.pth")
    net = VGGFeatureExtractor(["conv2_1"], "vgg11", weights="random")
    torch.save({key: value for key, value in net.state_dict().items() if key.startswith("features.")}, file)
    return file


PERCEPTUAL = {"type": "PerceptualLoss", "layer_weights": {"conv2_1": 0.7}, "style_weight": 3.0}


def test_perceptual_and_style_losses_have_their_names(batch, vgg_file):
    own = {**PERCEPTUAL, "vgg_type": "vgg11", "weights": vgg_file}
    model = SRModel(options(perceptual_opt=own, other_opt=own))
    losses, output, gt = losses_of(model, batch)
    assert list(losses) == ["l_percep", "l_style", "l_other", "l_other_style"]
    vgg = VGGFeatureExtractor(["conv2_1"], "vgg11", weights=vgg_file).double()
    with torch.no_grad():
        features = [vgg(torch.from_numpy(image))["conv2_1"].numpy() for image in (output, gt)]
    grams = [np.einsum("bchw,bdhw->bcd", f, f) / f[0].size for f in features]
    expected = [scale * 0.7 * np.abs(a - b).mean() for scale, (a, b) in ((1, features), (3, grams))]
    assert list(losses.values()) == pytest.approx(expected * 2, rel=1e-4)


@pytest.mark.parametrize("unpaired", [0, 3])
def test_a_perceptual_loss_may_share_an_encoder(batch, vgg_file, unpaired):
    """The same values as with a VGG of its own; one pass of the encoder with gradients, one without."""
    own = {**PERCEPTUAL, "vgg_type": "vgg11", "weights": vgg_file}
    shared = {**PERCEPTUAL, "encoder": "vgg"}
    opt = options(perceptual_opt=own, one_opt=shared, two_opt=shared)
    opt["network_vgg"] = {**VGG, "weights": vgg_file}
    model = SRModel(opt)
    calls = []
    model.frozen["vgg"].net.register_forward_pre_hook(
        lambda module, args: calls.append((len(args[0]), torch.is_grad_enabled()))
    )
    data = batch if not unpaired else {"train_s": batch, "train_t": {"lq": torch.rand(unpaired, 3, 8, 8)}}
    model.feed_data(data)
    losses = model.compute_losses(1)
    assert calls == [(2 + unpaired, True), (2, False)]
    for name in ("one", "two"):
        torch.testing.assert_close(losses[f"l_{name}"], losses["l_percep"], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(losses[f"l_{name}_style"], losses["l_style"], rtol=1e-5, atol=1e-7)
    parameters = list(model.net_g.parameters())
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad(losses[name], parameters, retain_graph=True)])
        for name in ("l_percep", "l_one")
    ]
    assert gradients[0].norm() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)
    assert isinstance(model.cri_perceptual, PerceptualLoss) and model.cri_pix is None


def test_an_encoder_that_lacks_a_layer(vgg_file):
    opt = options(other_opt={**PERCEPTUAL, "layer_weights": {"conv5_1": 1.0}, "encoder": "vgg"})
    opt["network_vgg"] = {**VGG, "weights": vgg_file}
    with pytest.raises(ValueError, match="train.other_opt: network_vgg .* does not give conv5_1; it gives conv1_1"):
        SRModel(opt)


def test_a_recipe_without_any_loss_is_refused():
    with pytest.raises(ValueError, match="there is no loss; give at least one of pixel_opt, perceptual_opt and kd_opt"):
        SRModel(options())


@pytest.mark.parametrize("start", [{}, {"start": 5}])
@pytest.mark.parametrize(("section", "term"), [("edge_opt", "edge"), ("pixel_opt", "pix"), ("perceptual_opt", "style")])
def test_a_loss_and_a_term_of_one_name_are_refused(section, term, start):
    """When the recipe is built, also where they are never active together."""
    loss = {"type": "PerceptualLoss", "layer_weights": {"conv1_1": 1.0}, "weights": "random"}
    train = {section: loss if section == "perceptual_opt" else {"type": "L1Loss"}}
    opt = options(**train, kd_opt={term: {"type": "LogitsKD", **start}})
    with pytest.raises(ValueError, match=f"train.kd_opt.{term}: l_{term} is the name of another loss; rename the term"):
        SRModel({**opt, "network_t": STUDENT})
    opt["train"][section] |= {"end": 4}
    with pytest.raises(ValueError, match=f"l_{term} is the name of another loss"):
        SRModel({**opt, "network_t": STUDENT})
