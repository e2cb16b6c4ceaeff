"""What people may correct about how a file is read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from app import zones
from app.imports.file import encodings
from app.imports.file.dialect import Dialect

# How a day is written, with an example: the last of January.
ORDERS = {"iso": "2026-01-31", "dmy": "31/1/2026", "mdy": "1/31/2026"}


def problems(given: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with members of a dialect that somebody gave, by name; {} if nothing is."""
    known = {item.name for item in fields(Dialect)} - {"container", "content"}
    found = {name: "There is no such thing about a file." for name in given if name not in known}
    for name in given.keys() & known:
        if text := _problem(name, given[name]):
            found[name] = text
    if (mark := given.get("quote", '"')) is not None and mark == given.get("delimiter", ","):
        found["quote"] = "It can't be the delimiter, too."
    return found


def _problem(name: str, value: Any) -> str | None:
    """Why a member cannot have this value; None if it can."""
    if name in ("delimiter", "quote", "escape"):
        mark = isinstance(value, str) and len(value) == 1 and value.isascii() and value not in "\r\n\0"
        return None if mark or (value is None and name != "delimiter") else "Give one ASCII character."
    if name == "encoding":
        return None if isinstance(value, str) and encodings.known(value) else "There is no such encoding."
    if name == "skip":
        whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1000
        return None if whole else "Give a number of lines from 0 to 1,000."
    if name == "zone":
        known = isinstance(value, str) and zones.exists(value)
        return None if known else "Give a time zone such as Europe/Berlin."
    if name in ("header", "apostrophes"):
        return None if isinstance(value, bool) else "Give true or false."
    if name == "decimal":
        return None if value in (".", ",") else "Give . or , (a point or a comma)."
    if name == "dates":
        return None if value in tuple(ORDERS) else f"Give one of {', '.join(ORDERS)}."
    if name == "nulls":
        texts = isinstance(value, (list, tuple)) and all(_is_text(v) and len(v) <= 100 for v in value)
        return None if texts and len(value) <= 20 else "Give at most 20 texts of up to 100 characters."
    return None if value is None or _is_text(value) else "Give a name."


def _is_text(value: Any) -> bool:
    """Whether it can be kept: no database takes a NUL or half a character."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
