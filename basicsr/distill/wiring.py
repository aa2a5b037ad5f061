"""The tables in the start-up log: the networks, and the modules that each term compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from .frozen import FrozenNetwork
from .networks import Networks
from .student import StudentNetwork
from .term import KDTerm


def output_rows(networks: Networks, teacher: str) -> list[dict[str, Any]]:
    """The rows of a term that compares the student's output with a teacher's.

    Raises:
        ValueError: If the teacher is missing, or its output has another shape than the student's.
    """
    shape = networks.require_same_output(teacher)
    row = {"student": "output", "student_shape": shape, "network": teacher, "module": "output"}
    return [{**row, "module_shape": shape, "adapter": "–"}]


def wiring_report(
    student: StudentNetwork, frozen: Mapping[str, FrozenNetwork], terms: Mapping[str, KDTerm], opt: dict
) -> str:
    """Two tables: the networks, and for each term the modules it compares."""
    path = opt["path"]
    networks = [["network", "type", "parameters", "role", "precision", "weights"]]
    networks.append(
        ["network_g", type(student.net).__name__, _count(student.net), "student, trained", student.runtime.precision]
        + [str(path.get("pretrain_network_g") or "from scratch")]
    )
    for name, network in frozen.items():
        networks.append(
            [
                f"network_{name}",
                type(network.net).__name__,
                _count(network),
                "frozen",
                network.runtime.precision,
                network.weights,
            ]
        )
    compared = [["term", "weight", "student", "shape", "", "network", "module", "shape", "adapter", "trained"]]
    for name, term in terms.items():
        rows = term.wiring() or [{}]
        for row in rows:
            compared.append(
                [name, f"{term.schedule.loss_weight:g}", row.get("student", "–"), _shape(row.get("student_shape")), "↔"]
                + [row.get("network", "–"), row.get("module", "–"), _shape(row.get("module_shape"))]
                + [row.get("adapter", "–"), _count(term, trained=True) if row is rows[0] else ""]
            )
    return "Distillation\n" + _table(networks) + ("\n\n" + _table(compared) if terms else "")


def _count(module: nn.Module, trained: bool = False) -> str:
    return f"{sum(p.numel() for p in module.parameters() if p.requires_grad or not trained):,d}"


def _shape(shape: tuple[int, ...] | None) -> str:
    return "×".join(map(str, shape)) if shape else "–"


def _table(rows: Sequence[Sequence[Any]]) -> str:
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  " + "  ".join(str(cell).ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)
