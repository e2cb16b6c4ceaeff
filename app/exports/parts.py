"""An export in parts: cut by ranges of a key, made by whoever is free, joined in order.

One worker has the job: it holds the snapshot, plans the parts, makes parts like everybody else, and joins
what is finished (`joining`). Others help: `help_out` takes parts of a job until none is left. A finished
part is a checkpoint: it outlives every process, and the next attempt only makes what is missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, exists, func, select, update

from app import dispatch, events, settings, storage
from app.errors import Interruption, LeaseLost, WaybillError
from app.exports.flow import Flow, Made, compressor, found_whole, reconcile
from app.exports.joining import GLANCE, Crc32, Joiner, parts_of
from app.exports.order import Order
from app.extensions import db
from app.leases import Hold, Lease
from app.models import part as parts
from app.models.job import Claim, Job, held
from app.models.part import DONE, QUEUED, Part, Taken
from app.progress import Ticker
from app.reports import SqlReport, Statement, ordered_by
from app.sources import Copy, Reading

log = logging.getLogger(__name__)

MOST_PARTS = 100
# How many parts of a job a process makes at once.
HANDS = 2
# When a message that finds no hand free comes again, in milliseconds.
PASS_ON = 100
# What files can be joined: these are whole wherever they are cut.
JOINABLE = ("none", "gzip")


@dataclass(frozen=True)
class Cut:
    """How an export is cut, by anybody who has its order."""

    query: Statement
    column: str
    copy: Copy
    compression: str

    @classmethod
    def of(cls, order: Order, reading: Reading) -> Cut | None:
        """None: this report, format or compression is made in one stream."""
        report = order.report
        column = report.partition_by
        if not isinstance(report, SqlReport) or column is None or order.compression not in JOINABLE:
            return None
        if ordered_by(report) not in (None, column) or column not in (order.columns or [column]):
            return None
        query = order.query(reading)
        writing = order.writing()
        copy = writing.copy(lambda: reading.fields(query.sql, query.values)) if reading.copies else None
        return cls(query, column, copy, order.compression) if copy else None

    @property
    def fingerprint(self) -> str:
        """Parts of another query, dialect or key are no use to this one."""
        made_of = [self.query.sql, self.query.values, self.column, repr(self.copy), self.compression]
        return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()


def make(lease: Lease, order: Order, reading: Reading, key: str, filename: str) -> Made | None:
    """The whole file in parts; None if it is not worth cutting, or can't be."""
    cut = Cut.of(order, reading)
    if cut is None or not _planned(lease, order, cut, reading):
        return None
    with (
        storage.current().writer(key, content_type=order.content_type, filename=filename) as writer,
        Joiner(lease, writer) as joiner,
        hands.of(lease.job_id),
    ):
        while not joiner.complete:
            taken = _take(lease.claim)
            if taken:
                _make_own(lease, order, cut, reading, taken)
            else:
                joiner.wait(GLANCE)
            lease.check()
        # Each part's rows were counted on both ways when it was made.
        made = Made(writer.commit(), joiner.rows, joiner.rows, joiner.sha.hexdigest(), joiner.receipts)
    found_whole(made.stored, joiner.size)
    joiner.forget_objects()
    lease.progress(made.rows, made.rows)
    return made


def help_out(job_id: UUID, attempt: int) -> None:
    """Make parts of another worker's job until none is left. Whatever goes wrong is left to that worker."""
    claim = _claim(job_id, attempt)
    if claim is None:
        return
    with hands.of(job_id) as free:
        if free:
            _help(claim)
        elif _some_left(job_id):
            # Another process may have a hand free: at last the message comes there.
            dispatch.enqueue("make_parts", _queue(job_id), str(job_id), attempt, delay=PASS_ON)


def _help(claim: Claim) -> None:
    taken = _take(claim)
    if taken is None:
        return
    try:
        order = Order.of(claim.job_id)
        with order.source.reading(taken.snapshot) as reading:
            cut = Cut.of(order, reading)
            while cut is not None and taken is not None:
                with _PartHold(taken) as hold, hold.breaking_off(reading.break_off):
                    _make_one(hold, order, cut, reading)
                taken = _take(claim)
    except (Interruption, WaybillError) as error:
        log.info("Helping job %s ends: %s", claim.job_id, str(error) or type(error).__name__)
    finally:
        if taken is not None:
            with db.engine.begin() as conn:
                parts.release(conn, taken)


def _planned(lease: Lease, order: Order, cut: Cut, reading: Reading) -> bool:
    """Keep what an earlier attempt finished, or cut anew; then call for help."""
    with db.engine.begin() as conn:
        done, total = _kept(conn, lease, order, cut)
        if not total:
            bounds = _bounds(cut, reading)
            if not bounds:
                return False
            parts.plan(conn, lease.claim, bounds, cut.fingerprint)
            total = len(bounds) + 1
        parts.restart(conn, lease.claim, reading.export_snapshot(), reading.snapshot_at)
    lease.progress(0, reading.estimate(cut.query.sql, cut.query.values))
    if done:
        lease.log(f"{done} of {total} parts are finished; the others are made from this new snapshot.")
    else:
        lease.log(f"Cut into {total} parts by {cut.column!r}.")
    for _ in range(min(total - done, _helpers(order)) - 1):
        dispatch.enqueue("make_parts", _queue(lease.job_id), str(lease.job_id), lease.attempt)
    return True


def _kept(conn: Connection, lease: Lease, order: Order, cut: Cut) -> tuple[int, int]:
    """(finished, all) parts of earlier attempts that are of use."""
    rows = conn.execute(select(Part.status, Part.fingerprint).where(Part.job_id == lease.job_id)).all()
    done = sum(row.status == DONE for row in rows)
    useless = any(row.fingerprint != cut.fingerprint for row in rows)
    if useless or (done and order.report.consistency == "snapshot"):
        return 0, 0
    return done, len(rows)


def _bounds(cut: Cut, reading: Reading) -> Sequence[str]:
    query = cut.query
    rows = reading.estimate(query.sql, query.values) or 0
    wanted = min(rows // settings.current().part_rows, MOST_PARTS)
    return reading.bounds(query.sql, query.values, cut.column, wanted) if wanted > 1 else ()


def _helpers(order: Order) -> int:
    """How many hands there are, in all living worker processes that listen."""
    from app.models.worker import Worker

    alive = select(func.count()).where(
        Worker.queues.contains([order.report.queue]),
        Worker.seen_at > func.clock_timestamp() - timedelta(seconds=15),
    )
    with db.engine.connect() as conn:
        return max(1, HANDS * int(conn.execute(alive).scalar_one()))


def _queue(job_id: UUID) -> str:
    with db.engine.connect() as conn:
        return str(conn.execute(select(Job.queue).where(Job.id == job_id)).scalar_one())


def _claim(job_id: UUID, attempt: int) -> Claim | None:
    """The claim of the attempt that asked for help, if it still holds the job."""
    with db.engine.connect() as conn:
        owner = conn.execute(select(Job.owner_id).where(*held(Claim(job_id, 0, attempt)))).scalar()
    return Claim(job_id, owner, attempt) if owner else None


def _take(claim: Claim) -> Taken | None:
    with db.engine.begin() as conn:
        return parts.take(conn, claim, _span())


def _some_left(job_id: UUID) -> bool:
    free = select(exists().where(Part.job_id == job_id, Part.status == QUEUED))
    with db.engine.connect() as conn:
        return bool(conn.execute(free).scalar())


def _span() -> timedelta:
    return timedelta(seconds=settings.current().lease_seconds)


class _PartHold(Hold):
    """One worker's hold on a part."""

    def __init__(self, taken: Taken) -> None:
        super().__init__(f"part {taken.number} of job {taken.job.job_id}", _span())
        self.taken = taken
        self.ticker = Ticker(self._write_progress, time.monotonic)

    def renew(self, conn: Connection) -> type[Interruption] | None:
        return None if parts.renew(conn, self.taken, self._span) else LeaseLost

    def progress(self, rows: int) -> None:
        self.check()
        self.ticker.tick(rows)

    def _write_progress(self, rows: int, _: int | None) -> None:
        job = self.taken.job
        with db.engine.begin() as conn:
            if not parts.progress(conn, self.taken, rows):
                raise LeaseLost
            done = select(func.sum(Part.rows)).where(Part.job_id == job.job_id).scalar_subquery()
            row = conn.execute(
                update(Job)
                .where(*held(job))
                .values(progress_done=done)
                .returning(Job.progress_done, Job.progress_total)
            ).first()
        if row:
            events.publish_progress(job.job_id, job.owner_id, *row, "rows")


def _make_own(lease: Lease, order: Order, cut: Cut, reading: Reading, taken: Taken) -> None:
    try:
        with _PartHold(taken) as hold:
            _make_one(hold, order, cut, reading)
    except LeaseLost:
        # Somebody else has the part by now; or the job, which the lease says when it is asked.
        lease.check()


def _make_one(hold: _PartHold, order: Order, cut: Cut, reading: Reading) -> None:
    taken = hold.taken
    key = f"{parts_of(taken.job.job_id)}/{taken.number}-{taken.claim}"
    sql, values = reading.within(cut.query.sql, cut.query.values, cut.column, taken.lower, taken.upper)
    # Read back when it is joined, so it need not be durable.
    writing = storage.current().writer(
        key, content_type=order.content_type, filename=f"part {taken.number}", durable=False
    )
    with writing as writer:
        flow = Flow(writer, order.format.counter(), compressor(cut.compression, ""), Crc32())
        if taken.lower is None:
            flow.write(cut.copy.head)
        else:
            flow.counter.feed(cut.copy.head)
        for block in reading.copy(sql, values, cut.copy):
            flow.write(block)
            hold.progress(reading.rows_read)
        flow.close()
        reconcile(reading.rows_read, flow.counter.rows)
        stored = writer.commit()
    found_whole(stored, flow.size)
    _finish(taken, key, reading.rows_read, flow)


def _finish(taken: Taken, key: str, rows: int, flow: Flow) -> None:
    job = taken.job
    with db.engine.begin() as conn:
        if not parts.finish(conn, taken, key=key, start=0, rows=rows, bytes=flow.size, crc32=flow.sha.value):
            raise LeaseLost
        line = events.write(conn, job.job_id, f"Part {taken.number}: {rows:,} rows.", claim=job)
    if line:
        events.publish_line(job.job_id, job.owner_id, line)


class Hands:
    """How many parts of each job this process makes just now."""

    def __init__(self) -> None:
        self._taken: Counter[UUID] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def of(self, job_id: UUID) -> Iterator[bool]:
        """Whether there was a hand free for the job; it is given back at the end."""
        with self._lock:
            free = self._taken[job_id] < HANDS
            self._taken[job_id] += free
        try:
            yield free
        finally:
            with self._lock:
                self._taken[job_id] -= free
                self._taken += Counter()  # forgets who has none


# This process's own.
hands = Hands()
