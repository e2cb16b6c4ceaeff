"""One slice of an export: a range of keys, made on its own, kept when its maker dies, joined at the end.

    from       to         verb      who
    ---------  ---------  --------  -----------------------------------------------------------------
    queued     running    take      any worker, while the attempt it helps still holds the job
    running    running    take      another worker, the lease having run out
    running    done       finish    the worker that holds it
    running    queued     release   the worker that holds it, stopping or failing
    any        queued     restart   the next attempt, for what was not finished; or a part found broken

Like a job's, every write is fenced: by the part's own claim, and by the attempt it was taken for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
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

QUEUED, RUNNING, DONE = "queued", "running", "done"


class Part(db.Model):  # type: ignore[misc, name-defined]
    __tablename__ = "parts"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    # Keys from `lower` (included) up to `upper`, as the source writes them; None: no bound.
    lower: Mapped[str | None] = mapped_column(Text)
    upper: Mapped[str | None] = mapped_column(Text)
    # What the parts are cut from: another query, format or column makes them useless.
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(10), default=QUEUED)
    # The number of the last take: the part's fencing token.
    claim: Mapped[int] = mapped_column(default=0, server_default="0")
    lease_expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # The source's name for the state that the part is read from, and when that was.
    snapshot: Mapped[str] = mapped_column(String(100), default="")
    snapshot_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    key: Mapped[str | None] = mapped_column(String(300))
    rows: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    crc32: Mapped[int | None] = mapped_column(BigInteger)


@dataclass(frozen=True)
class Taken:
    """A part in one worker's hands."""

    job: Claim
    number: int
    claim: int
    lower: str | None
    upper: str | None
    snapshot: str
    snapshot_at: datetime


def plan(conn: Connection, job: Claim, bounds: Sequence[str], fingerprint: str) -> None:
    """Forget all parts of the job and cut anew at `bounds`, ascending."""
    conn.execute(delete(Part).where(Part.job_id == job.job_id))
    edges: list[str | None] = [None, *bounds, None]
    rows = [
        {"job_id": job.job_id, "number": number, "lower": lower, "upper": upper, "fingerprint": fingerprint}
        for number, (lower, upper) in enumerate(pairwise(edges), start=1)
    ]
    conn.execute(insert(Part), rows)


def restart(conn: Connection, job: Claim, snapshot: str, snapshot_at: datetime) -> None:
    """Give what is not done to this attempt, to be read from its snapshot."""
    conn.execute(
        update(Part)
        .where(Part.job_id == job.job_id, Part.status != DONE)
        .values(status=QUEUED, snapshot=snapshot, snapshot_at=snapshot_at, rows=0, claim=Part.claim + 1)
    )


def remake(conn: Connection, job_id: UUID, number: int) -> None:
    """A part whose object is missing or changed is to be made again."""
    conn.execute(
        update(Part).where(Part.job_id == job_id, Part.number == number).values(status=QUEUED, rows=0)
    )


def take(conn: Connection, job: Claim, lease: timedelta) -> Taken | None:
    """The next part that nobody has; None if there is none, or the attempt holds the job no more."""
    free = aliased(Part)
    lapsed = and_(free.status == RUNNING, free.lease_expires_at < func.clock_timestamp())
    chosen = (
        select(free.number)
        .where(free.job_id == job.job_id, or_(free.status == QUEUED, lapsed), _attempt_holds(job))
        .order_by(free.number)
        .limit(1)
        .with_for_update(skip_locked=True, of=free)
        .scalar_subquery()
    )
    row = conn.execute(
        update(Part)
        .where(Part.job_id == job.job_id, Part.number == chosen)
        .values(
            status=RUNNING,
            claim=Part.claim + 1,
            rows=0,
            lease_expires_at=func.clock_timestamp() + lease,
        )
        .returning(Part.number, Part.claim, Part.lower, Part.upper, Part.snapshot, Part.snapshot_at)
    ).first()
    return Taken(job, *row) if row else None


def renew(conn: Connection, part: Taken, lease: timedelta) -> bool:
    """Prolong the lease; False if the part is another's, or the attempt holds the job no more."""
    return _change(conn, part, lease_expires_at=func.clock_timestamp() + lease)


def progress(conn: Connection, part: Taken, rows: int) -> bool:
    return _change(conn, part, rows=rows)


def finish(conn: Connection, part: Taken, **made: Any) -> bool:
    """running -> done; `made` holds key, rows, bytes and crc32."""
    return _change(conn, part, status=DONE, lease_expires_at=None, **made)


def release(conn: Connection, part: Taken) -> bool:
    """running -> queued: somebody else makes it."""
    return _change(conn, part, status=QUEUED, lease_expires_at=None, rows=0)


def _change(conn: Connection, part: Taken, **values: Any) -> bool:
    statement = (
        update(Part)
        .where(
            Part.job_id == part.job.job_id,
            Part.number == part.number,
            Part.claim == part.claim,
            Part.status == RUNNING,
            _attempt_holds(part.job),
        )
        .values(**values)
        .returning(Part.number)
    )
    return conn.execute(statement).first() is not None


def _attempt_holds(job: Claim) -> ColumnElement[bool]:
    return select(Job.id).where(*held(job)).exists()
