"""The distillation recipe: any student, any frozen teachers and encoders, any combination of terms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from basicsr.archs import build_network
from basicsr.distill import build_term
from basicsr.distill.context import KDContext, Pass
from basicsr.distill.frozen import FrozenNetwork
from basicsr.distill.taps import FeatureTaps
from basicsr.distill.wiring import wiring_report
from basicsr.engine.distributed import average_gradients, broadcast_module
from basicsr.engine.rng import preserved_rng
from basicsr.utils import option_schema as schema
from basicsr.utils.logger import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY

from .sr_model import SRModel


@MODEL_REGISTRY.register()
class KDModel(SRModel):
    """:class:`SRModel` plus the terms of ``train.kd_opt``.

    Every ``network_<x>`` but ``network_g`` is frozen: in eval mode, without gradients, outside DDP, the optimiser and
    the checkpoints. The validation always compares with the ground truth.

    Attributes:
        frozen: The frozen networks by suffix (``t``, ``t_2`` …).
        terms: The distillation terms by their name in ``train.kd_opt``.
    """

    class TrainOptions(SRModel.TrainOptions):
        """Options of ``train`` that this recipe reads."""

        kd_opt: dict[str, schema.KDTermOptions | None] | None = None
        """Distillation terms by the name they are logged under; one set to `~` is left out."""

    # Preparation. Terms see the methods ``output_shape`` and ``tap``, and ``device``.

    def build_losses(self) -> None:
        self.frozen = self._build_frozen()
        self.student_taps = FeatureTaps(self.get_bare_model(self.net_g), "network_g")
        self._output_shapes: dict[str, tuple[int, ...]] = {}
        self.terms = self._build_terms()
        for network in self.frozen.values():
            network.runtime.have_compiled(network.net)
        super().build_losses()
        report = wiring_report(self.get_bare_model(self.net_g), self.frozen, self.terms, self.opt)
        get_root_logger().info(report)

    def check_losses(self) -> None:
        if self.terms and isinstance(self.net_g, DataParallel):
            raise ValueError(
                "distillation on several GPUs needs one process each: start with torchrun (--launcher pytorch)"
            )
        if not self.terms:
            super().check_losses()

    def _build_frozen(self) -> dict[str, FrozenNetwork]:
        frozen = {}
        runtime = self.opt.get("runtime") or {}
        for key in [k for k, v in self.opt.items() if k.startswith("network_") and k != "network_g" and v]:
            name = key.removeprefix("network_")
            if not isinstance(self.opt[key], dict):
                raise ValueError(
                    f"{key}: must be a section with a type, not {self.opt[key]!r} (DCKD's own files, with network_his: "
                    f"true, have model_type: DCKDModel; with KDModel the term DCR makes its history network itself)"
                )
            net = build_network(self.opt[key]).to(self.device)
            path = self.opt["path"]
            if path.get(f"pretrain_{key}"):
                strict = path.get(f"strict_load_{name}", True)
                self.load_network(net, path[f"pretrain_{key}"], strict, path.get(f"param_key_{name}") or "params_ema")
            else:
                get_root_logger().warning(f"{key} has RANDOM weights: path.pretrain_{key} is not set.")
                broadcast_module(net)
            frozen[name] = FrozenNetwork(net, name, **(runtime.get(name) or {}))
        return frozen

    def _build_terms(self) -> nn.ModuleDict:
        terms = nn.ModuleDict()
        for name, options in (self.opt["train"].get("kd_opt") or {}).items():
            if options is None:  # a derived option file removes an inherited term so
                continue
            if hasattr(terms, name):
                raise ValueError(f"train.kd_opt.{name}: this name is taken by PyTorch; choose another for the term")
            term = build_term(name, options).to(self.device)
            try:
                term.setup(self)
            except ValueError as error:
                raise ValueError(f"train.kd_opt.{name}: {error}") from error
            broadcast_module(term)
            terms[name] = term
        return terms

    def trained_parameters(self) -> list[nn.Parameter]:
        return super().trained_parameters() + self.term_parameters()

    def term_parameters(self) -> list[nn.Parameter]:
        """The parameters of the terms (adapters), which train with the student."""
        return [p for p in self.terms.parameters() if p.requires_grad]

    def output_shape(self, network: str) -> tuple[int, ...]:
        """The shape of a network's output for one training patch.

        Args:
            network: ``g`` for the student, or a frozen network's suffix.

        Raises:
            ValueError: If there is no such network, or it cannot run on a training patch.
        """
        if network not in self._output_shapes:
            self._output_shapes[network] = tuple(self._probe(network).output.shape)
        return self._output_shapes[network]

    def check_teacher(self, name: str) -> tuple[int, ...]:
        """The shape of the output that the student and a teacher both give for one training patch.

        Raises:
            ValueError: If there is no such teacher, or the shapes differ.
        """
        own, other = self.output_shape("g"), self.output_shape(name)
        if own != other:
            raise ValueError(
                f"network_g gives an image of shape {own} and network_{name} one of {other}; they must agree (check "
                f"upscale and the number of output channels)"
            )
        return own

    def tap(self, network: str, pattern: str) -> dict[str, tuple[int, ...]]:
        """Record, from now on, the outputs of modules in every pass.

        Args:
            network: ``g`` for the student, or a frozen network's suffix.
            pattern: A module path or glob; see :meth:`basicsr.distill.taps.FeatureTaps.add`.

        Returns:
            The matching paths, with the shapes of their outputs for one training patch.

        Raises:
            ValueError: If nothing matches, or an output is not a tensor.
        """
        paths = self._taps(network).add(pattern)
        features = self._probe(network).features
        absent = [path for path in paths if path not in features]
        if absent:
            raise ValueError(f"network_{network}: {', '.join(absent)} did not run in a forward pass")
        return {path: tuple(features[path].shape) for path in paths}

    def frozen_network(self, name: str) -> FrozenNetwork:
        """The frozen ``network_<name>``.

        Raises:
            ValueError: If the options do not define it.
        """
        if name not in self.frozen:
            known = ", ".join(f"network_{name}" for name in self.frozen) or "none is defined"
            raise ValueError(
                f"network_{name} is not defined; frozen networks: {known}. Add network_{name}: {{type: …}}"
            )
        return self.frozen[name]

    def _taps(self, network: str) -> FeatureTaps:
        return self.student_taps if network == "g" else self.frozen_network(network).taps

    @torch.no_grad()
    def _probe(self, network: str) -> Pass:
        """Run a network on one random patch of the size it will be trained on, in the mode in which it will run."""
        taps = self._taps(network)
        net = self.get_bare_model(self.net_g) if network == "g" else self.frozen[network]
        dataset = self.opt["datasets"]["train"]
        size = (dataset.get("gt_size") or 64 * self.opt.get("scale", 1)) // self.opt.get("scale", 1)
        statistics = [(buffer, buffer.clone()) for buffer in net.buffers()]
        with preserved_rng(), taps.recording(watch=True) as features:
            # two patches, since batch statistics need more than one value
            patch = torch.rand(2, 1 if dataset.get("color") == "y" else 3, size, size, device=self.device)
            try:
                output = net(patch)
            except RuntimeError as error:
                raise ValueError(f"network_{network} cannot run on a patch {tuple(patch.shape)}: {error}") from error
            finally:
                for buffer, value in statistics:
                    buffer.copy_(value)
        return Pass(output[:1], {path: feature[:1] for path, feature in features.items()})

    # One iteration.

    def compute_losses(self, current_iter: int) -> dict[str, Tensor]:
        with self.student_taps.recording() as features:
            self.run_student()
        losses = self.supervised_losses()
        features = {path: feature.float() for path, feature in features.items()}
        student = Pass(self.output, features)
        gt = getattr(self, "gt", None)
        context = KDContext(current_iter, self.lq, gt, student, self.frozen, self.timer, self._run_student_on)
        self._gradient_log = {}
        supervised = sum(losses.values()) if losses else None
        active = {name: term for name, term in self.terms.items() if term.schedule.weight(current_iter) != 0}
        for term in active.values():
            term.prepare(context)
        for name, term in active.items():
            weight = term.schedule.weight(current_iter)
            with self.timer.part("terms"):
                value = term(context)
            parts = value if isinstance(value, dict) else {"": value}
            self._check_values(name, parts)
            weighted = {f"l_{name}_{part}".rstrip("_"): weight * v for part, v in parts.items()}
            clash = weighted.keys() & losses.keys()
            if clash:
                raise ValueError(
                    f"train.kd_opt.{name}: {', '.join(sorted(clash))} is the name of another loss; rename the term"
                )
            if term.schedule.log_grad and current_iter % self.opt["logger"]["print_freq"] == 0:
                self._gradient_log |= self._compare_gradients(name, sum(weighted.values()), supervised)
            losses |= weighted
        if losses and isinstance(self.net_g, DistributedDataParallel):
            # DDP waits for every parameter that the output depends on, also where only inner features count.
            first = next(iter(losses))
            losses[first] = losses[first] + 0.0 * self.output.sum()
        return losses

    @staticmethod
    def _check_values(name: str, parts: dict[str, Any]) -> None:
        for value in parts.values():
            if not (isinstance(value, Tensor) and value.numel() == 1):
                found = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
                raise ValueError(f"train.kd_opt.{name}: a term returns a scalar tensor or a dict of them, not {found}")

    def _run_student_on(self, image: Tensor) -> Tensor:
        with self.timer.part("student"):
            return self.runtime.run(self.net_g, image)

    def _compare_gradients(self, name: str, term: Tensor, supervised: Tensor | None) -> dict[str, Tensor]:
        """The norm of a term's gradient in the student, and its cosine with the supervised losses' gradient."""
        parameters = [p for p in self.net_g.parameters() if p.requires_grad]

        def gradient(loss: Tensor) -> Tensor:
            grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, grads)])

        own = gradient(term)
        log = {f"grad_{name}": own.norm()}
        if supervised is not None:
            log[f"cos_{name}"] = torch.cosine_similarity(own, gradient(supervised), dim=0)
        return log

    def share_gradients(self) -> None:
        """Average the adapters' gradients."""
        if self.opt["dist"]:
            average_gradients(self.term_parameters())

    def optimize_parameters(self, current_iter: int) -> None:
        super().optimize_parameters(current_iter)
        self.log_dict = {**self.log_dict, **self._gradient_log}
        for term in self.terms.values():
            term.after_step(self, current_iter)

    # Files.

    def extra_training_state(self) -> dict[str, Any]:
        terms = {name: term.state_dict() for name, term in self.terms.items()}
        return {**super().extra_training_state(), "terms": terms}

    def load_extra_training_state(self, state: dict) -> None:
        """Restore the terms.

        Raises:
            ValueError: If the run was made with other terms.
        """
        super().load_extra_training_state(state)
        saved = state.get("terms", {})
        if saved.keys() != self.terms.keys():
            raise ValueError(
                f"the training state holds the distillation terms {', '.join(saved) or 'none'}, and train.kd_opt names "
                f"{', '.join(self.terms) or 'none'}; resume with the options of the run, or start a new run from its "
                f"weights (path.pretrain_network_g)"
            )
        for name, term in self.terms.items():
            term.load_state_dict(saved[name])
