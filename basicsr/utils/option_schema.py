"""What each section of an option file may hold: one pydantic model per section, read by the checker and the docs.

A key that names a registered class (a network, a loss, a term …) is declared as one of the `Registered` models: its
other keys are the parameters of that class's constructor.

A recipe declares its training section, and a dataset its options, as a class inside the class::

    class SRModel(BaseModel):
        class TrainOptions(option_schema.TrainOptions):
            pixel_opt: LossOptions | None = None
            "Loss between the output and gt."

Where a class declares its own, a key outside the declaration is an error. Where it only inherits one, as a plug-in
written against BasicSR does, further keys are let through with a notice.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _whole(value: Any) -> Any:
    """``5e3`` is a whole number, as BasicSR's files write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Iterations = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
"""A positive number of iterations; ``!!float 5e3`` will do."""


class Section(BaseModel):
    """A section of an option file.

    Attributes:
        patterns: Families of keys, as a regular expression of the key → the type of its value.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True)
    patterns: ClassVar[dict[str, Any]] = {}


class Registered(Section):
    """A section that names a class by ``type``; its remaining keys are that class's parameters.

    Attributes:
        kind: What the class is, for messages.
    """

    model_config = ConfigDict(extra="allow")
    kind: ClassVar[str]
    type: str
    """The registered name."""


class NetworkOptions(Registered):
    """A network: the constructor's parameters of a registered architecture."""

    kind = "arch"


class LossOptions(Registered):
    """A loss: the constructor's parameters of a registered loss."""

    kind = "loss"


class SupervisedLossOptions(LossOptions):
    """A loss between the output and the ground truth, and when it is active."""

    start: Annotated[int, Field(ge=0), BeforeValidator(_whole)] = 1
    """First iteration in which the loss is active."""
    end: Annotated[int, Field(ge=0), BeforeValidator(_whole)] | None = None
    """Last iteration in which the loss is active; to the end of the training when absent."""


class KDTermOptions(Registered):
    """A distillation term: its constructor's parameters, and what every term has."""

    kind = "distillation term"
    loss_weight: float = 1.0
    """Factor of the term in the total loss."""
    start: Annotated[int, Field(ge=0), BeforeValidator(_whole)] = 1
    """First iteration in which the term counts."""
    end: Annotated[int, Field(ge=0), BeforeValidator(_whole)] | None = None
    """Last iteration in which the term counts; to the end of the training when absent."""
    ramp: Annotated[int, Field(ge=0), BeforeValidator(_whole)] = 0
    """Iterations over which the weight grows linearly from 0, from `start` on."""
    log_grad: bool = False
    """Log the norm of the term's gradient and its cosine with the pixel loss's."""


class OptimizerOptions(Registered):
    """An optimiser of torch.optim, by name."""

    kind = "optimizer"
    lr: Annotated[float, Field(ge=0)]
    """Learning rate."""


class SchedulerOptions(Registered):
    """A learning rate schedule of basicsr.models.lr_scheduler or torch.optim.lr_scheduler, by name."""

    kind = "scheduler"


class MetricOptions(Registered):
    """A metric: the parameters of a registered function of two images."""

    kind = "metric"
    better: Literal["higher", "lower"] = "higher"
    """Which way is better, for tracking the best iteration."""


class IOBackendOptions(Section):
    """Where a dataset's bytes lie."""

    model_config = ConfigDict(extra="allow")
    type: Literal["disk", "lmdb", "memmap"]
    """`disk`: image files in folders; `lmdb`: a database; `memmap`: decoded images."""
    verify: bool = False
    """With `memmap`: check every image's checksum when it is opened."""


class DatasetOptions(Section):
    """Keys that every dataset understands.

    Attributes:
        required_for_training: Keys that a training set must have although a validation set need not.
    """

    required_for_training: ClassVar[tuple[str, ...]] = ("batch_size_per_gpu", "num_worker_per_gpu")
    name: str
    """Name in logs, tables and result folders."""
    type: str
    """The registered dataset."""
    phase: Literal["train", "val", "test"] | None = None
    """Set from the section's name."""
    scale: Annotated[int, Field(ge=1)] | None = None
    """Set from the top-level `scale`."""
    io_backend: IOBackendOptions | None = None
    """Storage: `{type: disk}`, `{type: lmdb}` or `{type: memmap}`."""
    mean: list[float] | None = None
    """Subtracted from each channel (R, G, B) of images in [0, 1]."""
    std: list[float] | None = None
    """Each channel is divided by this after `mean`."""
    batch_size_per_gpu: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Images per iteration and process."""
    num_worker_per_gpu: Annotated[int, Field(ge=0, le=1024)] | None = None
    """Loader processes per training process."""
    dataset_enlarge_ratio: Annotated[int, Field(ge=1, le=100_000)] = 1
    """How often an epoch goes through the images."""
    prefetch_mode: Literal["cpu", "cuda"] | None = None
    """`cpu`: a thread reads ahead; `cuda`: batches are copied to the device ahead of use."""
    num_prefetch_queue: Annotated[int, Field(ge=1, le=1024)] = 1
    """Batches read ahead with `prefetch_mode: cpu`."""
    pin_memory: bool = True
    """Load into page-locked memory, where there is a GPU."""
    persistent_workers: bool = True
    """Keep loader processes between epochs."""
    use_shuffle: bool | None = None
    """Written in BasicSR's files; a training set is always shuffled."""


class PathOptions(Section):
    """Weights to load and folders to write to."""

    patterns: ClassVar[dict[str, Any]] = {
        r"pretrain_network_\w+": str | None,
        r"strict_load_\w+": bool,
        r"param_key_\w+": str | None,
    }
    resume_state: str | None = None
    """A training state to go on from; `--auto_resume` finds the last one by itself."""
    ignore_resume_networks: list[str] | None = None
    """Networks that a resumed run does not take from the run's own checkpoints."""
    experiments_root: str | None = None
    """Folder in which training runs are kept, instead of `experiments`."""
    results_root: str | None = None
    """Folder in which test results are kept, instead of `results`."""


class TrainOptions(Section):
    """Training settings that every recipe understands; a recipe's own are declared in a nested subclass."""

    patterns: ClassVar[dict[str, Any]] = {r"optim_\w+": OptimizerOptions}
    total_iter: Iterations
    """Iterations to train."""
    warmup_iter: Annotated[int, Field(ge=-1), BeforeValidator(_whole)] = -1
    """Iterations in which the learning rate grows linearly from 0; -1 for none."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights; 0 for none."""
    scheduler: SchedulerOptions
    """Learning rate schedule, stepped every iteration."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Parts into which each batch is divided to need less memory; the gradients are those of the whole batch."""
    max_bad_steps: Annotated[int, Field(ge=1)] = 100
    """The training stops when so many steps in a row were skipped because gradients were not finite."""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient; not clipped when absent."""
    use_grad_clip: bool | None = None
    """NAFNet's and Restormer's spelling: true clips at norm 0.01."""


class ValOptions(Section):
    """Validation and test settings."""

    val_freq: Iterations | None = None
    """Iterations between validations."""
    save_img: bool = False
    """Write the output images."""
    suffix: str | None = None
    """Ending of the written images' names in a test; the run's name when absent."""
    pbar: bool = True
    """Show a progress bar, in a terminal."""
    window_size: Annotated[int, Field(ge=1)] | None = None
    """Pad inputs by reflection to a multiple of this; to what the network declares when absent."""
    tile: Literal["auto"] | Annotated[int, Field(ge=1)] | None = None
    """Restore in overlapping tiles of this side, in input pixels; `auto`: what memory allows; absent: in one piece."""
    tile_overlap: Annotated[int, Field(ge=0)] | None = None
    """Input pixels that neighbouring tiles share, at most half a tile; 32, or a quarter of the tile, when absent."""
    self_ensemble: bool = False
    """Average over the eight flips and rotations of the input."""
    metrics: dict[str, MetricOptions] | None = None
    """Metrics by the name they are logged under."""


class WandbOptions(Section):
    """Weights & Biases; off while `project` is absent."""

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


class DistOptions(Section):
    """Distributed training."""

    backend: Literal["nccl", "gloo"] | None = None
    """Communication; nccl where there is a GPU, else gloo, when absent."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Rendezvous port under slurm."""


class RuntimeOptions(Section):
    """How one network computes in training; validation and test always compute in fp32."""

    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Arithmetic of its forward pass (and, for `g`, of the backward pass); the weights of `g` stay in fp32. `auto`:
    bf16 where the device computes it natively, else fp32."""
    channels_last: bool = False
    """Lay out weights and images channels-last."""
    compile: bool = False
    """Compile it with torch.compile."""
    mean: list[float] | None = None
    """Frozen networks only: subtracted from each channel of the input in [0, 1]."""
    std: list[float] | None = None
    """Frozen networks only: each channel of the input is divided by this after `mean`."""


class Options(Section):
    """An option file."""

    patterns: ClassVar[dict[str, Any]] = {r"network_\w+": NetworkOptions | bool}
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
    datasets: dict[str, dict[str, Any]]
    """One section per dataset: `train…`, `val…` or `test…`."""
    path: PathOptions | None = None
    train: TrainOptions | None = None
    val: ValOptions | None = None
    logger: LoggerOptions | None = None
    dist_params: DistOptions | None = None
    runtime: dict[str, RuntimeOptions] | None = None
    """How networks compute, by suffix: `g` for `network_g`, `t` for `network_t`."""
