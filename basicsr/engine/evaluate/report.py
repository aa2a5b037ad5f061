"""Results of an evaluation as files: JSON and CSV for programs, Markdown for people."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from basicsr.engine.evaluate.evaluator import DatasetResult
from basicsr.utils.atomic_file import atomic_write, file_hash
from basicsr.utils.download_util import local_path
from basicsr.utils.logger import get_env_info
from basicsr.utils.options.yaml_text import dump_yaml


def write_report(
    folder: str | os.PathLike, stem: str, results: Iterable[DatasetResult], facts: Mapping[str, Any]
) -> None:
    """Write ``<folder>/<stem>.json`` and ``.csv`` (every image) and ``<folder>/<stem>.md`` (the means).

    NaN is ``null`` in JSON and empty in CSV; infinity is the string ``inf``.

    Args:
        folder: Where; made when absent.
        stem: Name of the files, without extension.
        results: One per data set.
        facts: What the figures were computed from, see :func:`run_facts`. Single values become columns of the CSV
            file, so that the rows of several runs can be concatenated.
    """
    results, facts = list(results), _serialisable(facts)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    datasets = {
        r.dataset: {
            "mean": r.means(),
            "images": {
                name: {metric: values[i] for metric, values in r.values.items()}
                for i, name in enumerate(_unique_names(r.images))
            },
        }
        for r in results
    }
    data = {**facts, "datasets": _serialisable(datasets)}
    atomic_write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", folder / f"{stem}.json")
    atomic_write(_csv(results, facts), folder / f"{stem}.csv")
    atomic_write(f"{markdown_table(results)}\n\n{_markdown_facts(facts)}", folder / f"{stem}.md")


def run_facts(opt: Mapping[str, Any], iteration: int | str | None = None) -> dict[str, Any]:
    """What a run's figures were computed from: name, iteration, weights and their hash, versions, options.

    Args:
        opt: The resolved options.
        iteration: Of the training; None for a test.
    """
    weights: Any = (opt.get("path") or {}).get("pretrain_network_g")
    facts: dict[str, Any] = {"name": opt["name"]}
    if iteration is not None:
        facts["iteration"] = iteration
        weights = Path(opt["path"]["models"]) / f"net_g_{iteration}.pth"
    if weights and (iteration is None or weights.is_file()):  # in training, validated weights need not be saved
        facts["weights"] = str(weights)
        file = local_path(weights)
        if file.is_file():
            facts["weights_sha256"] = file_hash(file)
    facts["environment"] = f"{get_env_info()}, NumPy {np.__version__}, OpenCV {cv2.__version__}"
    return {**facts, "options": dict(opt)}


def markdown_table(results: list[DatasetResult]) -> str:
    """A table with a row per data set and a column per metric."""
    metrics = _metrics(results)
    lines = ["| data set | images | " + " | ".join(metrics) + " |", "|---|---:|" + "---:|" * len(metrics)]
    for r in results:
        cells = [f"{r.mean(m):.4f}" if r.values.get(m) else "–" for m in metrics]
        lines.append(f"| {r.dataset} | {len(r.images)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _metrics(results: list[DatasetResult]) -> list[str]:
    """The metrics of all the data sets, each once, in order."""
    return list(dict.fromkeys(metric for r in results for metric in r.values))


def _serialisable(value: Any) -> Any:
    """Convert a value to types that JSON and YAML can hold."""
    if isinstance(value, Mapping):
        return {str(key): _serialisable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_serialisable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _unique_names(names: list[str]) -> list[str]:
    """The names, with ``#2``, ``#3`` … appended to repeated ones."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return distinct


def _csv(results: list[DatasetResult], facts: Mapping[str, Any]) -> str:
    metrics = _metrics(results)
    constants = {key: value for key, value in facts.items() if isinstance(value, (str, int, float))}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dataset", "image", *metrics, *constants])
    for r in results:
        for i, name in enumerate(_unique_names(r.images)):
            values = [_serialisable(r.values[metric][i]) if metric in r.values else None for metric in metrics]
            writer.writerow([r.dataset, name, *values, *constants.values()])
    return text.getvalue()


def _markdown_facts(facts: Mapping[str, Any]) -> str:
    lines = [f"- {key}: {value}\n" for key, value in facts.items() if not isinstance(value, Mapping)]
    for key, value in facts.items():
        if isinstance(value, Mapping):
            lines.append(f"\n{key.capitalize()}:\n\n```yaml\n{dump_yaml(value)}```\n")
    return "".join(lines)
