"""VGG features: published layouts and names, values against a plain evaluation, weights from files."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from basicsr.archs import build_network, vgg_arch
from basicsr.archs.vgg_arch import VGGFeatureExtractor, layer_names
from basicsr.utils.weights import load_weights


def random_vgg(layers, **options):
    torch.manual_seed(0)
    return VGGFeatureExtractor(layers, weights="random", **options)


# torchvision's published indices of VGG19's convolutions, and widths
VGG19_CONVOLUTIONS = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
VGG19_WIDTHS = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8


def test_vgg19_has_torchvisions_layout():
    with torch.device("meta"):
        net = build_network({"type": "VGGFeatureExtractor", "layer_name_list": ["pool5"]})
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    expected = {}
    for index, width, before in zip(VGG19_CONVOLUTIONS, VGG19_WIDTHS, [3, *VGG19_WIDTHS]):
        expected |= {f"features.{index}.weight": (width, before, 3, 3), f"features.{index}.bias": (width,)}
    assert shapes == expected
    assert sum(p.numel() for p in net.parameters()) == 20_024_384


@pytest.mark.parametrize(
    ("vgg_type", "layers", "last", "parameters"),
    [  # torchvision's `features` have these lengths, and its networks these parameters less those of `classifier`
        ("vgg11", 21, "pool5", 132_863_336 - 123_642_856),
        ("vgg13", 25, "pool5", 133_047_848 - 123_642_856),
        ("vgg16", 31, "pool5", 138_357_544 - 123_642_856),
        ("vgg19", 37, "pool5", 143_667_240 - 123_642_856),
        ("vgg11_bn", 29, "pool5", 132_868_840 - 123_642_856),
        ("vgg13_bn", 35, "pool5", 133_053_736 - 123_642_856),
        ("vgg16_bn", 44, "pool5", 138_365_992 - 123_642_856),
        ("vgg19_bn", 53, "pool5", 143_678_248 - 123_642_856),
    ],
)
def test_every_vgg_has_the_published_size(vgg_type, layers, last, parameters):
    names = layer_names(vgg_type)
    assert (len(names), names[-1]) == (layers, last)
    with torch.device("meta"):
        net = VGGFeatureExtractor([last], vgg_type)
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_layer_names():
    assert layer_names("vgg11") == [
        *("conv1_1", "relu1_1", "pool1", "conv2_1", "relu2_1", "pool2"),
        *("conv3_1", "relu3_1", "conv3_2", "relu3_2", "pool3"),
        *("conv4_1", "relu4_1", "conv4_2", "relu4_2", "pool4"),
        *("conv5_1", "relu5_1", "conv5_2", "relu5_2", "pool5"),
    ]
    assert layer_names("vgg11_bn")[:4] == ["conv1_1", "bn1_1", "relu1_1", "pool1"]
    assert layer_names("vgg19").index("relu5_4") == 35


@pytest.mark.parametrize("vgg_type", ["vgg11", "vgg13_bn"])
def test_all_features_equal_a_plain_evaluation(vgg_type):
    names = layer_names(vgg_type)
    net = random_vgg(names, vgg_type=vgg_type).double()
    state = net.state_dict()
    x = torch.rand(2, 3, 32, 35, dtype=torch.float64)
    original = x.clone()
    features = net(x)
    assert list(features) == names
    assert torch.equal(x, original)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).double()[..., None, None]
    hidden = (x - mean) / std
    for index, name in enumerate(names):
        if name.startswith("conv"):
            hidden = F.conv2d(hidden, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        elif name.startswith("bn"):  # fresh statistics: mean 0 and variance 1
            hidden = hidden / (1 + 1e-5) ** 0.5
        elif name.startswith("relu"):
            hidden = hidden * (hidden > 0)
        else:
            height, width = (side // 2 for side in hidden.shape[-2:])
            cut = hidden[..., : 2 * height, : 2 * width]
            hidden = cut.reshape(*cut.shape[:2], height, 2, width, 2).amax((3, 5))
        torch.testing.assert_close(features[name], hidden, rtol=1e-10, atol=1e-12)
    assert (features["conv1_1"] < 0).any()


def test_a_tapped_activation_does_not_depend_on_what_else_is_tapped():
    names = layer_names("vgg11")
    x = torch.rand(1, 3, 32, 32)
    everything = random_vgg(names, vgg_type="vgg11")
    for name in ("conv1_1", "relu2_1", "conv4_2", "pool5"):
        alone = random_vgg([name], vgg_type="vgg11")
        alone.load_state_dict(everything.state_dict())
        assert torch.equal(alone(x)[name], everything(x)[name])
    gradients = []
    for layers in (["conv1_1", "relu3_2"], names):
        net = VGGFeatureExtractor(layers, "vgg11", weights="random")
        net.load_state_dict(everything.state_dict())
        image = x.clone().requires_grad_(True)
        features = net(image)
        (features["conv1_1"].square().sum() + features["relu3_2"].square().sum()).backward()
        gradients.append(image.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_ranges_and_pooling():
    x = torch.rand(1, 3, 16, 16)
    plain = random_vgg(["conv1_1"], use_input_norm=False)
    normed = random_vgg(["conv1_1"])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(normed(x)["conv1_1"], plain((x - mean) / std)["conv1_1"])
    ranged = random_vgg(["conv1_1"], range_norm=True)
    torch.testing.assert_close(ranged(2 * x - 1)["conv1_1"], normed(x)["conv1_1"])
    assert random_vgg(["relu3_1"], remove_pooling=True)(x)["relu3_1"].shape == (1, 256, 16, 16)
    assert random_vgg(["relu3_1"], pooling_stride=1)(x)["relu3_1"].shape == (1, 256, 14, 14)
    assert [*random_vgg(["relu1_2"], remove_pooling=True).state_dict()] == [
        f"features.{index}.{kind}" for index in (0, 2) for kind in ("weight", "bias")
    ]


def test_it_is_frozen_unless_its_weights_are_to_be_trained():
    frozen = random_vgg(["relu1_1"], vgg_type="vgg11_bn")
    frozen.train()
    assert not any(module.training for module in frozen.modules())
    assert not any(p.requires_grad for p in frozen.parameters())
    trained = random_vgg(["relu1_1"], vgg_type="vgg11_bn", requires_grad=True)
    assert trained.training
    assert all(p.requires_grad for p in trained.parameters())
    trained.eval()
    assert not trained.training


# Weights.


def torchvision_file(path):
    """A file of VGG11's layout; as torchvision's, it holds the classifier and all of `features`."""
    whole = random_vgg(["pool5"], vgg_type="vgg11").state_dict()
    torch.save({**whole, "classifier.0.weight": torch.zeros(8, 8), "classifier.6.bias": torch.zeros(8)}, path)
    return whole


def test_weights_from_a_file_by_path_or_url(tmp_path, monkeypatch):
    whole = torchvision_file(tmp_path / "vgg11.pth")
    for source in (str(tmp_path / "vgg11.pth"), "https://example.org/some/vgg11.pth"):
        monkeypatch.setattr(
            "basicsr.utils.download_util.load_file_from_url", lambda url: str(tmp_path / Path(url).name)
        )
        net = VGGFeatureExtractor(["conv2_1"], "vgg11", weights=source)
        assert len(net.state_dict()) == 4
        assert all(torch.equal(value, whole[key]) for key, value in net.state_dict().items())


def test_the_standard_file_is_the_local_one_or_else_torchvisions(tmp_path, monkeypatch):
    asked = []

    def fetch(url):
        asked.append(url)
        return str(tmp_path / "fetched.pth")

    monkeypatch.setattr("basicsr.utils.download_util.load_file_from_url", fetch)
    monkeypatch.chdir(tmp_path)
    torchvision_file(tmp_path / "fetched.pth")
    VGGFeatureExtractor(["relu1_1"], "vgg11")
    assert asked == ["https://download.pytorch.org/models/vgg11-8a719046.pth"]
    folder = tmp_path / "experiments" / "pretrained_models"
    folder.mkdir(parents=True)
    whole = torchvision_file(folder / "vgg11-8a719046.pth")
    net = VGGFeatureExtractor(["relu1_1"], "vgg11")
    assert len(asked) == 1
    assert torch.equal(net.features[0].weight, whole["features.0.weight"])
    assert vgg_arch.ADDRESS + vgg_arch.WEIGHTS["vgg19"] == "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"


def test_load_weights_takes_torchvisions_file_strictly(tmp_path):
    whole = torchvision_file(tmp_path / "vgg11.pth")
    net = random_vgg(["conv3_1"], vgg_type="vgg11")
    assert load_weights(net, tmp_path / "vgg11.pth", strict=True) == []
    assert torch.equal(net.features[6].weight, whole["features.6.weight"])
    with pytest.raises(ValueError, match=r"missing in the file: features\.2\.weight"):
        load_weights(random_vgg(["relu1_2"]), tmp_path / "vgg11.pth", strict=True)


def test_real_weights(shared_data):
    """Published weights of VGG19 (Caffe's, each activation normalised to a mean of 1 over ImageNet)."""
    cv2 = pytest.importorskip("cv2")
    file = shared_data / "weights" / "vgg19_caffe_normalised_fp16.pth"
    net = VGGFeatureExtractor(["relu1_1", "relu3_1", "relu5_1"], weights=str(file))
    image = cv2.imread(str(shared_data / "sr" / "Set5" / "HR" / "bird.png"))[:128, :128, ::-1].copy()
    with torch.no_grad():
        features = net(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    assert all(0.3 < feature.mean() < 3 for feature in features.values())
    state = torch.load(file, weights_only=True)
    assert all(torch.equal(value, state[key].float()) for key, value in net.state_dict().items())


# Bad input.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_name_list": ["relu6_1"]}, r"\['relu6_1'\]: vgg19 has the layers conv1_1, relu1_1, .*pool5\."),
        ({"layer_name_list": []}, "is empty"),
        ({"layer_name_list": ["conv3_4"], "vgg_type": "vgg16"}, "vgg16 has the layers"),
        ({"layer_name_list": ["pool2"], "remove_pooling": True}, "remove_pooling leaves out"),
        ({"layer_name_list": ["relu1_1"], "vgg_type": "vgg18"}, "must be one of vgg11, .*not 'vgg18'"),
        ({"layer_name_list": ["relu1_1"], "pooling_stride": 0}, "at least 1, not 0"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        VGGFeatureExtractor(**options, weights="random")


def test_files_that_do_not_fit(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nowhere\.pth does not exist.*downloaded from https://download\.pytorch"
    ):
        VGGFeatureExtractor(["relu1_1"], weights=str(tmp_path / "nowhere.pth"))
    (tmp_path / "damaged.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"`weights`: .*damaged\.pth is damaged or not a checkpoint"):
        VGGFeatureExtractor(["relu1_1"], weights=str(tmp_path / "damaged.pth"))
    torchvision_file(tmp_path / "vgg11.pth")
    with pytest.raises(ValueError, match=r"vgg11\.pth does not fit.*missing in the file: features\.2\.weight"):
        VGGFeatureExtractor(["relu1_2"], "vgg19", weights=str(tmp_path / "vgg11.pth"))


def test_images_too_small_for_the_pooling():
    net = random_vgg(["relu3_1"])
    assert net(torch.rand(1, 3, 4, 4))["relu3_1"].shape == (1, 256, 1, 1)
    with pytest.raises(ValueError, match="3×9 pixels is too small for VGG's relu3_1, which needs 4×4"):
        net(torch.rand(1, 3, 3, 9))
    with pytest.raises(ValueError, match="needs 3×3"):
        random_vgg(["relu3_1"], pooling_stride=1)(torch.rand(1, 3, 2, 2))
