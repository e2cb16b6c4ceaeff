"""One chunk of an import: rows of the file that are written in one transaction of the target database.

    from       to         verb      who
    ---------  ---------  --------  -----------------------------------------------------------------
    (none)     queued     plan      the attempt that holds the job, as it cuts the file
    queued     running    take      any worker, while that attempt holds the job
    running    running    take      another worker, the lease having run out
    running    done       finish    the worker that holds it: its rows are committed in the target
    running    failed     fail      the worker that holds it: the whole import must stop
    running    queued     release   the worker that holds it, stopping, or giving way to an earlier chunk
    any        (none)     forget    the next attempt, which cuts anew behind the last checkpoint

These rows only share out the work. What has been applied is known by the target alone, where the checkpoint
is committed together with the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    ForeignKey,
    String,
    Text,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Mapped, aliased, mapped_column

from app.extensions import db
from app.models.job import Claim, Job, held

QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"


class Chunk(db.Model):  # type: ignore[misc, name-defined]
    __tablename__ = "chunks"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    # Where it is in the plain text, in bytes and lines; see app.imports.file.cut.Piece.
    start: Mapped[int] = mapped_column(BigInteger)
    end: Mapped[int] = mapped_column(BigInteger)
    first_line: Mapped[int] = mapped_column(BigInteger)
    next_line: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(10), default=QUEUED, server_default=QUEUED)
    # The number of the last take: the chunk's fencing token.
    claim: Mapped[int] = mapped_column(default=0, server_default="0")
    planned_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    lease_expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # Why the import must stop, if it must.
    error_code: Mapped[str | None] = mapped_column(String(50))
    error_message: Mapped[str | None] = mapped_column(Text)
    retryable: Mapped[bool] = mapped_column(default=False, server_default="false")


@dataclass(frozen=True)
class Taken:
    """A chunk in one worker's hands."""

    job: Claim
    number: int
    claim: int
    start: int
    end: int
    first_line: int
    next_line: int


def forget(conn: Connection, job_id: UUID) -> None:
    conn.execute(delete(Chunk).where(Chunk.job_id == job_id))


def plan(conn: Connection, job: Claim, **place: int) -> bool:
    """Add a chunk (number, start, end, first_line, next_line); False if the attempt holds the job no more."""
    holds = conn.execute(select(Job.id).where(*held(job)).with_for_update(read=True)).first()
    if holds:
        conn.execute(insert(Chunk).values(job_id=job.job_id, **place))
    return holds is not None


def take(conn: Connection, job: Claim, lease: timedelta) -> Taken | None:
    """The earliest chunk that nobody has; None: there is none, one failed, or the attempt holds no more."""
    free = aliased(Chunk)
    chosen = (
        select(free.number)
        .where(free.job_id == job.job_id, _free(free), _attempt_holds(job), ~_any_failed(job))
        .order_by(free.number)
        .limit(1)
        .with_for_update(skip_locked=True, of=free)
        .scalar_subquery()
    )
    row = conn.execute(
        update(Chunk)
        .where(Chunk.job_id == job.job_id, Chunk.number == chosen)
        .values(status=RUNNING, claim=Chunk.claim + 1, lease_expires_at=func.clock_timestamp() + lease)
        .returning(Chunk.number, Chunk.claim, Chunk.start, Chunk.end, Chunk.first_line, Chunk.next_line)
    ).first()
    return Taken(job, *row) if row else None


def must_give_way(conn: Connection, chunk: Taken) -> bool:
    """Whether an earlier chunk lies about, to be taken first, or failed, so that no turn ever comes."""
    before = (
        Chunk.job_id == chunk.job.job_id,
        Chunk.number < chunk.number,
        or_(_free(Chunk), Chunk.status == FAILED),
    )
    return bool(conn.execute(select(select(Chunk.number).where(*before).exists())).scalar_one())


def renew(conn: Connection, chunk: Taken, lease: timedelta) -> bool:
    """Prolong the lease; False if the chunk is another's, or the attempt holds the job no more."""
    return _change(conn, chunk, lease_expires_at=func.clock_timestamp() + lease)


def finish(conn: Connection, chunk: Taken) -> bool:
    return _change(conn, chunk, status=DONE, lease_expires_at=None)


def fail(conn: Connection, chunk: Taken, *, code: str, message: str, retryable: bool) -> bool:
    return _change(
        conn,
        chunk,
        status=FAILED,
        lease_expires_at=None,
        error_code=code,
        error_message=message,
        retryable=retryable,
    )


def release(conn: Connection, chunk: Taken) -> bool:
    """running -> queued: somebody else applies it."""
    return _change(conn, chunk, status=QUEUED, lease_expires_at=None)


def _any_failed(job: Claim) -> ColumnElement[bool]:
    failed = aliased(Chunk)
    return select(failed.number).where(failed.job_id == job.job_id, failed.status == FAILED).exists()


def _free(chunk: Any) -> ColumnElement[bool]:
    lapsed = and_(chunk.status == RUNNING, chunk.lease_expires_at < func.clock_timestamp())
    return or_(chunk.status == QUEUED, lapsed)


def _change(conn: Connection, chunk: Taken, **values: Any) -> bool:
    statement = (
        update(Chunk)
        .where(
            Chunk.job_id == chunk.job.job_id,
            Chunk.number == chunk.number,
            Chunk.claim == chunk.claim,
            Chunk.status == RUNNING,
            _attempt_holds(chunk.job),
        )
        .values(**values)
        .returning(Chunk.number)
    )
    return conn.execute(statement).first() is not None


def _attempt_holds(job: Claim) -> ColumnElement[bool]:
    return select(Job.id).where(*held(job)).exists()
