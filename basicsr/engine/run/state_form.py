"""What a training state must hold, whoever has made it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, Strict, StrictInt, StrictStr, ValidationError

Count = Annotated[StrictInt, Field(ge=0)]
FileName = Annotated[StrictStr, Field(pattern=r"^[^/\\\x00]+$")]
Section = dict[Any, Any]
Sections = Annotated[list[Section], Strict()]  # not a tuple


class _Stream(BaseModel):
    epoch: Count = 0
    position: Count = 0


class _Sampler(BaseModel):
    position: Count = 0
    streams: dict[Any, _Stream] = {}


class _Run(BaseModel):
    id: StrictStr
    continuation: Count


class _State(BaseModel):
    """The form; a field's description ends the sentence on a value that does not have it."""

    epoch: Count = Field(description="a whole number from 0")
    iter: Count = Field(description="a whole number from 0")
    optimizers: Sections = Field(description="a list of dicts")
    schedulers: Sections = Field(description="a list of dicts")
    # BasicSR's states have none of these.
    networks: Annotated[list[FileName], Strict()] = Field([], description="a list of names of files")
    network_hashes: dict[FileName, StrictStr] = Field({}, description="a dict of names of files and their hashes")
    sampler: _Sampler | None = Field(None, description="the position of each training set")
    rng: Sections = Field([], description="a list of dicts")
    classes: Section = Field({}, description="a dict")
    best_metric_results: dict[Any, dict[Any, Section]] = Field(
        {}, description="values and iterations by data set and metric"
    )
    run: _Run = Field(_Run(id="", continuation=0), description="a dict with an id and a number")
    options: Section = Field({}, description="a dict")
    files: dict[StrictStr, StrictStr] = Field({}, description="a dict of options and the hashes of their files")


def what_is_wrong(state: Any, iteration: int | None) -> str | None:
    """Why something is not a training state, as the end of a sentence; None if it is one.

    Args:
        state: What a file held.
        iteration: The iteration by which the file is named; None where it has another name.
    """
    fields = _State.model_fields
    required = [name for name, field in fields.items() if field.is_required()]
    if not isinstance(state, dict) or not set(required) <= state.keys():
        return f"it must hold {', '.join(required)}"
    try:
        _State.model_validate(state)
    except ValidationError as error:
        key = error.errors(include_url=False, include_context=False)[0]["loc"][0]
        return f"its {key} must be {fields[key].description}, not {_shown(state[key])}"
    if iteration is not None and state["iter"] != iteration:
        return f"it is of iteration {state['iter']}, and is named by iteration {iteration}"
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return f"the {type(value).__name__} {text if len(text) <= 40 else text[:39] + '…'}"
