"""VGG features: Very Deep Convolutional Networks (Simonyan & Zisserman, ICLR 2015, arXiv 1409.1556).

Layer names are BasicSR's; state-dict keys are torchvision's, ``features.<index>.weight``, so that its files load.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY
from basicsr.utils.weights import load_weights

from .size_requirement import SizeRequirement

VGGType = Literal["vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {  # of each of the five stages (table 1: columns A, B, D, E)
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
WEIGHTS = {
    "vgg11": "vgg11-8a719046.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "vgg13_bn": "vgg13_bn-abd245e5.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
}
LOCAL_FOLDER = Path("experiments/pretrained_models")
ADDRESS = "https://download.pytorch.org/models/"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def layer_names(vgg_type: VGGType) -> list[str]:
    """BasicSR's names of a network's layers; a name's place is torchvision's index of the layer."""
    names = []
    for stage, count in enumerate(CONVOLUTIONS[vgg_type.removesuffix("_bn")], 1):
        names += [f"{kind}{stage}_{index}" for index in range(1, count + 1) for kind in ("conv", "relu")]
        names.append(f"pool{stage}")
    return insert_bn(names) if vgg_type.endswith("_bn") else names


NAMES = {vgg_type: layer_names(vgg_type) for vgg_type in CONVOLUTIONS}
"""The layers of each network without batch norm."""


def insert_bn(names: list[str]) -> list[str]:
    """The names of layers with a batch norm after each convolution: ``bn1_1`` after ``conv1_1``."""
    with_norms = []
    for name in names:
        with_norms += [name, name.replace("conv", "bn")] if "conv" in name else [name]
    return with_norms


@ARCH_REGISTRY.register()
class VGGFeatureExtractor(nn.Module):
    """The outputs of named layers; layers beyond the last of them are not built.

    Args:
        layer_name_list: Names such as ``conv1_1``, ``relu5_4``, ``pool3`` or, with batch norm, ``bn2_1``. The output of
            ``conv1_1`` is what it is before the activation.
        vgg_type: Which VGG; ``_bn`` for batch norm after each convolution.
        use_input_norm: Normalise images in [0, 1] with ImageNet's mean and standard deviation.
        range_norm: Take images in [−1, 1] to [0, 1] first.
        requires_grad: Whether its weights are to be trained. Otherwise it stays in eval mode.
        remove_pooling: Leave the pooling layers out.
        pooling_stride: Stride of the pooling layers.
        weights: A file in torchvision's layout, or its URL; ``random`` to load none. When absent, torchvision's own
            file is used: from ``experiments/pretrained_models`` if it is there, else downloaded.

    Raises:
        ValueError: If a layer does not exist, or the file does not fit.
        OSError: If there is no such file, or it cannot be downloaded.
    """

    def __init__(
        self,
        layer_name_list: list[str],
        vgg_type: VGGType = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        requires_grad: bool = False,
        remove_pooling: bool = False,
        pooling_stride: PositiveInt = 2,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if vgg_type not in WEIGHTS:
            raise ValueError(f"VGGFeatureExtractor's `vgg_type` must be one of {', '.join(WEIGHTS)}, not '{vgg_type}'.")
        if pooling_stride < 1:
            raise ValueError(f"VGGFeatureExtractor's `pooling_stride` must be at least 1, not {pooling_stride}.")
        names = layer_names(vgg_type)
        available = [name for name in names if not (remove_pooling and name.startswith("pool"))]
        unknown = [name for name in layer_name_list if name not in available]
        if unknown or not layer_name_list:
            raise ValueError(
                f"VGGFeatureExtractor's `layer_name_list` {unknown or 'is empty'}: {vgg_type} has the layers "
                f"{', '.join(available)}{' (remove_pooling leaves out pool…)' if remove_pooling else ''}."
            )
        self.layer_name_list = list(layer_name_list)
        self.vgg_type = vgg_type
        self.use_input_norm = use_input_norm
        self.range_norm = range_norm
        self.requires_grad = requires_grad
        self.names = names[: max(map(names.index, layer_name_list)) + 1]
        self.features = nn.Sequential()
        in_width = 3
        for index, name in enumerate(self.names):
            width = WIDTHS[int(name.partition("_")[0][-1]) - 1]
            if name.startswith("conv"):
                self.features.add_module(str(index), nn.Conv2d(in_width, width, 3, 1, 1))
                in_width = width
            elif name.startswith("bn"):
                self.features.add_module(str(index), nn.BatchNorm2d(width))
            elif name.startswith("relu"):  # in place, unless the layer before it is an output
                keep = self.names[index - 1] in layer_name_list
                self.features.add_module(str(index), nn.ReLU(inplace=not keep))
            elif not remove_pooling:
                self.features.add_module(str(index), nn.MaxPool2d(2, pooling_stride))
        pools = sum(isinstance(layer, nn.MaxPool2d) for layer in self.features)
        smallest = 1
        for _ in range(pools):
            smallest = (smallest - 1) * pooling_stride + 2
        self.size_requirement = SizeRequirement(minimum=smallest)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(requires_grad)
        self.train(requires_grad)
        if weights != "random" and not self.mean.is_meta:  # a network on the meta device has no weights
            self._load(weights or _default_weights(vgg_type), vgg_type)

    def _load(self, source: str, vgg_type: VGGType) -> None:
        try:
            differences = load_weights(self, source, strict=False, param_key=None)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"VGGFeatureExtractor's `weights`: {error}. Give a file in torchvision's layout, or leave the key out: "
                f"torchvision's own file is then downloaded from {ADDRESS}"
            ) from error
        except ValueError as error:
            raise ValueError(f"VGGFeatureExtractor's `weights`: {error}") from error
        if differences:
            raise ValueError(
                f"VGGFeatureExtractor's `weights`: {source} does not fit. Keys {'; '.join(differences)}. Name a "
                f"file of the vgg_type {vgg_type}, such as {WEIGHTS[vgg_type]}"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Ignore the layers in torchvision's files that were not built."""
        for key in list(state_dict):
            found = re.fullmatch(rf"{re.escape(prefix)}(?:classifier\..+|features\.(\d+)\..+)", key)
            if found and (found[1] is None or int(found[1]) >= len(self.names)):
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> VGGFeatureExtractor:
        """Set the mode; without ``requires_grad`` the network stays in eval mode."""
        return super().train(mode and self.requires_grad)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The features of (B, 3, H, W).

        Returns:
            A tensor (B, C, h, w) for each name of ``layer_name_list``, in the order of the layers.

        Raises:
            ValueError: If the image is too small for the pooling layers.
        """
        if min(x.shape[-2:]) < self.size_requirement.minimum:
            raise ValueError(
                f"an image of {x.shape[-2]}×{x.shape[-1]} pixels is too small for VGG's {self.names[-1]}, which needs "
                f"{self.size_requirement.minimum}×{self.size_requirement.minimum}"
            )
        if self.range_norm:
            x = (x + 1) / 2
        if self.use_input_norm:
            x = (x - self.mean) / self.std
        output = {}
        for index, layer in self.features.named_children():
            x = layer(x)
            if self.names[int(index)] in self.layer_name_list:
                output[self.names[int(index)]] = x
        return output


def _default_weights(vgg_type: VGGType) -> str:
    """Torchvision's weights: the local file if there is one, otherwise the URL."""
    local = LOCAL_FOLDER / WEIGHTS[vgg_type]
    return str(local) if local.is_file() else ADDRESS + WEIGHTS[vgg_type]
