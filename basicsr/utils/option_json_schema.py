"""A JSON Schema of an option file, from which editors complete and check while one types."""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import TypeAdapter
from typing_extensions import is_typeddict

from .option_schema import (
    DatasetOptions,
    KDTermOptions,
    LossOptions,
    MetricOptions,
    NetworkOptions,
    OptimizerOptions,
    Options,
    Registered,
    SchedulerOptions,
    Section,
)
from .option_shape import (
    Shape,
    all_registered,
    declares_its_keys,
    shape_of_model,
    shape_of_registered,
    shape_of_training,
    shape_of_typed_dict,
)
from .option_types import yaml_type

_KINDS = (NetworkOptions, LossOptions, KDTermOptions, OptimizerOptions, SchedulerOptions, MetricOptions)


def option_json_schema() -> dict[str, Any]:
    """The schema, with everything that is registered now; sections that name a class list its parameters."""
    builder = _Builder()
    definitions = builder.definitions
    for model in _KINDS:
        definitions[model.__name__] = builder.any_registered(model)
    definitions["DatasetOptions"] = builder.datasets()
    shape = shape_of_model(Options)
    keys = shape.keys
    del keys["train"], keys["datasets"], keys["imports"]
    schema = builder.object(shape, closed=False)
    schema["properties"] |= {
        "_base_": {"anyOf": [{"type": "string"}, _STRINGS], "description": "Option files that this one derives from."},
        "imports": {"anyOf": [{"type": "string"}, _STRINGS], "description": "Modules that register your own classes."},
        "model_type": {"anyOf": [{"enum": sorted(all_registered("model"))}, {"type": "string"}]},
        "datasets": {
            "type": "object",
            "patternProperties": {"^(train|val|test)(_.*)?$": {"$ref": "#/$defs/DatasetOptions"}},
            "additionalProperties": False,
        },
    }
    schema["allOf"] = builder.training_of_each_recipe()
    del schema["required"]  # an option file may take any of them from its _base_
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "BasicSR-KD option file",
        **schema,
        "$defs": definitions,
    }


_STRINGS = {"type": "array", "items": {"type": "string"}}


class _Builder:
    """Collects shared definitions while schemas are made."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}

    def object(self, shape: Shape, closed: bool = True) -> dict[str, Any]:
        """A section of known keys. Nothing but ``type`` is required, since ``_base_`` may hold the rest."""
        properties = {}
        for name, key in shape.keys.items():
            properties[name] = self.value(key.annotation)
            if key.description:
                properties[name] = {**properties[name], "description": key.description}
        result: dict[str, Any] = {"type": "object", "properties": properties, "required": []}
        if shape.patterns:
            result["patternProperties"] = {f"^{p}$": self.value(a) for p, a in shape.patterns.items()}
        if closed and not shape.takes_any:
            result["additionalProperties"] = False
        return result

    def value(self, annotation: Any) -> dict[str, Any]:
        """The schema of one value."""
        origin, args = get_origin(annotation), get_args(annotation)
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.value(arm) for arm in args]}
        if inspect.isclass(annotation) and issubclass(annotation, Registered) and annotation in _KINDS:
            return {"$ref": f"#/$defs/{annotation.__name__}"}
        if inspect.isclass(annotation) and issubclass(annotation, Section):
            return self.object(shape_of_model(annotation), closed=annotation.model_config.get("extra") == "forbid")
        if is_typeddict(annotation):
            return self.object(shape_of_typed_dict(annotation))
        if origin is dict and len(args) == 2:
            return {"type": "object", "additionalProperties": self.value(args[1])}
        if origin is list and args:
            return {"type": "array", "items": self.value(args[0])}
        if origin is Annotated and get_origin(args[0]) in (dict, list):
            return self.value(args[0])
        schema = TypeAdapter(yaml_type(annotation)).json_schema()
        self.definitions |= schema.pop("$defs", {})
        return schema

    def any_registered(self, model: type[Registered]) -> dict[str, Any]:
        """A section that names one of the registered classes of a kind."""
        sections = []
        for name, target in sorted(all_registered(model.kind).items()):
            section = self.object(shape_of_registered(model.kind, target, model))
            sections.append(self._named(section, name, target))
        return {"anyOf": sections} if sections else {"type": "object"}

    def datasets(self) -> dict[str, Any]:
        sections = []
        for name, target in sorted(all_registered("dataset").items()):
            declared = getattr(target, "Options", DatasetOptions)
            sections.append(self._named(self.object(shape_of_model(declared), "Options" in vars(target)), name, target))
        return {"anyOf": [*sections, {"type": "object", "not": {"required": ["type"]}}]}

    @staticmethod
    def _named(section: dict[str, Any], name: str, target: Any) -> dict[str, Any]:
        section["properties"]["type"] = {"const": name}
        section["required"] = ["type"]
        summary = (inspect.getdoc(target) or "").partition("\n")[0]
        return {"title": name, "description": summary, **section}

    def training_of_each_recipe(self) -> list[dict[str, Any]]:
        rules = []
        for name, target in sorted(all_registered("model").items()):
            train = self.object(shape_of_training(target), closed=declares_its_keys(target))
            condition = {"properties": {"model_type": {"const": name}}, "required": ["model_type"]}
            rules.append({"if": condition, "then": {"properties": {"train": train}}})
        return rules
