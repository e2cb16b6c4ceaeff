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
is committed together with the rows. Every write is fenced; see app/models/taking.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    String,
    delete,
    func,
    insert,
    or_,
    select,
)
from sqlalchemy.orm import Mapped, aliased, mapped_column

from app.extensions import db
from app.models import taking
from app.models.job import Claim, Job, held
from app.models.sentence import Sentence

QUEUED, DONE, FAILED = taking.QUEUED, taking.DONE, "failed"


class Chunk(taking.Takeable, db.Model):  # type: ignore[misc, name-defined]
    __tablename__ = "chunks"

    # Where it is in the plain text, in bytes and lines; see app.imports.file.cut.Piece.
    start: Mapped[int] = mapped_column(BigInteger)
    end: Mapped[int] = mapped_column(BigInteger)
    first_line: Mapped[int] = mapped_column(BigInteger)
    next_line: Mapped[int] = mapped_column(BigInteger)
    planned_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    # Why the import must stop, if it must.
    error_code: Mapped[str | None] = mapped_column(String(50))
    error_message: Mapped[str | None] = mapped_column(Sentence)
    retryable: Mapped[bool] = mapped_column(default=False, server_default="false")


@dataclass(frozen=True)
class Taken(taking.Taken):
    """A chunk in one worker's hands."""

    table = Chunk

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
    return taking.take(conn, Taken, job, lease, ~_any_failed(job))


def must_give_way(conn: Connection, chunk: Taken) -> bool:
    """Whether an earlier chunk lies about, to be taken first, or failed, so that no turn ever comes."""
    before = (
        Chunk.job_id == chunk.job.job_id,
        Chunk.number < chunk.number,
        or_(taking.free(Chunk), Chunk.status == FAILED),
    )
    return bool(conn.execute(select(select(Chunk.number).where(*before).exists())).scalar_one())


renew = taking.renew


def finish(conn: Connection, chunk: Taken) -> bool:
    return taking.hand_in(conn, chunk, DONE)


def fail(conn: Connection, chunk: Taken, *, code: str, message: str, retryable: bool) -> bool:
    why = {"error_code": code, "error_message": message, "retryable": retryable}
    return taking.hand_in(conn, chunk, FAILED, **why)


def release(conn: Connection, chunk: Taken) -> bool:
    """running -> queued: somebody else applies it."""
    return taking.hand_in(conn, chunk, QUEUED)


def _any_failed(job: Claim) -> ColumnElement[bool]:
    failed = aliased(Chunk)
    return select(failed.number).where(failed.job_id == job.job_id, failed.status == FAILED).exists()
