"""Questions to a source while somebody waits: never where they would hold up everybody else.

Web processes are gevent's: whatever computes or blocks in a library stands in the way of every other request.
So a question has a thread of the system to itself, and whoever asked is answered in time even if it does not
end. It is then stopped: its query is broken off, and code of the report that computes is interrupted.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from threading import Thread
from typing import Any, Generic, TypeVar

from flask import Flask, current_app

from app import settings
from app.errors import Interruption, NotFound, SourceLate, TooMany, WaybillError
from app.reports import Report
from app.sources import Reading, Source, open_source

log = logging.getLogger(__name__)

# Questions at work at once in a process, with those whose time is over and that have not stopped yet.
PLACES = 4
# How long to wait for a place, and the pause between two looks, in seconds.
PATIENCE, GLANCE = 1.0, 0.02
# The pause between two tries to stop a question, in seconds: the first, and the longest.
FIRST_PAUSE, LAST_PAUSE = 0.05, 10.0

T = TypeVar("T")

_at_work: set[_Question[Any]] = set()


class Over(Interruption):
    """The time is over: nobody waits for the answer any more."""


def ask(report: Report, limit: timedelta, question: Callable[[Reading], T], places: int = PLACES) -> T:
    """What `question` makes of a reading of the report's source, within `limit`.

    It runs in another thread, in an app context of its own; hold no connection meanwhile. Raises SourceLate,
    TooMany (`places` or more are taken), NotFound, SourceDown, and what `question` raises.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    asked = _Question(report, _source(report, limit), question, app)
    _take_place(asked, places)
    ends = time.monotonic() + limit.total_seconds()
    try:
        _threads("answers").submit(asked.answer).result(limit.total_seconds())
    except TimeoutError as error:
        raise _late(report, limit) from error
    finally:
        if asked in _at_work:
            # By itself: whoever asked does not wait for it.
            Thread(target=asked.stop, name=f"end of {report.key}", daemon=True).start()
    if isinstance(asked.error, Over | WaybillError) and time.monotonic() >= ends:
        # The source's own limit was a moment faster than ours.
        raise _late(report, limit) from asked.error
    return asked.answered()


def at_work() -> int:
    """How many questions were asked and have not ended."""
    return len(_at_work)


def _source(report: Report, limit: timedelta) -> Source:
    url = settings.current().source_urls.get(report.source)
    if url is None:
        raise NotFound(f"The source {report.source!r} is not set up. Set SOURCE_{report.source.upper()}_URL.")
    return open_source(report.source, url, limit)


def _late(report: Report, limit: timedelta) -> SourceLate:
    return SourceLate(f"The source {report.source!r} did not answer within {limit.total_seconds():g} s.")


def _take_place(asked: _Question[Any], places: int) -> None:
    ends = time.monotonic() + PATIENCE
    while len(_at_work) >= places:
        if time.monotonic() >= ends:
            raise TooMany("Too many questions are being put to sources just now. Try again in a while.", 5)
        time.sleep(GLANCE)
    _at_work.add(asked)


@cache
def _threads(use: str) -> ThreadPoolExecutor:
    """Threads of the system, also where gevent has put its own in their place."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return ThreadPoolExecutor(PLACES, thread_name_prefix=use)
    from gevent.threadpool import ThreadPoolExecutor as Native

    found: ThreadPoolExecutor = Native(PLACES)
    return found


class _Question(Generic[T]):
    """A question that has a place, until it ends."""

    def __init__(self, report: Report, source: Source, question: Callable[[Reading], T], app: Flask) -> None:
        self._report, self._source, self._question, self._app = report, source, question, app
        self._reading: Reading | None = None
        self._thread = 0
        self._found: T
        self.error: BaseException | None = None

    def answered(self) -> T:
        """What came of it; raises what came instead."""
        if self.error is not None:
            raise self.error
        return self._found

    def answer(self) -> None:
        """In a thread of its own. Keeps whatever is raised: here nobody could make anything of it."""
        # The system's thread, not gevent's own.
        self._thread = ctypes.pythonapi.PyThread_get_thread_ident()
        try:
            with self._app.app_context(), self._source.reading() as reading:
                self._reading = reading
                try:
                    self._found = self._question(reading)
                finally:
                    self._reading = None
        except BaseException as error:
            self.error = error
        finally:
            # An interruption may have come a moment too late: it is taken back, or lands here at last.
            try:
                _raise_in(self._thread, None)
            finally:
                _at_work.discard(self)

    def stop(self) -> None:
        """See to it that it ends; returns when it has."""
        pause = FIRST_PAUSE
        while self in _at_work:
            # Some drivers ask the server for it, and block meanwhile.
            _threads("ends").submit(self._break_off).result()
            self._interrupt()
            time.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _break_off(self) -> None:
        reading = self._reading
        if reading is not None:
            try:
                reading.break_off()
            except Exception:
                log.info("A query of %s was not broken off.", self._report.key, exc_info=True)

    def _interrupt(self) -> None:
        """Raise Over in the report's own code, if that is what its thread is at.

        Anywhere else this could leave a lock taken, or a driver in two minds.
        """
        frame = sys._current_frames().get(self._thread)
        if frame is not None and frame.f_code.co_filename == str(self._report.path):
            _raise_in(self._thread, ctypes.py_object(Over))


def _raise_in(thread: int, error: ctypes.py_object[Any] | None) -> None:
    """Raise a kind of exception in a thread at its next step; None takes back what was not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)


# A thread's number as the interpreter counts them.
ctypes.pythonapi.PyThread_get_thread_ident.restype = ctypes.c_ulong
