"""What a distillation term sees of a run: its networks, their shapes, their features."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.engine.compute.runtime import NetworkRuntime
from basicsr.engine.rng import preserved_rng
from basicsr.utils.options.sections import LoggerOptions

from .encoders import FrozenEncoder, InputRange
from .frozen import FrozenNetwork
from .frozen_networks import FrozenNetworks
from .passes import PassNetwork
from .probes import Probes, per_image_shape
from .student import AverageNetwork, StudentNetwork

Shape = tuple[int, ...]
SourceName = Literal["ema", "student"]


class Networks:
    """The student, its average, the frozen networks and the terms that are networks.

    Args:
        opt: The options of the run.
        student: ``network_g``.
        average: Its moving average, or None.
        trained: The suffixes of the networks that the recipe trains; every other ``network_<x>`` is frozen.
        device: Where the networks are.

    Attributes:
        device: Where the networks are.
        total_iter: The length of the run in iterations.
        print_interval: Iterations between two lines of the log.
        runtime: The student's runtime.
        frozen: The frozen networks.
    """

    def __init__(
        self,
        opt: Mapping[str, Any],
        student: StudentNetwork,
        *,
        average: nn.Module | None,
        trained: Iterable[str],
        device: torch.device,
    ) -> None:
        self._opt = opt
        self.device = device
        self.total_iter: int = opt["train"].get("total_iter", 0)
        self.print_interval: int = LoggerOptions.of(opt.get("logger")).print_interval
        self.runtime: NetworkRuntime = student.runtime
        self.frozen = FrozenNetworks(opt, trained, device)
        self._own: dict[str, PassNetwork] = {"g": student}
        if average is not None:
            self._own["g_ema"] = AverageNetwork(average, student.runtime)
        self._terms: dict[str, PassNetwork] = {}
        self._other_terms: dict[str, str] = {}
        self._set_up: Callable[[str], None] = lambda name: None
        self._probes = Probes(opt, self.__getitem__, device)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a training patch, as the student sees it."""
        return self._probes.patch_size

    # Which networks there are.

    def __getitem__(self, name: str) -> PassNetwork:
        """``g``, ``g_ema``, the frozen ``network_<name>``, which is built on first use, or a term.

        Raises:
            ValueError: If there is none of that name.
        """
        if name in self._own:
            return self._own[name]
        if name in self._terms:
            self._set_up(name)
            return self._terms[name]
        if name == "g_ema":
            raise ValueError("g_ema is the student's average; set train.ema_decay above 0")
        if name in self._other_terms and name not in self.frozen:
            raise ValueError(f"{name} ({self._other_terms[name]}) is a term and not a network: it has no as_network()")
        return self.frozen[name]

    def find(self, name: str) -> PassNetwork:
        """``[name]`` during an iteration. A network that no term has named before is built without drawing from the
        global random generators, so that a resumed run draws the same numbers."""
        if name in self._own or name in self._terms or name in self.frozen.built:
            return self[name]
        with preserved_rng():
            torch.manual_seed(zlib.crc32(name.encode()))  # random weights are the same in a resumed run
            network = self[name]
        network.runtime.compile_in_place(network.net)
        return network

    def __contains__(self, name: str) -> bool:
        return name in self._own or name in self._terms or name in self.frozen

    def add_terms(
        self, networks: Mapping[str, PassNetwork], others: Mapping[str, str], set_up: Callable[[str], None]
    ) -> None:
        """Add the terms that are networks.

        Args:
            networks: The networks by the term's name.
            others: The class of each other term by its name, for messages.
            set_up: Called with the name of a term before its shapes are used.

        Raises:
            ValueError: If a network has that name already.
        """
        for name in networks:
            if name in self:
                raise ValueError(f"train.kd_opt.{name} is a network for other terms, but network_{name} is one already")
        self._terms, self._other_terms = dict(networks), dict(others)
        self._set_up = set_up

    # The student's weights.

    def source(self, name: SourceName) -> nn.Module:
        """The student's average (``ema``) or the student itself, without any wrapper.

        Raises:
            ValueError: If there is no average.
        """
        return self["g_ema" if name == "ema" else "g"].net

    def copy_of(self, name: SourceName) -> nn.Module:
        """A copy of the average or of the student, in eval mode, without gradients, in the student's memory format."""
        net = build_network(self._opt["network_g"]).to(self.device).requires_grad_(False).eval()
        net.load_state_dict(self.source(name).state_dict())
        return self.runtime.to_memory_format(net)

    # Shapes and features.

    def tap(self, network: str, pattern: str) -> dict[str, Shape]:
        """Record, from now on, the outputs of modules in every pass of a network.

        Args:
            network: ``g``, ``g_ema``, or a frozen network's suffix.
            pattern: A module path or glob; see :meth:`basicsr.distill.taps.FeatureTaps.add`.

        Returns:
            The matching paths, with the shapes of their outputs for one training patch: the first dimension is 1, or
            the number of windows where a module's batch is one of windows.

        Raises:
            ValueError: If nothing matches, or an output is not a tensor.
        """
        paths = self[network].taps.add(pattern)
        if any(path not in self._probes.of(network).features for path in paths):
            self._probes.clear(network)
        features = self._probes.of(network).features
        absent = [path for path in paths if path not in features]
        if absent:
            raise ValueError(f"network_{network}: {', '.join(absent)} did not run in a forward pass")
        return {path: per_image_shape(features[path]) for path in paths}

    def output_shape(self, network: str) -> Shape:
        """The shape of a network's output for one training patch.

        Raises:
            ValueError: If there is no such network, or it cannot run on a training patch.
        """
        return per_image_shape(self._probes.of(network).output)

    def require_same_output(self, network: str) -> Shape:
        """The shape of the output that the student and another network both give for one training patch.

        Raises:
            ValueError: If there is no such network, or the shapes differ.
        """
        own, other = self.output_shape("g"), self.output_shape(network)
        if own != other:
            raise ValueError(
                f"network_g gives an image of shape {own} and {self[network].label} one of {other}; they must agree "
                f"(check upscale and the number of output channels)"
            )
        return own

    def shape_at(self, network: str, path: str, scale: int) -> Shape:
        """The shape of a tapped output for a patch ``scale`` times as high and wide; runs the network once more."""
        return per_image_shape(self._probes.at(network, scale).features[path])

    def free_probes(self) -> None:
        """Free the results of the trial passes."""
        self._probes.clear()

    # Encoders.

    @torch.no_grad()
    def encoder(
        self, name: str, input_range: InputRange = "[0,1]", latent: bool = False, layers: Iterable[str] = ()
    ) -> FrozenEncoder:
        """A frozen network as an encoder of images. Equal calls share one encoding of each image.

        Args:
            name: The suffix of its ``network_<name>``.
            input_range: What images in [0, 1] are mapped to for it.
            latent: Whether the latent and the codebook are needed.
            layers: Layers that the encoder must have.

        Raises:
            ValueError: If ``network_<name>`` is not defined, is not an encoder, lacks what is needed, cannot take
                images of this size, or has runtime options that an encoder cannot have.
        """
        network = self[name]
        if not isinstance(network, FrozenNetwork):
            raise ValueError(f"encoder: {name} is not a frozen network; name one that is, such as a VGG or a VQGAN")
        if network.normalised:
            raise ValueError(
                f"runtime.{name}: mean and std are for teachers; what an encoder sees is set by input_range"
            )
        if network.runtime.precision == "fp16" and self.runtime.precision != "fp16":
            raise ValueError(
                f"runtime.{name}.precision: gradients pass the encoder, and in fp16 they vanish where the loss is not "
                f"scaled, which it is when runtime.g.precision is fp16; use bf16"
            )
        kind = type(network.net).__name__
        encoder = FrozenEncoder(network, input_range)
        if latent and encoder.codebook is None:
            raise ValueError(f"network_{name} ({kind}) has no codebook; name a VQGAN as the encoder")
        shapes = self.encoding_shapes(encoder)
        missing = [layer for layer in layers if layer not in shapes]
        if missing:
            raise ValueError(
                f"network_{name} ({kind}) does not give {', '.join(missing)}; it gives {', '.join(shapes)}"
            )
        return encoder

    @torch.no_grad()
    def encoding_shapes(self, encoder: FrozenEncoder) -> dict[str, Shape]:
        """Layer → shape for one image of the training, with ``latent`` last where there is a codebook."""
        network, name = encoder.network, encoder.network.name
        kind, image = type(network.net).__name__, torch.zeros(self.output_shape("g"), device=self.device)
        try:
            encoding = encoder.encode(image)
            latent = {} if encoder.codebook is None else {"latent": tuple(encoder.latent(encoding).shape)}
        except (AttributeError, TypeError) as error:
            raise ValueError(f"network_{name} ({kind}) is not an encoder: {error}") from error
        except (RuntimeError, ValueError) as error:
            size = "×".join(map(str, image.shape[2:]))
            raise ValueError(f"network_{name} cannot encode the training's {size} images: {error}") from error
        return {layer: tuple(feature.shape) for layer, feature in encoding.features.items()} | latent
