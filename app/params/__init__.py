"""Params: what a report or an importer asks of a person, and how the answer is checked.

Three shapes of one value:
    raw     what came in: a form's strings, the CLI's strings, or the API's JSON values
    frozen  JSON-ready and absolute, stored with the job: `{"since": "2026-01-01", "limit": 10}`
    bound   typed Python values for the query: `{"since": date(2026, 1, 1), "limit": 10}`
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from difflib import get_close_matches
from typing import Any, Literal

from app.errors import InvalidParams
from app.params.kinds import KINDS, Choice, Frozen, Kind, Moment, Refused

__all__ = ["KINDS", "Choice", "Frozen", "InvalidParams", "Param", "Params", "did_you_mean", "json_schema"]

NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
# Bound in every query, so no param may take these names.
RESERVED = ("current_user_email", "current_user_id")
UNKNOWN_SHOWN = 20
# In which option a type's own meaning lies; every other param type refuses the option.
OPTION_TYPES = {
    "min": ("int", "decimal", "date", "datetime", "list"),
    "max": ("int", "decimal", "date", "datetime", "list"),
    "choices": ("enum",),
    "edge": ("date", "datetime"),
    "items": ("list",),
    "max_length": ("text", "list"),
}


@dataclass(frozen=True)
class Param:
    """One question. `default`, `min` and `max` are raw values: dates may be words such as "last month"."""

    name: str
    type: str = "text"
    label: str = ""
    help: str = ""
    default: Any = None
    required: bool = False
    min: Any = None
    max: Any = None
    # Values, (value, label) pairs, {"value": ..., "label": ...} tables or Choice; kept as Choice.
    choices: tuple[Any, ...] = ()
    # Which end of a span is meant: "last month" is its first day ("start") or its last ("end").
    edge: Literal["start", "end"] = "start"
    # What a list holds: "text" or "int".
    items: Literal["text", "int"] = "text"
    # Characters of a text, or of one item of a list.
    max_length: int = 1000

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name.replace("_", " ").capitalize())
        object.__setattr__(self, "choices", tuple(map(Choice.of, self.choices)))
        if isinstance(self.default, list):
            object.__setattr__(self, "default", tuple(self.default))

    @property
    def kind(self) -> Kind:
        return KINDS[self.type]

    @property
    def cast(self) -> str:
        """The PostgreSQL type that a placeholder of this param has."""
        return self.kind.cast(self)

    def read(self, raw: object, moment: Moment) -> Any:
        """The typed value of `raw`, None for nothing; raises Refused."""
        value = None if raw is None else self.kind.parse(self, raw, moment)
        if value is None and self.required:
            raise Refused(f"{'Choose one' if self.type == 'enum' else 'Fill this in'}: it is required.")
        if value is not None:
            self.kind.check(self, value, moment)
        return value

    def problems(self, moment: Moment) -> Iterator[str]:
        """What is wrong with the definition itself, in words for its author."""
        if not NAME.fullmatch(self.name) or self.name in RESERVED:
            yield f"param {self.name!r}: use lower-case letters, digits and _, not {' or '.join(RESERVED)}"
        if self.type not in KINDS:
            yield f"param {self.name}: there is no type {self.type!r}.{did_you_mean(str(self.type), KINDS)}"
            return
        for option in self._foreign_options():
            types = ", ".join(OPTION_TYPES[option])
            yield f"param {self.name}: {option!r} has no meaning for {self.type}, only for {types}"
        yield from (f"param {self.name}: {text}" for text in self._wrong_values(moment))

    def _foreign_options(self) -> Iterator[str]:
        for option, types in OPTION_TYPES.items():
            unset = getattr(type(self), option)
            if self.type not in types and getattr(self, option) != unset:
                yield option

    def _wrong_values(self, moment: Moment) -> Iterator[str]:
        if self.edge not in ("start", "end"):
            yield f"edge is {self.edge!r}; use 'start' or 'end'"
            return
        if self.items not in ("text", "int"):
            yield f"items is {self.items!r}; use 'text' or 'int'"
            return
        if self.max_length < 1:
            yield "max_length must be 1 or more"
        values = [choice.value for choice in self.choices]
        if self.type == "enum" and not values:
            yield "an enum needs choices"
        if not all(values) or len(set(values)) < len(values):
            yield "choices must be different from each other and not empty"
        try:
            low, high = self.kind.bounds(self, moment)
            if low is not None and high is not None and low > high:
                yield f"min {self.min} is more than max {self.max}"
        except Refused as refused:
            yield f"min or max is wrong: {refused}"
            return
        try:
            if self.default is not None:
                self.read(self.default, moment)
        except Refused as refused:
            yield f"the default {self.default!r} is wrong: {refused}"


class Params(tuple[Param, ...]):
    """The params of one report or importer, in the order of asking: `Params([Param(...), ...])`."""

    __slots__ = ()

    @property
    def names(self) -> list[str]:
        return [param.name for param in self]

    def get(self, name: str) -> Param | None:
        return next((param for param in self if param.name == name), None)

    def validate(self, raw: Mapping[str, object], *, now: datetime, tz: tzinfo) -> dict[str, Frozen]:
        """Frozen values of all params, or InvalidParams with one message for each wrong one.

        A name that is absent takes its default; a value that is empty ("" or null) means "none", and is
        stored as null. Words such as "last month" are resolved against `now` as seen in `tz`. Frozen
        values are good raw values: validating them again gives the same.
        """
        moment = Moment.at(now, tz)
        errors = self._unknown(raw)
        frozen: dict[str, Frozen] = {}
        for param in self:
            try:
                value = param.read(raw.get(param.name, param.default), moment)
                frozen[param.name] = None if value is None else param.kind.freeze(param, value)
            except Refused as refused:
                errors[param.name] = str(refused)
        if errors:
            raise InvalidParams(errors)
        return frozen

    def defaults(self, *, now: datetime, tz: tzinfo) -> dict[str, Frozen]:
        """Frozen defaults, for filling a form: "last month" is a date here."""
        moment = Moment.at(now, tz)
        return {
            param.name: None
            if param.default is None
            else param.kind.freeze(param, param.kind.parse(param, param.default, moment))
            for param in self
        }

    def bind(self, frozen: Mapping[str, Any]) -> dict[str, Any]:
        """Typed values for the query: date, datetime, Decimal, list, ... A name without a value is None."""
        bound: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for param in self:
            raw = frozen.get(param.name)
            try:
                bound[param.name] = None if raw is None else param.kind.parse(param, raw, None)
            except Refused as refused:
                errors[param.name] = str(refused)
        if errors:
            raise InvalidParams(errors)
        return bound

    def _unknown(self, raw: Mapping[str, object]) -> dict[str, str]:
        names = [_shown(name) for name in raw if name not in self.names][:UNKNOWN_SHOWN]
        return {name: f"There is no such parameter.{did_you_mean(name, self.names)}" for name in names}


def json_schema(params: Params) -> dict[str, Any]:
    """A JSON Schema 2020-12 object that says what the API takes as `params`."""
    return {
        "type": "object",
        "properties": {param.name: _property(param) for param in params},
        "required": [param.name for param in params if param.required and param.default is None],
        "additionalProperties": False,
    }


def did_you_mean(word: str, known: Mapping[str, object] | list[str] | tuple[str, ...]) -> str:
    """A sentence to put after "there is no such ..."; empty when nothing can be said."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean {near[0]}?"
    return f" There is: {', '.join(known)}." if 0 < len(known) <= UNKNOWN_SHOWN else ""


def _property(param: Param) -> dict[str, Any]:
    schema = {"title": param.label, **param.kind.schema(param)}
    help = " ".join(filter(None, (param.help, param.kind.hint)))
    if help:
        schema["description"] = help
    if not param.required:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema["type"] = [*types, "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    if param.default is not None:
        schema["default"] = _json(param.default)
    return schema


def _json(default: object) -> object:
    if isinstance(default, (list, tuple)):
        return list(default)
    return default if isinstance(default, (bool, int)) else str(default)


def _shown(name: object) -> str:
    """A stranger's name, short and printable enough to be told back."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(name)[:60])
    return text or "(no name)"
