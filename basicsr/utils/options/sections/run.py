"""The option file as a whole, and what a run writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, create_model
from typing_extensions import Self

from ..errors import Key
from ..finding import Finding, Setting
from ..lookup import datasets_of, section_of
from ..section import Section, form_of, members_of_families
from ..words import shown
from .datasets import DatasetOptions, dataset_rules
from .networks import NetworkOptions, PathOptions, RuntimeOptions, network_rules
from .numbers import Iterations
from .progressive import progressive_rules
from .training import TrainOptions, training_rules
from .validation import ValOptions


class WandbOptions(Section):
    """Weights & Biases; off while `project` is absent."""

    unread: ClassVar[tuple[str, ...]] = ("entity",)
    project: str | None = None
    """Project to log to."""
    resume_id: str | None = None
    """Run to continue."""


class LoggerOptions(Section):
    """What a training run writes, and how often."""

    print_freq: Iterations
    """Iterations between log lines."""
    save_checkpoint_freq: Iterations
    """Iterations between checkpoints."""
    keep_last: Iterations | None = None
    """Checkpoints to keep: older ones are deleted once a newer one is whole; all are kept when absent."""
    keep_best: Annotated[str, Field(pattern=r"^.+/.+$")] | None = None
    """`<dataset>/<metric>`: write the best validated weights to `net_g_best.pth`, by a metric of `val.metrics`."""
    use_tb_logger: bool = False
    """Write TensorBoard events."""
    wandb: WandbOptions | None = None
    """Weights & Biases."""

    @property
    def print_interval(self) -> int:
        """``print_freq``; 100 in options that a plug-in has made by hand without it."""
        return self.print_freq or 100

    @classmethod
    def rules(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        wandb = values.get("wandb")
        if isinstance(wandb, dict) and wandb.get("project") and not values.get("use_tb_logger"):
            yield Finding(("wandb",), "mirrors TensorBoard: set logger.use_tb_logger to true as well")


class DistOptions(Section):
    """Distributed training."""

    backend: Literal["nccl", "gloo"] | None = None
    """Communication; nccl where there is a GPU, else gloo, when absent."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Rendezvous port under slurm."""


@lru_cache(maxsize=64)
def _with_training(model: type[Section], train: type[TrainOptions]) -> type[Section]:
    return create_model(model.__name__, __base__=model, train=(train | None, None))


class Options(Section):
    """An option file."""

    unread: ClassVar[tuple[str, ...]] = ("crop_border", "print_network", "save_img", "suffix")
    families: ClassVar[dict[str, Any]] = {
        r"network_\w+": Annotated[
            NetworkOptions | bool,
            Field(
                description="A network: `type` and its constructor's parameters. `network_g` is trained or tested. Any "
                "other is frozen, unless the recipe trains it (a discriminator). A frozen one that no term and no loss "
                "uses is not built, and its weights need not exist."
            ),
        ]
    }
    name: str
    """Name of the run and of its folder."""
    model_type: str
    """The registered recipe."""
    scale: Annotated[int, Field(ge=1)] | None = None
    """Output size ÷ input size; copied into every dataset."""
    num_gpu: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """GPUs to use without a launcher: `auto` for all, 0 for the CPU."""
    manual_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Seed of every random choice; drawn when absent."""
    find_unused_parameters: bool = False
    """Passed to DistributedDataParallel."""
    imports: list[str] | str | None = None
    """Modules, or .py files, that register classes of your own."""
    datasets: dict[str, DatasetOptions] = None
    """One section per dataset: `train…`, `val…` or `test…`."""
    path: PathOptions | None = None
    train: TrainOptions | None = None
    val: ValOptions | None = None
    logger: LoggerOptions | None = None
    dist_params: DistOptions | None = None
    runtime: dict[str, RuntimeOptions] | None = None
    """How networks compute, by suffix: `g` for `network_g`, `t` for `network_t`."""

    @classmethod
    def form_for(cls, values: Mapping[Any, Any], setting: Setting | None) -> type[Self]:
        recipe = setting.recipe if setting is not None else None
        train = getattr(recipe, "TrainOptions", TrainOptions)
        model = _with_training(cls, train)
        return form_of(model, found=members_of_families(cls, values), is_open=setting is not None and setting.is_open)

    @classmethod
    def rules(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        yield from network_rules(values, setting)
        yield from dataset_rules(values, setting)
        yield from name_rules(values)
        if setting.is_train:
            yield from training_rules(values, setting)
            yield from progressive_rules(values)


def name_rules(opt: Mapping[Any, Any]) -> Iterator[Finding]:
    """Names serve as names of files; results are kept by a dataset's name, so no two may share one."""
    yield from _file_name(("name",), opt.get("name"))
    yield from _file_name(("val", "suffix"), section_of(opt, "val").get("suffix"))
    sections: dict[Any, str] = {}
    for section, dataset in datasets_of(opt):
        name = dataset.get("name")
        key = ("datasets", section, "name")
        yield from _file_name(key, name)
        if section.startswith("train") or not isinstance(name, str):
            continue
        if name in sections:
            yield Finding(key, f"'{name}' is already the name of datasets.{sections[name]}")
        sections[name] = section


def _file_name(key: Key, name: Any) -> Iterator[Finding]:
    if not isinstance(name, str):
        return
    if not name.strip() or name in (".", "..") or len(name.encode()) > 200 or set(name) & set("/\\\0\n\r\t"):
        yield Finding(key, f"must serve as the name of a folder (not empty, no / or \\), and {shown(name)} does not")
