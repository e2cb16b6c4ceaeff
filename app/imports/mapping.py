"""Which column of a file goes to which of the target: by name, by likeness, or as it was the last time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.dialects.postgresql import insert

from app.errors import InvalidParams
from app.extensions import db
from app.importers import Column, Importer
from app.imports.file.dialect import Dialect
from app.imports.file.header import likeness, own, plain
from app.models.choice import MappingChoice
from app.models.imports import INSERT, UPDATE
from app.models.user import User
from app.params import did_you_mean

# Names that are less alike than this are not matched.
ALIKE = 0.7

Places = dict[str, int | None]


def match(
    importer: Importer, header: Sequence[str], *, remembered: Mapping[str, int | None] | None = None
) -> Places:
    """The place (from 0) of the file's column for each column of the importer; None where there is none.

    What a person chose for the same header goes before all; then the same name, then the likest one. Each of
    the file's columns is used once.
    """
    if remembered is not None and _fits(importer, header, remembered):
        return {column.name: remembered.get(column.name) for column in importer.columns}
    found: Places = dict.fromkeys(column.name for column in importer.columns)
    free = {place for place in range(own(header)) if header[place].strip()}
    scored = (
        (_score(column, header[place]), -place, -order)
        for order, column in enumerate(importer.columns)
        for place in free
    )
    for score, place, order in sorted(scored, reverse=True):
        name = importer.columns[-order].name
        if score >= ALIKE and found[name] is None and -place in free:
            found[name] = -place
            free.remove(-place)
    return found


def check(importer: Importer, header: Sequence[str], mapping: Mapping[str, object]) -> Places:
    """A mapping that somebody gave, whole; a place may be a name of the file's. Raises InvalidParams."""
    names = [column.name for column in importer.columns]
    errors: dict[str, str] = {}
    found: Places = dict.fromkeys(names)
    used: dict[int, str] = {}
    for name, given in mapping.items():
        if name not in found:
            hint = did_you_mean(name[:80], names)
            errors["mapping"] = f"There is no column {name[:80]!r} in {importer.title!r}.{hint}"
            continue
        try:
            place = found[name] = _place(header, given)
        except ValueError as error:
            errors[f"mapping.{name}"] = str(error)
            continue
        if place is not None and used.setdefault(place, name) != name:
            text = f"{header[place]!r} goes to {used[place]!r} already. Use each of the file's columns once."
            errors[f"mapping.{name}"] = text
    if errors:
        raise InvalidParams(errors)
    return found


def problems(importer: Importer, mapping: Mapping[str, int | None], mode: str) -> list[str]:
    """Why nothing can be imported so; [] if it can."""
    found = [
        f"{called(column)} is required, and no column of the file goes there."
        for column in importer.columns
        if mapping.get(column.name) is None and _needed(importer, column, mode)
    ]
    if all(place is None for place in mapping.values()):
        return ["No column of the file goes anywhere yet. Choose at least one."]
    if mode == UPDATE and not any(
        place is not None and name not in importer.natural_key for name, place in mapping.items()
    ):
        found.append("Beside the key no column of the file goes anywhere: there would be nothing to update.")
    return found


def unused(header: Sequence[str], mapping: Mapping[str, int | None]) -> list[str]:
    """The file's columns that go nowhere, but for those of a file of refused rows."""
    used = {place for place in mapping.values() if place is not None}
    return [header[place] for place in range(own(header)) if place not in used]


def remember(
    user: User, importer: Importer, header: Sequence[str], mapping: Places, dialect: Dialect
) -> None:
    """Begin with this for files of this header from now on; the caller commits."""
    kept = insert(MappingChoice).values(
        user_id=user.id,
        importer=importer.key,
        header_sha256=fingerprint(header),
        mapping=mapping,
        dialect=dialect.as_json(),
    )
    keys = [MappingChoice.user_id, MappingChoice.importer, MappingChoice.header_sha256]
    chosen = {"mapping": kept.excluded.mapping, "dialect": kept.excluded.dialect}
    db.session.execute(kept.on_conflict_do_update(index_elements=keys, set_=chosen))


def remembered(user: User, importer: Importer, header: Sequence[str]) -> MappingChoice | None:
    """What this person chose for files of this header, refused rows of them included."""
    return db.session.get(MappingChoice, (user.id, importer.key, fingerprint(header)))


def fingerprint(header: Sequence[str]) -> str:
    """The same for a file and the file of its refused rows."""
    return hashlib.sha256(json.dumps(list(header[: own(header)])).encode()).hexdigest()


def called(column: Column) -> str:
    return column.label or column.name.replace("_", " ").capitalize()


def _score(column: Column, name: str) -> float:
    """How well the file's column fits: its name before its label before its aliases, where they are alike."""
    if name.strip() == column.name:
        return 3.0
    names = (column.name, column.label, *column.aliases)
    same = [place for place, other in enumerate(names) if other and plain(other) == plain(name)]
    return 2.0 - same[0] / 100 if same else max(likeness(name, other) for other in names)


def _fits(importer: Importer, header: Sequence[str], mapping: Mapping[str, int | None]) -> bool:
    """The importer may have changed since it was remembered."""
    names = {column.name for column in importer.columns}
    return mapping.keys() <= names and all(place is None or place < len(header) for place in mapping.values())


def _needed(importer: Importer, column: Column, mode: str) -> bool:
    if column.name in importer.natural_key and mode != INSERT:
        return True
    return column.required and column.default is None and mode != UPDATE


def _place(header: Sequence[str], given: Any) -> int | None:
    if given is None or given == "":
        return None
    if isinstance(given, bool) or not isinstance(given, (int, str)):
        raise ValueError("Give the name of the file's column, its place from 0, or null.")
    if isinstance(given, int):
        if not 0 <= given < len(header):
            raise ValueError(f"The file has {len(header)} columns; there is no place {given} (from 0).")
        return given
    same = [place for place, name in enumerate(header) if name == given]
    same = same or [place for place, name in enumerate(header) if plain(name) == plain(given)]
    if not same:
        raise ValueError(f"The file has no column {given[:80]!r}.{did_you_mean(given[:80], list(header))}")
    if len(same) > 1:
        raise ValueError(f"The file has {len(same)} columns {given[:80]!r}: give the place (from 0) instead.")
    return same[0]
