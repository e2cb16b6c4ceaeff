"""How a file is to be read, as far as its beginning tells. Everything found can be corrected by a person."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

from app.formats._spreadsheet import Rules
from app.imports.file import delimited, encodings, values
from app.imports.file.dialect import Dialect
from app.imports.file.header import plain

# Rows and cells that are looked at, but for some rows in any case.
ROWS, CELLS, LEAST = 300, 50_000, 5
NAME = re.compile(r"[^\W\d][\w .,/()%€$#&'-]{0,59}")

YEAR = re.compile(r"(19|20)\d\d")


class Around(Protocol):
    """What is around the rows, as app.imports.file.plain.look tells."""

    @property
    def container(self) -> str: ...
    @property
    def content(self) -> str: ...


@dataclass(frozen=True)
class Reason:
    """Why a member of the dialect is as it is; `sure` is False where a person should look at it."""

    text: str
    sure: bool = True


@dataclass(frozen=True)
class Detected:
    """The dialect, the names of the file's columns in its order, and a reason by each detected member.

    `told` are members of which the cells leave no doubt: whatever other files were like, this one is so.
    """

    dialect: Dialect
    header: list[str]
    why: dict[str, Reason] = field(default_factory=dict)
    told: frozenset[str] = frozenset()


def detect(
    head: bytes,
    around: Around,
    *,
    whole: bool = True,
    names: Collection[str] = (),
    known: Mapping[str, Any] | None = None,
) -> Detected:
    """Read a file's beginning.

    `head` is its first bytes, unpacked but not decoded; of a workbook's sheet, its rows as CSV in UTF-8.
    `whole` says that nothing comes after it, `names` are those of the target's columns, and `known` are
    members of the dialect that need no detection, by name.
    """
    known = dict(known or {})
    base = Dialect.of({"container": around.container, "content": around.content} | known)
    why: dict[str, Reason] = {}
    if base.content == "xlsx":
        known |= {"encoding": "utf-8", "delimiter": ",", "quote": '"', "escape": None}
        known |= {"decimal": ".", "dates": "iso", "apostrophes": False}
    if "encoding" not in known:
        encoding = encodings.detect(head)
        known["encoding"] = encoding.name
        why["encoding"] = Reason(encoding.why, encoding.sure)
    text = encodings.decode(head, known["encoding"])
    base = _delimited(replace(base, encoding=known["encoding"]), text, whole, known, why)
    rows = list(islice(delimited.records(text, base), ROWS))
    if not whole and len(rows) > 1 and len(rows) < ROWS:
        rows.pop()  # it may be half a record
    rows = rows[: max(LEAST, CELLS // max(map(len, rows), default=1))]
    base = _header(base, rows, names, known, why)
    if "apostrophes" not in known and head.startswith(BOM_UTF8):
        # Our own files for spreadsheets begin so, and those that spreadsheets write.
        base = replace(base, apostrophes=True)
    spoken, told = _values(base, rows[base.header :], known, why)
    return Detected(spoken, header_of(rows, base), why, told)


def header(text: str, dialect: Dialect) -> list[str]:
    """The names of the file's columns when it is read so; "Column 1" and so on where it names none."""
    return header_of(list(islice(delimited.records(text, dialect), ROWS)), dialect)


def header_of(rows: Sequence[Sequence[str]], dialect: Dialect) -> list[str]:
    if not rows:
        return []
    if dialect.header:
        return [name.strip() for name in rows[0]]
    return [f"Column {place}" for place in range(1, max(map(len, rows)) + 1)]


def samples(text: str, dialect: Dialect, count: int = 3) -> list[list[str]]:
    """By column of the file, its first values that differ and are not empty."""
    rows = list(islice(delimited.records(text, dialect), ROWS))
    width = len(header_of(rows, dialect))
    columns: list[list[str]] = [[] for _ in range(width)]
    for row in rows[dialect.header :]:
        for found, cell in zip(columns, row, strict=False):
            if cell.strip() and len(found) < count and cell not in found:
                found.append(cell)
    return columns


def _delimited(
    base: Dialect, text: str, whole: bool, known: dict[str, Any], why: dict[str, Reason]
) -> Dialect:
    fixed = {name: known[name] for name in ("delimiter", "quote", "escape") if name in known}
    spoken = delimited.detect(text, whole=whole, **fixed)
    if "delimiter" not in known:
        words = f"{spoken.columns} columns" if spoken.columns > 1 else "One column; nothing sets cells apart"
        sure = "." if spoken.sure else ", but another one would do nearly as well."
        why["delimiter"] = Reason(words + (sure if spoken.columns > 1 else "."), spoken.sure)
    skip = known.get("skip", spoken.skip)
    if "skip" not in known and skip:
        why["skip"] = Reason(f"The table begins after {skip} other line{'' if skip == 1 else 's'}.", False)
    return replace(base, delimiter=spoken.delimiter, quote=spoken.quote, escape=spoken.escape, skip=skip)


def _header(
    base: Dialect,
    rows: list[list[str]],
    names: Collection[str],
    known: dict[str, Any],
    why: dict[str, Reason],
) -> Dialect:
    if "header" in known or not rows:
        return base
    votes = _votes(rows, {plain(name) for name in names})
    text = "The first row names the columns." if votes > 0 else "The first row looks like all the others."
    why["header"] = Reason(text, abs(votes) >= 1)
    return replace(base, header=votes > 0)


def _votes(rows: list[list[str]], names: Collection[str]) -> float:
    """Positive where the first row names the columns."""
    first, body = rows[0], rows[1:]
    if names and sum(plain(cell) in names for cell in first) * 2 >= len(first):
        return 9
    kinds = [values.kind(cell) for cell in first]
    if not body:
        return 1 if all(found == "text" for found in kinds) else -1
    votes = 0.0
    for place, (cell, found) in enumerate(zip(first, kinds, strict=True)):
        column = [row[place] for row in body if place < len(row)]
        votes += _vote(cell.strip(), found, column)
    repeated = len({plain(cell) for cell in first if cell.strip()}) < sum(bool(c.strip()) for c in first)
    # Where nothing speaks against it, a table has a header.
    return votes + 0.2 - (0.5 if repeated else 0)


def _vote(cell: str, found: str, column: list[str]) -> float:
    usual = values.usual(column)
    if found == "empty":
        return -0.2
    if YEAR.fullmatch(cell) and not any(YEAR.fullmatch(other.strip()) for other in column):
        return 0.5
    if usual not in ("text", "empty"):
        return 1.5 if found == "text" else -2 if found == usual else -0.5
    if found != "text":
        return -0.5
    if cell in column:
        return -0.75
    lengths = {len(other) for other in column}
    odd = 0.5 if len(lengths) == 1 and len(column) > 2 and len(cell) not in lengths else 0
    return odd + (0.25 if NAME.fullmatch(cell) else -0.5)


def _values(
    base: Dialect, rows: list[list[str]], known: dict[str, Any], why: dict[str, Reason]
) -> tuple[Dialect, frozenset[str]]:
    """The dialect, and the members that cells leave no doubt about."""
    cells = [cell for row in rows for cell in row]
    changes: dict[str, Any] = {}
    findings: dict[str, values.Finding] = {}
    if "decimal" not in known:
        findings["decimal"] = found = values.decimal(cells, base.delimiter)
        changes["decimal"], why["decimal"] = found.value, Reason(found.why, found.sure)
    if "dates" not in known:
        findings["dates"] = found = values.dates(cells, changes.get("decimal", base.decimal))
        changes["dates"], why["dates"] = found.value, Reason(found.why, found.sure)
    if "nulls" not in known:
        width = max(map(len, rows), default=0)
        columns = [[row[place] for row in rows if place < len(row)] for place in range(width)]
        changes["nulls"] = values.nulls(columns)
    rules = Rules(changes.get("decimal", base.decimal))
    marked = next((cell for cell in cells if rules.unmarked(cell) != cell), None)
    if base.apostrophes and marked is not None:
        text = f"The one before {rules.unmarked(marked)[:40]!r} keeps a spreadsheet from guessing, and goes."
        why["apostrophes"] = Reason(text)
    told = (name for name, found in findings.items() if found.seen and found.sure)
    return replace(base, **changes), frozenset(told)
