"""The content of one file: rows from the source or from a report in Python, in blocks of the format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

from app.errors import IncompleteArtifact
from app.exports.order import Order
from app.formats import Writing
from app.leases import Lease
from app.reports import Statement, compose
from app.sources import Reading


def of_query(query: Statement, reading: Reading, writing: Writing) -> Iterator[bytes]:
    """The file as the database writes it if it can, else made from its columns."""
    copy = writing.copy(lambda: reading.fields(query.sql, query.values)) if reading.copies else None
    if copy:
        yield copy.head
        yield from reading.copy(query.sql, query.values, copy)
    else:
        fields = writing.typed(reading.fields(query.sql, query.values))
        # Closed at once when the file is begun anew: the next query needs the connection.
        with closing(reading.batches(query.sql, query.values, fields)) as batches:
            yield from writing.batches(fields, batches)


def of_report(
    order: Order, context: Context, counted: Counted
) -> tuple[Sequence[str], Iterator[Sequence[object]]]:
    """The chosen columns of a report in Python, and its rows, counted."""
    columns = names_of(order)
    rows = counted(order.report.rows(order.values, context), len(columns))
    if order.columns is None:
        return columns, rows
    places = [columns.index(name) for name in order.columns]
    return order.columns, ([row[place] for place in places] for row in rows)


def names_of(order: Order) -> list[str]:
    """All columns of a report in Python."""
    return [column.name for column in order.report.columns or ()]


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


class Context:
    """What a Python report may do while it runs; see `app.reports.ReportContext`."""

    def __init__(self, lease: Lease, reading: Reading, order: Order) -> None:
        self._lease, self._reading = lease, reading
        self.user_email, self.user_id = order.user.email, str(order.user.id)
        self.log, self.check = lease.log, lease.check
        # Whether the report tells how far it is: then nobody else does.
        self.told = False

    def progress(self, done: int, total: int | None = None) -> None:
        self.told = True
        self._lease.progress(done, total)

    def query(self, sql: str, **bound: Any) -> Iterator[tuple[Any, ...]]:
        composed = compose(sql, bound)
        for row in self._reading.rows(composed.sql, composed.values):
            self._lease.check()
            yield row
