"""Reading an importer from its file: a .toml file, or a .py file with one subclass of Importer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from app.definitions import Finding, Lines, Unreadable
from app.definitions.files import class_of, fingerprint, frozen, text_of, told, toml_lines, toml_of
from app.importers._base import Column, Importer, Reference
from app.params import did_you_mean

# The key of an importer in TOML is its file's name.
_OPTIONS = tuple(option for option in Importer.OPTIONS if option != "key")
_COLUMN_OPTIONS = tuple(field.name for field in fields(Column) if field.name != "name")
_REFERENCE = tuple(field.name for field in fields(Reference))


def read_toml(path: Path) -> tuple[Importer, Lines]:
    """The importer of a .toml file; raises Unreadable with every wrong option at once."""
    text = text_of(path)
    options = toml_of(text, 1, "the file")
    lines = toml_lines(text, 1, "columns")
    found = (*_wrong(options), *_wrong_columns(options))
    wrong = [Finding(f.message, f.option, f.part, lines(f)) for f in found]
    if wrong:
        raise Unreadable(*wrong)
    importer = Importer()
    for option, value in options.items():
        setattr(importer, option, frozen(value))
    importer.columns = tuple(_column(name, given) for name, given in options.get("columns", {}).items())
    importer.path, importer.key, importer.fingerprint = path, path.stem, fingerprint(text)
    return importer, lines


def read_python(path: Path) -> tuple[Importer, Lines]:
    """The importer of a .py file, freshly run under a private name; raises Unreadable."""
    text = text_of(path)
    found, lines, line = class_of(path, text, Importer)
    try:
        importer = found()
        importer.key = importer.key or path.stem
        for option in ("roles", "columns", "natural_key", "modes"):
            setattr(importer, option, frozen(getattr(importer, option)))
    except Exception as error:
        raise Unreadable(Finding(f"the importer cannot be made: {told(error)}", line=line)) from error
    importer.path, importer.line, importer.fingerprint = path, line, fingerprint(text)
    return importer, lines


def _column(name: str, given: dict[str, Any]) -> Column:
    values = {option: frozen(value) for option, value in given.items()}
    if "references" in values:
        values["references"] = Reference(**values["references"])
    return Column(name=name, **values)


def _wrong(options: dict[str, Any]) -> Iterator[Finding]:
    """Names that mean nothing."""
    for option in options:
        if option not in _OPTIONS:
            hint = did_you_mean(option, _OPTIONS)
            yield Finding(f"{option} is no option of an importer.{hint}", option)


def _wrong_columns(options: dict[str, Any]) -> Iterator[Finding]:
    columns = options.get("columns", {})
    if not isinstance(columns, dict) or not all(isinstance(given, dict) for given in columns.values()):
        yield Finding("columns must be tables: [columns.email], then its options", "columns")
        return
    for name, given in columns.items():
        for option in given:
            if option not in _COLUMN_OPTIONS:
                hint = did_you_mean(option, _COLUMN_OPTIONS)
                yield Finding(f"column {name}: {option} is no option of a column.{hint}", option, name)
        reference = given.get("references")
        if reference is not None and not _is_reference(reference):
            words = 'references must be { table = "companies", key = "name", value = "id" }'
            yield Finding(f"column {name}: {words}", "references", name)


def _is_reference(given: object) -> bool:
    if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
        return False
    return {"table", "key"} <= given.keys() <= set(_REFERENCE)
