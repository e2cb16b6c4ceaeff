"""Rows that a job's workers share out among themselves: the parts of an export, the chunks of an import.

Each is taken by one worker and held by a lease, as a job is. Every write is fenced twice: by the number of
the row's own last take, and by the attempt it was taken for.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    ForeignKey,
    String,
    and_,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Mapped, aliased, mapped_column

from app.models.job import Claim, Job, held

QUEUED, RUNNING, DONE = "queued", "running", "done"


class Takeable:
    """The columns of such a table."""

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(String(10), default=QUEUED, server_default=QUEUED)
    # The number of the last take: the row's fencing token.
    claim: Mapped[int] = mapped_column(default=0, server_default="0")
    lease_expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


@dataclass(frozen=True)
class Taken:
    """A row in one worker's hands. Subclasses name its table, and have fields for more of its columns."""

    table: ClassVar[type[Takeable]]

    job: Claim
    number: int
    claim: int


T = TypeVar("T", bound=Taken)


def take(
    conn: Connection, kind: type[T], job: Claim, lease: timedelta, *where: ColumnElement[bool], **values: Any
) -> T | None:
    """The first row that nobody has, and `where` allows; None if the attempt holds the job no more, too."""
    table, waiting = kind.table, aliased(kind.table)
    chosen = (
        select(waiting.number)
        .where(waiting.job_id == job.job_id, free(waiting), attempt_holds(job), *where)
        .order_by(waiting.number)
        .limit(1)
        .with_for_update(skip_locked=True, of=waiting)
        .scalar_subquery()
    )
    expiry = func.clock_timestamp() + lease
    row = conn.execute(
        update(table)
        .where(table.job_id == job.job_id, table.number == chosen)
        .values(status=RUNNING, claim=table.claim + 1, lease_expires_at=expiry, **values)
        .returning(*(getattr(table, field.name) for field in fields(kind) if field.name != "job"))
    ).first()
    return kind(job, *row) if row else None


def renew(conn: Connection, taken: Taken, lease: timedelta) -> bool:
    """Prolong the lease; False if the row is another's, or the attempt holds the job no more."""
    return change(conn, taken, lease_expires_at=func.clock_timestamp() + lease)


def hand_in(conn: Connection, taken: Taken, status: str, **values: Any) -> bool:
    """Out of the worker's hands: done, failed, or queued for somebody else."""
    return change(conn, taken, status=status, lease_expires_at=None, **values)


def change(conn: Connection, taken: Taken, **values: Any) -> bool:
    """Write to a row that is held; False as in `renew`."""
    table = taken.table
    statement = (
        update(table)
        .where(
            table.job_id == taken.job.job_id,
            table.number == taken.number,
            table.claim == taken.claim,
            table.status == RUNNING,
            attempt_holds(taken.job),
        )
        .values(**values)
        .returning(table.number)
    )
    return conn.execute(statement).first() is not None


def free(row: Any) -> ColumnElement[bool]:
    """In nobody's hands; `row` is the table or an alias."""
    lapsed = and_(row.status == RUNNING, row.lease_expires_at < func.clock_timestamp())
    return or_(row.status == QUEUED, lapsed)


def attempt_holds(job: Claim) -> ColumnElement[bool]:
    """Whether the attempt is still the one that has the job."""
    return select(Job.id).where(*held(job)).exists()
