"""Checks that concern several options together."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import Any

from .option_path_check import check_files, check_names
from .option_report import Reporter, Section, datasets_of, is_ours, section_of
from .option_shape import find_registered
from .option_streams import sections_of_streams, training_sets
from .option_types import shown
from .option_yaml import Key

_LARGEST_CROP = 16_384
_LARGEST_WINDOW = 1024  # images are padded to multiples of it


def cross_check(report: Reporter, opt: Section, is_train: bool, with_files: bool) -> None:
    """Report what is missing or does not go together.

    Values of a wrong type are passed over: they have been reported.

    Args:
        report: Takes the findings.
        opt: The options.
        is_train: Whether they are to be used for training.
        with_files: Whether data folders and weights must exist.
    """
    _check_networks(report, opt)
    _check_sizes(report, opt)
    _check_datasets(report, opt)
    check_names(report, opt)
    _check_metrics(report, opt)
    _check_tiles(report, opt)
    if is_train:
        _check_training(report, opt)
        _check_optimisers(report, opt)
        _check_losses(report, opt)
    else:
        _check_test(report, opt)
    if with_files:
        check_files(report, opt, is_train)


def _network_names(opt: Section) -> list[str]:
    return [
        str(key).removeprefix("network_") for key, value in opt.items() if str(key).startswith("network_") and value
    ]


def _is_our_recipe(opt: Section) -> bool:
    return is_ours("model", {"type": opt.get("model_type")})


def _hint(prefix: str, name: str, names: list[str]) -> str:
    nearest = get_close_matches(name, names, n=1)
    return f"; did you mean '{prefix}{nearest[0]}'?" if nearest else ""


def _check_networks(report: Reporter, opt: Section) -> None:
    names = _network_names(opt)
    if not isinstance(opt.get("network_g"), dict):
        report.problem((), "the section 'network_g' is missing; it describes the network to train or test")
    for key, value in section_of(opt, "path").items():
        for prefix in ("pretrain_network_", "strict_load_", "param_key_"):
            name = str(key).removeprefix(prefix)
            if name == key or name in names:
                continue
            hint = _hint(prefix, name, names)
            if prefix != "pretrain_network_" and not hint:
                report.notice(("path", key), f"has no effect, since there is no network_{name}")
            elif value is not None:
                report.problem(("path", key), f"there is no network_{name} to load weights into{hint}")
        if value == "":
            report.problem(("path", key), "is empty; write ~ for none")
    for name, settings in section_of(opt, "runtime").items():
        if name not in names:
            report.problem(("runtime", name), f"there is no network_{name}; networks: {', '.join(names)}")
        _check_normalisation(report, ("runtime", name), settings)


def _check_normalisation(report: Reporter, key: Key, section: Any) -> None:
    if isinstance(section, dict) and (section.get("mean") is None) != (section.get("std") is None):
        report.problem(key, "mean and std are given together or not at all")


def _check_sizes(report: Reporter, opt: Section) -> None:
    """The scale against the networks' factors and the crops."""
    scale = opt.get("scale")
    scale = scale if isinstance(scale, int) and scale > 0 else 1
    for name, dataset in datasets_of(opt):
        gt_size = dataset.get("gt_size")
        if not isinstance(gt_size, int):
            continue
        if gt_size < 1 or gt_size % scale:
            near = max(gt_size // scale, 1) * scale
            report.problem(
                ("datasets", name, "gt_size"), f"must be a multiple of the scale {scale}, such as {near}, not {gt_size}"
            )
        elif gt_size > _LARGEST_CROP:
            report.problem(("datasets", name, "gt_size"), f"must be at most {_LARGEST_CROP}, not {gt_size}")
    window = section_of(opt, "val").get("window_size")
    if isinstance(window, int) and window > _LARGEST_WINDOW:
        report.problem(("val", "window_size"), f"must be at most {_LARGEST_WINDOW}, not {window}")
    paired = any("dataroot_gt" in dataset for _, dataset in datasets_of(opt))
    for key, network in opt.items():
        upscale = network.get("upscale") if str(key).startswith("network_") and isinstance(network, dict) else None
        if not isinstance(upscale, int) or upscale == scale:
            continue
        if opt.get("scale") is not None:
            serious = key == "network_g" and is_ours("arch", network)
            (report.problem if serious else report.notice)((key, "upscale"), f"is {upscale} while the scale is {scale}")
        elif key == "network_g" and paired and is_ours("arch", network):
            report.problem((), f"the key 'scale' is missing; network_g.upscale is {upscale}")


def _check_datasets(report: Reporter, opt: Section) -> None:
    for name, dataset in datasets_of(opt):
        _check_normalisation(report, ("datasets", name), dataset)
        if is_ours("dataset", dataset):
            _check_channels(report, opt, name, dataset)
        template = dataset.get("filename_tmpl")
        if isinstance(template, str) and not _is_template(template):
            report.problem(
                ("datasets", name, "filename_tmpl"), f"must hold {{}} once, such as '{{}}x4', not {shown(template)}"
            )


def _check_channels(report: Reporter, opt: Section, name: str, dataset: Section) -> None:
    """The channels that a data set gives are those that its normalisation and the trained network take."""
    channels = 1 if dataset.get("color") == "y" else 3
    for key in ("mean", "std"):
        values = dataset.get(key)
        if isinstance(values, list) and len(values) not in (1, channels):
            report.problem(
                ("datasets", name, key), f"must have 1 or {channels} values for images of {channels}, not {len(values)}"
            )
    network = section_of(opt, "network_g")
    if not is_ours("arch", network):
        return
    parameters = inspect.signature(find_registered("arch", network["type"])).parameters
    for key in ("num_in_ch", "in_chans"):
        taken = network.get(key, parameters[key].default) if key in parameters else channels
        if isinstance(taken, int) and taken != channels:
            report.problem(
                ("network_g", key), f"is {taken}, and the images of datasets.{name} have {channels} (its `color`)"
            )


def _is_template(template: str) -> bool:
    try:
        return template.format("<>").count("<>") == 1
    except (ValueError, LookupError, AttributeError):
        return False


def _check_metrics(report: Reporter, opt: Section) -> None:
    for name, metric in section_of(section_of(opt, "val"), "metrics").items():
        border = metric.get("crop_border") if isinstance(metric, dict) else None
        if isinstance(border, int) and border < 0:
            report.problem(("val", "metrics", name, "crop_border"), f"must be an integer ≥ 0, not {border}")


def _check_tiles(report: Reporter, opt: Section) -> None:
    val = section_of(opt, "val")
    tile, overlap = val.get("tile"), val.get("tile_overlap")
    if isinstance(tile, int) and isinstance(overlap, int) and 2 * overlap > tile > 0:
        report.problem(("val", "tile_overlap"), f"must be at most half of the tile of {tile}, not {overlap}")


def _check_training(report: Reporter, opt: Section) -> None:
    names = [str(name) for name in section_of(opt, "datasets")]
    _check_streams(report, opt, names)
    _check_accumulation(report, opt)
    for name in names:
        if name.startswith("test"):
            report.problem(("datasets", name), "in training a section is named train… or val…; test… is for test.py")
    for section in ("train", "logger"):
        if opt.get(section) is None:
            report.problem((), f"the section '{section}' is missing; training needs it")
    if any(name.startswith("val") for name in names) and section_of(opt, "val").get("val_freq") is None:
        report.problem(("val",), "the key 'val_freq' is missing (iterations between validations on the val datasets)")


def _check_streams(report: Reporter, opt: Section, names: list[str]) -> None:
    """The training sets are those that the recipe declares."""
    try:
        if names:
            sections_of_streams(opt.get("model_type"), [name for name in names if name.split("_")[0] == "train"])
    except ValueError as error:
        report.problem(("datasets",), str(error))
    except (KeyError, TypeError):
        pass  # that there is no such recipe has been reported


def _check_accumulation(report: Reporter, opt: Section) -> None:
    parts = section_of(opt, "train").get("accumulate", 1)
    for name, dataset in training_sets(section_of(opt, "datasets")).items():
        size = dataset.get("batch_size_per_gpu") if isinstance(dataset, dict) else None
        if isinstance(size, int) and isinstance(parts, int) and parts > 0 and size % parts:
            report.problem(
                ("train", "accumulate"),
                f"a batch of {size} (datasets.{name}.batch_size_per_gpu) cannot be divided into {parts} equal parts",
            )


def _check_optimisers(report: Reporter, opt: Section) -> None:
    train, names = section_of(opt, "train"), _network_names(opt)
    optimisers = [str(key).removeprefix("optim_") for key in train if str(key).startswith("optim_")]
    if train and not optimisers:
        report.problem(("train",), "there is no optimiser; name its section 'optim_g'")
    for name in optimisers:
        if name not in names:
            tell = report.problem if _is_our_recipe(opt) else report.notice
            tell(("train", f"optim_{name}"), f"there is no network_{name} to train{_hint('optim_', name, names)}")
    for key, value in section_of(train, "scheduler").items():
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, (int, float)) and number < 0 for number in numbers):
            report.problem(("train", "scheduler", key), f"must not be negative, but is {shown(value)}")


def _check_losses(report: Reporter, opt: Section) -> None:
    """There is something to minimise, and each distillation term has its networks and its time."""
    train = section_of(opt, "train")
    terms = {name: term for name, term in section_of(train, "kd_opt").items() if isinstance(term, dict)}
    losses = [key for key, value in train.items() if str(key).endswith("_opt") and key != "kd_opt" and value]
    if train and not terms and not losses and _is_our_recipe(opt):
        report.problem(("train",), "there is no loss, such as 'pixel_opt: {type: L1Loss}'")
    for name, term in terms.items():
        key: Key = ("train", "kd_opt", name)
        if not str(name).isidentifier():
            report.problem(key, "a term's name is made of letters, digits and _, since it names columns of the log")
        start, end = term.get("start", 1), term.get("end")
        if isinstance(start, (int, float)) and isinstance(end, (int, float)) and end < start:
            report.problem((*key, "end"), f"{end} is before the term's start, {start}, so it would never count")
        _check_networks_of_term(report, key, term, _network_names(opt))


def _check_networks_of_term(report: Reporter, key: Key, term: Section, names: list[str]) -> None:
    """The networks that one of our terms asks for, in its options or by default, exist."""
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
        if isinstance(network, str) and network not in names:
            report.problem((*key, *where), f"network_{network} is not defined; there is {known}")


def _check_test(report: Reporter, opt: Section) -> None:
    for name, _ in datasets_of(opt):
        if name.startswith("train"):
            report.problem(("datasets", name), "a training set is not tested on; test.py takes sections named test…")
    if isinstance(opt.get("network_g"), dict) and not section_of(opt, "path").get("pretrain_network_g"):
        report.notice((), "path.pretrain_network_g is not set, so network_g has RANDOM weights")
