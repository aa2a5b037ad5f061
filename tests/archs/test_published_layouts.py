"""Every network has the published number of parameters and the published keys, and takes published weights."""

import pytest
import torch

from basicsr.archs import build_network

RGB = {"num_in_ch": 3, "num_out_ch": 3}
SWINIR = {"type": "SwinIR", "img_size": 48, "window_size": 8, "mlp_ratio": 2, "upsampler": "pixelshuffle"}
TEACHER = {"embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6}
STUDENT = {"embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4}

PARAMETERS = [  # options, then the published counts at the scales in the third column
    (SWINIR | TEACHER, [11_752_487, 11_937_127, 11_900_199], (2, 3, 4)),
    (SWINIR | STUDENT, [1_087_727, 1_272_367, 1_235_439], (2, 3, 4)),
    ({"type": "RCAN", "num_block": 20} | RGB, [15_444_643, 15_629_283, 15_592_355], (2, 3, 4)),
    ({"type": "RCAN", "num_block": 6} | RGB, [5_023_603, 5_208_243, 5_171_315], (2, 3, 4)),
    ({"type": "EDSR", "num_feat": 256, "num_block": 32} | RGB, [40_729_603, 43_680_003, 43_089_923], (2, 3, 4)),
    ({"type": "EDSR", "num_block": 32} | RGB, [2_551_555, 2_736_195, 2_699_267], (2, 3, 4)),
    ({"type": "EDSR"} | RGB, [1_369_859, 1_554_499, 1_517_571], (2, 3, 4)),
    ({"type": "IMDN"}, [694_404, 703_059, 715_176], (2, 3, 4)),
    ({"type": "MSRResNet"}, [1_517_571], (4,)),
    ({"type": "SRVGGNetCompact"}, [621_424], (4,)),
]


@pytest.mark.parametrize(("opt", "counts", "scales"), PARAMETERS)
def test_parameter_counts(opt, counts, scales):
    with torch.device("meta"):
        networks = [build_network(opt | {"upscale": scale}) for scale in scales]
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == counts


def test_rrdbnet_has_the_published_size():
    with torch.device("meta"):
        state = build_network({"type": "RRDBNet"} | RGB).state_dict()
    assert len(state) == 702
    assert sum(value.numel() for value in state.values()) == 16_697_987


BLOCK = "layers.5.residual_group.blocks.5."
KEYS = {
    "EDSR": (
        {"type": "EDSR", "upscale": 4} | RGB,
        2 * (1 + 16 * 2 + 1 + 2 + 1),
        {
            "conv_first.weight": (64, 3, 3, 3),
            "body.15.conv1.weight": (64, 64, 3, 3),
            "body.15.conv2.bias": (64,),
            "conv_after_body.weight": (64, 64, 3, 3),
            "upsample.0.weight": (256, 64, 3, 3),
            "upsample.2.weight": (256, 64, 3, 3),
            "conv_last.weight": (3, 64, 3, 3),
        },
    ),
    "RCAN": (
        {"type": "RCAN", "num_block": 20, "upscale": 3} | RGB,
        2 * (1 + 10 * (20 * 4 + 1) + 1 + 1 + 1),
        {
            "body.9.residual_group.19.rcab.0.weight": (64, 64, 3, 3),
            "body.9.residual_group.19.rcab.2.bias": (64,),
            "body.9.residual_group.19.rcab.3.attention.1.weight": (4, 64, 1, 1),
            "body.9.residual_group.19.rcab.3.attention.3.weight": (64, 4, 1, 1),
            "body.9.conv.weight": (64, 64, 3, 3),
            "upsample.0.weight": (576, 64, 3, 3),
        },
    ),
    "SwinIR classical": (
        SWINIR | TEACHER | {"upscale": 4},
        2 + 2 + 36 * 14 + 18 + 12 + 2 + 2 + 2 + 4 + 2,
        {
            "patch_embed.norm.weight": (180,),
            f"{BLOCK}attn_mask": (36, 64, 64),
            f"{BLOCK}attn.relative_position_bias_table": (225, 6),
            f"{BLOCK}attn.relative_position_index": (64, 64),
            f"{BLOCK}attn.qkv.weight": (540, 180),
            f"{BLOCK}attn.proj.bias": (180,),
            f"{BLOCK}mlp.fc1.weight": (360, 180),
            f"{BLOCK}mlp.fc2.weight": (180, 360),
            "layers.5.conv.weight": (180, 180, 3, 3),
            "norm.weight": (180,),
            "conv_before_upsample.0.weight": (64, 180, 3, 3),
            "upsample.2.weight": (256, 64, 3, 3),
            "conv_last.weight": (3, 64, 3, 3),
        },
    ),
    "SwinIR lightweight": (
        SWINIR | STUDENT | {"upscale": 2, "img_size": 64, "upsampler": "pixelshuffledirect"},
        2 + 2 + 24 * 14 + 12 + 8 + 2 + 2 + 2,
        {"upsample.0.weight": (12, 60, 3, 3), "layers.3.residual_group.blocks.5.attn_mask": (64, 64, 64)},
    ),
    "SwinIR real-world, large": (
        SWINIR
        | {"embed_dim": 240, "depths": [6] * 9, "num_heads": [8] * 9, "upscale": 4, "img_size": 64}
        | {"upsampler": "nearest+conv", "resi_connection": "3conv"},
        2 + 2 + 54 * 14 + 27 + 9 * 6 + 2 + 6 + 2 + 2 + 2 + 2 + 2,
        {
            "layers.8.conv.0.weight": (60, 240, 3, 3),
            "layers.8.conv.2.weight": (60, 60, 1, 1),
            "layers.8.conv.4.weight": (240, 60, 3, 3),
            "conv_after_body.4.bias": (240,),
            "conv_up1.weight": (64, 64, 3, 3),
            "conv_up2.weight": (64, 64, 3, 3),
            "conv_hr.weight": (64, 64, 3, 3),
        },
    ),
    "SwinIR JPEG, grey": (
        SWINIR | TEACHER | {"upscale": 1, "img_size": 126, "window_size": 7, "in_chans": 1, "upsampler": ""},
        2 + 2 + 36 * 14 + 18 + 12 + 2 + 2 + 2,
        {
            "conv_first.weight": (180, 1, 3, 3),
            f"{BLOCK}attn_mask": (324, 49, 49),
            f"{BLOCK}attn.relative_position_bias_table": (169, 6),
            "conv_last.weight": (1, 180, 3, 3),
        },
    ),
    "MSRResNet": (
        {"type": "MSRResNet"},
        2 * (1 + 32 + 2 + 2),
        {"upconv1.weight": (256, 64, 3, 3), "upconv2.weight": (256, 64, 3, 3), "conv_hr.bias": (64,)},
    ),
    "SRVGGNetCompact": (
        {"type": "SRVGGNetCompact"},
        17 * 3 + 2,
        {"body.0.weight": (64, 3, 3, 3), "body.33.weight": (64,), "body.34.weight": (48, 64, 3, 3)},
    ),
    "RRDBNet": (
        {"type": "RRDBNet", "scale": 2} | RGB,
        702,
        {
            "conv_first.weight": (64, 12, 3, 3),
            "body.22.rdb3.conv5.weight": (64, 192, 3, 3),
            "body.0.rdb1.conv1.weight": (32, 64, 3, 3),
            "conv_body.weight": (64, 64, 3, 3),
            "conv_up2.weight": (64, 64, 3, 3),
        },
    ),
    "IMDN": (
        {"type": "IMDN"},
        92,
        {
            "fea_conv.weight": (64, 3, 3, 3),
            "IMDB6.c4.weight": (16, 48, 3, 3),
            "IMDB6.cca.conv_du.2.weight": (64, 4, 1, 1),
            "c.0.weight": (64, 384, 1, 1),
            "upsampler.0.weight": (48, 64, 3, 3),
        },
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_and_shapes(name):
    opt, number, expected = KEYS[name]
    with torch.device("meta"):
        state = build_network(opt).state_dict()
    assert len(state) == number
    assert {key: tuple(state[key].shape) for key in expected} == expected


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_imdn_takes_the_published_weights(shared_data, scale):
    weights = torch.load(shared_data / "weights" / f"IMDN_x{scale}.pth", map_location="cpu", weights_only=True)
    network = build_network({"type": "IMDN", "upscale": scale})
    network.load_state_dict({key.removeprefix("module."): value for key, value in weights.items()}, strict=True)


@pytest.mark.parametrize(
    ("file", "key", "opt"),
    [
        ("RealESRGAN_x4plus_fp16.pth", "params_ema", {"type": "RRDBNet"} | RGB),
        ("realesr-animevideov3_x4_fp16.pth", "params", {"type": "SRVGGNetCompact"}),
    ],
)
def test_real_esrgan_weights_load(shared_data, file, key, opt):
    weights = torch.load(shared_data / "weights" / file, map_location="cpu", weights_only=True)[key]
    with torch.device("meta"):
        network = build_network(opt)
    network.load_state_dict(weights, strict=True, assign=True)


def test_imdn_is_sharper_than_bicubic_on_a_real_image(shared_data):
    cv2 = pytest.importorskip("cv2")
    folder = shared_data / "sr" / "Set5"
    low = cv2.imread(str(folder / "LR_bicubic" / "X2" / "babyx2.png"))[60:124, 60:124]
    high = cv2.imread(str(folder / "HR" / "baby.png"))[120:248, 120:248]
    network = build_network({"type": "IMDN", "upscale": 2}).eval()
    weights = torch.load(shared_data / "weights" / "IMDN_x2.pth", map_location="cpu", weights_only=True)
    network.load_state_dict({key.removeprefix("module."): value for key, value in weights.items()})
    lq = torch.from_numpy(low[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        out = (network(lq)[0].clamp(0, 1) * 255).permute(1, 2, 0).numpy()[..., ::-1]
    bicubic = cv2.resize(low, (128, 128), interpolation=cv2.INTER_CUBIC)

    def error(image):
        return ((image.astype(float) - high)[8:-8, 8:-8] ** 2).mean()

    assert error(out) < 0.6 * error(bicubic)
