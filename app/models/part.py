"""One slice of an export: a range of keys, made on its own, kept when its maker dies, joined at the end.

    from       to         verb      who
    ---------  ---------  --------  -----------------------------------------------------------------
    queued     running    take      any worker, while the attempt it helps still holds the job
    running    running    take      another worker, the lease having run out
    running    done       finish    the worker that holds it
    done       done       move      the attempt that has the job, having joined it to the file
    running    queued     release   the worker that holds it, stopping or failing
    any        queued     restart   the next attempt, for what was not finished; or a part found broken

Every write is fenced; see app/models/taking.py.
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
    Connection,
    DateTime,
    String,
    Text,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import db
from app.models import taking
from app.models.job import Claim

QUEUED, DONE = taking.QUEUED, taking.DONE


class Part(taking.Takeable, db.Model):  # type: ignore[misc, name-defined]
    __tablename__ = "parts"

    # Keys from `lower` (included) up to `upper`, as the source writes them; None: no bound.
    lower: Mapped[str | None] = mapped_column(Text)
    upper: Mapped[str | None] = mapped_column(Text)
    # What the parts are cut from: another query, format or column makes them useless.
    fingerprint: Mapped[str] = mapped_column(String(64))
    # The source's name for the state that the part is read from, and when that was.
    snapshot: Mapped[str] = mapped_column(String(100), default="")
    snapshot_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    # The object it is in, and from which byte on.
    key: Mapped[str | None] = mapped_column(String(300))
    start: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    rows: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    crc32: Mapped[int | None] = mapped_column(BigInteger)


@dataclass(frozen=True)
class Taken(taking.Taken):
    """A part in one worker's hands."""

    table = Part

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
        update(Part)
        .where(Part.job_id == job_id, Part.number == number)
        .values(status=QUEUED, key=None, start=0, rows=0)
    )


def move(conn: Connection, job: Claim, number: int, key: str, start: int) -> bool:
    """A part's bytes are in another object now; False if the attempt holds the job no more."""
    moved = (
        update(Part)
        .where(Part.job_id == job.job_id, Part.number == number, taking.attempt_holds(job))
        .values(key=key, start=start)
        .returning(Part.number)
    )
    return conn.execute(moved).first() is not None


def are_in(conn: Connection, job_id: UUID, key: str) -> bool:
    """Whether an object holds parts of the job."""
    return bool(conn.execute(select(exists().where(Part.job_id == job_id, Part.key == key))).scalar())


def take(conn: Connection, job: Claim, lease: timedelta) -> Taken | None:
    """The next part that nobody has; None if there is none, or the attempt holds the job no more."""
    return taking.take(conn, Taken, job, lease, rows=0)


renew = taking.renew


def progress(conn: Connection, part: Taken, rows: int) -> bool:
    return taking.change(conn, part, rows=rows)


def finish(conn: Connection, part: Taken, **made: Any) -> bool:
    """running -> done; `made` holds key, rows, bytes and crc32."""
    return taking.hand_in(conn, part, DONE, **made)


def release(conn: Connection, part: Taken) -> bool:
    """running -> queued: somebody else makes it."""
    return taking.hand_in(conn, part, QUEUED, rows=0)
