"""Several data sets as one, each with a share of the samples."""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch.utils.data import Dataset
from typing_extensions import Self

from basicsr.utils.labelled import labelled
from basicsr.utils.options import sections
from basicsr.utils.options.finding import Finding, Setting
from basicsr.utils.options.registered import find_registered, is_ours
from basicsr.utils.options.sections.datasets import channels_of
from basicsr.utils.options.signatures import Parameter
from basicsr.utils.registry import DATASET_REGISTRY

from .loader import build_dataset
from .patch_schedule import same_patch

Weight = Annotated[float, Field(gt=0)]


class MixedSetOptions(sections.DatasetOptions):
    """A set of a mixture: the section of a dataset, with a ``weight``, and without the keys of the mixture."""

    @classmethod
    def form_of_class(cls, name: str, target: Any, **_: Any) -> type[Self]:
        further, replaced = {"weight": Parameter(Weight, ...)}, {"name": Parameter(str | None, None)}
        return super().form_of_class(name, target, further, replaced)

    @classmethod
    def forms(cls) -> dict[str, type[Self]]:
        return {name: form for name, form in super().forms().items() if form.target is not MixedDataset}


@DATASET_REGISTRY.register()
class MixedDataset(Dataset):
    """A training set that draws each sample from one of several sets: of several tasks, or of several kinds of images.

    The set of a sample is drawn in proportion to the weights, and the image of that set uniformly, with replacement.
    Both depend on the sample's place in the training alone, as its crop does. An epoch has as many samples as the sets
    have images.

    Args:
        opt: The dataset's section; see :class:`Options`. ``phase`` must be given.

    Attributes:
        opt: The section.
        sets: The sets by name.

    Raises:
        ValueError: If it is not for training, or a set cannot be built.
    """

    class Options(sections.ProgressiveOptions):
        required_for_training: ClassVar[tuple[str, ...]] = (
            *sections.ProgressiveOptions.required_for_training,
            "gt_size",
        )
        of_the_mixture: ClassVar[tuple[str, ...]] = (
            "gt_size",
            "gt_sizes",
            "mini_batch_sizes",
            "iters",
            "batch_size_per_gpu",
            "num_worker_per_gpu",
            "dataset_enlarge_ratio",
            "prefetch_mode",
            "num_prefetch_queue",
            "pin_memory",
            "persistent_workers",
            "use_shuffle",
        )
        sets: dict[str, MixedSetOptions]
        """The sets by name: each a dataset's section with a `weight`, its share in proportion to the other weights."""

        @classmethod
        def rules(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
            yield from super().rules(values, setting)
            sets = values.get("sets")
            if sets == {}:
                yield Finding(("sets",), "is empty; it must hold one section per set")
            for name, section in sets.items() if isinstance(sets, dict) else ():
                if not isinstance(section, dict):
                    continue
                if section.get("type") == "MixedDataset":
                    yield Finding(("sets", name, "type"), "a mixture cannot be in a mixture; name its sets here")
                elif is_ours("dataset", section) and not _gives_crops(section["type"]):
                    text = f"{section['type']} gives whole images; the sets of a mixture give crops of gt_size"
                    yield Finding(("sets", name, "type"), text)
                for key in section:
                    if key in cls.of_the_mixture:
                        yield Finding(("sets", name, key), "is the same for all sets; write it beside `sets`")
            yield from _one_number_of_channels(sets)

    def __init__(self, opt: dict[str, Any]) -> None:
        if opt["phase"] != "train":
            raise ValueError("MixedDataset is for training; validate and test each set in a section of its own")
        self.opt = opt
        shared = {key: opt[key] for key in ("phase", "scale", "gt_size", "gt_sizes") if key in opt}
        self.sets: dict[str, Dataset] = {}
        for name, section in opt["sets"].items():
            with labelled(f"sets.{name}"):
                own = {key: value for key, value in section.items() if key != "weight"}
                self.sets[name] = build_dataset({"name": name, **own, **shared})
        self._members = list(self.sets.values())
        self._limits = list(accumulate(section["weight"] for section in opt["sets"].values()))

    def __len__(self) -> int:
        return sum(map(len, self._members))

    def __getitem__(self, index: int) -> Any:
        """A sample of one of the sets; which one depends on how ``random`` was seeded for the index."""
        member = self._members[bisect.bisect(self._limits, random.random() * self._limits[-1])]
        return member[same_patch(index, random.randrange(len(member)))]


def _gives_crops(name: str) -> bool:
    return issubclass(find_registered("dataset", name).Options, sections.ProgressiveOptions)


def _one_number_of_channels(sets: Any) -> Iterable[Finding]:
    """Grey and colour images cannot be samples of one batch."""
    ours = {k: v for k, v in sets.items() if is_ours("dataset", v)} if isinstance(sets, dict) else {}
    channels = {name: channels_of(section) for name, section in ours.items()}
    if len(set(channels.values())) > 1:
        grey = ", ".join(name for name, count in channels.items() if count == 1)
        text = f"all must have the same channels; grey are {grey} (`color` or `channels`), and the others are RGB"
        yield Finding(("sets",), text)
