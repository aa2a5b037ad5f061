"""What every recipe shares: devices, optimisers, schedules, checkpoints."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from basicsr.engine.checkpoint import cpu_state_dict
from basicsr.engine.compute.distributed import rebuild_ddp_buckets, union_of_ranks
from basicsr.engine.compute.ema import update_ema
from basicsr.engine.rng import capture_rng, restore_rng
from basicsr.engine.run.retention import keep_newest
from basicsr.utils.atomic_file import atomic_save, file_hash
from basicsr.utils.dist_util import get_dist_info, master_only
from basicsr.utils.logger import get_root_logger
from basicsr.utils.options.sections import LoggerOptions
from basicsr.utils.weights import load_weights

from .lr_scheduler import find_scheduler
from .optimizer import build_optimizer
from .validation import ValidationMixin


class BaseModel(ValidationMixin):
    """The parent of all recipes.

    Args:
        opt: The resolved options.

    Attributes:
        trained: The suffixes of the networks that the recipe trains; every other ``network_<x>`` is frozen.
        streams: The training sets that each iteration draws a batch from: the names of their sections of ``datasets``.
        device: Where the networks are: ``cuda`` unless ``num_gpu`` is 0.
        optimizers, schedulers: All of them, in the order in which the training state keeps them.
        log_dict: The last iteration's scalars, still as tensors; :meth:`get_current_log` makes them numbers.
        sampler_state: Where the training data stands; the training loop sets it before :meth:`save`.
        validation_due: Whether the iteration is still to be validated; likewise.
        identity: What a training state says of the run that it belongs to; likewise.
        save_errors: Why files of the last :meth:`save` are missing; empty when all were written.
    """

    trained: tuple[str, ...] = ("g",)
    streams: tuple[str, ...] = ("train",)

    def __init__(self, opt: dict) -> None:
        super().__init__()
        self.opt = opt
        self.device = torch.device("cuda" if opt["num_gpu"] != 0 else "cpu")
        self.is_train = opt["is_train"]
        self.optimizers: list[torch.optim.Optimizer] = []
        self.schedulers: list[torch.optim.lr_scheduler.LRScheduler] = []
        self.log_dict: Mapping[str, Any] = {}
        self.sampler_state: dict[str, Any] | None = None
        self.validation_due = False
        self.identity: dict[str, Any] = {}
        self.save_errors: list[str] = []
        self._saved_networks: dict[str, str] = {}  # name of the file → its SHA-256

    # One iteration: a recipe defines these.

    def feed_data(self, data: dict) -> None:
        raise NotImplementedError

    def optimize_parameters(self, current_iter: int) -> None:
        raise NotImplementedError

    def get_current_visuals(self) -> dict[str, Tensor]:
        raise NotImplementedError

    def test(self) -> None:
        raise NotImplementedError

    def save(self, epoch: int, current_iter: int) -> None:
        raise NotImplementedError

    # Networks.

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move a network to the device and, when it is to be trained on several, wrap it for that."""
        net = net.to(self.device)
        if not self.is_train or not any(p.requires_grad for p in net.parameters()):
            return net
        if self.opt["dist"]:
            wrapped = DistributedDataParallel(
                net,
                device_ids=[torch.cuda.current_device()] if self.device.type == "cuda" else None,
                find_unused_parameters=self.opt.get("find_unused_parameters", False),
            )
            rebuild_ddp_buckets(wrapped)
            return wrapped
        return DataParallel(net) if self.opt["num_gpu"] > 1 else net

    def get_bare_model(self, net: nn.Module) -> nn.Module:
        """The network inside whatever wraps it."""
        return net.module if isinstance(net, (DataParallel, DistributedDataParallel)) else net

    def model_ema(self, decay: float = 0.999) -> None:
        """Move ``net_g_ema`` towards ``net_g``; ``decay=0`` copies."""
        update_ema(self.net_g_ema, self.get_bare_model(self.net_g), decay)

    @master_only
    def print_network(self, net: nn.Module) -> None:
        bare = self.get_bare_model(net)
        count = sum(p.numel() for p in bare.parameters())
        get_root_logger().info(f"Network: {type(bare).__name__}, with parameters: {count:,d}")
        get_root_logger().debug(str(bare))

    # Optimisers and schedules.

    def get_optimizer(self, optim_type: str, params: Iterable, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        """An optimiser by name; see :func:`basicsr.models.optimizer.build_optimizer`."""
        return build_optimizer(optim_type, params, lr, **kwargs)

    def setup_schedulers(self) -> None:
        """Make a schedule, named by ``train.scheduler``, for every optimiser."""
        options = dict(self.opt["train"]["scheduler"])
        scheduler_class = find_scheduler(options.pop("type"))
        self.schedulers = [scheduler_class(optimizer, **options) for optimizer in self.optimizers]

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set the rates of iteration ``current_iter`` (from 1); linear warm-up over the first ``warmup_iter``."""
        if current_iter > 1:
            for scheduler in self.schedulers:
                # A schedule of torch.optim goes on from the last rate, which must be its own and not the warm-up's.
                for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr()):
                    group["lr"] = rate
                _advance(scheduler, is_first=current_iter == 2)
        if current_iter < warmup_iter:
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] / warmup_iter * current_iter

    def get_current_learning_rate(self) -> list[float]:
        return [group["lr"] for group in self.optimizers[0].param_groups]

    # Logging.

    def reduce_loss_dict(self, loss_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses for ``log_dict``: detached, still on their device.

        They are averaged over the ranks, and made numbers, only when a line is printed (:meth:`get_current_log`), so
        that no iteration waits for the device.
        """
        return {name: value.detach() for name, value in loss_dict.items()}

    def get_current_log(self) -> dict[str, float]:
        """The last iteration's scalars as numbers, the mean over the ranks that have them. Every rank must call it."""
        names = list(self.log_dict)
        if self.opt["dist"]:
            names = union_of_ranks(names)
        if not names:
            return {}
        values = [self.log_dict.get(name, 0.0) for name in names]
        sums = torch.stack([torch.as_tensor(v, dtype=torch.float32, device=self.device).mean() for v in values])
        if self.opt["dist"]:
            present = torch.tensor([float(name in self.log_dict) for name in names], device=self.device)
            both = torch.stack([sums, present])
            dist.all_reduce(both)
            sums = both[0] / both[1]
        return dict(zip(names, sums.tolist()))

    # Files.

    @master_only
    def save_network(
        self,
        net: nn.Module | list[nn.Module],
        net_label: str,
        current_iter: int | str,
        param_key: str | list[str] = "params",
    ) -> None:
        """Write ``models/<net_label>_<iter>.pth``; what prevents it is kept in ``save_errors``.

        Args:
            net: The network, or several to be kept in one file.
            net_label: For instance ``net_g``.
            current_iter: The iteration; −1 for ``latest``, or another word for the file's name, such as ``best``.
            param_key: The key of each network in the file.
        """
        nets = net if isinstance(net, list) else [net]
        keys = param_key if isinstance(param_key, list) else [param_key]
        assert len(nets) == len(keys), "one key per network"
        name = f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"
        states = {key: cpu_state_dict(self.get_bare_model(n)) for key, n in zip(keys, nets)}
        try:
            self._saved_networks[name] = atomic_save(states, Path(self.opt["path"]["models"]) / name)
        except OSError as error:
            self.save_errors.append(str(error))

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """Load weights; see :func:`basicsr.utils.weights.load_weights`."""
        logger = get_root_logger()
        for message in load_weights(self.get_bare_model(net), load_path, strict, param_key):
            logger.warning(f"{load_path}: keys {message}")

    def _print_different_keys_loading(
        self, crt_net: nn.Module, load_net: dict[str, Tensor], strict: bool = True
    ) -> None:
        """Log how a state dict differs from a network's, for a plug-in that loads weights itself, as in BasicSR.

        Args:
            crt_net: The network.
            load_net: The state dict. Unless ``strict``, tensors of another shape are renamed in it, by the ending
                ``.ignore``, so that they are not loaded.
            strict: Whether they will be loaded strictly.
        """
        logger = get_root_logger()
        own = self.get_bare_model(crt_net).state_dict()
        for title, names in (
            ("Current net - loaded net", own.keys() - load_net.keys()),
            ("Loaded net - current net", load_net.keys() - own.keys()),
        ):
            if names:
                logger.warning("\n  ".join([f"{title}:", *sorted(names)]))
        for name in [] if strict else sorted(own.keys() & load_net.keys()):
            if own[name].shape != load_net[name].shape:
                shapes = f"crt_net: {own[name].shape}; load_net: {load_net[name].shape}"
                logger.warning(f"Size different, ignore [{name}]: {shapes}")
                load_net[f"{name}.ignore"] = load_net.pop(name)

    def save_training_state(self, epoch: int, current_iter: int | str) -> None:
        """Write ``training_states/<iter>.state``; every rank must call it, since each one's random state is kept.

        It is written after the networks of the iteration, and has their names and hashes, so a state that exists is
        complete and knows its networks. When one of them could not be written, neither is the state. Older checkpoints
        go by ``logger.keep_last`` only after it.
        """
        if not isinstance(current_iter, int) or current_iter == -1:
            self._saved_networks.clear()
            return
        rank, world = get_dist_info()
        rng = [capture_rng()]
        if world > 1:
            gathered: list[Any] = [None] * world
            dist.all_gather_object(gathered, rng[0])
            rng = gathered
        if rank == 0:
            state = {
                "epoch": epoch,
                "iter": current_iter,
                "optimizers": [o.state_dict() for o in self.optimizers],
                "schedulers": [s.state_dict() for s in self.schedulers],
                "classes": self._stateful_classes(),
                "rng": rng,
                "sampler": self.sampler_state,
                "validation_due": self.validation_due,
                "best_metric_results": copy.deepcopy(self.best_metric_results),
                "networks": list(self._saved_networks),
                "network_hashes": self._network_hashes(current_iter),
                **self.identity,
                **self.extra_training_state(),
            }
            self._write_training_state(state)
        self._saved_networks.clear()

    def _network_hashes(self, current_iter: int) -> dict[str, str]:
        """The hashes of an iteration's networks by the names of their files, those that a plug-in has written itself
        included."""
        models = Path(self.opt["path"]["models"])
        names = [
            f"net_{key.removeprefix('network_')}_{current_iter}.pth" for key in self.opt if key.startswith("network_")
        ]
        others = [name for name in names if name not in self._saved_networks and (models / name).is_file()]
        return {**self._saved_networks, **{name: file_hash(models / name) for name in others}}

    def _write_training_state(self, state: dict[str, Any]) -> None:
        models, states = Path(self.opt["path"]["models"]), Path(self.opt["path"]["training_states"])
        file = states / f"{state['iter']}.state"
        if not self.save_errors:
            try:
                atomic_save(state, file)
            except OSError as error:
                self.save_errors.append(str(error))
        keep = LoggerOptions.of(self.opt.get("logger")).keep_last
        if not self.save_errors and keep:
            keep_newest(states, models, state["networks"], state["iter"], keep)
        elif self.save_errors and not file.is_file():
            for name in state["networks"]:  # useless without the state, and the disk may be full
                (models / name).unlink(missing_ok=True)

    def _stateful_classes(self) -> dict[str, list[str]]:
        groups = {"optimizers": self.optimizers, "schedulers": self.schedulers}
        return {kind: [type(item).__name__ for item in items] for kind, items in groups.items()}

    def extra_training_state(self) -> dict[str, Any]:
        """What a recipe adds to the training state: tensors and plain values only."""
        return {}

    def resume_training(self, resume_state: dict) -> None:
        """Continue from a training state: optimisers, schedules, best metrics, and this rank's random state.

        The networks are loaded when the recipe is built.

        Raises:
            ValueError: If the state was made by a run with other options.
        """
        self.load_extra_training_state(resume_state)
        for kind, own in (("optimizers", self.optimizers), ("schedulers", self.schedulers)):
            saved = resume_state[kind]
            names = [type(item).__name__ for item in own]
            saved_names = resume_state.get("classes", {}).get(kind, names)  # BasicSR's states do not say
            advice = "resume with the options of the run, or start a new run from its weights (path.pretrain_network_g)"
            if len(saved) != len(own) or saved_names != names:
                theirs = ", ".join(saved_names) if len(saved) == len(saved_names) else len(saved)
                raise ValueError(
                    f"the training state holds the {kind} {theirs}, and the options make {', '.join(names)}; {advice}"
                )
            for target, values in zip(own, saved):
                try:
                    target.load_state_dict(values)
                except ValueError as error:
                    raise ValueError(f"the training state's {kind} do not fit ({error}); {advice}") from error
        self.best_metric_results = resume_state.get("best_metric_results", {})
        rank, world = get_dist_info()
        rng = resume_state.get("rng", [])
        if len(rng) == world:
            restore_rng(rng[rank])
        else:
            get_root_logger().warning(
                f"The training state holds the random state of {len(rng)} processes and this run has {world}: it "
                f"continues, but not bit for bit as if it had not stopped."
            )

    def load_extra_training_state(self, state: dict) -> None:
        """Restore what :meth:`extra_training_state` saved."""


def _advance(scheduler: torch.optim.lr_scheduler.LRScheduler, is_first: bool) -> None:
    """Step a schedule. At its first step PyTorch warns if its optimiser has taken none, which is fine here: a
    term may start later, and a step whose gradients are not finite is skipped."""
    if not is_first:
        scheduler.step()
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler.step\(\)` before")
        scheduler.step()
