"""Several files in one zip archive, written as a stream: neither the archive nor a file of it is held.

The same data give the same bytes, so an attempt that begins again after its worker was killed makes the same
archive.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from app import storage
from app.errors import QueryFailed
from app.exports import content
from app.exports.flow import Made, Out, found_whole, reconcile
from app.exports.order import Order
from app.formats import Unfit, Writing
from app.formats._members import Names
from app.formats._values import as_text
from app.formats._zip import Zip
from app.leases import Lease
from app.reports import Bundle, Lookup, Query, SqlReport, compose
from app.sources import Again, Reading

# How many files one archive takes: its receipt names them all.
MOST_FILES = 10_000
# So many files have a line each in the log; after that, one line in so many seconds.
TOLD, PAUSE = 20, 10.0
NOT_FOUND = "not_found"


@dataclass
class Member:
    """One file to come. `rows` gives how many rows were read for it, once `blocks` are at their end."""

    name: str
    blocks: Callable[[Writing], Iterator[bytes]]
    rows: Callable[[], int]
    # What stands beside the report's rows is not counted among them.
    beside: bool = False


def make(lease: Lease, order: Order, reading: Reading, key: str, filename: str) -> Made:
    """The whole archive; begun anew when a column must be wider than it seemed."""
    texts: dict[str, set[int]] = {}
    while True:
        writer = storage.current().writer(key, content_type=order.content_type, filename=filename)
        contents = _Contents(lease, order, reading)
        try:
            with writer:
                archive = _Archive(lease, order, Out(writer), texts)
                for member in contents.members():
                    lease.check()
                    archive.add(member, contents)
                archive.finish()
                lease.check()
                stored = writer.commit()
        except Again as again:
            lease.log(f"{again} Starting the archive again.")
        except _UnfitMember as unfit:
            lease.log(f"{unfit.name}: {unfit.cause} Starting the archive again with text in this column.")
            texts.setdefault(unfit.name, set()).add(unfit.cause.position)
        else:
            found_whole(stored, archive.out.size)
            archive.tell_rest()
            lookup = contents.looked_up()
            rows = archive.rows
            lease.progress(rows, rows)
            return Made(
                *(stored, rows, archive.written, archive.out.sha.hexdigest()),
                members=archive.receipts,
                lookup=lookup,
            )


class _UnfitMember(Exception):
    """A value came that its column's type can't hold, in the file of this name."""

    def __init__(self, name: str, cause: Unfit) -> None:
        super().__init__(name)
        self.name, self.cause = name, cause


class _Contents:
    """The files of a report, as they are to be."""

    def __init__(self, lease: Lease, order: Order, reading: Reading) -> None:
        self._lease, self._order, self._reading = lease, order, reading
        self._names = Names(order.format.extension)
        self.context = content.Context(lease, reading, order.user)
        # What was asked for and not found yet, by its text.
        self._missing: dict[str, object] = {}
        self._asked = 0

    def members(self) -> Iterator[Member]:
        report = self._order.report
        if isinstance(report, Bundle):
            yield from self._of_bundle(report)
        elif report.lookup is not None:
            yield from self._of_lookup(report.lookup)

    def looked_up(self) -> dict[str, Any] | None:
        """What the receipt says of a lookup, once the archive is made."""
        lookup = self._order.report.lookup
        if lookup is None:
            return None
        missing = len(self._missing)
        self._lease.log(
            f"Not found: {missing:,} of the {self._asked:,} values asked for."
            if missing
            else f"All of the {self._asked:,} values asked for were found."
        )
        return {
            "param": lookup.param,
            "column": lookup.column,
            "asked": self._asked,
            "not_found": missing,
        }

    def _of_bundle(self, report: Bundle) -> Iterator[Member]:
        for file in report.files(self._order.values, self.context):
            name = self._names.take(file.name)
            if isinstance(file.rows, Query):
                yield self._of_query(name, file.rows)
            else:
                counted = content.Counted()
                rows = counted(file.rows, len(file.columns))
                yield _of_rows(name, list(file.columns), rows, counted)

    def _of_query(self, name: str, query: Query) -> Member:
        statement = compose(query.sql, query.bound)
        reading = self._reading
        return Member(
            name,
            lambda writing: content.of_query(statement, reading, writing),
            lambda: reading.rows_read,
        )

    def _of_lookup(self, lookup: Lookup) -> Iterator[Member]:
        order, reading = self._order, self._reading
        self._missing = {_text(value): value for value in order.values[lookup.param] or ()}
        self._asked = len(self._missing)
        rows_name = self._names.take(order.report.key)
        if isinstance(order.report, SqlReport):
            query = order.query(reading)
            self._lease.progress(0, reading.estimate(query.sql, query.values))
            yield Member(
                rows_name,
                lambda writing: content.of_query(query, reading, writing),
                lambda: reading.rows_read,
            )
            self._strike_out(lookup.column)
        else:
            place = content.names_of(order.report).index(lookup.column)
            counted = content.Counted(lambda row: self._missing.pop(_text(row[place]), None))
            names, rows = content.of_report(order, self.context, counted)
            yield _of_rows(rows_name, names, rows, counted)
        yield self._not_found(lookup.param)

    def _strike_out(self, column: str) -> None:
        """Ask the same snapshot for this one column: the rows themselves were written by the database."""
        found, reading = self._order.statement, self._reading
        if column not in [item.name for item in reading.fields(found.sql, found.values)]:
            raise QueryFailed(
                f"The report's lookup names the column {column!r}, but the result has none of that name."
            )
        values = reading.rows(reading.only(found.sql, [column]), found.values)
        for (value,) in values:
            self._lease.check()
            self._missing.pop(_text(value), None)

    def _not_found(self, param: str) -> Member:
        counted = content.Counted()
        rows = counted(([value] for value in self._missing.values()), 1)
        return _of_rows(self._names.take(NOT_FOUND), [param], rows, counted, beside=True)


@dataclass
class _Archive:
    """The archive so far: what is in it, file by file."""

    lease: Lease
    order: Order
    out: Out
    texts: dict[str, set[int]]
    receipts: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        self._zip = Zip()
        self._spoke = time.monotonic()
        self._untold = 0

    def add(self, member: Member, contents: _Contents) -> None:
        if len(self.receipts) == MOST_FILES:
            raise QueryFailed(
                f"The report gives more than {MOST_FILES:,} files, the most that one archive takes. "
                "Ask for less, or export it in several steps."
            )
        writing = self.order.writing(self.texts.get(member.name, ()))
        counter, sha, size = self.order.format.counter(), hashlib.sha256(), 0
        self.out.put(self._zip.open(member.name))
        try:
            for number, block in enumerate(member.blocks(writing)):
                counter.feed(block)
                sha.update(block)
                size += len(block)
                self.out.put(self._zip.write(block))
                # The first block may be the header alone, before any row is read.
                if number:
                    self._progress(member, contents)
        except Unfit as unfit:
            raise _UnfitMember(member.name, unfit) from unfit
        self.out.put(self._zip.close())
        rows = member.rows()
        reconcile(rows, counter.rows, member.name)
        if not member.beside:
            self.rows += rows
            self.written += counter.rows
        self.receipts.append(
            {
                "name": member.name,
                "rows_expected": rows,
                "rows": counter.rows,
                "bytes": size,
                "sha256": sha.hexdigest(),
            }
        )
        self._tell(member.name, rows, writing)

    def finish(self) -> None:
        self.out.put(self._zip.finish())

    def tell_rest(self) -> None:
        """The last line, if the last files had none of their own."""
        if self._untold:
            self.lease.log(f"{len(self.receipts):,} files with {self.rows:,} rows.")

    def _progress(self, member: Member, contents: _Contents) -> None:
        if member.beside or contents.context.told:
            self.lease.check()
        else:
            self.lease.progress(self.rows + member.rows())

    def _tell(self, name: str, rows: int, writing: Writing) -> None:
        for note in writing.notes:
            self.lease.log(f"{name}: {note}")
        now = time.monotonic()
        if len(self.receipts) <= TOLD:
            self.lease.log(f"{name}: {rows:,} row{'' if rows == 1 else 's'}.")
        elif now - self._spoke >= PAUSE:
            self.lease.log(f"{len(self.receipts):,} files so far, with {self.rows:,} rows.")
            self._untold = 0
        else:
            self._untold += 1
            return
        self._spoke = now


def _of_rows(
    name: str,
    columns: Sequence[str],
    rows: Iterator[Sequence[object]],
    counted: content.Counted,
    *,
    beside: bool = False,
) -> Member:
    return Member(name, lambda writing: writing.rows(columns, rows), lambda: counted.rows, beside)


def _text(value: object) -> str:
    return str(value) if type(value) is int else as_text(value)
