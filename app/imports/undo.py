"""Undoing an import: what it changed is put back, what it inserted is removed, others' later work stays.

From the last chunk to the first, each in one transaction of the target together with the note that it was
undone, so that an undo that was killed goes on where it was and nothing is undone twice. A row is the
import's own as long as its `xmin` is one of the import's transactions: whoever wrote it since has it now.
Rows that are left are named in `waybill_journal.left_alone`. When all chunks are through, those of them that
only stood in the way of each other are tried once more.
"""

from __future__ import annotations

import csv
import io
import logging
import random
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from app import attempts
from app.errors import Cancelled, Interruption, LeaseLost, Paused, WaybillError
from app.formats._spreadsheet import Rules
from app.imports import ending
from app.imports.order import Order
from app.imports.rows import Counts
from app.imports.table import undoing
from app.imports.table.connection import Again, TargetDown, connect
from app.imports.table.journal import FenceClosed
from app.imports.table.undoing import Left, Undoing
from app.leases import Lease

log = logging.getLogger(__name__)

# How often a chunk is tried before the attempt is over.
TRIES = 8
# So many of the rows that are left are named in the log, too.
TOLD = 10
BOM = "\ufeff"
# Lines of the file that are written at once.
LINES = 2000
LACKING = "Only the file that names the rows left alone is missing; trying again writes nothing but that."


def undo(lease: Lease, order: Order) -> None:
    """One attempt, until all is undone that can be. However it ends, what was undone is told."""
    with connect(order.importer.source, f"waybill {order.import_id} undo") as target:
        with lease.breaking_off(target.break_off):
            found = undoing.begin(target, order.import_id)
        try:
            with lease.breaking_off(target.break_off):
                _Undo(lease, order, found).lead()
        except (Interruption, Exception) as error:
            _stop(lease, order, found, error)
            return
        try:
            end = _end(lease, order, found)
        except (Interruption, Exception) as error:
            _stop(lease, order, found, error, whole=True)
            return
        end.succeed(_summary(found.counts()))


class _Undo:
    def __init__(self, lease: Lease, order: Order, found: Undoing) -> None:
        self._lease, self._order, self._undoing = lease, order, found
        self._done, self._total = found.entries()

    def lead(self) -> None:
        self._begin()
        while chunk := self._undoing.next_chunk():
            self._lease.check()
            self._patiently(chunk, again=False)
            self._done += self._undoing.entries_of(chunk)
            self._lease.progress(self._done, self._total)
        while self._once_more():
            pass
        self._lease.progress(self._total, self._total)
        self._name_left()

    def _begin(self) -> None:
        self._lease.progress(self._done, self._total)
        if self._done:
            self._lease.log(f"Going on: {self._done:,} of {self._total:,} rows are through.")
        else:
            self._lease.log(f"Undoing what was written to {self._total:,} rows, the last ones first.")

    def _once_more(self) -> bool:
        """Try what was left for the sake of another row, whose turn has come since; whether that helped."""
        freed = 0
        for chunk in self._undoing.hindered():
            self._lease.check()
            before = self._undoing.left(chunk)
            self._patiently(chunk, again=True)
            freed += before - self._undoing.left(chunk)
        return freed > 0

    def _patiently(self, chunk: int, *, again: bool) -> None:
        for tries in range(1, TRIES + 1):
            try:
                self._undoing.undo(chunk, again=again, check=self._lease.check)
                break
            except Again:
                self._lease.check()
                if tries == TRIES:
                    raise
                time.sleep(random.uniform(0.01, 0.03) * 2**tries)

    def _name_left(self) -> None:
        left = self._undoing.counts().skipped
        for row in islice(self._undoing.all_left(), TOLD):
            self._lease.log(f"Left alone: {self._spoken(row)}. {row.what}", "warning")
        if left > TOLD:
            self._lease.log(f"{left - TOLD:,} more rows are left alone; the file names them all.", "warning")

    def _spoken(self, row: Left) -> str:
        pairs = zip(self._undoing.shape.key, row.key, strict=True)
        line = f" (line {row.line:,})" if row.line else ""
        return ", ".join(f"{name} {value:.100}" for name, value in pairs) + line


def _stop(lease: Lease, order: Order, found: Undoing, error: BaseException, *, whole: bool = False) -> None:
    """An end before the end: the job says what is undone and what is not.

    `whole`: all is, and only the file that names the rows left alone lacks.
    """
    try:
        # Whatever else went wrong, an interruption explains it: a statement that was broken off, for one.
        lease.check()
    except Interruption as interruption:
        error = interruption
    if isinstance(error, LeaseLost | TargetDown):
        raise error
    if isinstance(error, FenceClosed):
        raise Again("Another attempt was at this undo.") from error
    found.close()
    done = f"{_summary(found.counts())} {LACKING}" if whole else _so_far(found)
    if isinstance(error, Paused):
        lease.pause(f"Paused. {done}")
        return
    final = isinstance(error, WaybillError) and (not error.retryable or attempts.last(lease))
    if not final and not isinstance(error, Cancelled):
        raise error
    end, lacking = ending.Ending(lease, order, found.counts(), "undone", {}, None), ""
    if not whole:
        end, lacking = _with_file(lease, order, found)
    if isinstance(error, WaybillError):
        end.fail(error.code, f"{error.message} {done}{lacking}")
    else:
        end.cancelled(f"Cancelled. {done}{lacking}")


def _with_file(lease: Lease, order: Order, found: Undoing) -> tuple[ending.Ending, str]:
    """The end, with its file where that can be written; and what to say if it can't."""
    try:
        return _end(lease, order, found), ""
    except WaybillError as error:
        log.warning("The rows that job %s left alone were not written: %s", lease.job_id, error)
        lacking = f" The file of rows left alone could not be written: {error.message}"
        return ending.Ending(lease, order, found.counts(), "undone", {}, None), lacking


def _end(lease: Lease, order: Order, found: Undoing) -> ending.Ending:
    counts = found.counts()
    file = None
    if counts.skipped:
        file = ending.keep(lease, order, counts, "left-alone", lambda out: _write(found, out))
    return ending.Ending(lease, order, counts, "undone", {}, file)


def _write(found: Undoing, out: Any) -> int:
    """The rows left alone as CSV: key columns, line, what; how many there are."""
    rules, rows = Rules(), 0
    out.write(BOM.encode() + _csv([[*found.shape.key, "line", "what"]]))
    for some in _batches(found.all_left()):
        out.write(_csv([*map(rules.text, row.key), row.line or "", rules.text(row.what)] for row in some))
        rows += len(some)
    return rows


def _batches(rows: Iterator[Left]) -> Iterator[list[Left]]:
    some: list[Left] = []
    for row in rows:
        some.append(row)
        if len(some) >= LINES:
            yield some
            some = []
    yield some


def _csv(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _so_far(found: Undoing) -> str:
    done, total = found.entries()
    if not done:
        return "Nothing was undone: all that the import wrote is still in."
    return (
        f"{_spoken(found.counts())} What the import wrote to {total - done:,} other rows, the first ones of "
        "the file, is still in. Undo it again to go on."
    )


def _summary(counts: Counts) -> str:
    return f"Undone. {_spoken(counts)}"


def _spoken(counts: Counts) -> str:
    left = f", {counts.skipped:,} left alone" if counts.skipped else ""
    return f"{counts.updated:,} rows were put back, {counts.inserted:,} removed{left}."
