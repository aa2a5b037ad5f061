"""One step of the authors' options: its five losses and its update, against the method written out image by image."""

import pytest
import torch

from basicsr.models import build_model

from ..helpers import EDSR, dckd_sections, recipe_options, small_vqgan

WEIGHTS = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0]
BATCH = 3


def released_options():
    """The authors' sections with their values, and networks small enough for a test."""
    adam = {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]}
    pixel = {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}
    student = {**EDSR, "num_feat": 4, "num_block": 2}
    return {
        **recipe_options(
            student, scale=2, gt_size=32, optim_g=adam, ema_decay=0.9, pixel_opt=pixel, **dckd_sections(WEIGHTS)
        ),
        "model_type": "DCKDModel",
        "network_his": True,
        "network_t": {**EDSR, "num_feat": 6, "num_block": 3},
        "network_vqgan": small_vqgan(5),
    }


def make_model(dtype):
    """The model in ``dtype``, student, history and codebook moved away from where their losses would vanish."""
    torch.manual_seed(0)
    model = build_model(released_options())
    vqgan = model.frozen["vqgan"].net
    with torch.no_grad():
        model.terms["cl"].history.conv_last.bias.add_(0.05)
        vqgan.codebook.copy_(torch.randn_like(vqgan.codebook) * 0.2)
    for net in (model.net_g, model.net_g_ema, model.frozen["t"].net, vqgan, model.terms["cl"].history):
        net.to(dtype)
    generator = torch.Generator().manual_seed(1)
    lq, gt = (torch.rand(BATCH, 3, side, side, generator=generator, dtype=torch.float64) for side in (16, 32))
    model.feed_data({"lq": lq.to(dtype), "gt": gt.to(dtype)})
    return model


def degraded(lq):
    """Noise of σ ~ U[1, 30]/255 for each image, grey for about half of them, clipped."""
    sigma = (1 + 29 * torch.rand(BATCH, 1, 1, 1)) / 255
    grey = torch.rand(BATCH, 1, 1, 1) < 0.5
    one, three = torch.randn(BATCH, 1, 16, 16), torch.randn(BATCH, 3, 16, 16)
    noise = torch.stack([(one[i] if grey[i] else three[i]).expand(3, 16, 16) for i in range(BATCH)])
    return (lq + (sigma * noise).to(lq)).clamp(0, 1)


def skipped_draws():
    """A copy draws whether to blur, to resize and to add noise, before what the noise is."""
    for _ in range(3):
        torch.rand(())


def written_out(model, lq, gt):
    """The release's five weighted losses; every image passes every network by itself."""
    student, teacher, history = model.net_g, model.frozen["t"].net, model.terms["cl"].history
    vqgan = model.frozen["vqgan"].net
    output = torch.cat([student(x[None]) for x in lq])
    with torch.no_grad():
        target = torch.cat([teacher(x[None]) for x in lq])
        chosen = torch.rand(4, BATCH) < 0.5  # invert, flip rows, flip columns, transpose
        steps = [lambda x: 1 - x, lambda x: x.flip(1), lambda x: x.flip(2), lambda x: x.transpose(1, 2)]
        views = []
        for b, image in enumerate(lq):
            used = [step for step, yes in zip(steps, chosen[:, b]) if yes]
            for step in used:
                image = step(image)
            image = teacher(image[None])[0]
            for step in reversed(used):
                image = step(image)
            views.append(image)
        negatives = [torch.cat([history(x[None]) for x in lq])]
        for _ in range(4):
            skipped_draws()
            negatives.append(torch.cat([history(x[None]) for x in degraded(lq)]))

    def mean_distance(a, b):
        return sum((x - y).abs().sum() for x, y in zip(a, b)) / a.numel()

    def features(images):
        each = [vqgan.features(x[None]) for x in images]
        return [torch.cat([levels[i] for levels in each]) for i in range(5)]

    anchor, positive, *others = (features(images) for images in (output, target, *negatives))
    contrast = 0
    for i, weight in enumerate(WEIGHTS):
        far = sum(mean_distance(anchor[i], other[i]) for other in others)
        contrast = contrast + weight * mean_distance(anchor[i], positive[i]) / (far + 1e-7)

    codes, entropy, count = vqgan.codebook, 0, 0
    for x, y in zip(output, target):
        for f_s, f_t in zip(vqgan(x[None])[0].flatten(1).t(), vqgan(y[None])[0].flatten(1).t()):
            c_s, c_t = (torch.softmax(-((f - codes) ** 2).sum(1), 0) for f in (f_s, f_t))
            entropy = entropy - (c_t * torch.log_softmax(c_s, 0)).sum()  # the release: a softmax of a softmax
            count += 1
    return {
        "l_pix": mean_distance(output, gt),
        "l_ts": mean_distance(output, target),
        "l_lcr": mean_distance(output, torch.stack(views)),
        "l_cl": 0.1 * contrast,
        "l_ce": 0.001 * entropy / count,
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_the_losses_and_gradients_of_a_step(dtype, tolerance):
    reference = make_model(torch.float64)
    torch.manual_seed(3)
    expected = written_out(reference, reference.lq, reference.gt)
    sum(expected.values()).backward()
    gradients = {name: p.grad for name, p in reference.net_g.named_parameters()}

    model = make_model(dtype)
    torch.manual_seed(3)
    losses = model.compute_losses(1)
    assert list(losses) == list(expected)
    for name, value in expected.items():
        assert losses[name].dtype == dtype
        assert losses[name].item() == pytest.approx(value.item(), rel=tolerance), name
    sum(losses.values()).backward()
    for name, parameter in model.net_g.named_parameters():
        difference = (parameter.grad.double() - gradients[name]).norm() / gradients[name].norm()
        assert difference < 100 * tolerance, name


def test_the_history_network_follows_the_average_after_the_step():
    model = make_model(torch.float64)
    before = [p.clone() for p in model.terms["cl"].history.parameters()]
    model.optimize_parameters(1)
    for own, old, average in zip(model.terms["cl"].history.parameters(), before, model.net_g_ema.parameters()):
        torch.testing.assert_close(own, 0.1 * old + 0.9 * average, rtol=1e-12, atol=0)
