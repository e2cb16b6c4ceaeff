"""The first rows of a file as they would be stored, each refused one with its errors in place."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from app.errors import WaybillError
from app.importers import Column, Importer
from app.imports.chunks import Records
from app.imports.file import delimited, plain
from app.imports.file.check import Checker
from app.imports.file.cut import cut
from app.imports.file.dialect import Dialect
from app.imports.rows import Checked, Reject
from app.imports.table.connection import connect
from app.imports.table.plan import Plan
from app.imports.table.ready import make_ready
from app.models.imports import Import

log = logging.getLogger(__name__)

# How long the target may take to answer, in seconds; libpq waits for two at least.
PATIENCE = 2
# Characters of a cell that are shown.
SHOWN = 200
BLOCK = 64 * 1024


@dataclass(frozen=True)
class Cell:
    """`text` is as it would be stored or, in a refused row, as it is in the file; None: NULL."""

    text: str | None
    error: str | None = None


@dataclass(frozen=True)
class Row:
    """`line` is where it begins in the file; `errors` are those of the row as a whole."""

    line: int
    cells: list[Cell]
    errors: list[str] = field(default_factory=list)
    refused: bool = False


@dataclass(frozen=True)
class Preview:
    """`trouble` says why there are no rows."""

    columns: list[Column]
    rows: list[Row]
    trouble: str | None = None

    @property
    def refused(self) -> int:
        return sum(row.refused for row in self.rows)


def preview(
    importer: Importer, import_: Import, head: bytes, count: int = 50, *, ask: bool = False
) -> Preview:
    """The first `count` rows, from the plain text's beginning.

    With `ask`, the target is asked what else it would refuse, such as references to nothing; if it does not
    answer soon, the preview does without.
    """
    dialect, mapping = Dialect.of(import_.dialect), import_.mapping
    columns = [
        column
        for column in importer.columns
        if mapping.get(column.name) is not None or column.default is not None
    ]
    try:
        spoken = plain.spoken(dialect)
        text, first_line = _first(head, spoken, count)
        checker = Checker(importer, spoken, mapping, len(import_.header))
        checked = checker.check(text, first_line)
        if ask:
            written = [column.name for column in checker.columns]
            checked = _asked(importer, import_.mode, written, checked, Records(text, spoken, first_line))
    except WaybillError as error:
        return Preview(columns, [], error.message)
    rows = sorted([*_good(checked, columns), *_refused(checked, columns, mapping, spoken)], key=_line)
    return Preview(columns, rows, None if rows else "There is no row after the header.")


def _asked(importer: Importer, mode: str, written: list[str], checked: Checked, records: Records) -> Checked:
    """The same, with what the table's references and types would refuse refused."""
    try:
        with connect(importer.source, "waybill preview", PATIENCE) as target:
            ready = make_ready(Plan.of(target, importer, mode, written), target, checked, records)
    except WaybillError as error:
        log.info("The preview of an import into %s does without the table: %s", importer.table, error)
        return checked
    refused = pa.array([reject.line for reject in ready.rejects], pa.int64())
    good = checked.rows.filter(pc.invert(pc.is_in(checked.rows.column("line"), refused)))
    return Checked(good, ready.rejects, checked.read)


def _first(head: bytes, dialect: Dialect, count: int) -> tuple[bytes, int]:
    """The bytes of the first `count` whole records, and the line in which they begin."""
    blocks = (head[start : start + BLOCK] for start in range(0, len(head), BLOCK))
    pieces = list(islice(cut(blocks, dialect, size=1), count + 1))
    if len(head) >= plain.HEAD and len(pieces) <= count:
        pieces = pieces[:-1]  # cut off by the head's end
    pieces = pieces[:count]
    return (head[pieces[0].start : pieces[-1].end], pieces[0].first_line) if pieces else (b"", 1)


def _good(checked: Checked, columns: list[Column]) -> Iterable[Row]:
    names = set(checked.rows.schema.names)
    for values in checked.rows.to_pylist():
        cells = [Cell(_said(values[column.name]) if column.name in names else None) for column in columns]
        yield Row(values["line"], cells)


def _refused(
    checked: Checked, columns: list[Column], mapping: Mapping[str, int | None], dialect: Dialect
) -> Iterable[Row]:
    by_line: dict[int, list[Reject]] = defaultdict(list)
    for reject in checked.rejects:
        by_line[reject.line].append(reject)
    shown = {column.name for column in columns}
    for line, rejects in by_line.items():
        texts = _texts(rejects[0].record, dialect)
        errors = {reject.column: reject.message for reject in rejects if reject.column in shown}
        cells = [Cell(_at(texts, mapping.get(c.name)), errors.get(c.name)) for c in columns]
        rest = [reject.message for reject in rejects if reject.column not in shown]
        yield Row(line, cells, rest, refused=True)


def _texts(record: bytes, dialect: Dialect) -> list[str]:
    alone = replace(dialect, skip=0, header=False)
    return next(delimited.records(record.decode("utf-8", "replace"), alone), [])


def _at(texts: list[str], place: int | None) -> str | None:
    return _short(texts[place]) if place is not None and place < len(texts) else None


def _said(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _line(row: Row) -> int:
    return row.line
