"""Claim, renew, fence. A `Lease` is all that running code may know of its job's state.

A thread renews the lease while the attempt works, and tells it to stop when the owner cancelled,
when another attempt took the job, or when the worker shuts down. Work that sits in one long call
(a query that has not answered yet) is broken off by the function given to `breaking_off`.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from flask import Flask, current_app
from sqlalchemy import Connection, ScalarSelect, update
from sqlalchemy.exc import SQLAlchemyError

from app import dispatch, events, settings
from app.errors import Cancelled, Interruption, LeaseLost, Paused, Stopping
from app.extensions import db
from app.models import job as jobs
from app.models.delivery import Delivery
from app.models.job import CANCELLED, FAILED, QUEUED, SUCCEEDED, Claim, Job
from app.progress import Ticker

log = logging.getLogger(__name__)

WORKER = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
# How often the lease is renewed and the cancel flag seen, in seconds.
HEARTBEAT = 1.0
# Set when the worker shuts down: every attempt hands its job back.
stopping = threading.Event()


def claim(job_id: UUID, *, small_only: bool = False) -> Lease | None:
    """Take the job, or None: it is not queued, not due, held by another, out of attempts, or not small."""
    return _claim(job_id, small_only)


def claim_fairest(hint: UUID, *, small_only: bool = False) -> Lease | None:
    """Take the job whose turn it is on the queue of the job `hint`; None: there is none for this worker."""
    whose_turn = jobs.fairest(hint, limit=settings.current().attempts_limit, small_only=small_only)
    # A job that somebody has locked this moment, to note that it was sent for one, is passed over; if it is
    # the only one, it is worth waiting for.
    return _claim(whose_turn, small_only) or _claim(hint, small_only)


def _claim(which: UUID | ScalarSelect[UUID], small_only: bool) -> Lease | None:
    config = settings.current()
    span = timedelta(seconds=config.lease_seconds)
    if stopping.is_set():
        return None
    with db.engine.begin() as conn:
        taken = jobs.claim(
            conn, which, worker=WORKER, lease=span, limit=config.attempts_limit, small_only=small_only
        )
        if taken is None:
            return None
        line = events.write(conn, taken.job_id, _hello(taken.attempt), claim=taken)
    if line:
        events.publish_line(taken.job_id, taken.owner_id, line)
    events.publish_status(taken.job_id, taken.owner_id, jobs.RUNNING)
    return Lease(taken, span)


def _hello(attempt: int) -> str:
    return "Started." if attempt == 1 else f"Started again, attempt {attempt}."


class Hold(ABC):
    """Something that this worker has for a while. As a context manager: renewing begins and ends with it."""

    def __init__(self, name: str, span: timedelta) -> None:
        self._name, self._span = name, span
        self._interruption: type[Interruption] | None = None
        self._break_off: Callable[[], None] | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._keep, args=(_app(),), name=f"lease of {name}", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=5)

    @abstractmethod
    def renew(self, conn: Connection) -> type[Interruption] | None:
        """Prolong the lease; why the work must stop, if it must."""

    def check(self) -> None:
        """Raise Cancelled, LeaseLost or Stopping if this attempt must stop."""
        if self._interruption:
            raise self._interruption

    @contextmanager
    def breaking_off(self, action: Callable[[], None]) -> Iterator[None]:
        """While inside, `action` (called from another thread) breaks off a call that blocks."""
        with self._lock:
            self._break_off = action
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._break_off = None

    # The renewing thread.

    def _keep(self, app: Flask) -> None:
        with app.app_context():
            last = time.monotonic()
            while not self._ended.wait(HEARTBEAT):
                last = self._beat(last)
                if self._interruption:
                    self._call_break_off()

    def _beat(self, last: float) -> float:
        """Renew once; `last` is when it last worked (monotonic seconds). Returns the new `last`."""
        if stopping.is_set():
            self._interrupt(Stopping)
        try:
            with db.engine.begin() as conn:
                reason = self.renew(conn)
        except SQLAlchemyError as error:
            log.warning("The lease of %s could not be renewed (%s).", self._name, error)
            # By now another worker may hold it: stop before doing work twice.
            if time.monotonic() - last > self._span.total_seconds():
                self._interrupt(LeaseLost)
            return last
        if reason:
            self._interrupt(reason)
        return time.monotonic()

    def _interrupt(self, reason: type[Interruption]) -> None:
        if self._interruption is None or reason is LeaseLost:
            self._interruption = reason

    def _call_break_off(self) -> None:
        with self._lock:
            action = self._break_off
            if action is not None:
                try:
                    action()
                except Exception:
                    log.exception("Breaking off %s failed; it stops at its next progress.", self._name)


class Lease(Hold):
    """One attempt's hold on its job."""

    def __init__(self, claim: Claim, span: timedelta) -> None:
        super().__init__(f"job {claim.job_id}", span)
        self.claim = claim
        self.job_id, self.owner_id, self.attempt = claim.job_id, claim.owner_id, claim.attempt
        self.size = claim.size
        self.ticker = Ticker(self._write_progress, time.monotonic)

    def renew(self, conn: Connection) -> type[Interruption] | None:
        wish = jobs.renew(conn, self.claim, self._span)
        if wish is None:
            return LeaseLost
        return Cancelled if wish.cancel else Paused if wish.pause else None

    def log(self, text: str, level: str = "info") -> None:
        """Append a line; raises LeaseLost if the job is another's now."""
        with db.engine.begin() as conn:
            line = events.write(conn, self.job_id, text, level=level, claim=self.claim)
        if line is None:
            raise LeaseLost
        events.publish_line(self.job_id, self.owner_id, line)

    def progress(self, done: int, total: int | None = None) -> None:
        """`done` of `total` rows; cheap enough to call for every batch. Sees the cancel flag."""
        self.check()
        self.ticker.tick(done, total)

    # How an attempt ends. Each returns False if the job was another's already.

    def succeed(self, text: str, record: Callable[[Connection], None]) -> bool:
        """Publish: `record` writes the artifact in the same transaction as status, last line and delivery."""
        self.ticker.flush()
        return self._finish(SUCCEEDED, text, "info", record=record, tell="ready")

    def fail(self, code: str, message: str, record: Callable[[Connection], None] | None = None) -> bool:
        return self._finish(
            FAILED, message, "error", code=code, message=message, record=record, tell="failed"
        )

    def cancelled(self, text: str, record: Callable[[Connection], None] | None = None) -> bool:
        return self._finish(CANCELLED, text, "warning", record=record)

    def pause(self, text: str) -> bool:
        """The owner asked for it: the job waits until it is resumed, and this attempt does not count."""
        return self._requeue(text, forgive=True)

    def retry_later(self, message: str, after: timedelta) -> bool:
        """Wait in the database for the next attempt."""
        pause = round(after.total_seconds())
        text = f"{message} Attempt {self.attempt} is over; the next one begins in {pause} s."
        return self._requeue(text, after=after)

    def hand_back(self) -> bool:
        """The worker shuts down: the job goes on elsewhere and this attempt does not count."""
        return self._requeue("The worker is shutting down; another one goes on with this job.", forgive=True)

    def _requeue(self, text: str, *, after: timedelta = timedelta(0), forgive: bool = False) -> bool:
        with db.engine.begin() as conn:
            line = events.write(conn, self.job_id, text, level="warning", claim=self.claim)
            done = jobs.requeue(conn, self.claim, after=after, forgive=forgive)
        return self._tell(QUEUED, line, done)

    def _finish(
        self,
        status: str,
        text: str,
        level: str,
        *,
        code: str | None = None,
        message: str | None = None,
        record: Callable[[Connection], None] | None = None,
        tell: str | None = None,
    ) -> bool:
        with db.engine.begin() as conn:
            line = events.write(conn, self.job_id, text, level=level, claim=self.claim)
            done = jobs.finish(conn, self.claim, status, code=code, message=message)
            if done and record:
                record(conn)
            delivery = announce(conn, self.job_id, self.attempt, tell) if done and tell else None
        if delivery:
            dispatch.send_delivery(delivery)
        return self._tell(status, line, done)

    def _tell(self, status: str, line: events.Line | None, done: bool) -> bool:
        if line:
            events.publish_line(self.job_id, self.owner_id, line)
        if done:
            events.publish_status(self.job_id, self.owner_id, status)
        return done

    def _write_progress(self, done: int, total: int | None) -> None:
        progress = {Job.progress_done: done, Job.progress_total: total}
        following = (Job.follows_id == self.job_id, Job.status == QUEUED)
        with db.engine.begin() as conn:
            ours = update(Job).where(*jobs.held(self.claim)).values(progress).returning(Job.id, Job.owner_id)
            told = list(conn.execute(ours))
            if not told:
                raise LeaseLost
            theirs = update(Job).where(*following).values(progress).returning(Job.id, Job.owner_id)
            told += conn.execute(theirs)
        for job_id, owner_id in told:
            events.publish_progress(job_id, owner_id, done, total, "rows")


def announce(conn: Connection, job_id: UUID, attempt: int, name: str) -> int:
    """Note in the transaction that ends the job that the owner is to be told; the delivery's id."""
    statement = db.insert(Delivery).values(
        job_id=job_id, name=name, attempt=attempt, message_id=f"<{job_id}.{attempt}.{name}@waybill>"
    )
    return int(conn.execute(statement.returning(Delivery.id)).scalar_one())


def _app() -> Flask:
    return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]
