"""The sections of ``datasets``."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from typing_extensions import Self

from basicsr.utils.filename_template import is_filename_template

from ..errors import Key, dotted
from ..finding import Finding, Setting
from ..lookup import datasets_and_sets_of, datasets_of, section_of
from ..registered import all_registered, find_or_none, find_registered, is_ours
from ..registered_section import Registered
from ..section import Section, form_of
from ..signatures import Parameter
from ..streams import sections_of_streams
from ..words import shown
from .numbers import normalisation_rules


class IOBackendOptions(Section):
    """Where a dataset's bytes lie."""

    type: Literal["disk", "lmdb", "memmap"]
    """`disk`: image files in folders; `lmdb`: a database; `memmap`: decoded images."""
    verify: bool = False
    """With `memmap`: check every image's checksum when it is opened."""
    strict: bool = True
    """With `disk` and `lmdb`: refuse damaged JPEG files. Each process checks a file once, when it first reads it."""


class DatasetOptions(Registered):
    """Keys that every dataset understands.

    Attributes:
        required_for_training: Keys that a training set must have although a validation set need not.
    """

    required_for_training: ClassVar[tuple[str, ...]] = ("batch_size_per_gpu", "num_worker_per_gpu")
    unread: ClassVar[tuple[str, ...]] = ("task", "use_flip")
    kind = "dataset"
    name: str
    """Name in logs, tables and result folders."""
    phase: Literal["train", "val", "test"] | None = None
    """Set from the section's name."""
    scale: Annotated[int, Field(ge=1)] | None = None
    """Set from the top-level `scale`."""
    io_backend: IOBackendOptions | None = None
    """Storage: `{type: disk}`, `{type: lmdb}` or `{type: memmap}`. With `verify: true` the checksums of `memmap` are
    compared; with `strict: false` damaged JPEG files are taken."""
    mean: list[float] | None = None
    """Subtracted from each channel (R, G, B) of images in [0, 1]."""
    std: list[float] | None = None
    """Each channel is divided by this after `mean`."""
    batch_size_per_gpu: Annotated[int, Field(ge=1)] | None = None
    """Images per iteration and process."""
    num_worker_per_gpu: Annotated[int, Field(ge=0)] | None = None
    """Loader processes per training process."""
    dataset_enlarge_ratio: Annotated[int, Field(ge=1)] = 1
    """How often an epoch goes through the images."""
    prefetch_mode: Literal["cpu", "cuda"] | None = None
    """`cpu`: a thread reads ahead; `cuda`: batches are copied to the device ahead of use."""
    num_prefetch_queue: Annotated[int, Field(ge=1)] = 1
    """Batches read ahead with `prefetch_mode: cpu`."""
    pin_memory: bool = True
    """Load into page-locked memory, where there is a GPU."""
    persistent_workers: bool = True
    """Keep loader processes between epochs."""
    use_shuffle: bool | None = None
    """Written in BasicSR's files; a training set is always shuffled."""

    @classmethod
    def form_of_class(
        cls,
        name: str,
        target: Any,
        further: Mapping[str, Parameter] | None = None,
        replaced: Mapping[str, Parameter] | None = None,
    ) -> type[Self]:
        """What a dataset's class declares. One that only inherits a declaration reads what it likes, and most likely
        what datasets usually read.

        Args:
            name: The registered name.
            target: The class.
            further: Keys beside the declared ones.
            replaced: What declared keys take instead of what is declared.
        """
        declared, is_open = getattr(target, "Options", DatasetOptions), "Options" not in vars(target)
        usual = {key: Parameter(Any, None) for known in cls.declarations() for key in known.model_fields if is_open}
        form = form_of(declared, {**usual, **(further or {})}, name=name, is_open=is_open, replaced=replaced)
        form.target = target
        return form

    @classmethod
    def declarations(cls) -> list[type[DatasetOptions]]:
        """The declarations of all registered datasets."""
        return [getattr(target, "Options", DatasetOptions) for target in all_registered(cls.kind).values()]

    @classmethod
    def rules(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        yield from normalisation_rules(values)
        template = values.get("filename_tmpl")
        if isinstance(template, str) and not is_filename_template(template):
            yield Finding(("filename_tmpl",), f"must hold {{}} once, such as '{{}}x4', not {shown(template)}")
        given = {key: values[key] for key in ("use_hflip", "use_rot") if key in values}
        if values.get("geometric_augs") is True and given and given != {"use_hflip": True, "use_rot": True}:
            text = f"true draws all eight flips and rotations by itself; remove {' and '.join(given)}"
            yield Finding(("geometric_augs",), text)


def dataset_rules(opt: Mapping[Any, Any], setting: Setting) -> Iterator[Finding]:
    """What concerns the data sets together, and with the rest of the options."""
    if opt.get("datasets") in (None, {}):
        found = "is empty" if "datasets" in opt else "is missing"
        yield Finding(("datasets",), f"the section {found}; it must hold one section per dataset")
    yield from _section_names(opt, setting)
    yield from _streams(opt, setting)
    for name, dataset in datasets_of(opt):
        if setting.is_train and name.split("_")[0] == "train":
            yield from _training_keys(name, dataset)
    for way, dataset in datasets_and_sets_of(opt):
        yield from _crop(opt, way, dataset)
        if is_ours("dataset", dataset) and "sets" not in dataset:
            if "degradations" not in dataset:
                yield from _task(way, dataset)
            yield from _channels(opt, way, dataset)


def _section_names(opt: Mapping[Any, Any], setting: Setting) -> Iterator[Finding]:
    for name in map(str, section_of(opt, "datasets")):
        phase = name.split("_")[0]
        if phase not in ("train", "val", "test"):
            nearest = get_close_matches(phase, ["train", "val", "test"], n=1)
            hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
            text = f"a dataset's section is named train…, val… or test…, such as `val_1`{hint}"
            yield Finding(("datasets", name), text)
        elif setting.is_train and phase == "test":
            text = "in training a section is named train… or val…; test… is for test.py"
            yield Finding(("datasets", name), text)
        elif not setting.is_train and phase == "train":
            text = "a training set is not tested on; test.py takes sections named test…"
            yield Finding(("datasets", name), text)


def _streams(opt: Mapping[Any, Any], setting: Setting) -> Iterator[Finding]:
    """The training sets are those that the recipe declares."""
    names = [str(name) for name in section_of(opt, "datasets")]
    if setting.is_train and setting.recipe is not None and names:
        try:
            sections_of_streams(opt["model_type"], [name for name in names if name.split("_")[0] == "train"])
        except ValueError as error:
            yield Finding(("datasets",), str(error))


def _training_keys(name: str, dataset: Mapping[Any, Any]) -> Iterator[Finding]:
    target = find_or_none("dataset", dataset.get("type"))
    for required in getattr(target, "Options", DatasetOptions).required_for_training:
        if dataset.get(required) is None:
            yield Finding(("datasets", name), f"a training set must have the key '{required}'")


def _crop(opt: Mapping[Any, Any], way: Key, dataset: Mapping[Any, Any]) -> Iterator[Finding]:
    scale, size = opt.get("scale"), dataset.get("gt_size")
    scale = scale if isinstance(scale, int) and scale > 0 else 1
    if isinstance(size, int) and (size < 1 or size % scale):
        near = max(size // scale, 1) * scale
        text = f"must be a multiple of the scale {scale}, such as {near}, not {size}"
        yield Finding((*way, "gt_size"), text)


def _task(way: Key, dataset: Mapping[Any, Any]) -> Iterator[Finding]:
    """``task`` of published files names the degradation, and where it is SR it says nothing new."""
    task = dataset.get("task", "SR")
    if not isinstance(task, str) or task.upper() != "SR":
        text = (
            f"must be SR, not {shown(task)}: {dataset['type']} degrades no images, by compression (CAR) or noise "
            f"(denoise), as DegradedImageDataset does; where LQ images lie in dataroot_lq already, remove the key"
        )
        yield Finding((*way, "task"), text)


def channels_of(dataset: Mapping[Any, Any]) -> int:
    """The channels of the images that a data set gives; a mixture, those of its first set."""
    first = next(iter(section_of(dataset, "sets").values()), dataset)
    return 1 if first.get("color") == "y" or first.get("channels") == 1 else 3


def _channels(opt: Mapping[Any, Any], way: Key, dataset: Mapping[Any, Any]) -> Iterator[Finding]:
    """The channels that a data set gives are those that its normalisation and the trained network take."""
    channels = channels_of(dataset)
    for key in ("mean", "std"):
        values = dataset.get(key)
        if isinstance(values, list) and len(values) not in (1, channels):
            text = f"must have 1 or {channels} values for images of {channels}, not {len(values)}"
            yield Finding((*way, key), text)
    network = section_of(opt, "network_g")
    if not is_ours("arch", network):
        return
    parameters = inspect.signature(find_registered("arch", network["type"])).parameters
    for key in ("num_in_ch", "in_chans"):
        taken = network.get(key, parameters[key].default) if key in parameters else channels
        if isinstance(taken, int) and taken != channels:
            own = "channels" if "channels" in dataset else "color"
            text = f"is {taken}, and the images of {dotted(way)} have {channels} (its `{own}`)"
            yield Finding(("network_g", key), text)
