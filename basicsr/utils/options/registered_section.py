"""Sections that name a class by ``type``: their other keys are the parameters of that class's constructor."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal

from pydantic_core import ValidationError
from typing_extensions import Self

from basicsr.utils.registry import belongs_to_package

from .annotations import read_value
from .finding import Finding, Setting, problem, refusal
from .registered import all_registered, find_registered
from .section import Section, form_of, json_schema_of, misspelt
from .signatures import Parameter, parameters_of
from .trial import failure
from .words import describe, shown


class Registered(Section):
    """A section that names a class by ``type``; its remaining keys are that class's parameters.

    Attributes:
        kind: What the class is, for messages.
        given: Parameters of the class that the framework gives.
        hints_bind: Whether the type hints of a plug-in's class are binding. Those of a class that may be written for
            BasicSR are advice, since nothing has ever compared them with values.
        may_be_own: Whether a plug-in's recipe may build such a class itself, by a name of its own.
        target: In a form, the class.
    """

    kind: ClassVar[str]
    given: ClassVar[Collection[str]] = ()
    hints_bind: ClassVar[bool] = True
    may_be_own: ClassVar[bool] = False
    target: ClassVar[Any] = None
    type: str
    """The registered name."""

    @classmethod
    def form_for(cls, values: Mapping[Any, Any], setting: Setting | None) -> type[Self]:
        name = values.get("type")
        if name is None:
            hint = misspelt("type", values)
            raise refusal(f"the key 'type' is missing (the name of a registered {cls.kind}){hint}")
        if not isinstance(name, str):
            raise _at_type(cls, f"must be the name of a registered {cls.kind}, not {shown(name)}", name)
        try:
            target = find_registered(cls.kind, name)
        except KeyError as error:
            if setting is not None and setting.is_open and cls.may_be_own:
                return form_of(cls, is_open=True)
            raise _at_type(cls, str(error.args[0]), name) from None
        return cls.form_of_class(name, target)

    @classmethod
    def form_of_class(cls, name: str, target: Any) -> type[Self]:
        """The form of the sections that describe a class: it reads exactly its parameters, whoever builds it."""
        return _form_of_class(cls, name, target)

    @classmethod
    def advice(cls, values: Mapping[Any, Any]) -> Iterable[Finding]:
        """Notices of values that contradict the type hints of a plug-in's class."""
        if cls.target is None or _hints_bind(cls, cls.target):
            return
        for name, parameter in parameters_of(cls.target, cls.given)[0].items():
            if name in values and name not in ("type", *cls.declared_keys()):
                try:
                    read_value(parameter.annotation, values[name])
                except ValueError:
                    text = f"{cls.target.__name__} hints at {describe(parameter.annotation)}, not {shown(values[name])}"
                    yield Finding((name,), text, is_notice=True)

    @classmethod
    def declared_keys(cls) -> set[str]:
        """The keys that every section of this kind has."""
        return set(next(parent for parent in cls.__mro__ if not getattr(parent, "is_form", False)).model_fields)

    @classmethod
    def forms(cls) -> dict[str, type[Self]]:
        """The forms of all registered classes of this kind, by name."""
        return {name: cls.form_of_class(name, target) for name, target in sorted(all_registered(cls.kind).items())}

    @classmethod
    def rules_when_valid(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        reason = None if cls.target is None else failure(cls.kind, cls.target, values)
        if reason is not None:
            yield Finding((), f"{cls.target.__name__} cannot be built with these options: {reason}")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        if cls.is_form:
            return super().__get_pydantic_json_schema__(schema, handler)
        sections = [json_schema_of(form, handler) for form in cls.forms().values()]
        return {"anyOf": sections} if sections else {"type": "object"}


def _at_type(model: type[Registered], sentence: str, value: Any) -> ValidationError:
    return ValidationError.from_exception_data(model.__name__, [problem(("type",), sentence, value)])


def _hints_bind(model: type[Registered], target: Any) -> bool:
    return model.hints_bind or belongs_to_package(target)


@lru_cache(maxsize=1024)
def _form_of_class(model: type[Registered], name: str, target: Any) -> type[Registered]:
    parameters, takes_any = parameters_of(target, model.given)
    if not _hints_bind(model, target):
        parameters = {key: Parameter(Any, default) for key, (_, default) in parameters.items()}
    form = form_of(model, parameters, name=name, is_open=takes_any, replaced={"type": Parameter(Literal[name], ...)})
    form.target = target
    form.__doc__ = inspect.getdoc(target)
    return form
