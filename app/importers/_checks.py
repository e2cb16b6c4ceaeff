"""What can be wrong with an importer's definition, each with the option or the column it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

from app.definitions import Finding, Known, misspelt, name_findings, sequence
from app.importers._base import Column, Importer, Reference, Type, value_of
from app.models.imports import INSERT, MODES
from app.params import did_you_mean

TYPES = get_args(Type)
# Those whose values have an order that people know.
# Looking around, atomic groups, conditions, references: what Python's expressions have and RE2's have not.
_BEYOND_RE2 = re.compile(r"(?<!\\)(?:\\\\)*(?:\(\?(?:<?[=!]|>|P=|\()|\\[1-9])")
ORDERED = ("int", "decimal", "date", "datetime")
# What rows are told apart by before they are written.
RESERVED = "line"
# PostgreSQL's limit for names, in bytes.
NAME_BYTES = 63

_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")
_FLAGS = ("required", "unique")
_TEXTS = ("label", "description")
_LISTS = ("aliases", "choices")


def findings(importer: Importer, known: Known) -> Iterator[Finding]:
    """Everything that is wrong with `importer`, so that its author mends it in one go."""
    yield from _texts(importer)
    yield from name_findings(importer, known)
    yield from _columns(importer)
    yield from _natural_key(importer)
    yield from _modes(importer)
    if type(importer) is not Importer:
        yield from misspelt(importer, (*Importer.OPTIONS, "check", "row"), "an importer")
    if importer.row is not None and not callable(importer.row):
        yield Finding("row must be a method: def row(self, row)", "row")


def _texts(importer: Importer) -> Iterator[Finding]:
    for option in ("title", "description", "group", "source", "table"):
        if not isinstance(getattr(importer, option), str):
            yield Finding(f"{option} must be a text", option)
    if not importer.title:
        yield Finding('the importer has no title; say for instance: title = "Members"', "title")
    if not _KEY.fullmatch(str(importer.key)):
        yield Finding(f"the key {importer.key!r} must be made of lower-case letters, digits, _ and -", "key")
    if not importer.table:
        yield Finding('the importer has no table; say for instance: table = "members"', "table")
    elif not _is_table(str(importer.table)):
        yield Finding(f'table is {importer.table!r}; write "table" or "schema.table"', "table")


def _columns(importer: Importer) -> Iterator[Finding]:
    columns = sequence(importer.columns)
    if not columns or not all(isinstance(column, Column) for column in columns):
        yield Finding("the importer has no columns; each is a table [columns.name], or a Column", "columns")
        return
    seen: set[str] = set()
    for column in columns:
        if column.name in seen:
            yield Finding(f"column {column.name} is there twice", "columns", column.name)
        seen.add(column.name)
        for option, message in _column(column):
            yield Finding(f"column {column.name}: {message}", option, str(column.name))


def _column(column: Column) -> Iterator[tuple[str, str]]:
    """(option, message)."""
    if not _is_name(str(column.name)) or column.name == RESERVED:
        yield "name", f"no column can be called so; it needs 1 to {NAME_BYTES} bytes, and must not be 'line'"
    for option in _TEXTS:
        if not isinstance(getattr(column, option), str):
            yield option, f"{option} must be a text"
    for option in _LISTS:
        given: Any = getattr(column, option)
        if not isinstance(given, tuple) or not all(isinstance(text, str) for text in given):
            yield option, f'{option} must be a list of texts, such as ["open", "done"]'
    for option in _FLAGS:
        if not isinstance(getattr(column, option), bool):
            yield option, f"{option} must be true or false"
    if column.type not in TYPES:
        yield "type", f"there is no type {column.type!r}.{did_you_mean(str(column.type), TYPES)}"
        return
    yield from _rules(column)
    yield from _values(column)
    if column.references is not None and not _is_reference(column.references):
        yield "references", 'references must be Reference("companies", "name"), with names of the database'


def _rules(column: Column) -> Iterator[tuple[str, str]]:
    """Rules that only some types have."""
    for option in ("choices", "max_length", "pattern"):
        if getattr(column, option) not in (None, ()) and column.type != "text":
            yield option, f"{option} is for columns of the type text"
    for option in ("min", "max"):
        if getattr(column, option) is not None and column.type not in ORDERED:
            yield option, f"{option} is for columns of the types {', '.join(ORDERED)}"
    longest: Any = column.max_length
    if longest is not None and (type(longest) is not int or longest < 1):
        yield "max_length", "max_length must be a whole number from 1"
    if column.pattern is not None:
        yield from _pattern(column.pattern)


def _pattern(pattern: Any) -> Iterator[tuple[str, str]]:
    # Rows are matched by RE2, which comes with Arrow: too heavy to be loaded for this by every process.
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        yield "pattern", f"pattern is no regular expression: {error}"
    else:
        if _BEYOND_RE2.search(pattern):
            yield (
                "pattern",
                "pattern is no regular expression of RE2: those look not around and refer to nothing",
            )


def _values(column: Column) -> Iterator[tuple[str, str]]:
    """Values that are written in the definition itself."""
    found: dict[str, Any] = {}
    for option in ("default", "min", "max"):
        raw = getattr(column, option)
        if raw is None or (option != "default" and column.type not in ORDERED):
            continue
        try:
            found[option] = value_of(column.type, raw)
        except ValueError as error:
            yield option, f"{option} fits no column of this type: {error}"
    least, most, default = (found.get(option) for option in ("min", "max", "default"))
    if least is not None and most is not None and least > most:
        yield "max", f"max is {most}, less than min, which is {least}"
    if default is None:
        return
    if column.choices and default not in column.choices:
        yield "default", f"default is {default!r}, which is none of the choices"
    if (least is not None and default < least) or (most is not None and default > most):
        yield "default", f"default is {default}, beyond min or max"


def _natural_key(importer: Importer) -> Iterator[Finding]:
    key: Any = importer.natural_key
    if not isinstance(key, tuple) or not all(isinstance(name, str) for name in key):
        yield Finding('natural_key must be a list of columns, such as ["email"]', "natural_key")
        return
    columns = {c.name: c for c in sequence(importer.columns) if isinstance(c, Column)}
    for name in key:
        if name not in columns:
            hint = did_you_mean(name, list(columns))
            yield Finding(f"natural_key names {name!r}, which is none of the columns.{hint}", "natural_key")
        elif not columns[name].required:
            words = "it is in the natural key, so it must be required: a row without it is found nowhere"
            yield Finding(f"column {name}: {words}", "required", name)


def _modes(importer: Importer) -> Iterator[Finding]:
    modes = sequence(importer.modes)
    if not modes or not set(modes) <= set(MODES):
        yield Finding(f"modes must be a list of some of: {', '.join(MODES)}", "modes")
    elif not importer.natural_key and modes != (INSERT,):
        words = 'without a natural_key rows can only be inserted; name one, or say modes = ["insert"]'
        yield Finding(words, "modes")


def _is_table(text: str) -> bool:
    return len(text.split(".")) <= 2 and all(map(_is_name, text.split(".")))


def _is_name(text: str) -> bool:
    return 0 < len(text.encode()) <= NAME_BYTES and text.isprintable() and '"' not in text


def _is_reference(reference: object) -> bool:
    if not isinstance(reference, Reference):
        return False
    names = (reference.key, reference.value)
    return _is_table(str(reference.table)) and all(_is_name(str(name)) for name in names)
