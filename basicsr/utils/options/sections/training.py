"""Training: losses, distillation terms, optimisers and schedules."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field
from typing_extensions import Self

from ..errors import Key
from ..finding import Finding, Setting
from ..lookup import datasets_of, network_names, section_of, terms_of
from ..registered import find_registered, is_ours
from ..registered_section import Registered
from ..section import Section, declared, form_of, members_of_families
from ..signatures import Parameter
from ..streams import training_sets
from ..words import shown
from .networks import did_you_mean
from .numbers import FromZero, Iterations, whole


class LossOptions(Registered):
    """A loss: the constructor's parameters of a registered loss."""

    kind = "loss"
    hints_bind = False
    may_be_own = True


class SupervisedLossOptions(LossOptions):
    """A loss between the output and the ground truth, and when it is active."""

    start: Iterations = 1
    """First iteration in which the loss is active."""
    end: FromZero | None = None
    """Last iteration in which the loss is active; to the end of the training when absent."""


class Schedule(Section):
    """When a distillation term is active, and its weight. Iterations are numbered from 1."""

    loss_weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor of the term in the total loss."""
    start: Iterations = 1
    """First iteration in which the term is active."""
    end: FromZero | None = None
    """Last iteration in which the term is active; to the end of the training when absent."""
    ramp: FromZero = 0
    """Iterations over which the weight grows linearly from 0, from `start` on."""
    log_grad: bool = False
    """Log the norm of the term's gradient and its cosine with that of the supervised losses."""

    def weight(self, iteration: int) -> float:
        """The factor at an iteration; 0 when the term is not active."""
        if iteration < self.start or (self.end is not None and iteration > self.end):
            return 0.0
        if self.ramp > 0:
            return self.loss_weight * min(1.0, (iteration - self.start + 1) / self.ramp)
        return self.loss_weight


class KDTermOptions(Schedule, Registered):
    """A distillation term: its constructor's parameters, and what every term has."""

    kind = "distillation term"


class OptimizerOptions(Registered):
    """An optimiser of torch.optim, by name."""

    kind = "optimizer"
    given = ("params",)
    may_be_own = True
    lr: Annotated[float, Field(ge=0)]
    """Learning rate."""


class SchedulerOptions(Registered):
    """A learning rate schedule of basicsr.models.lr_scheduler or torch.optim.lr_scheduler, by name."""

    kind = "scheduler"
    given = ("optimizer", "last_epoch")
    may_be_own = True

    @classmethod
    def rules(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        for key, value in values.items():
            numbers = value if isinstance(value, list) else [value]
            if any(isinstance(number, (int, float)) and number < 0 for number in numbers):
                yield Finding((key,), f"must not be negative, but is {shown(value)}")


class MixingOptions(Section):
    """Mixing the samples of a training batch with each other. In each iteration one of those that are on is chosen."""

    mixup: bool = False
    """Mixup: each sample becomes λ of itself and 1 − λ of another."""
    mixup_beta: Annotated[float, Field(gt=0)] = 1.2
    """λ of Mixup is drawn from Beta(`mixup_beta`, `mixup_beta`)."""
    cutmix: bool = False
    """CutMix (Yun et al., ICCV 2019), of LQ and GT alike (ours): a box of each sample comes from another."""
    cutmix_alpha: Annotated[float, Field(gt=0)] = 1.0
    """1 − λ is the box's share of the image; λ is drawn from Beta(`cutmix_alpha`, `cutmix_alpha`)."""
    use_identity: bool = False
    """Leave the batch as it is, as often as each of the others is chosen."""

    @classmethod
    def rules(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        if values.get("use_identity") is True and not any(values.get(key) is True for key in ("mixup", "cutmix")):
            yield Finding(("use_identity",), "has no effect without mixup or cutmix", is_notice=True)

    @property
    def is_on(self) -> bool:
        """Whether there is anything to mix by."""
        return self.mixup or self.cutmix


class TrainOptions(Section):
    """Training settings that every recipe understands; a recipe's own are declared in a nested subclass."""

    families: ClassVar[dict[str, Any]] = {
        r"optim_\w+": Annotated[
            OptimizerOptions,
            Field(
                description="Optimiser of `network_<x>`: `type`, any of torch.optim, `lr`, and its other parameters."
            ),
        ]
    }
    total_iter: Iterations
    """Iterations to train."""
    warmup_iter: Annotated[int, Field(ge=-1), BeforeValidator(whole)] = -1
    """Iterations in which the learning rate grows linearly from 0; -1 for none."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights; 0 for none."""
    scheduler: SchedulerOptions
    """Learning rate schedule, stepped every iteration."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Parts into which each batch is divided to need less memory. The gradients are those of the whole batch for losses
    that are means over samples; a ratio, such as DCR's, differs. Terms that compare samples with each other are
    refused."""
    max_bad_steps: Annotated[int, Field(ge=1)] = 100
    """The training stops when so many steps in a row were skipped because gradients were not finite."""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient; not clipped when absent."""
    mixing_augs: MixingOptions | None = None
    """Mixing the samples of a batch with each other (Mixup, CutMix)."""

    @classmethod
    def form_for(cls, values: Mapping[Any, Any], setting: Setting | None) -> type[Self]:
        """Any section ``<name>_opt`` that names a loss is one more supervised loss, and a recipe's dialect is known."""
        further = _keys_of_dialect(setting.recipe if setting is not None else None)
        found = members_of_families(cls, values)
        for name, value in values.items():
            names_a_loss = str(name).endswith("_opt") and isinstance(value, dict) and "type" in value
            if names_a_loss and name not in cls.model_fields and name not in {**further, **found}:
                found[name] = Parameter(SupervisedLossOptions, None)
        return form_of(cls, further, found, is_open=setting is not None and setting.is_open)


def _keys_of_dialect(recipe: Any) -> dict[str, Parameter]:
    dialect = getattr(recipe, "DialectOptions", Section)
    return {key: Parameter(*declared(info)) for key, info in dialect.model_fields.items()}


def training_form(recipe: Any, name: str) -> type[Section]:
    """The form of all that ``train`` may hold for a recipe."""
    model = getattr(recipe, "TrainOptions", TrainOptions)
    return form_of(model, _keys_of_dialect(recipe), name=name, is_open="TrainOptions" not in vars(recipe))


def training_rules(opt: Mapping[Any, Any], setting: Setting) -> Iterator[Finding]:
    """What concerns the training together with the rest of the options."""
    for section in ("train", "logger"):
        if opt.get(section) is None:
            yield Finding((), f"the section '{section}' is missing; training needs it")
    validates = any(str(name).startswith("val") for name in section_of(opt, "datasets"))
    if validates and section_of(opt, "val").get("val_freq") is None:
        yield Finding(("val",), "the key 'val_freq' is missing (iterations between validations on the val datasets)")
    yield from _accumulation(opt)
    yield from _optimisers(opt)
    yield from _losses(opt)
    yield from _best(opt)
    yield from _schedule(opt)


def _is_our_recipe(opt: Mapping[Any, Any]) -> bool:
    return is_ours("model", {"type": opt.get("model_type")})


def _accumulation(opt: Mapping[Any, Any]) -> Iterator[Finding]:
    parts = section_of(opt, "train").get("accumulate", 1)
    for name, dataset in training_sets(section_of(opt, "datasets")).items():
        is_plain = isinstance(dataset, dict) and dataset.get("mini_batch_sizes") is None  # else progressive_rules
        size = dataset.get("batch_size_per_gpu") if is_plain else None
        if isinstance(size, int) and isinstance(parts, int) and parts > 0 and size % parts:
            text = f"a batch of {size} (datasets.{name}.batch_size_per_gpu) cannot be divided into {parts} equal parts"
            yield Finding(("train", "accumulate"), text)


def _optimisers(opt: Mapping[Any, Any]) -> Iterator[Finding]:
    train, names = section_of(opt, "train"), network_names(opt)
    optimisers = [str(key).removeprefix("optim_") for key in train if str(key).startswith("optim_")]
    if train and not optimisers:
        yield Finding(("train",), "there is no optimiser; name its section 'optim_g'")
    for name in optimisers:
        if name not in names:
            text = f"there is no network_{name} to train{did_you_mean('optim_', name, names)}"
            yield Finding(("train", f"optim_{name}"), text, is_notice=not _is_our_recipe(opt))


def _losses(opt: Mapping[Any, Any]) -> Iterator[Finding]:
    """There is something to minimise, and each distillation term has its networks and its time."""
    train, terms = section_of(opt, "train"), terms_of(opt)
    losses = [key for key, value in train.items() if str(key).endswith("_opt") and key != "kd_opt" and value]
    if train and not terms and not losses and _is_our_recipe(opt):
        yield Finding(("train",), "there is no loss, such as 'pixel_opt: {type: L1Loss}'")
    for name, term in terms.items():
        key: Key = ("train", "kd_opt", name)
        if not str(name).isidentifier():
            yield Finding(key, "a term's name is made of letters, digits and _, since it names columns of the log")
        yield from _times(key, term, "term")
        others = [str(other) for other in terms if other != name]
        yield from _networks_of_term(key, term, network_names(opt), others)
    for name, loss in train.items():
        if str(name).endswith("_opt") and isinstance(loss, dict) and name != "kd_opt":
            yield from _times(("train", name), loss, "loss")


def _times(key: Key, section: Mapping[Any, Any], noun: str) -> Iterator[Finding]:
    start, end = section.get("start", 1), section.get("end")
    if isinstance(start, (int, float)) and isinstance(end, (int, float)) and end < start:
        yield Finding((*key, "end"), f"{end} is before the {noun}'s start, {start}, so it would never be active")


def _networks_of_term(key: Key, term: Mapping[Any, Any], names: list[str], terms: list[str]) -> Iterator[Finding]:
    """The networks that one of our terms asks for, in its options or by default, exist.

    Another term may be one, and so may the student's average; whether they are is seen when the run is built.
    """
    if not is_ours("distillation term", term):
        return
    parameters = inspect.signature(find_registered("distillation term", term["type"])).parameters
    wanted = {
        (role,): term.get(role, parameters[role].default) for role in ("teacher", "encoder") if role in parameters
    }
    pairs = term.get("pairs")
    for index, pair in enumerate(pairs if isinstance(pairs, list) else []):
        wanted["pairs", index] = pair.get("network", "t") if isinstance(pair, dict) else "t"
    known = ", ".join(f"network_{name}" for name in names)
    for where, network in wanted.items():
        if isinstance(network, str) and network not in (*names, *terms, "g_ema"):
            yield Finding((*key, *where), f"network_{network} is not defined; there is {known}")


def _best(opt: Mapping[Any, Any]) -> Iterator[Finding]:
    """``keep_best`` names a metric that is measured."""
    choice, val = section_of(opt, "logger").get("keep_best"), section_of(opt, "val")
    if not isinstance(choice, str):
        return
    names = [dataset.get("name") for name, dataset in datasets_of(opt) if name.startswith("val")]
    known = [f"{name}/{metric}" for name in names for metric in section_of(val, "metrics")]
    if choice not in known:
        text = (
            f"'{choice}' is measured in no validation; it must be a validation set's name, a slash and a metric of "
            f"val.metrics: {', '.join(known) or 'there are none'}"
        )
        yield Finding(("logger", "keep_best"), text)


def _schedule(opt: Mapping[Any, Any]) -> Iterator[Finding]:
    """What lies beyond the end of the run, or ends long after it, is most likely left from another run."""
    train = section_of(opt, "train")
    total = train.get("total_iter")
    if not isinstance(total, (int, float)) or isinstance(total, bool) or total < 1:
        return
    beyond = f"of a run of {total:g} iterations"

    def is_late(value: Any) -> bool:
        return isinstance(value, (int, float)) and value > total

    schedule = section_of(train, "scheduler")
    milestones = schedule.get("milestones")
    late = [value for value in milestones if is_late(value)] if isinstance(milestones, list) else []
    if late:
        text = f"{', '.join(f'{value:g}' for value in late)} {'is' if len(late) == 1 else 'are'} after the end {beyond}"
        yield Finding(("train", "scheduler", "milestones"), text, is_notice=True)
    periods = schedule.get("periods")
    lengths = periods if isinstance(periods, list) else [schedule.get("T_max")]
    whole = sum(length for length in lengths if isinstance(length, (int, float)))
    if whole > 1.5 * total:
        key = "periods" if isinstance(periods, list) else "T_max"
        text = f"the schedule ends at iteration {whole:g}, long after the end {beyond}"
        yield Finding(("train", "scheduler", key), text, is_notice=True)
    if is_late(train.get("warmup_iter")):
        text = f"{train['warmup_iter']:g} is after the end {beyond}"
        yield Finding(("train", "warmup_iter"), text, is_notice=True)
    timed = {("train", "kd_opt", name): term for name, term in terms_of(opt).items()}
    timed |= {("train", name): loss for name, loss in train.items() if isinstance(loss, dict) and name != "kd_opt"}
    for key, section in timed.items():
        if is_late(section.get("start")):
            text = f"{section['start']:g} is after the end {beyond}, so it is never active"
            yield Finding((*key, "start"), text, is_notice=True)
