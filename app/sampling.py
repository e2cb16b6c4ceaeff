"""The first rows of a report, on request and within seconds, without making its export.

A query is asked for no more than these. A report in Python is started as for an export: it reads the source,
its lines and its progress go nowhere, and after the last row that is shown, or when its time is over, it is
stopped. It stops by itself at its next row, query, line or progress; `app/questions.py` sees to the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from typing import TypeVar

from app import formats, questions
from app.errors import Interruption, SourceLate, WaybillError
from app.exports import content
from app.formats._members import Names
from app.formats._values import as_text
from app.preflight import Program, Request
from app.reports import Bundle, File, Query, Statement, compose
from app.sources import Reading

log = logging.getLogger(__name__)

# How many rows, how long they may take, how much of a value is shown.
ROWS, LIMIT, SHOWN = 50, timedelta(seconds=5), 200
# First rows read at once in a process: they leave a place to the short questions that forms and jobs need.
MOST = questions.PLACES - 1

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """The first rows as text, None for nothing; `trouble` says why there are none.

    Of a report of several files they are those of the first one, which is called `file`.
    """

    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str | None]] = ()
    trouble: str = ""
    file: str = ""


def sample(request: Request) -> Sample:
    """The first rows, read only and with a time limit. Holds no connection of ours."""
    if not request.report.sampled:
        return Sample(trouble="The first rows are not shown: this report is started for exports alone.")
    try:
        return questions.ask(request.report, LIMIT, lambda reading: _first_rows(request, reading), MOST)
    except SourceLate:
        limit = f"{LIMIT.total_seconds():g} s"
        return Sample(trouble=f"The first rows did not come within {limit}. The export itself has more time.")
    except WaybillError as error:
        return Sample(trouble=error.message)


def _first_rows(request: Request, reading: Reading) -> Sample:
    if request.program is not None:
        return _of_program(request, request.program, reading)
    assert request.query is not None
    return _of_statement(reading, request.query, request.columns)


# A report in SQL.


def _of_statement(reading: Reading, query: Statement, columns: Sequence[str] | None = None) -> Sample:
    sql = reading.only(query.sql, columns) if columns else query.sql
    names = [field.name for field in reading.fields(sql, query.values)]
    return Sample(names, _first(reading.rows(reading.first(sql, ROWS), query.values)))


def _first(rows: Iterable[Sequence[object]]) -> list[list[str | None]]:
    return [list(map(_shown, row)) for row in islice(rows, ROWS)]


def _shown(value: object) -> str | None:
    if value is None:
        return None
    text = as_text(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


# A report in Python.


class _Onlooker:
    """Nobody but whoever waits for the first rows; a `Holder` of a program's context."""

    def __init__(self) -> None:
        self._ends = time.monotonic() + LIMIT.total_seconds()

    def log(self, text: str) -> None:
        self.check()

    def progress(self, done: int, total: int | None = None) -> None:
        self.check()

    def check(self) -> None:
        if time.monotonic() >= self._ends:
            raise questions.Over


def _of_program(request: Request, program: Program, reading: Reading) -> Sample:
    onlooker = _Onlooker()
    context = content.Context(onlooker, reading, program.asker)
    report, values = request.report, program.values
    try:
        if isinstance(report, Bundle):
            return _of_file(report.files(values, context), request.format, reading, onlooker)
        with _closed(report.rows(values, context)) as rows:
            return _of_rows(content.names_of(report), rows, onlooker, request.columns)
    except (WaybillError, Interruption):
        raise
    except BaseException as error:
        # A report's own code may raise whatever it likes; that ends nothing but the report.
        log.error("The first rows of %s ended in an error of its own.", report.key, exc_info=error)
        return Sample(
            trouble=f"The report stopped with an error of its own ({type(error).__name__}: {error})."
        )


def _of_file(found: Iterable[File], format: str, reading: Reading, onlooker: _Onlooker) -> Sample:
    with _closed(found) as files:
        file = next(files, None)
        if file is None:
            return Sample(trouble="With these values the report gives no file.")
        name = Names(formats.formats()[format].extension).take(file.name)
        if not isinstance(file.rows, Query):
            with _closed(file.rows) as rows:
                return replace(_of_rows(list(file.columns), rows, onlooker), file=name)
    # By now no query of the report's own is left open, which this one might not be read beside.
    return replace(_of_statement(reading, compose(file.rows.sql, file.rows.bound)), file=name)


def _of_rows(
    names: Sequence[str],
    rows: Iterator[Sequence[object]],
    onlooker: _Onlooker,
    chosen: Sequence[str] | None = None,
) -> Sample:
    checked = content.Counted()(_checked(rows, onlooker), len(names))
    columns, wanted = content.picked(names, chosen, checked)
    return Sample(columns, _first(wanted))


def _checked(rows: Iterator[T], onlooker: _Onlooker) -> Iterator[T]:
    for row in rows:
        onlooker.check()
        yield row


@contextmanager
def _closed(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """A generator is closed afterwards, so that its `finally` blocks have run."""
    try:
        yield iter(items)
    finally:
        if isinstance(items, Generator):
            items.close()
