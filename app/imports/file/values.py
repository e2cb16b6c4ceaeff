"""What cells look like: numbers, dates, their decimal mark and the order of their days. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

INTEGER = re.compile(r"[-+]?\d+")
# Certain: one comma (or dot) before one, two, or more than three digits; or both marks, the last one decides.
COMMA = re.compile(r"[-+]?(\d{1,3}(\.\d{3})+,\d+|\d*,(\d{1,2}|\d{4,}))")
POINT = re.compile(
    r"[-+]?(\d{1,3}(,\d{3})+\.\d+|\d{1,3}(,\d{3}){2,}|\d*\.(\d{1,2}|\d{4,}))(e[-+]?\d+)?", re.I
)
# A thousand and more, or one and its thousandths.
EITHER = re.compile(r"[-+]?\d{1,3}[.,]\d{3}")
ISO_DATE = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}([T ]\d{1,2}:\d{2}.*)?|\d{4}/\d{1,2}/\d{1,2}|\d{2}:\d{2}(:\d{2})?"
)
DATE = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})([T ,]+\d{1,2}:\d{2}.*)?")
BOOLEANS = frozenset({"true", "false", "yes", "no", "t", "f", "y", "n"})
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
NULLS = ("\\N", "NULL", "null", "N/A", "#N/A", "NaN", "None")


@dataclass(frozen=True)
class Finding:
    """What was found, why, and whether the cells leave no doubt; `seen`: whether any cell tells of it."""

    value: str
    why: str
    sure: bool = True
    seen: bool = True


def kind(cell: str) -> str:
    """ "empty", "number", "date", "bool", "uuid" or "text"."""
    cell = cell.strip()
    if not cell:
        return "empty"
    if DATE.fullmatch(cell) or ISO_DATE.fullmatch(cell):
        return "date"
    if any(pattern.fullmatch(cell) for pattern in (INTEGER, COMMA, POINT, EITHER)):
        return "number"
    if UUID.fullmatch(cell):
        return "uuid"
    return "bool" if cell.lower() in BOOLEANS else "text"


def usual(cells: Iterable[str]) -> str:
    """The kind of nearly all cells that are not empty; "text" where they differ, "empty" where all are."""
    kinds = [found for found in map(kind, cells) if found != "empty"]
    if not kinds:
        return "empty"
    common = max(set(kinds), key=kinds.count)
    return common if kinds.count(common) >= 0.9 * len(kinds) else "text"


def decimal(cells: Iterable[str], delimiter: str) -> Finding:
    """The decimal mark: "." or ","."""
    commas = points = 0
    either: str | None = None
    for cell in map(str.strip, cells):
        if COMMA.fullmatch(cell):
            commas += 1
        elif POINT.fullmatch(cell):
            points += 1
        elif either is None and EITHER.fullmatch(cell):
            either = cell
    if commas or points:
        mark = "," if commas > points else "."
        clear = not (commas and points)
        return Finding(mark, f"Seen in {_counted(max(commas, points), 'number')}.", clear)
    if either:
        mark = "," if "," in either and delimiter == ";" else "."
        read = "a thousand and more" if mark not in either else "one and thousandths"
        return Finding(mark, f"{either!r} may be either: it is read as {read}.", False)
    return Finding(".", "No number has one.", seen=False)


def dates(cells: Iterable[str], mark: str) -> Finding:
    """The order of days: "iso", "dmy" or "mdy"; `mark` is the decimal mark, which tells where people live."""
    first = second = seen = 0
    example = separator = ""
    for cell in map(str.strip, cells):
        if found := DATE.fullmatch(cell):
            seen += 1
            example, separator = example or cell, found[2]
            first += int(found[1]) > 12
            second += int(found[3]) > 12
    if not seen:
        return Finding("iso", "No date is written with its day or month first.", seen=False)
    if first or second:
        order = "dmy" if first >= second else "mdy"
        return Finding(order, f"Seen in {_counted(max(first, second), 'date')}.", not (first and second))
    order = "dmy" if separator == "." or mark == "," else "mdy" if separator == "/" else "dmy"
    words = {"dmy": "the day first", "mdy": "the month first"}[order]
    return Finding(
        order, f"{example!r} may be either: it is read with {words}. Correct it if that is wrong.", False
    )


def nulls(columns: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Words for NULL: `\\N` anywhere, others only among numbers or dates: there are people called Null."""
    found = set()
    for cells in columns:
        words = {cell for cell in cells if cell in NULLS}
        rest = usual(cell for cell in cells if cell not in words) if words else "text"
        found |= {word for word in words if word == "\\N" or rest not in ("text", "empty")}
    return tuple(word for word in NULLS if word in found)


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
