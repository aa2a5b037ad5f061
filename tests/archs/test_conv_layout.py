import pytest
import torch

from basicsr.archs import build_network, conv_layout
from basicsr.archs.conv_layout import to_fastest_layout


@pytest.fixture
def image():
    conv_layout.FORMS.clear()
    yield torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    conv_layout.FORMS.clear()


@pytest.mark.parametrize("form", conv_layout.FORMS.forms)
def test_the_layout_changes_and_the_values_do_not(image, form, monkeypatch):
    monkeypatch.setattr(conv_layout, "DEFAULT", form)
    out = to_fastest_layout(image)
    assert out.is_contiguous() == (form == "contiguous")
    assert torch.equal(out, image)


def test_without_gradients_nothing_is_copied(image):
    with torch.no_grad():
        assert to_fastest_layout(image) is image
    detached = image.detach()
    assert to_fastest_layout(detached) is detached


@pytest.mark.parametrize(("upsampler", "upscale"), [("pixelshuffle", 2), ("nearest+conv", 4)])
def test_swinir_agrees_in_both_layouts(upsampler, upscale, monkeypatch):
    torch.manual_seed(0)
    net = build_network(
        {"type": "SwinIR", "img_size": 8, "window_size": 4, "depths": [2], "embed_dim": 12, "num_heads": [2]}
        | {"upsampler": upsampler, "upscale": upscale, "drop_path_rate": 0.0}
    )
    x, outs, grads = torch.rand(1, 3, 8, 8), [], []
    for form in conv_layout.FORMS.forms:
        monkeypatch.setattr(conv_layout, "DEFAULT", form)
        conv_layout.FORMS.clear()
        outs.append(net(x))
        grads.append(torch.autograd.grad(outs[-1].square().mean(), list(net.parameters())))
    conv_layout.FORMS.clear()
    torch.testing.assert_close(*outs, rtol=0, atol=1e-5)
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_what_is_timed_is_what_is_computed():
    computations = conv_layout._computations(torch.float32)
    assert tuple(computations) == conv_layout.FORMS.forms
    for compute in computations.values():
        compute()
