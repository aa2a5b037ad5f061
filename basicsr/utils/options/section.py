"""A section of an option file as a pydantic model whose errors are sentences.

A declaration is a plain pydantic model::

    class ValOptions(Section):
        save_img: bool = False
        "Write the output images."

What validates a section is its *form*: a model that is made from the declaration with `create_model`, in which every
value is read as YAML means it and the families of keys that the section holds are fields like the others.
"""

from __future__ import annotations

import re
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from annotated_types import MinLen
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema
from typing_extensions import Self, is_typeddict

from .annotations import adapter_of, has_huge_integer, read_value, yaml_type
from .errors import Key, OptionError, dotted
from .finding import Finding, Setting, problem, refusal
from .signatures import Parameter, keys_of_typed_dict
from .words import choices, describe, shown


class Section(BaseModel):
    """A section of an option file.

    Attributes:
        families: Families of keys, as a regular expression of the key → the type of its value.
        unread: Keys that published files hold and that nothing reads, here as in BasicSR. They are passed over with a
            notice; a section that may hold any key leaves them to the plug-in's class.
        is_form: Whether the class validates, and is not a declaration.
        found: In a form, the keys that are there because a section holds them, and that nobody may have misspelt.
    """

    model_config = ConfigDict(use_attribute_docstrings=True, arbitrary_types_allowed=True, protected_namespaces=())
    families: ClassVar[dict[str, Any]] = {}
    unread: ClassVar[tuple[str, ...]] = ()
    is_form: ClassVar[bool] = False
    found: ClassVar[frozenset[str]] = frozenset()
    _passed_over: tuple[str, ...] = ()
    _notices: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any] | None) -> Self:
        """Read a section that has been checked, or one that a plug-in has made by hand.

        Keys that are not declared are passed over, sections that name a class are left as they are, and a required key
        that is missing is None.

        Raises:
            OptionError: If a value does not fit its declaration.
        """
        try:
            found = _partial_form(cls).model_validate(dict(values or {}))
        except ValidationError as error:
            problems = [f"{dotted(tuple(e['loc']))}: {e['ctx']['sentence']}" for e in error.errors(include_url=False)]
            raise OptionError(problems) from None
        return cls.model_construct(**vars(found))  # the form itself cannot be pickled for a loader's process

    @classmethod
    def form_for(cls, values: Mapping[Any, Any], setting: Setting | None) -> type[Self]:
        """The form that validates a section.

        Raises:
            PydanticCustomError: If the section does not say what it describes.
        """
        return form_of(cls, found=members_of_families(cls, values), is_open=setting is not None and setting.is_open)

    @classmethod
    def rules(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        """What is wrong with values that each fit their declaration; those that do not are to be passed over."""
        return ()

    @classmethod
    def rules_when_valid(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        """What is wrong with values that fit their declaration, all of them."""
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, values: Any, handler: Any, info: Any) -> Any:
        if not isinstance(values, dict):
            raise refusal(f"must be a section, not {shown(values)}")
        if not cls.is_form:
            form = cls.form_for(values, info.context)
            passed_over = [key for key in values if form.passes_over(key)]
            read = {key: value for key, value in values.items() if key not in passed_over}
            result = form.model_validate(read, context=info.context)
            result._passed_over = tuple(passed_over)
            return result
        problems: list[InitErrorDetails] = []
        try:
            result = handler(values)
        except ValidationError as error:
            problems = [_in_words(cls, found, values) for found in error.errors(include_url=False)]
        findings = () if info.context is None else tuple(cls.rules(values, info.context))
        problems += [problem(key, text) for key, text, is_notice in findings if not is_notice]
        if info.context is not None and not problems:
            problems += [problem(key, text) for key, text, _ in cls.rules_when_valid(values, info.context)]
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        result._notices = tuple(finding for finding in findings if finding.is_notice)
        return result

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        if not cls.is_form:
            return json_schema_of(form_of(cls), handler)
        result = handler(schema)
        families = {f"^{pattern}$": annotation for pattern, annotation in families_of(cls).items()}
        if families:
            handler.resolve_ref_schema(result)["patternProperties"] = {
                pattern: Reading(annotation).__get_pydantic_json_schema__(None, handler)
                for pattern, annotation in families.items()
            }
        return result

    @classmethod
    def passes_over(cls, key: Any) -> bool:
        """Whether a form takes a key and nothing reads it."""
        is_open = cls.model_config.get("extra") == "allow"
        return not is_open and key not in cls.model_fields and any(key in parent.unread for parent in _sections(cls))

    @property
    def passed_over(self) -> tuple[str, ...]:
        """The keys of the section that nothing reads."""
        return self._passed_over

    @property
    def notices(self) -> tuple[Finding, ...]:
        """What the section's rules notice, and do not refuse."""
        return self._notices

    @classmethod
    def nearest(cls, name: Any) -> str | None:
        """The key that a misspelt one was most likely meant to be."""
        families = [pattern.replace(r"\w+", end) for pattern in families_of(cls) for end in ("g", "t", "d")]
        matches = get_close_matches(str(name), [*(cls.model_fields.keys() - cls.found), *families], n=1, cutoff=0.6)
        return matches[0] if matches else None

    @classmethod
    def known_keys(cls) -> list[str]:
        """The keys that it may hold, for a message."""
        return sorted(
            [
                *(cls.model_fields.keys() - cls.found),
                *(pattern.replace(r"\w+", "<name>") for pattern in families_of(cls)),
            ]
        )


def _sections(model: type[Section]) -> list[type[Section]]:
    """A declaration and its parents."""
    return [parent for parent in model.__mro__ if issubclass(parent, Section)]


def families_of(model: type[Section]) -> dict[str, Any]:
    """The families of keys of a declaration and its parents."""
    found: dict[str, Any] = {}
    for parent in reversed(_sections(model)):
        found |= parent.__dict__.get("families", {})
    return found


def members_of_families(model: type[Section], names: Iterable[str]) -> dict[str, Parameter]:
    return {
        name: Parameter(annotation, None)
        for name in names
        for pattern, annotation in families_of(model).items()
        if isinstance(name, str) and name not in model.model_fields and re.fullmatch(pattern, name)
    }


def form_of(
    model: type[Section],
    further: Mapping[str, Parameter] | None = None,
    found: Mapping[str, Parameter] | None = None,
    name: str | None = None,
    is_open: bool = False,
    replaced: Mapping[str, Parameter] | None = None,
) -> type[Section]:
    """Make a declaration a form.

    Args:
        model: The declaration.
        further: Keys beside the declared ones.
        found: Keys that a section holds: members of families.
        name: The form's name; the declaration's when absent.
        is_open: Whether keys of no declaration are let through.
        replaced: What declared keys take instead of what is declared.
    """
    fields = {key: Parameter(*declared(info)) for key, info in model.model_fields.items()} | dict(replaced or {})
    texts = {key: info.description for key, info in model.model_fields.items()}
    own = {
        key: value
        for key, value in {**(further or {}), **(found or {})}.items()
        if key not in fields and key.isidentifier()
    }
    fields |= {key: value for key, value in own.items() if not key.startswith("_")}  # pydantic has no such fields
    arguments = (
        model,
        tuple(fields.items()),
        tuple(texts.items()),
        name or model.__name__,
        is_open,
        frozenset(found or ()),
    )
    try:
        return _make_form(*arguments)
    except TypeError:  # a default that cannot be hashed
        return _make_form.__wrapped__(*arguments)


def declared(info: Any) -> tuple[Any, Any]:
    annotation = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    return annotation, ... if info.is_required() else info.default


@lru_cache(maxsize=4096)
def _make_form(
    model: type[Section], fields: Any, texts: Any, name: str, is_open: bool, found: frozenset[str] = frozenset()
) -> type[Section]:
    descriptions = dict(texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parameters may be called like members of BaseModel
        form = create_model(
            name,
            __base__=model,
            __doc__=model.__doc__,
            __cls_kwargs__={"extra": "allow" if is_open else "forbid"},
            **{
                key: (Annotated[Any, Reading(annotation)], Field(default, description=descriptions.get(key)))
                for key, (annotation, default) in fields
            },
        )
    form.is_form = True
    form.found = found
    return form


@lru_cache(maxsize=256)
def _partial_form(model: type[Section]) -> type[Section]:
    fields = {key: Parameter(*declared(info)) for key, info in model.model_fields.items()}
    loose = {
        key: Parameter(Any if holds_sections(annotation) else annotation, None if default is ... else default)
        for key, (annotation, default) in fields.items()
    }
    return _make_form.__wrapped__(model, tuple(loose.items()), (), model.__name__, True)


def is_section(annotation: Any) -> bool:
    """Whether a value of this type is a section whose keys are declared."""
    return is_typeddict(annotation) or (isinstance(annotation, type) and issubclass(annotation, Section))


def holds_sections(annotation: Any) -> bool:
    """Whether a value of this type is a section whose keys are declared, or may hold one."""
    return is_section(annotation) or any(holds_sections(arg) for arg in get_args(annotation))


class Reading:
    """How a value is read from YAML: the annotation that pydantic is given in place of the declared one.

    Args:
        annotation: The declared type. Where it holds sections, a dict goes to the section among its alternatives and a
            list to the list, so that what is wrong inside is reported with its own place.
    """

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self._may_be_empty = not (get_origin(annotation) is Annotated and MinLen(1) in get_args(annotation))
        if get_origin(annotation) is Annotated and holds_sections(annotation):
            annotation = get_args(annotation)[0]
        union = get_origin(annotation) in (Union, types.UnionType)
        arms = get_args(annotation) if union else (annotation,)
        self._nested = [arm for arm in arms if holds_sections(arm)]
        plain = [arm for arm in arms if not holds_sections(arm)]
        self._plain: Any = Union[tuple(plain)] if self._nested and plain else None if self._nested else annotation  # noqa: UP007

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.with_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        arms = [json_schema_of(pydantic_type(arm), handler) for arm in self._nested]
        if self._plain is not None or not arms:
            adapter = adapter_of(yaml_type(self._plain))
            arms.append({} if adapter is None else handler.generate_json_schema.generate_inner(adapter.core_schema))
        return arms[0] if len(arms) == 1 else {"anyOf": arms}

    def read(self, value: Any, info: Any) -> Any:
        """Validate a value.

        Raises:
            PydanticCustomError: If it does not fit.
            ValidationError: If it is a section, or holds some, with something wrong inside.
        """
        if value == [] and not self._may_be_empty:
            raise self._refuse(value)
        for arm in self._nested:
            if isinstance(value, dict if is_section(arm) or get_origin(arm) is dict else list):
                return _adapter_of_nested(arm).validate_python(value, context=info.context)
        if self._nested and self._plain is None:
            raise self._refuse(value)
        try:
            return read_value(self._plain, value)
        except ValueError:
            raise self._refuse(value) from None

    def _refuse(self, value: Any) -> PydanticCustomError:
        nearest = get_close_matches(value, choices(self.annotation), n=1) if isinstance(value, str) else []
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        if has_huge_integer(value):
            hint = ", which needs more than 64 bits"
        return refusal(f"must be {describe(self.annotation)}, not {shown(value)}{hint}")


def json_schema_of(type_: Any, handler: Any) -> dict[str, Any]:
    """The JSON Schema of a type within that of another, for which pydantic has called with this handler."""
    return handler.generate_json_schema.generate_inner(TypeAdapter(type_).core_schema)


@lru_cache(maxsize=256)
def _adapter_of_nested(arm: Any) -> TypeAdapter:
    return TypeAdapter(pydantic_type(arm))


def pydantic_type(arm: Any) -> Any:
    """What pydantic is to validate for a type that is a section, or a list or dict that holds some."""
    if is_typeddict(arm):
        return form_of(Section, keys_of_typed_dict(arm), name=arm.__name__)
    if is_section(arm):
        return arm
    inner = get_args(arm)
    if get_origin(arm) is dict:
        return dict[Any, Annotated[Any, Reading(inner[-1])]]
    return list[Annotated[Any, Reading(inner[0])]]


def _in_words(form: type[Section], error: Any, values: Mapping[Any, Any]) -> InitErrorDetails:
    """Pydantic's error in a section, as one of ours. What comes from further inside is one already."""
    kind, key = error["type"], tuple(error["loc"])
    if kind == "missing":
        reading = next(m for m in form.model_fields[key[-1]].metadata if isinstance(m, Reading))
        sentence = f"the key '{key[-1]}' is missing ({describe(reading.annotation)}){misspelt(key[-1], values, form)}"
        return problem((), sentence)
    if kind in ("extra_forbidden", "invalid_key"):
        key = key[:1]
        nearest = form.nearest(key[0])
        hint = f"did you mean '{nearest}'?" if nearest else f"known: {', '.join(form.known_keys()) or 'none'}"
        return problem(key, f"unknown key; {hint}")
    return problem(key, error["ctx"]["sentence"])


def misspelt(name: str, values: Mapping[Any, Any], form: type[Section] | None = None) -> str:
    """A hint at the key that was most likely meant to be a missing one; not one that has a meaning of its own."""
    unknown = [str(key) for key in values if form is None or key not in form.model_fields]
    nearest = get_close_matches(name, unknown, n=1, cutoff=0.7)
    return f"; is '{nearest[0]}' a misspelling of it?" if nearest else ""


def sections_in(value: Any, key: Key = ()) -> Iterator[tuple[Key, Section]]:
    """The sections of validated options, each with the way to it."""
    if isinstance(value, Section):
        yield key, value
        items: Iterable[tuple[Any, Any]] = [(name, getattr(value, name)) for name in type(value).model_fields]
    else:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from sections_in(item, (*key, name))
