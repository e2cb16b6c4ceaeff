"""Applying chunks: whoever is free takes the earliest, makes it ready, waits for its turn and merges it.

Chunks merge in the file's order, so that of equal keys the last one wins, and what is in is at any moment a
beginning of the file. Reading, checking and staging of later chunks goes on meanwhile. A merge, its ledger,
its rejects and its checkpoint are one transaction of the target; whoever repeats a chunk finds the checkpoint
and does nothing.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from functools import cached_property
from typing import Self
from uuid import UUID

from sqlalchemy import Connection, select

from app import settings
from app.errors import Interruption, LeaseLost, WaybillError
from app.extensions import db
from app.imports.file.dialect import Dialect
from app.imports.file.records import scan
from app.imports.order import Order
from app.imports.rows import Counts, Reject
from app.imports.table import journal, sift
from app.imports.table.connection import Again, BadRows, Target, TargetDown, TargetRefused, connect
from app.imports.table.journal import Checkpoint, FenceClosed
from app.imports.table.merge import Merge, outcome
from app.imports.table.plan import Plan
from app.imports.table.ready import Ready, any_known, make_ready
from app.leases import Hold
from app.models import chunk as chunks
from app.models.chunk import Taken
from app.models.job import Claim, Job, held

log = logging.getLogger(__name__)

# How often a chunk is tried before the attempt is over.
TRIES = 8
# How often to ask whose turn it is, and whether an earlier chunk lies about, in seconds.
GLANCE, LOOK_ROUND = 0.004, 0.5
# How long a worker stays without a chunk to take, in seconds.
PATIENCE = 2.0
# After new rows could not be copied straight into the table, so many chunks go through the staging.
DETOUR = 10
# Per cent of a few rows say nothing: so many must have been read.
PERCENT_FROM = 1000


class TooManyRefused(WaybillError):
    """The import's own limit of refused rows is passed; `rejects` are those of the chunk that did it."""

    code = "too_many_refused"

    def __init__(self, message: str, rejects: tuple[Reject, ...]) -> None:
        super().__init__(message)
        self.rejects = rejects


class Applied(Exception):
    """Somebody else has applied this chunk."""


class GiveWay(Exception):
    """An earlier chunk lies about: this one is given back for it."""


def help_out(job_id: UUID, attempt: int) -> None:
    """Apply chunks of an attempt that another worker leads, until there are none to take for a while."""
    claim = _claim(job_id, attempt)
    if claim is None:
        return
    try:
        with Hand(Order.of(job_id), claim) as hand:
            busy = time.monotonic()
            while time.monotonic() - busy < PATIENCE and _claim(job_id, attempt):
                if hand.apply_next():
                    busy = time.monotonic()
                else:
                    time.sleep(LOOK_ROUND / 10)
    except (Interruption, WaybillError) as error:
        log.info("Helping import job %s ends: %s", job_id, str(error) or type(error).__name__)


class Hand:
    """One worker at one attempt: its connection to the target, and what it learned of the table."""

    def __init__(self, order: Order, claim: Claim, check: Callable[[], None] = lambda: None) -> None:
        """`check` is called often, and raises what makes it stop, beside a chunk's own lease."""
        self._order, self._job, self._check = order, claim, check
        self._span = timedelta(seconds=settings.current().lease_seconds)
        self._text = order.plain(lambda: None)
        self._checker = order.checker(self._text)
        self._connection = ExitStack()
        self._merging: tuple[Merge, Target] | None = None
        self._detour = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnect()

    def apply_next(self) -> bool:
        """Take the earliest free chunk and apply it; False if there is none.

        What goes wrong is noted with the chunk, for whoever leads. Raises Interruption.
        """
        with db.engine.begin() as conn:
            taken = chunks.take(conn, self._job, self._span)
        if taken is None:
            return False
        try:
            with _ChunkHold(taken, self._span) as hold, hold.breaking_off(self.break_off):
                self._apply(hold, taken)
            _note(chunks.finish, taken)
        except (GiveWay, FenceClosed):
            _note(chunks.release, taken)
        except LeaseLost:
            log.info("Chunk %d of job %s is another's now.", taken.number, taken.job.job_id)
        except Interruption:
            _note(chunks.release, taken)
            raise
        except Exception as error:
            _failed(taken, error)
        return True

    def _apply(self, hold: _ChunkHold, taken: Taken) -> None:
        try:
            self._apply_patiently(hold, taken)
        except Applied:
            return
        except TooManyRefused as error:
            self._keep_rejects(taken, error.rejects)
            raise
        except Exception:
            # Whatever else went wrong, an interruption explains it: a statement that was broken off, for one.
            self._checked(hold)
            raise

    def _apply_patiently(self, hold: _ChunkHold, taken: Taken) -> None:
        ready: Ready | None = None
        for tries in range(1, TRIES + 1):
            try:
                merge, target = self._connected()
                if journal.checkpoint(target, self._order.import_id).number < taken.number:
                    ready = ready or self._ready(merge.plan, target, taken)
                    self._merge_in_turn(hold, taken, ready)
                return
            except BadRows as bad:
                assert ready is not None
                merge, target = self._connected()
                if not (merge.raced(bad.error) and tries <= TRIES // 2):
                    log.info("Chunk %d of %s has bad rows: %s", taken.number, self._order.import_id, bad)
                    ready = sift.without_bad_rows(merge, target, ready, lambda: self._checked(hold))
            except (Again, TargetDown) as error:
                self._checked(hold)
                if tries == TRIES:
                    raise
                log.info("Chunk %d of %s is tried again: %s", taken.number, self._order.import_id, error)
                if isinstance(error, TargetDown):
                    self._disconnect()
                time.sleep(random.uniform(0.01, 0.03) * 2**tries)
        raise Again("Others kept writing to the same rows of the table.")

    def _ready(self, plan: Plan, target: Target, taken: Taken) -> Ready:
        text = b"".join(self._text.open(taken.start, taken.end))
        checked = self._checker.check(text, taken.first_line)
        return make_ready(plan, target, checked, Records(text, self._text.dialect, taken.first_line))

    def _merge_in_turn(self, hold: _ChunkHold, taken: Taken, ready: Ready) -> None:
        merge, target = self._connected()
        straight = merge.plan.direct and ready.distinct and len(ready) and not self._detour
        if straight and not any_known(merge.plan, target, ready):
            packed = merge.pack(taken.number, ready)
            self._await_turn(hold, taken, target)
            try:
                with target.transaction():
                    before = self._begin(taken, target)
                    counts = merge.copy_in(packed)
                    self._end(taken, target, before, ready.counts + counts, ready)
                return
            except (BadRows, TargetRefused) as error:
                log.info("Chunk %d of %s takes the staging: %s", taken.number, self._order.import_id, error)
                self._detour = DETOUR
        self._detour = max(0, self._detour - 1)
        with target.transaction():
            merge.stage(ready)
            self._await_turn(hold, taken, target)
            before = self._begin(taken, target)
            compared = merge.compare(ready, merge.transactions())
            counts, whole = outcome(ready, compared)
            self._end(taken, target, before, counts, whole)
            merge.write(taken.number, compared)

    def _await_turn(self, hold: _ChunkHold, taken: Taken, target: Target) -> None:
        looked = time.monotonic()
        while journal.checkpoint(target, self._order.import_id).number < taken.number - 1:
            self._checked(hold)
            if time.monotonic() - looked > LOOK_ROUND:
                looked = time.monotonic()
                with db.engine.connect() as conn:
                    if chunks.must_give_way(conn, taken):
                        raise GiveWay
            time.sleep(GLANCE)

    def _begin(self, taken: Taken, target: Target) -> Checkpoint:
        """Our turn, and nobody else's until the transaction ends."""
        journal.hold_fence(target, self._order.import_id, self._job.attempt)
        before = journal.checkpoint(target, self._order.import_id)
        if before.number >= taken.number:
            raise Applied
        if before.number and before.end != taken.start:
            raise FenceClosed(f"Chunk {taken.number} does not follow the last checkpoint.")
        return before

    def _end(self, taken: Taken, target: Target, before: Checkpoint, counts: Counts, ready: Ready) -> None:
        total = before.total + counts
        self._check_limits(total, ready)
        journal.add_rejects(target, self._order.import_id, taken.number, ready.rejects)
        place = (taken.number, taken.start, taken.end, taken.first_line, taken.next_line)
        journal.add_checkpoint(target, self._order.import_id, place, counts, total)

    def _check_limits(self, total: Counts, ready: Ready) -> None:
        most, per_cent = self._order.reject_limit, self._order.reject_percent
        if most is not None and total.refused > most:
            limit = f"more than {most:,}"
        elif (
            per_cent is not None
            and total.read >= PERCENT_FROM
            and total.refused * 100 > per_cent * total.read
        ):
            limit = f"more than {per_cent} %"
        else:
            return
        raise TooManyRefused(
            f"{total.refused:,} of the first {total.read:,} rows were refused, {limit}: the import stopped. "
            "Correct the rows and upload the file again, or allow for more.",
            tuple(ready.rejects),
        )

    def _keep_rejects(self, taken: Taken, rejects: tuple[Reject, ...]) -> None:
        """Of a chunk that is not merged: whoever is told to mend them must see them."""
        _, target = self._connected()
        with target.transaction():
            journal.hold_fence(target, self._order.import_id, self._job.attempt)
            journal.drop_rejects(target, self._order.import_id, taken.number)
            journal.add_rejects(target, self._order.import_id, taken.number, rejects)

    def _checked(self, hold: _ChunkHold) -> None:
        self._check()
        hold.check()

    # The connection.

    def _connected(self) -> tuple[Merge, Target]:
        if self._merging is None:
            order = self._order
            target = self._connection.enter_context(
                connect(order.importer.source, f"waybill {order.import_id}")
            )
            plan = Plan.of(target, order.importer, order.mode, [c.name for c in self._checker.columns])
            self._merging = Merge(plan, target, order.import_id), target
        return self._merging

    def _disconnect(self) -> None:
        self._merging = None
        self._connection.close()

    def break_off(self) -> None:
        """From another thread: make the statement at work fail soon."""
        if self._merging:
            self._merging[1].break_off()


class Records:
    """The records of a chunk by their lines; looked for only when one is wanted."""

    def __init__(self, text: bytes, dialect: Dialect, first_line: int) -> None:
        self._text, self._dialect, self._first_line = text, dialect, first_line

    def __call__(self, line: int) -> bytes:
        start, end = self._places[line - self._first_line]
        return self._text[start:end]

    @cached_property
    def _places(self) -> dict[int, tuple[int, int]]:
        found = scan(self._text, self._dialect)
        places = zip(found.starts.tolist(), found.ends.tolist(), strict=True)
        return dict(zip(found.lines.tolist(), places, strict=True))


class _ChunkHold(Hold):
    """One worker's hold on a chunk."""

    def __init__(self, taken: Taken, span: timedelta) -> None:
        super().__init__(f"chunk {taken.number} of job {taken.job.job_id}", span)
        self._taken = taken

    def renew(self, conn: Connection) -> type[Interruption] | None:
        return None if chunks.renew(conn, self._taken, self._span) else LeaseLost


def _claim(job_id: UUID, attempt: int) -> Claim | None:
    """The claim of the attempt that asked for help, if it still holds the job."""
    with db.engine.connect() as conn:
        owner = conn.execute(select(Job.owner_id).where(*held(Claim(job_id, 0, attempt)))).scalar()
    return Claim(job_id, owner, attempt) if owner else None


def _note(verb: Callable[[Connection, Taken], bool], taken: Taken) -> None:
    with db.engine.begin() as conn:
        verb(conn, taken)


def _failed(taken: Taken, error: Exception) -> None:
    if isinstance(error, WaybillError):
        code, message, retryable = error.code, error.message, error.retryable
    else:
        log.exception("Chunk %d of job %s failed.", taken.number, taken.job.job_id)
        code, retryable = "internal", False
        message = f"The import stopped with an error of its own ({type(error).__name__}: {error})."
    with db.engine.begin() as conn:
        chunks.fail(conn, taken, code=code, message=message, retryable=retryable)
