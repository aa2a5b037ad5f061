"""Results of an evaluation as files: JSON for programs, Markdown for people."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .evaluator import DatasetResult


def write_report(folder: str | os.PathLike, stem: str, results: Iterable[DatasetResult], facts: dict[str, Any]) -> None:
    """Write ``<folder>/<stem>.json`` (every image) and ``<folder>/<stem>.md`` (the means).

    Args:
        folder: Where; made when absent.
        stem: Name of the two files, without extension.
        results: One per data set.
        facts: What the figures were made from: network, weights, hash, versions.
    """
    results = list(results)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        **facts,
        "datasets": {
            r.dataset: {
                "mean": r.means(),
                "images": {name: {m: values[i] for m, values in r.values.items()} for i, name in enumerate(r.images)},
            }
            for r in results
        },
    }
    _write(folder / f"{stem}.json", json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    fact_lines = "".join(f"- {key}: {value}\n" for key, value in facts.items())
    _write(folder / f"{stem}.md", f"{markdown_table(results)}\n\n{fact_lines}")


def markdown_table(results: list[DatasetResult]) -> str:
    """A table with a row per data set and a column per metric."""
    metrics = list(dict.fromkeys(metric for r in results for metric in r.values))
    lines = ["| data set | images | " + " | ".join(metrics) + " |", "|---|---:|" + "---:|" * len(metrics)]
    for r in results:
        cells = [f"{r.mean(m):.4f}" if r.values.get(m) else "–" for m in metrics]
        lines.append(f"| {r.dataset} | {len(r.images)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def file_hash(path: str | os.PathLike) -> str:
    """The file's SHA-256, as hexadecimal digits."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
