"""Leading an apply: cut the file behind the last checkpoint, share out the chunks, watch, and say what is in.

What a dry run or an undo has in common with it is elsewhere: `Plan`, `make_ready` and `Merge.stage` and
`compare` tell what would become of a chunk; `journal` knows what became of it; `ending` ends the job.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import func, select

from app import attempts, dispatch, settings
from app.errors import Cancelled, Interruption, LeaseLost, Paused, WaybillError
from app.extensions import db
from app.imports import ending
from app.imports.chunks import Hand
from app.imports.file.cut import cut
from app.imports.file.plain import Plain
from app.imports.order import Order
from app.imports.rows import Counts
from app.imports.table import journal
from app.imports.table.connection import Again, Target, connect
from app.imports.table.journal import Checkpoint
from app.imports.table.plan import Plan
from app.leases import Lease
from app.models import chunk as chunks
from app.models.chunk import FAILED, QUEUED, Chunk
from app.models.worker import Worker

log = logging.getLogger(__name__)

QUEUE = "low"
# Threads that are called: one merges while others make ready. More would only wait.
HANDS = 3
# Chunks that are cut before the one that merges is done.
AHEAD = 6
GLANCE = 0.05
# How often the app's database is asked how the chunks are, and how long one may lie about, in seconds.
LOOK_ROUND, LIE_ABOUT = 0.5, 3.0
# How long a merge may go on after it was told to stop, in milliseconds.
GRACE = 1000
# At a limited rate a chunk is as many bytes as come in a second; at least so many, guessed by rows of such.
LEAST, ROW_BYTES = 16 * 1024, 100
ALIVE = timedelta(seconds=15)


class ChunkFailed(WaybillError):
    """A worker could not apply a chunk, and said why."""

    def __init__(self, code: str, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.code, self.retryable = code, retryable


def apply(lease: Lease, order: Order) -> None:
    """One attempt at it. Raises what `run` has to decide: an interruption, or an error that may pass."""
    purpose = f"waybill {order.import_id} lead"
    with connect(order.importer.source, purpose) as target:
        journal.prepare(target)
        try:
            began = time.monotonic()
            total = _lead(lease, order, target)
        except (Interruption, Exception) as error:
            _stop(lease, order, target, error)
            return
        try:
            end = ending.prepare(lease, order, total, journal.rejects(target, order.import_id))
        except (Interruption, Exception) as error:
            _stop(lease, order, target, error, whole=True)
            return
        end.succeed(f"Done: {ending.spoken(total)} in {time.monotonic() - began:.1f} s.")


def _lead(lease: Lease, order: Order, target: Target) -> Counts:
    text = order.plain(lease.check)
    written = [column.name for column in order.checker(text).columns]
    with lease.breaking_off(target.break_off):
        plan = Plan.of(target, order.importer, order.mode, written)
        _raise(target, order, lease.attempt, plan)
    with Hand(order, lease.claim, lease.check) as hand, lease.breaking_off(hand.break_off):
        return _Conductor(lease, order, text, target, hand).lead()


def _stop(lease: Lease, order: Order, target: Target, error: BaseException, *, whole: bool = False) -> None:
    """An end before the end: from here on nothing is written any more, and the job says what is in.

    `whole`: all of the file is, and only the file of refused rows lacks.
    """
    try:
        # Whatever else went wrong, an interruption explains it.
        lease.check()
    except Interruption as interruption:
        error = interruption
    if isinstance(error, LeaseLost):
        raise error
    _close(target, order, lease.attempt)
    at = journal.checkpoint(target, order.import_id)
    inside = _inside(at, whole)
    if isinstance(error, Paused):
        lease.pause(f"Paused. {inside}")
        return
    final = isinstance(error, WaybillError) and (not error.retryable or attempts.last(lease))
    if not final and not isinstance(error, Cancelled):
        raise error
    end, lacking = ending.Ending(lease, order, at.total, "result", {}, None), ""
    if not whole:
        end, lacking = _with_rejects(lease, order, target, at)
    if isinstance(error, WaybillError):
        end.fail(error.code, f"{error.message} {inside}{lacking}")
    else:
        end.cancelled(f"Cancelled. {inside}{lacking}")


def _with_rejects(lease: Lease, order: Order, target: Target, at: Checkpoint) -> tuple[ending.Ending, str]:
    """The end, with its file of refused rows where that can be written; and what to say if it can't."""
    try:
        return ending.prepare(lease, order, at.total, journal.rejects(target, order.import_id)), ""
    except WaybillError as error:
        log.warning("The refused rows of job %s were not written: %s", lease.job_id, error)
        lacking = f" The file of refused rows could not be written: {error.message}"
        return ending.Ending(lease, order, at.total, "result", {}, None), lacking


def _raise(target: Target, order: Order, attempt: int, plan: Plan) -> None:
    """Raise the fence: after a merge of an earlier attempt, or instead of it if that takes long."""
    _insist(
        target,
        order,
        lambda: journal.raise_fence(target, order.import_id, attempt, plan.shape, plan.ledger_columns),
        # Its worker may be frozen, and would hold its locks for ever.
        "pg_terminate_backend",
    )


def _close(target: Target, order: Order, attempt: int) -> None:
    """Close the fence: after the merge at work, or instead of it if that takes long."""
    _insist(target, order, lambda: journal.close_fence(target, order.import_id, attempt), "pg_cancel_backend")


def _insist(target: Target, order: Order, action: Callable[[], None], otherwise: str) -> None:
    with target.patience(GRACE):
        for _ in range(20):
            try:
                return action()
            except Again:
                target.run(
                    f"SELECT {otherwise}(pid) FROM pg_stat_activity WHERE application_name = %s"
                    " AND datname = current_database() AND state <> 'idle'",
                    (f"waybill {order.import_id}",),
                )
    raise Again("A merge at work could not be broken off.")


def _inside(at: Checkpoint, whole: bool) -> str:
    counts = at.total
    if whole:
        return (
            f"The rows are in, to the last one ({ending.spoken(counts)}); only the file of refused rows is "
            "missing. Trying again writes nothing but that file."
        )
    if not at.number:
        return "Nothing of the file is in."
    return (
        f"All before line {at.next_line:,} is in ({counts.inserted:,} inserted, {counts.updated:,} updated), "
        "and nothing behind it."
    )


class _Conductor:
    """Cuts ahead, sees to it that somebody is at the chunks, and follows the checkpoints."""

    def __init__(self, lease: Lease, order: Order, text: Plain, target: Target, hand: Hand) -> None:
        self._lease, self._order, self._text = lease, order, text
        self._target, self._hand = target, hand
        self._seen = self._begun = journal.checkpoint(target, order.import_id)
        self._pieces = cut(
            text.open(self._seen.end),
            text.dialect,
            start=self._seen.end,
            first_line=self._seen.next_line,
            first_number=self._seen.number + 1,
            size=self._size,
        )
        self._planned, self._over = self._seen.number, False
        self._began = self._looked = time.monotonic()
        self._told = 0
        # Whether nobody else is at the chunks.
        self._alone = not _threads()

    def lead(self) -> Counts:
        """Until all is in; the counts of the whole import."""
        self._begin()
        while True:
            self._lease.check()
            self._cut_ahead()
            self._follow()
            if self._over and self._seen.number >= self._planned:
                self._lease.progress(self._seen.total.read, self._seen.total.read)
                return self._seen.total
            if time.monotonic() - self._looked > LOOK_ROUND:
                self._look_round()
            if not (self._alone and self._hand.apply_next()):
                time.sleep(GLANCE)

    def _begin(self) -> None:
        with db.engine.begin() as conn:
            chunks.forget(conn, self._lease.job_id)
        if self._seen.number:
            self._lease.log(f"Going on at line {self._seen.next_line:,}: what is before it is in.")
        else:
            self._lease.log(f"Applying {self._order.upload.filename} ({self._text.size:,} bytes).")
        for _ in range(min(HANDS, _threads())):
            self._call()

    def _call(self) -> None:
        dispatch.enqueue("apply_chunks", QUEUE, str(self._lease.job_id), self._lease.attempt)

    def _cut_ahead(self) -> None:
        while not self._over and self._planned - self._seen.number < AHEAD and not self._too_fast():
            piece = next(self._pieces, None)
            if piece is None:
                self._over = True
                return
            with db.engine.begin() as conn:
                place = {"number": piece.number, "start": piece.start, "end": piece.end}
                lines = {"first_line": piece.first_line, "next_line": piece.next_line}
                if not chunks.plan(conn, self._lease.claim, **place, **lines):
                    raise LeaseLost
            self._planned = piece.number
            self._lease.check()

    def _too_fast(self) -> bool:
        """At a limited rate, one chunk at a time, and none before its time."""
        rate = self._order.rate
        if rate is None:
            return False
        done = self._seen.total.read - self._begun.total.read
        return self._planned > self._seen.number or done > rate * (time.monotonic() - self._began)

    def _size(self) -> int:
        size = settings.current().chunk_bytes
        if self._order.rate is None:
            return size
        read = self._seen.total.read
        row = self._seen.end / read if read else ROW_BYTES
        return int(min(size, max(LEAST, row * self._order.rate)))

    def _follow(self) -> None:
        """See what was merged since the last time, and say so."""
        seen = journal.checkpoint(self._target, self._order.import_id)
        if seen.number == self._seen.number:
            return
        self._seen = seen
        share = seen.end / max(1, self._text.size)
        self._lease.progress(seen.total.read, round(seen.total.read / share) if share else None)
        tenth = int(share * 10)
        if tenth > self._told and tenth < 10:
            self._told = tenth
            self._lease.log(f"{tenth * 10} %: {ending.spoken(seen.total)} up to line {seen.next_line - 1:,}.")

    def _look_round(self) -> None:
        """Stop if a worker says so; call for hands if chunks lie about, and use our own if none come."""
        self._looked = time.monotonic()
        mine = Chunk.job_id == self._lease.job_id
        failed = select(Chunk.error_code, Chunk.error_message, Chunk.retryable).where(
            mine, Chunk.status == FAILED
        )
        age = func.extract("epoch", func.clock_timestamp() - func.min(Chunk.planned_at))
        lying = select(age).where(mine, Chunk.status == QUEUED)
        with db.engine.connect() as conn:
            failure = conn.execute(failed.order_by(Chunk.number)).first()
            oldest = conn.execute(lying).scalar()
        if failure:
            raise ChunkFailed(str(failure[0]), str(failure[1]), failure[2])
        self._alone = not _threads() or (oldest is not None and oldest > LIE_ABOUT)
        if oldest is not None and oldest > LOOK_ROUND:
            self._call()


def _threads() -> int:
    """Of living workers that listen where chunks are called for."""
    alive = select(func.coalesce(func.sum(Worker.threads), 0)).where(
        Worker.queues.contains([QUEUE]), Worker.seen_at > func.clock_timestamp() - ALIVE
    )
    with db.engine.connect() as conn:
        return int(conn.execute(alive).scalar_one())
