"""The tables of docs/options.md, made from the declarations of options.

    python scripts/option_tables.py

writes them anew between ``<!-- table: Name -->`` and ``<!-- end -->``. A test compares them.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is installed

from pydantic.fields import FieldInfo

from basicsr.data.degraded_image_dataset import DegradedImageDataset
from basicsr.data.mixed_dataset import MixedDataset
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.models.sr_model import SRModel
from basicsr.utils.options import sections
from basicsr.utils.options.registered import all_registered
from basicsr.utils.options.section import Section, declared, families_of
from basicsr.utils.options.signatures import parameters_of
from basicsr.utils.options.words import describe, shown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"
TABLES = {model.__name__: model for model in vars(sections).values() if isinstance(model, type)}
DATASETS = (PairedImageDataset, DegradedImageDataset, MixedDataset)
TABLES |= {dataset.__name__: dataset.Options for dataset in DATASETS} | {"TrainOptions": SRModel.TrainOptions}
INHERITED = {
    **{dataset.__name__: sections.ProgressiveOptions for dataset in DATASETS},
    "ProgressiveOptions": sections.DatasetOptions,
    "KDTermOptions": sections.Registered,
    "SupervisedLossOptions": sections.LossOptions,
}


def table(name: str) -> str:
    """The table of a declaration's keys, without those of the declaration that it adds to; or of all degradations."""
    if name == "Degradations":
        return _degradations()
    model: type[Section] = TABLES[name]
    inherited = INHERITED[name].model_fields if name in INHERITED else {}
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    for key, info in model.model_fields.items():
        if key not in inherited:
            annotation, default = declared(info)
            rows.append(_row(key, annotation, default, info.description or ""))
    if name not in INHERITED:
        for pattern, annotation in families_of(model).items():
            rows.append(_row(pattern.replace(r"\w+", "<x>"), annotation, None, _description(annotation)))
    return "\n".join(rows)


def _degradations() -> str:
    """The parameters of all degradations, described as in their docstrings."""
    rows = ["| type | key | value | default | |", "|---|---|---|---|---|"]
    for name, target in sorted(all_registered("degradation").items()):
        for key, (annotation, default) in parameters_of(target, sections.DegradationOptions.given)[0].items():
            text = re.search(rf"\n\s+{key}: (.*?)(?=\n\s+\w+: |\n\n|\Z)", inspect.getdoc(target) or "", re.DOTALL)
            default = list(default) if isinstance(default, tuple) else default
            rows.append(f"| `{name}` {_row(key, annotation, default, text[1] if text else '').replace('``', '`')}")
    return "\n".join(rows)


def _row(key: str, annotation: Any, default: Any, text: str) -> str:
    value = describe(annotation).removesuffix(" or ~").replace("4294967296", "2³²")
    given = "**required**" if default is ... else "absent" if default is None else f"`{_yaml(default)}`"
    return f"| `{key}` | {value} | {given} | {' '.join(text.split())} |".replace("| |", "| |")


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def _description(annotation: Any) -> str:
    metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((part.description for part in metadata if isinstance(part, FieldInfo) and part.description), "")


def with_tables(text: str) -> str:
    """A page with its tables made anew."""
    return re.sub(
        r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{table(match[2])}\n\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
