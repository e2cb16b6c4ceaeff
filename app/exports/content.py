"""The content of one file: rows from the source or from a report in Python, in blocks of the format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol

from app.errors import IncompleteArtifact, QueryFailed
from app.exports.order import Order
from app.formats import Writing
from app.reports import Person, Report, Statement, compose
from app.sources import Field, Reading


def of_query(query: Statement, reading: Reading, writing: Writing) -> Iterator[bytes]:
    """The file as the database writes it if it can, else made from its columns."""
    copy = writing.copy(lambda: _fields(query, reading)) if reading.copies else None
    if copy:
        yield copy.head
        yield from reading.copy(query.sql, query.values, copy)
    else:
        fields = writing.typed(_fields(query, reading))
        # Closed at once when the file is begun anew: the next query needs the connection.
        with closing(reading.batches(query.sql, query.values, fields)) as batches:
            yield from writing.batches(fields, batches)


def _fields(query: Statement, reading: Reading) -> Sequence[Field]:
    """Raises QueryFailed if there are none: PostgreSQL takes a bare SELECT for a query."""
    found = reading.fields(query.sql, query.values)
    if not found:
        raise QueryFailed("The report's query gives no columns. Say after SELECT which ones it is to give.")
    return found


def of_report(
    order: Order, context: Context, counted: Counted
) -> tuple[Sequence[str], Iterator[Sequence[object]]]:
    """The chosen columns of a report in Python, and its rows, counted."""
    names = names_of(order.report)
    rows = counted(order.report.rows(order.values, context), len(names))
    return picked(names, order.columns, rows)


def picked(
    names: Sequence[str], chosen: Sequence[str] | None, rows: Iterator[Sequence[object]]
) -> tuple[Sequence[str], Iterator[Sequence[object]]]:
    """The chosen ones of the columns `names`, or all of them, and their values from each row."""
    if chosen is None:
        return names, rows
    places = [names.index(name) for name in chosen]
    return chosen, ([row[place] for place in places] for row in rows)


def names_of(report: Report) -> list[str]:
    """All columns of a report in Python."""
    return [column.name for column in report.columns or ()]


class Counted:
    """Counts the rows that come from a report in Python, and sees that each has the right width.

    `see` is called with every whole row.
    """

    def __init__(self, see: Callable[[Sequence[object]], object] | None = None) -> None:
        self.rows = 0
        self._see = see

    def __call__(self, rows: Iterable[Sequence[object]], width: int) -> Iterator[Sequence[object]]:
        for row in rows:
            self.rows += 1
            if len(row) != width:
                raise IncompleteArtifact(
                    f"Row {self.rows:,} has {len(row)} values, but the report promises {width} columns."
                )
            if self._see:
                self._see(row)
            yield row


class Holder(Protocol):
    """Whoever had a report started: a lease, or somebody who wants to see its first rows."""

    def log(self, text: str) -> None: ...

    def progress(self, done: int, total: int | None = None) -> None: ...

    def check(self) -> None:
        """Raises an Interruption when the report must stop."""


class Context:
    """What a Python report may do while it runs; see `app.reports.ReportContext`."""

    def __init__(self, holder: Holder, reading: Reading, user: Person) -> None:
        self._holder, self._reading = holder, reading
        self.user_email, self.user_id = str(user.email), str(user.id)
        self.log, self.check = holder.log, holder.check
        # Whether the report tells how far it is: then nobody else does.
        self.told = False

    def progress(self, done: int, total: int | None = None) -> None:
        self.told = True
        self._holder.progress(done, total)

    def query(self, sql: str, **bound: Any) -> Iterator[tuple[Any, ...]]:
        composed = compose(sql, bound)
        self.check()
        for row in self._reading.rows(composed.sql, composed.values):
            self.check()
            yield row
