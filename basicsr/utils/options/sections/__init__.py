"""What each section of an option file may hold: a declaration per section, with the rules that concern it beside it.

A recipe declares its training section, and a dataset its options, as a class inside the class::

    class SRModel(BaseModel):
        class TrainOptions(sections.TrainOptions):
            pixel_opt: LossOptions | None = None
            "Loss between the output and gt."

Where a class declares its own, a key outside the declaration is an error. Where it only inherits one, as a plug-in
written against BasicSR does, further keys are let through with a notice.
"""

from ..registered_section import Registered
from ..section import Section
from .datasets import DatasetOptions, IOBackendOptions
from .degradations import DegradationOptions
from .networks import NetworkOptions, PathOptions, RuntimeOptions
from .numbers import FromZero, Iterations, NonNegative, Positive
from .progressive import ProgressiveOptions
from .run import DistOptions, LoggerOptions, Options, WandbOptions
from .training import (
    KDTermOptions,
    LossOptions,
    MixingOptions,
    OptimizerOptions,
    Schedule,
    SchedulerOptions,
    SupervisedLossOptions,
    TrainOptions,
)
from .validation import MetricOptions, ValOptions

__all__ = [
    "DatasetOptions",
    "DegradationOptions",
    "DistOptions",
    "FromZero",
    "IOBackendOptions",
    "Iterations",
    "KDTermOptions",
    "LoggerOptions",
    "LossOptions",
    "MetricOptions",
    "MixingOptions",
    "NetworkOptions",
    "NonNegative",
    "OptimizerOptions",
    "Options",
    "PathOptions",
    "Positive",
    "ProgressiveOptions",
    "Registered",
    "RuntimeOptions",
    "Schedule",
    "SchedulerOptions",
    "Section",
    "SupervisedLossOptions",
    "TrainOptions",
    "ValOptions",
    "WandbOptions",
]
