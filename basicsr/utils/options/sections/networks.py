"""Networks, their weights, and how they compute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..finding import Finding, Setting
from ..lookup import datasets_of, network_names, section_of
from ..registered import is_ours
from ..registered_section import Registered
from ..section import Section
from .numbers import normalisation_rules


class NetworkOptions(Registered):
    """A network: the constructor's parameters of a registered architecture."""

    kind = "arch"
    hints_bind = False


class PathOptions(Section):
    """Weights to load and folders to write to."""

    unread: ClassVar[tuple[str, ...]] = ("param_key", "strict_load")
    families: ClassVar[dict[str, Any]] = {
        r"pretrain_network_\w+": Annotated[
            str | None,
            Field(
                description="Weights of `network_<x>`: a file or a URL. A frozen network that terms or losses use must "
                "have them; `random` says that it is meant to have none."
            ),
        ],
        r"strict_load_\w+": Annotated[
            bool, Field(description="Whether the weights must fit exactly; `true` if absent.")
        ],
        r"param_key_\w+": Annotated[
            str | None,
            Field(
                description="Which of the file's state dicts to take: `params`, `params_ema`. Where it has only the "
                "other of these, that is taken, with a warning; another name must be there."
            ),
        ],
    }
    resume_state: str | None = None
    """A training state to go on from; `--auto_resume` finds the last one by itself."""
    ignore_resume_networks: list[str] | str | None = None
    """Networks that a resumed run does not take from the run's own checkpoints; one may be a plain string."""
    resume_changed: list[str] | None = None
    """Options that may differ from those of the training state that a run goes on from, although they change what is
    trained; a section includes all its keys."""
    experiments_root: str | None = None
    """Folder in which training runs are kept, instead of `experiments`."""
    results_root: str | None = None
    """Folder in which test results are kept, instead of `results`."""

    @classmethod
    def rules(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        for key, value in values.items():
            if value == "":
                yield Finding((key,), "is empty; write ~ for none")


class RuntimeOptions(Section):
    """How one network computes in training; validation and test always compute in fp32."""

    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Arithmetic of its forward pass (and, for `g`, of the backward pass); the weights of `g` stay in fp32. `auto`:
    bf16 where the device computes it natively (CUDA from compute capability 8.0, CPUs with AMX, AVX-512-bf16 or ARM's
    bf16), else fp32; the log says why. `fp16` scales the loss."""
    channels_last: bool = False
    """Lay out weights and images channels-last."""
    compile: bool = False
    """Compile it with torch.compile."""
    mean: list[float] | None = None
    """Frozen networks only: subtracted from each channel of the input in [0, 1]."""
    std: list[float] | None = None
    """Frozen networks only: each channel of the input is divided by this after `mean`."""

    @classmethod
    def rules(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        yield from normalisation_rules(values)


def network_rules(opt: Mapping[Any, Any], setting: Setting) -> Iterator[Finding]:
    """What concerns the networks together, and with the rest of the options."""
    names = network_names(opt)
    if not isinstance(opt.get("network_g"), dict):
        yield Finding((), "the section 'network_g' is missing; it describes the network to train or test")
    elif not setting.is_train and not section_of(opt, "path").get("pretrain_network_g"):
        yield Finding((), "path.pretrain_network_g is not set, so network_g has RANDOM weights", is_notice=True)
    for name in section_of(opt, "runtime"):
        if name not in names:
            yield Finding(("runtime", name), f"there is no network_{name}; networks: {', '.join(names)}")
    for key in ("mean", "std"):
        if section_of(section_of(opt, "runtime"), "g").get(key) is not None:
            yield Finding(("runtime", "g", key), "only a frozen network can be given another normalisation")
    yield from _weights(opt, names)
    yield from _scale(opt)


def _weights(opt: Mapping[Any, Any], names: list[str]) -> Iterator[Finding]:
    """Keys of ``path`` name networks that there are."""
    path = section_of(opt, "path")
    for key, value in path.items():
        for prefix in ("pretrain_network_", "strict_load_", "param_key_"):
            name = str(key).removeprefix(prefix)
            if name == key or name in names:
                continue
            hint = did_you_mean(prefix, name, names)
            if prefix != "pretrain_network_" and not hint:
                yield Finding(("path", key), f"has no effect, since there is no network_{name}", is_notice=True)
            elif value is not None:
                yield Finding(("path", key), f"there is no network_{name} to load weights into{hint}")
    ignored = path.get("ignore_resume_networks")
    for name in ignored if isinstance(ignored, list) else [ignored]:
        if isinstance(name, str) and name.removeprefix("network_") not in names:
            known = ", ".join(f"network_{known}" for known in names)
            yield Finding(("path", "ignore_resume_networks"), f"there is no {name}; networks: {known}")


def did_you_mean(prefix: str, name: str, names: list[str]) -> str:
    """A hint at the nearest of the names, as the end of a sentence."""
    nearest = get_close_matches(name, names, n=1)
    return f"; did you mean '{prefix}{nearest[0]}'?" if nearest else ""


def _scale(opt: Mapping[Any, Any]) -> Iterator[Finding]:
    """The networks' factors are the scale."""
    scale = opt.get("scale")
    paired = any("dataroot_gt" in dataset for _, dataset in datasets_of(opt))
    for key, network in opt.items():
        upscale = network.get("upscale") if str(key).startswith("network_") and isinstance(network, dict) else None
        if not isinstance(upscale, int) or upscale == (scale or 1):
            continue
        if scale is not None:
            serious = key == "network_g" and is_ours("arch", network)
            yield Finding((key, "upscale"), f"is {upscale} while the scale is {scale}", is_notice=not serious)
        elif key == "network_g" and paired and is_ours("arch", network):
            yield Finding((), f"the key 'scale' is missing; network_g.upscale is {upscale}")
