"""What miniature experiments share: arms of several seeds, each a run of ``basicsr/train.py``, and their table."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from basicsr.utils.options.yaml_text import dump_yaml

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "datasets/miniature_options"


def require_data(data: Path, needed: Iterable[str]) -> None:
    """Stop if a folder does not hold what an experiment needs."""
    missing = [name for name in needed if not (data / name).exists()]
    if missing:
        sys.exit(f"Skipped: {data} has no {', '.join(missing)}.")


def run_name(experiment: str, arm: str, seed: int) -> str:
    return f"{experiment}_{arm.replace(' ', '_').replace('×', 'times').replace('÷', 'by')}_s{seed}"


def train_all(
    experiment: str, arms: Sequence[str], seeds: Iterable[int], jobs: int, options: Callable[[str, int], dict]
) -> None:
    """Train every arm with every seed, several at a time, with one thread each; ``options(arm, seed)`` is a run."""
    runs = {run_name(experiment, arm, seed): options(arm, seed) for seed in seeds for arm in arms}
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train, runs, runs.values()))


def train(name: str, options: dict, threads: int = 1) -> None:
    """Run one training, or go on with it; not again when it has ended.

    Raises:
        SystemExit: If it fails, or there is a run of that name with other options.
    """
    folder = ROOT / "experiments" / name
    result = folder / "validation.json"
    path = WORK / f"{name}.yml"
    text = dump_yaml({"name": name, **options})
    if folder.exists() and (not path.exists() or path.read_text(encoding="utf-8") != text):
        sys.exit(f"{folder} is of a run with other options; remove it, and what was made with it, to run this one")
    if result.exists():
        found, tests = json.loads(result.read_text()), [key for key in options["datasets"] if key.startswith("val")]
        if found["iteration"] == options["train"]["total_iter"] and len(found["datasets"]) == len(tests):
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"{name} …", flush=True)
    command = [sys.executable, str(ROOT / "basicsr/train.py"), "-opt", str(path), "--auto_resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with path.with_suffix(".out").open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=output, env=environment)
    if done.returncode:
        sys.exit(f"{name} ended with exit code {done.returncode}; see {output.name}")


def report(experiment: str, arms: Sequence[str], seeds: range, metric: str, baseline: str) -> None:
    """Mean and standard deviation over the seeds, and each arm's gain over another, seed by seed.

    Also written to ``experiments/<experiment>.json``.
    """
    figures: dict[str, dict[str, list[float]]] = {}
    for arm in arms:
        files = [ROOT / "experiments" / run_name(experiment, arm, seed) / "validation.json" for seed in seeds]
        runs = [json.loads(file.read_text())["datasets"] for file in files]
        figures[arm] = {
            f"{dataset} {name}": [run[dataset]["mean"][name] for run in runs]
            for dataset in runs[0]
            for name in runs[0][dataset]["mean"]
        }
    file = ROOT / "experiments" / f"{experiment}.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | figures, indent=2) + "\n")
    names = [name for name in next(iter(figures.values())) if name.endswith("psnr")]
    print(f"\n{metric} in dB, mean ± standard deviation of {len(seeds)} seeds\n")
    print(f"| | {' | '.join(names)} | mean gain over {baseline}, seed by seed |\n|---|{'---:|' * (len(names) + 1)}")
    for arm, values in figures.items():
        cells = [f"{statistics.mean(values[n]):.3f} ± {_spread(values[n]):.3f}" for n in names]
        if baseline in figures:
            gain = np.mean([np.subtract(values[n], figures[baseline][n]) for n in names], axis=0)
            cells.append(", ".join(f"{g:+.3f}" for g in gain))
        print(f"| {arm} | {' | '.join(cells)} |")


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
