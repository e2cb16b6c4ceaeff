"""The first rows of a report, on request and within seconds, without making its export.

A query is asked for no more than these. A report in Python is started as for an export: it reads the source,
its lines and its progress go nowhere, and after the last row that is shown, or when its time is over, it is
stopped.

Such a program may do anything, and a web process serves everybody else meanwhile. So it has a thread of its
own, and whoever asked is answered in time even if it does not stop. It stops by itself at its next row,
query, line or progress; a query at work is broken off; code of the report that computes is interrupted.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from itertools import islice
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Flask, current_app

from app import formats
from app.errors import Interruption, WaybillError
from app.exports import content
from app.formats._members import Names
from app.preflight import Program, Request, source
from app.reports import Bundle, Query, Statement, compose
from app.sources import Reading

if TYPE_CHECKING:
    from gevent.threadpool import ThreadPool

log = logging.getLogger(__name__)

# How many rows, how long they may take, how much of a value is shown.
ROWS, LIMIT, SHOWN = 50, timedelta(seconds=5), 200
# Programs at work at once in a process, with those whose time is over and that have not stopped yet.
MOST = 4
# The pause between two tries to stop a program, in seconds: the first, and the longest.
FIRST_PAUSE, LAST_PAUSE = 0.05, 10.0

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
        return Sample(trouble="The first rows of this report are not shown: they are known when it has run.")
    ends = time.monotonic() + LIMIT.total_seconds()
    try:
        return _of_query(request) if request.program is None else _of_program(request, request.program, ends)
    except _Over:
        return _late()
    except WaybillError as error:
        return Sample(trouble=error.message) if time.monotonic() < ends else _late()
    except _OwnError as error:
        return Sample(trouble=str(error))


def at_work() -> int:
    """How many programs were started for their first rows and have not ended."""
    return len(_pool())


class _Over(Interruption):
    """The time is over: nobody waits for these rows any more."""


class _OwnError(Exception):
    """A report's own code failed; the message is fit to show."""


def _late() -> Sample:
    limit = f"{LIMIT.total_seconds():g} s"
    return Sample(trouble=f"The first rows did not come within {limit}. The export itself has more time.")


# A report in SQL.


def _of_query(request: Request) -> Sample:
    assert request.query is not None
    with source(request.report, LIMIT).reading() as reading:
        return _of_statement(reading, request.query, request.columns)


def _of_statement(reading: Reading, query: Statement, columns: Sequence[str] | None = None) -> Sample:
    sql = reading.only(query.sql, columns) if columns else query.sql
    names = [field.name for field in reading.fields(sql, query.values)]
    return Sample(names, _first(reading.rows(reading.first(sql, ROWS), query.values)))


def _first(rows: Iterable[Sequence[object]]) -> list[list[str | None]]:
    return [list(map(_shown, row)) for row in islice(rows, ROWS)]


def _shown(value: object) -> str | None:
    if value is None:
        return None
    text = "\\x" + value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


# A report in Python.


def _of_program(request: Request, program: Program, ends: float) -> Sample:
    """Raises _Over, _OwnError, or what the source raises."""
    if at_work() >= MOST:
        return Sample(trouble="Too many first rows are being read just now. Try again in a while.")
    trial = _Trial(request, program, ends, current_app._get_current_object())  # type: ignore[attr-defined]
    found: Sample | BaseException | None = _pool().spawn(trial.run).wait(LIMIT.total_seconds())
    if found is None:
        trial.stop()
        raise _Over
    if isinstance(found, WaybillError | _Over):
        raise found
    if isinstance(found, BaseException):
        log.error("The first rows of %s ended in an error of its own.", request.report.key, exc_info=found)
        raise _OwnError(f"The report stopped with an error of its own ({type(found).__name__}: {found}).")
    return found


def _pool() -> ThreadPool:
    """Threads of the system, also where gevent has put its own in their place."""
    # Web processes have gevent at hand; the others need not load it.
    from gevent import get_hub

    return _pool_of(get_hub())


@cache
def _pool_of(hub: Any) -> ThreadPool:
    """Each hub needs its own; a web process has one hub."""
    from gevent.threadpool import ThreadPool

    return ThreadPool(MOST, hub=hub)


class _Trial:
    """A program that is started for its first rows; a `Holder` of its context."""

    def __init__(self, request: Request, program: Program, ends: float, app: Flask) -> None:
        self._request, self._program, self._ends, self._app = request, program, ends, app
        self._reading: Reading | None = None
        self._thread = 0
        self._ended = False

    def run(self) -> Sample | BaseException:
        """The first rows, or whatever came instead: here nobody could make anything of it."""
        self._thread = _thread_id()
        try:
            with self._app.app_context(), source(self._request.report, LIMIT).reading() as reading:
                self._reading = reading
                try:
                    return self._sample(reading)
                finally:
                    self._reading = None
        except BaseException as error:
            return error
        finally:
            self._ended = True

    def stop(self) -> None:
        """See to it that the program ends; returns at once."""
        Thread(target=self._stop, name=f"end of {self._request.report.key}", daemon=True).start()

    # What its context calls.

    def log(self, text: str) -> None:
        self.check()

    def progress(self, done: int, total: int | None = None) -> None:
        self.check()

    def check(self) -> None:
        if time.monotonic() >= self._ends:
            raise _Over

    # The program's thread.

    def _sample(self, reading: Reading) -> Sample:
        context = content.Context(self, reading, self._program.asker)
        report = self._request.report
        if isinstance(report, Bundle):
            return self._of_bundle(report, reading, context)
        names = content.names_of(report)
        with _closed(report.rows(self._program.values, context)) as rows:
            return self._of_rows(names, rows, self._request.columns)

    def _of_bundle(self, report: Bundle, reading: Reading, context: content.Context) -> Sample:
        with _closed(report.files(self._program.values, context)) as files:
            file = next(files, None)
            if file is None:
                return Sample(trouble="With these values the report gives no file.")
            name = Names(formats.formats()[self._request.format].extension).take(file.name)
            if not isinstance(file.rows, Query):
                with _closed(file.rows) as rows:
                    return replace(self._of_rows(list(file.columns), rows), file=name)
        # By now no query of the report's own is left open, which this one might not be read beside.
        return replace(_of_statement(reading, compose(file.rows.sql, file.rows.bound)), file=name)

    def _of_rows(
        self, names: Sequence[str], rows: Iterator[Sequence[object]], chosen: Sequence[str] | None = None
    ) -> Sample:
        columns, wanted = content.picked(names, chosen, content.Counted()(self._timed(rows), len(names)))
        return Sample(columns, _first(wanted))

    def _timed(self, rows: Iterator[T]) -> Iterator[T]:
        for row in rows:
            self.check()
            yield row

    # The thread that stops it.

    def _stop(self) -> None:
        pause = FIRST_PAUSE
        while not self._ended:
            self._break_off()
            self._interrupt()
            time.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _break_off(self) -> None:
        reading = self._reading
        if reading is not None:
            try:
                reading.break_off()
            except Exception:
                log.info("A query of %s was not broken off.", self._request.report.key, exc_info=True)

    def _interrupt(self) -> None:
        """Raise _Over in the report's own code, if that is what its thread is at.

        Anywhere else this could leave a lock taken, or a driver in two minds.
        """
        frame = sys._current_frames().get(self._thread)
        if frame is not None and frame.f_code.co_filename == str(self._request.report.path):
            thread, error = ctypes.c_ulong(self._thread), ctypes.py_object(_Over)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)


def _thread_id() -> int:
    """The system's thread, not gevent's own."""
    from gevent import monkey

    found: int = monkey.get_original("_thread", "get_ident")()
    return found


@contextmanager
def _closed(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """A generator is closed afterwards, so that its `finally` blocks have run."""
    try:
        yield iter(items)
    finally:
        if isinstance(items, Generator):
            items.close()
