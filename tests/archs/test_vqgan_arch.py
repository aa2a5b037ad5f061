"""VQGAN: published keys and sizes, values against a re-derivation, one pass for features and latent, checkpoints."""

import copy

import pytest
import torch
import torch.nn.functional as F

from basicsr.archs import build_network
from basicsr.archs.vqgan_arch import VQGAN, VectorQuantizer, VQGANAutoEncoder
from basicsr.archs.vqgan_blocks import _fused, attend
from basicsr.utils.weights import load_weights

PUBLISHED = {  # as in DCKD's option files
    "in_channels": 3,
    "out_ch": 3,
    "resolution": 256,
    "ch": 128,
    "ch_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [16],
    "dropout": 0.0,
    "double_z": False,
    "z_channels": 256,
}
TINY = {
    "ch": 32,
    "ch_mult": [1, 2, 1],
    "num_res_blocks": 2,
    "attn_resolutions": [8, 4],
    "resolution": 16,
    "z_channels": 6,
}


def tiny(cls=VQGAN, seed=0, **changes):
    torch.manual_seed(seed)
    net = cls(embed_dim=5, n_embed=7, ddconfig={**TINY, **changes}).eval()
    with torch.no_grad():  # the default normalisations and codebook would hide mistakes
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


# Keys and sizes.


def block(name, width_in, width_out):
    keys = {
        f"{name}.norm1.weight": (width_in,),
        f"{name}.conv1.weight": (width_out, width_in, 3, 3),
        f"{name}.norm2.weight": (width_out,),
        f"{name}.conv2.weight": (width_out, width_out, 3, 3),
    }
    if width_in != width_out:
        keys[f"{name}.nin_shortcut.weight"] = (width_out, width_in, 1, 1)
    return keys


def attention(name, width):
    parts = {f"{name}.{part}.weight": (width, width, 1, 1) for part in ("q", "k", "v", "proj_out")}
    return {f"{name}.norm.weight": (width,), **parts}


def published_encoder():
    """The release's keys for f16 and 1024 codes, written out level by level."""
    weights = {
        "encoder.conv_in.weight": (128, 3, 3, 3),
        **block("encoder.down.0.block.0", 128, 128),
        **block("encoder.down.0.block.1", 128, 128),
        "encoder.down.0.downsample.conv.weight": (128, 128, 3, 3),
        **block("encoder.down.1.block.0", 128, 128),
        **block("encoder.down.1.block.1", 128, 128),
        "encoder.down.1.downsample.conv.weight": (128, 128, 3, 3),
        **block("encoder.down.2.block.0", 128, 256),
        **block("encoder.down.2.block.1", 256, 256),
        "encoder.down.2.downsample.conv.weight": (256, 256, 3, 3),
        **block("encoder.down.3.block.0", 256, 256),
        **block("encoder.down.3.block.1", 256, 256),
        "encoder.down.3.downsample.conv.weight": (256, 256, 3, 3),
        **block("encoder.down.4.block.0", 256, 512),
        **attention("encoder.down.4.attn.0", 512),
        **block("encoder.down.4.block.1", 512, 512),
        **attention("encoder.down.4.attn.1", 512),
        **block("encoder.mid.block_1", 512, 512),
        **attention("encoder.mid.attn_1", 512),
        **block("encoder.mid.block_2", 512, 512),
        "encoder.norm_out.weight": (512,),
        "encoder.conv_out.weight": (256, 512, 3, 3),
        "quant_conv.weight": (256, 256, 1, 1),
    }
    biases = {key.replace(".weight", ".bias"): shape[:1] for key, shape in weights.items()}
    return {**weights, **biases, "quantize.embedding.weight": (1024, 256)}


def shapes(net):
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def test_keys_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        net = build_network({"type": "VQGAN", "embed_dim": 256, "n_embed": 1024, "ddconfig": PUBLISHED})
    assert shapes(net) == published_encoder()
    assert sum(p.numel() for p in net.encoder.parameters()) == 29_298_176
    assert sum(p.numel() for p in net.parameters()) == 29_298_176 + 256 * 257 + 1024 * 256


def test_the_autoencoder_has_the_published_decoder():
    with torch.device("meta"):
        net = VQGANAutoEncoder(256, 1024, PUBLISHED)
    decoder = {key: value for key, value in shapes(net).items() if key not in published_encoder()}
    expected = {
        **block("decoder.up.0.block.0", 128, 128),
        **block("decoder.up.0.block.2", 128, 128),
        **block("decoder.up.1.block.0", 256, 128),
        "decoder.up.1.upsample.conv.weight": (128, 128, 3, 3),
        **block("decoder.up.2.block.0", 256, 256),
        **block("decoder.up.3.block.0", 512, 256),
        "decoder.up.3.upsample.conv.weight": (256, 256, 3, 3),
        **attention("decoder.up.4.attn.2", 512),
        "decoder.up.4.upsample.conv.weight": (512, 512, 3, 3),
        **attention("decoder.mid.attn_1", 512),
        "decoder.conv_in.weight": (512, 256, 3, 3),
        "decoder.conv_out.weight": (3, 128, 3, 3),
        "post_quant_conv.weight": (256, 256, 1, 1),
    }
    assert {key: decoder.get(key) for key in expected} == expected
    blocks = {key.split(".block.")[1].partition(".")[0] for key in decoder if ".block." in key}
    assert blocks == {"0", "1", "2"}
    assert not any("up.0.upsample" in key or "up.3.attn" in key for key in decoder)


# Values.


def norm(state, name, x):
    groups = x.reshape(len(x), 32, -1)
    mean, variance = groups.mean(2, keepdim=True), groups.var(2, keepdim=True, unbiased=False)
    normed = ((groups - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
    return normed * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]


def conv(state, name, x, **how):
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)


def swish(x):
    return x / (1 + torch.exp(-x))


def residual(state, name, x):
    deep = conv(state, f"{name}.conv1", swish(norm(state, f"{name}.norm1", x)), padding=1)
    deep = conv(state, f"{name}.conv2", swish(norm(state, f"{name}.norm2", deep)), padding=1)
    return deep + (conv(state, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in state else x)


def attended(state, name, x):
    normed = norm(state, f"{name}.norm", x)
    q, k, v = (conv(state, f"{name}.{part}", normed).flatten(2) for part in "qkv")
    weights = torch.einsum("bci,bcj->bij", q, k) / x.shape[1] ** 0.5
    weights = torch.exp(weights) / torch.exp(weights).sum(-1, keepdim=True)
    mixed = torch.einsum("bij,bcj->bci", weights, v).reshape(x.shape)
    return x + conv(state, f"{name}.proj_out", mixed)


def rederived(state, x, num_levels, num_blocks, attention_levels):
    """Features and latent, by the release's order of operations."""
    features = []
    x = conv(state, "encoder.conv_in", x, padding=1)
    for level in range(num_levels):
        for index in range(num_blocks):
            x = residual(state, f"encoder.down.{level}.block.{index}", x)
            if index == 0:
                features.append(x)
            if level in attention_levels:
                x = attended(state, f"encoder.down.{level}.attn.{index}", x)
        if level < num_levels - 1:
            padded = x.new_zeros(*x.shape[:2], x.shape[2] + 1, x.shape[3] + 1)
            padded[..., :-1, :-1] = x
            x = conv(state, f"encoder.down.{level}.downsample.conv", padded, stride=2)
    x = residual(state, "encoder.mid.block_1", x)
    x = residual(state, "encoder.mid.block_2", attended(state, "encoder.mid.attn_1", x))
    x = conv(state, "encoder.conv_out", swish(norm(state, "encoder.norm_out", x)), padding=1)
    return features, conv(state, "quant_conv", x)


@pytest.mark.parametrize("size", [(16, 16), (11, 18)])
def test_features_and_latent_equal_a_rederivation(size):
    net = tiny().double()
    x = torch.rand(2, 3, *size, dtype=torch.float64) * 2 - 1
    expected_features, expected_latent = rederived(net.state_dict(), x, 3, 2, (1, 2))
    features, latent = net.encode(x)
    assert len(features) == 3
    for feature, expected in zip([*features, latent], [*expected_features, expected_latent], strict=True):
        torch.testing.assert_close(feature, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(net(x), latent, rtol=0, atol=0)
    with torch.no_grad():  # another path through the activations
        torch.testing.assert_close(net(x), latent, rtol=1e-10, atol=1e-10)


def test_sizes_of_the_published_levels():
    narrow = {**PUBLISHED, "ch": 32, "num_res_blocks": 1, "z_channels": 8}
    net = VQGAN(8, 4, narrow).eval()
    with torch.no_grad():
        features, latent = net.encode(torch.rand(1, 3, 144, 96))
    assert [tuple(f.shape[1:]) for f in features] == [
        (32, 144, 96),
        (32, 72, 48),
        (64, 36, 24),
        (64, 18, 12),
        (128, 9, 6),
    ]
    assert latent.shape == (1, 8, 9, 6)
    assert net.stride == 16
    assert net.codebook.shape == (4, 8)


def test_the_latent_continues_from_features_without_running_a_block_twice():
    net = tiny()
    runs = []
    for name, module in net.named_modules():
        module.register_forward_hook(lambda *_, name=name: runs.append(name))
    x = torch.rand(1, 3, 16, 16)
    features = net.features(x)
    alone = list(runs)
    assert not [
        name for name in alone if name.startswith(("encoder.mid", "encoder.down.2.block.1", "encoder.conv_out"))
    ]
    latent = net.latent_from_features(features)
    assert sorted(runs) == sorted(set(runs))
    runs.clear()
    torch.testing.assert_close(net.encode(x)[1], latent, rtol=0, atol=0)


def test_gradients_reach_the_image_through_features_and_latent():
    net = tiny(ch_mult=[1, 1], attn_resolutions=[8]).double().requires_grad_(False)
    x = torch.rand(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)

    def scalar(x):
        features, latent = net.encode(x)
        return sum(value.square().mean() for value in [*features, latent])

    assert torch.autograd.gradcheck(scalar, (x,), fast_mode=True)


def test_an_image_smaller_than_the_stride_is_refused():
    net = tiny()
    assert net(torch.rand(2, 3, 4, 7)).shape[-2:] == (1, 1)
    with pytest.raises(ValueError, match="3×9 pixels is smaller than the VQGAN encoder's stride of 4"):
        net.features(torch.rand(1, 3, 3, 9))


def test_bf16_is_close():
    net = tiny()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        exact = [*(encoded := net.encode(x))[0], encoded[1]]
        with torch.autocast("cpu", torch.bfloat16):
            features, latent = net.encode(x)
    for value, expected in zip([*features, latent], exact, strict=True):
        assert (value.float() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("form", [attend, _fused])
def test_the_forms_of_attention(form):
    q, k, v = torch.randn(3, 2, 8, 12, dtype=torch.float64)
    scores = torch.einsum("bci,bcj->bij", q, k) / 8**0.5
    expected = torch.einsum("bij,bcj->bci", torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True), v)
    torch.testing.assert_close(form(q, k, v), expected, rtol=1e-12, atol=1e-12)


# The codebook and the autoencoder.


def test_the_nearest_codes_are_found():
    torch.manual_seed(1)
    quantize = VectorQuantizer(11, 4).double()
    torch.nn.init.normal_(quantize.embedding.weight)
    z = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    result = quantize(z)
    codebook = quantize.embedding.weight
    for b, row, column in [(0, 0, 0), (0, 2, 4), (1, 1, 3)]:
        distances = (codebook - z[b, :, row, column]).pow(2).sum(1)
        assert result.indices[b, row, column] == distances.argmin()
        assert torch.equal(result.codes[b, :, row, column], codebook[distances.argmin()])
    result.codes.sum().backward()
    used = torch.bincount(result.indices.flatten(), minlength=11)
    assert torch.equal(codebook.grad, used[:, None].expand(-1, 4).double())


def test_gradients_pass_straight_through():
    net = tiny(VQGANAutoEncoder).double()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    image, quantization = net(x, return_quantization=True)
    seen = {}
    quantization.latent.register_hook(lambda grad: seen.update(latent=grad))
    image.square().mean().backward()
    codes = quantization.codes.detach().requires_grad_(True)
    decoded = (net.decoder(net.post_quant_conv(codes)) + 1) / 2
    torch.testing.assert_close(decoded, image, rtol=1e-10, atol=1e-10)
    decoded.square().mean().backward()
    torch.testing.assert_close(seen["latent"], codes.grad, rtol=1e-9, atol=1e-12)
    assert net.codebook.grad is None
    torch.testing.assert_close(net(x), image, rtol=0, atol=0)


def test_the_decoder_equals_a_rederivation():
    net = tiny(VQGANAutoEncoder).double()
    state = net.state_dict()
    z = torch.randn(1, 6, 3, 2, dtype=torch.float64)
    x = residual(state, "decoder.mid.block_1", conv(state, "decoder.conv_in", z, padding=1))
    x = residual(state, "decoder.mid.block_2", attended(state, "decoder.mid.attn_1", x))
    for level in (2, 1, 0):
        for index in range(3):
            x = residual(state, f"decoder.up.{level}.block.{index}", x)
            if level > 0:
                x = attended(state, f"decoder.up.{level}.attn.{index}", x)
        if level > 0:
            doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            x = conv(state, f"decoder.up.{level}.upsample.conv", doubled, padding=1)
    expected = conv(state, "decoder.conv_out", swish(norm(state, "decoder.norm_out", x)), padding=1)
    torch.testing.assert_close(net.decoder(z), expected, rtol=1e-10, atol=1e-10)


def test_the_autoencoder_encodes_in_the_range_of_the_release():
    whole = tiny(VQGANAutoEncoder)
    seen = []
    whole.encoder.conv_in.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.rand(1, 3, 8, 8)
    whole(x)
    assert torch.equal(seen[0], 2 * x - 1)
    with pytest.raises(ValueError, match="multiples of its stride 4, not of 8×10 pixels"):
        whole(torch.rand(1, 3, 8, 10))


# Checkpoints.


def lightning_checkpoint(path, whole):
    """Laid out as the release's: the whole network, the losses' networks, and what the trainer keeps."""
    state = whole.state_dict()
    foreign = {
        "loss.perceptual_loss.lin0.model.1.weight": torch.zeros(1, 4, 1, 1),
        "loss.perceptual_loss.net.slice1.0.weight": torch.zeros(4, 3, 3, 3),
        "loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4),
    }
    torch.save({"epoch": 3, "global_step": 9, "state_dict": {**state, **foreign}, "optimizer_states": []}, path)
    return path


@pytest.mark.parametrize("strict", [True, False])
def test_whole_checkpoints_load(tmp_path, strict):
    whole = tiny(VQGANAutoEncoder, seed=1)
    file = lightning_checkpoint(tmp_path / "last.ckpt", whole)
    net = tiny()
    assert load_weights(net, file, strict, "state_dict") == []
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(net(x), VQGAN.forward(whole, x))
    again = tiny(VQGANAutoEncoder)
    assert load_weights(again, file, strict, "state_dict") == []
    assert torch.equal(again(x), whole(x))


def test_a_stripped_file_starts_an_autoencoder_when_that_is_asked_for(tmp_path):
    torch.save(tiny(seed=1).state_dict(), tmp_path / "stripped.pth")
    with pytest.raises(ValueError, match=r"missing in the file: .*decoder"):
        load_weights(tiny(VQGANAutoEncoder), tmp_path / "stripped.pth")
    differences = load_weights(tiny(VQGANAutoEncoder), tmp_path / "stripped.pth", strict=False)
    assert len(differences) == 1
    assert "missing" in differences[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_embed": 16}, "n_embed is 16 in the checkpoint and 7 in the options"),
        ({"embed_dim": 3}, "embed_dim is 3 in the checkpoint and 5 in the options"),
        (
            {"ch_mult": [1, 2], "attn_resolutions": [8]},
            r"ch_mult is \[1, 2\] \(f2\) in the checkpoint and \[1, 2, 1\] \(f4\) in the options; "
            r"attn_resolutions is \[8\] in the checkpoint and \[8, 4\] in the options",
        ),
        ({"ch": 64}, "ch is 64 in the checkpoint and 32 in the options"),
        ({"num_res_blocks": 1}, "num_res_blocks is 1 in the checkpoint and 2 in the options"),
        ({"num_res_blocks": 3}, "num_res_blocks is 3 in the checkpoint and 2 in the options"),
        ({"attn_resolutions": []}, r"attn_resolutions is \[\] in the checkpoint and \[8, 4\] in the options"),
        ({"z_channels": 4}, "z_channels is 4 in the checkpoint and 6 in the options"),
        ({"in_channels": 1}, "in_channels is 1 in the checkpoint and 3 in the options"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_another_configuration_is_told_by_its_sizes(tmp_path, options, sentence, strict):
    outer = {"embed_dim": 5, "n_embed": 7} | {k: v for k, v in options.items() if k in ("embed_dim", "n_embed")}
    inner = {**TINY, **{k: v for k, v in options.items() if k not in outer}}
    torch.save({"state_dict": VQGANAutoEncoder(**outer, ddconfig=inner).state_dict()}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=rf"other.ckpt does not fit VQGAN: .*another configuration: .*{sentence}"):
        load_weights(tiny(), tmp_path / "other.ckpt", strict, "state_dict")


def test_damage_to_the_encoder_is_an_error_even_when_loading_is_not_strict(tmp_path):
    whole = tiny(VQGANAutoEncoder).state_dict()
    lacking = {key: value for key, value in whole.items() if key != "encoder.mid.attn_1.q.bias"}
    torch.save(lacking, tmp_path / "lacking.pth")
    with pytest.raises(ValueError, match=r"lacking.pth does not fit VQGAN: it lacks encoder\.mid\.attn_1\.q\.bias$"):
        load_weights(tiny(), tmp_path / "lacking.pth", strict=False)
    whole["encoder.mid.attn_1.q.bias"] = torch.zeros(3)
    torch.save(whole, tmp_path / "bent.pth")
    with pytest.raises(ValueError, match=r"it has encoder\.mid\.attn_1\.q\.bias \(3,\) instead of \(32,\)"):
        load_weights(tiny(), tmp_path / "bent.pth", strict=False)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg.pth")
    with pytest.raises(ValueError, match=r"it lacks encoder\.conv_in\.weight, .* and \d+ more"):
        load_weights(tiny(), tmp_path / "vgg.pth", strict=False)


def test_a_vqgan_inside_another_module_loads():
    holder = torch.nn.ModuleDict({"encoder_of_term": tiny(seed=1), "other": torch.nn.Linear(1, 1)})
    target = copy.deepcopy(holder)
    torch.nn.init.zeros_(target["encoder_of_term"].encoder.conv_in.weight)
    target.load_state_dict(holder.state_dict())
    weight = target["encoder_of_term"].encoder.conv_in.weight
    assert torch.equal(weight, holder["encoder_of_term"].encoder.conv_in.weight)


# Options that do not go together.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ch": 24}, r"widths of \[24, 48, 24\]; each must be a multiple of 32"),
        ({"attn_resolutions": [5]}, r"attn_resolutions` \[5\] is the side of no level: .* \[16, 8, 4\]"),
        ({"double_z": True}, "double_z` must be false"),
        ({"num_res_blocks": 0}, "`num_res_blocks` of at least 1"),
        ({"ch_mult": []}, "at least one level"),
    ],
)
def test_impossible_configurations(changes, message):
    with pytest.raises(ValueError, match=message):
        VQGAN(4, 4, {**TINY, **changes})


def test_an_empty_codebook_is_refused():
    with pytest.raises(ValueError, match="`n_embed` of at least 1, not 4 and 0"):
        VQGAN(4, 0, TINY)
