"""A JSON Schema of an option file, from which editors complete and check while one types."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from .registered import all_registered
from .section import form_of
from .sections import Options
from .sections.training import training_form

_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


class _Generator(GenerateJsonSchema):
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # defaults that YAML cannot express

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def option_json_schema() -> dict[str, Any]:
    """The schema, with everything that is registered now; sections that name a class list its parameters.

    Nothing but ``type`` is required, since ``_base_`` may hold the rest.
    """
    recipes = dict(sorted(all_registered("model").items()))
    trains = {name: training_form(target, f"{name}TrainOptions") for name, target in recipes.items()}
    options = form_of(Options, is_open=True)
    references, schema = models_json_schema(
        [(form, "validation") for form in (options, *trains.values())],
        title="BasicSR-KD option file",
        schema_generator=_Generator,
    )
    _require_types_alone(schema)
    definitions = schema["$defs"]
    top = definitions.pop(_name(references[options, "validation"]))
    properties = top["properties"]
    del properties["train"]  # it depends on the recipe
    properties["_base_"] = {**_TEXTS, "description": "Option files that this one derives from."}
    properties["imports"] = {**_TEXTS, "description": "Modules that register your own classes."}
    properties["model_type"] = {"anyOf": [{"enum": list(recipes)}, {"type": "string"}]}
    dataset = properties["datasets"]["additionalProperties"]
    properties["datasets"] = {
        "type": "object",
        "patternProperties": {"^(train|val|test)(_.*)?$": {"anyOf": [dataset, {"not": {"required": ["type"]}}]}},
        "additionalProperties": False,
    }
    top["allOf"] = [
        {
            "if": {"properties": {"model_type": {"const": name}}, "required": ["model_type"]},
            "then": {"properties": {"train": references[form, "validation"]}},
        }
        for name, form in trains.items()
    ]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, **schema}


def _name(reference: dict[str, Any]) -> str:
    return reference["$ref"].rpartition("/")[2]


def _require_types_alone(schema: Any) -> None:
    """Take out of a schema, in place, what requires other keys than the name of a class."""
    if isinstance(schema, list):
        for item in schema:
            _require_types_alone(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("required"), list):
            kept = [name for name in schema["required"] if "const" in schema.get("properties", {}).get(name, {})]
            schema.pop("required")
            schema |= {"required": kept} if kept else {}
        for item in schema.values():
            _require_types_alone(item)
