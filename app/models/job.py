"""A job: a persisted request with a status, a log and an owner.

This file is the only place where a status changes, and it changes only by compare-and-set:

    from       to          verb        who, when
    ---------  ----------  ----------  -------------------------------------------------------------
    queued     running     claim       an actor; takes the lease and the next attempt number
    running    succeeded   finish      the attempt; its artifact is there
    running    failed      finish      the attempt, for good; or the sweep, no attempt being left
    running    cancelled   finish      the attempt, having seen the cancel flag; or the sweep, for a dead one
    running    queued      requeue     the attempt (retry later, or handed back on shutdown),
                                       or the sweep, its lease having run out
    queued     cancelled   withdraw    the owner
    queued     failed      withdraw    the sweep, no attempt being left
    queued     succeeded   share       a job that follows another one, which has succeeded: their file is one
    failed     queued      reopen      the owner: retry, with a fresh set of attempts
    cancelled  queued      reopen      the owner: retry

Every function takes a connection and commits nothing: the caller writes its log line in the same
transaction. All times are the database's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    Connection,
    DateTime,
    ForeignKey,
    Index,
    ScalarSelect,
    String,
    and_,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, aliased, mapped_column, relationship

from app.extensions import db
from app.models.sentence import Sentence
from app.models.user import User

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = "queued", "running", "succeeded", "failed", "cancelled"
STATUSES = (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED)
FINAL = frozenset({SUCCEEDED, FAILED, CANCELLED})
SMALL, LARGE = "small", "large"
# A large job that has waited for so long is no longer passed by small ones.
HELD_BACK = timedelta(minutes=5)


class Job(db.Model):  # type: ignore[misc, name-defined]
    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("kind IN ('export', 'import')", name="kind"),
        CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="status"),
        CheckConstraint("size IN ('small', 'large')", name="size"),
        Index("ix_jobs_owner", "owner_id", "created_at", "id"),
        Index("ix_jobs_created", "created_at", "id"),
        Index("ix_jobs_definition", "kind", "definition", "created_at"),
        Index("ix_jobs_finished", "finished_at"),
        Index(
            "ix_jobs_unfinished", "queue", "created_at", postgresql_where="status IN ('queued', 'running')"
        ),
        Index("uq_jobs_idempotency", "owner_id", "idempotency_key", unique=True),
        Index("ix_jobs_sameness", "sameness", "created_at"),
        Index("ix_jobs_import", "import_id", postgresql_where="import_id IS NOT NULL"),
        Index("ix_jobs_follows", "follows_id", postgresql_where="follows_id IS NOT NULL"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    kind: Mapped[str] = mapped_column(String(10))
    # The report's or importer's key, and its title as it was when asked.
    definition: Mapped[str] = mapped_column(String(100))
    title: Mapped[str] = mapped_column(String(200))
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    # Frozen: relative dates are absolute already.
    params: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    format: Mapped[str] = mapped_column(String(20), default="csv")
    dialect: Mapped[str] = mapped_column(String(40), default="machine")
    compression: Mapped[str] = mapped_column(String(10), default="none")
    # The chosen columns in their order; None: all.
    columns: Mapped[list[str] | None] = mapped_column(ARRAY(String))
    # Whose days "yesterday" meant, and whose clock a spreadsheet shows: an IANA name.
    time_zone: Mapped[str] = mapped_column(String(64), default="UTC", server_default="UTC")
    queue: Mapped[str] = mapped_column(String(20), default="default")
    # The lane: small ones pass large ones, which never take all of a worker's threads. Unknown is large.
    size: Mapped[str] = mapped_column(String(5), default=LARGE, server_default=LARGE)
    # The job this one repeats ("run again with the same parameters").
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    # What was asked under that key: the same key with another request is refused.
    request_sha256: Mapped[str | None] = mapped_column(String(64))
    # Jobs with the same one make the same file; see app/sharing.py.
    sameness: Mapped[str | None] = mapped_column(String(64))
    # Whose file this job waits for or was given: "joined" while it was made, "reused" when it was there.
    follows_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    sharing: Mapped[str | None] = mapped_column(String(10))
    # Of an import: which one, and which step of it this job is.
    import_id: Mapped[UUID | None] = mapped_column(ForeignKey("imports.id", ondelete="CASCADE"))
    step: Mapped[str | None] = mapped_column(String(10))

    status: Mapped[str] = mapped_column(String(10), default=QUEUED)
    # The number of the last claim: the fencing token. It never goes back.
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    # How many of these claims don't count against the limit: handed back on shutdown, or before a retry.
    forgiven: Mapped[int] = mapped_column(default=0, server_default="0")
    lease_expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    worker: Mapped[str | None] = mapped_column(String(100))
    # Not to be started before.
    next_attempt_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    dispatched_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    cancel_requested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # Asked to pause; a queued job with it is not due until it is resumed.
    paused_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    progress_done: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    progress_total: Mapped[int | None] = mapped_column(BigInteger)
    progress_unit: Mapped[str] = mapped_column(String(20), default="rows", server_default="rows")
    last_event: Mapped[int] = mapped_column(default=0, server_default="0")

    error_code: Mapped[str | None] = mapped_column(String(50))
    error_message: Mapped[str | None] = mapped_column(Sentence)

    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    owner: Mapped[User] = relationship(lazy="joined")

    # Not a column: whether this was handed out once more, for a request whose idempotency key had been used.
    replayed = False

    @property
    def final(self) -> bool:
        return self.status in FINAL


@dataclass(frozen=True)
class Claim:
    """What a claim hands to its attempt."""

    job_id: UUID
    owner_id: int
    attempt: int
    size: str = LARGE
    queue: str = ""


@dataclass(frozen=True)
class Wish:
    """What the owner asked of a running job."""

    cancel: bool
    pause: bool


def claim(
    conn: Connection,
    which: UUID | ScalarSelect[UUID],
    *,
    worker: str,
    lease: timedelta,
    limit: int,
    small_only: bool = False,
) -> Claim | None:
    """Take a queued and due job, or a running one whose lease ran out. None: there is no work here.

    `which` is a job's id, or the choice that `fairest` makes. A job with no attempt left is not claimed;
    the sweep fails it.
    """
    statement = (
        update(Job)
        .where(Job.id == which, *_claimable(Job, limit, small_only))
        .values(
            status=RUNNING,
            attempt=Job.attempt + 1,
            worker=worker,
            lease_expires_at=func.clock_timestamp() + lease,
            started_at=func.coalesce(Job.started_at, func.clock_timestamp()),
            next_attempt_at=None,
            progress_done=0,
            progress_total=None,
        )
        .returning(Job.id, Job.owner_id, Job.attempt, Job.size, Job.queue)
    )
    row = conn.execute(statement).first()
    return Claim(*row) if row else None


def fairest(hint: UUID, *, limit: int, small_only: bool = False) -> ScalarSelect[UUID]:
    """Of all jobs on the queue of `hint` that may be claimed, the one whose turn it is, locked.

    People with the fewest running jobs come first, so that a hundred jobs of one hold up nobody else's
    first; then small jobs before large ones; then the oldest. What another worker is just taking is skipped.
    """
    waiting, hinted = aliased(Job), aliased(Job)
    busy = running_by_owner()
    same_queue = select(hinted.kind, hinted.queue).where(hinted.id == hint)
    return (
        select(waiting.id)
        .outerjoin(busy, busy.c.owner_id == waiting.owner_id)
        .where(tuple_(waiting.kind, waiting.queue).in_(same_queue), *_claimable(waiting, limit, small_only))
        .order_by(func.coalesce(busy.c.jobs, 0), held_back(waiting), waiting.created_at, waiting.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=waiting)
        .scalar_subquery()
    )


def running_by_owner() -> Any:
    """How many jobs each person has at work: columns `owner_id` and `jobs`."""
    at_work = aliased(Job)
    alive = (at_work.status == RUNNING, at_work.lease_expires_at >= func.clock_timestamp())
    counted = select(at_work.owner_id, func.count().label("jobs")).where(*alive).group_by(at_work.owner_id)
    return counted.subquery()


def held_back(job: Any) -> ColumnElement[bool]:
    """Large, and not waiting for long: small ones pass it."""
    return and_(job.size == LARGE, job.created_at > func.clock_timestamp() - HELD_BACK)


def due(job: Any = Job) -> ColumnElement[bool]:
    """Queued and not paused, waiting for no later attempt and no other job's file; `job` may be an alias."""
    return and_(
        job.status == QUEUED,
        job.follows_id.is_(None),
        job.paused_at.is_(None),
        or_(job.next_attempt_at.is_(None), job.next_attempt_at <= func.clock_timestamp()),
    )


def lapsed(job: Any = Job) -> ColumnElement[bool]:
    """Running, but its worker has not renewed the lease in time."""
    return and_(job.status == RUNNING, job.lease_expires_at < func.clock_timestamp())


def _claimable(job: Any, limit: int, small_only: bool) -> list[ColumnElement[bool]]:
    lane = [job.size == SMALL] if small_only else []
    return [or_(due(job), lapsed(job)), job.attempt - job.forgiven < limit, *lane]


def renew(conn: Connection, claim: Claim, lease: timedelta) -> Wish | None:
    """Prolong the lease. What the owner asked for meanwhile; None: the job is another's."""
    row = conn.execute(
        update(Job)
        .where(*held(claim))
        .values(lease_expires_at=func.clock_timestamp() + lease)
        .returning(Job.cancel_requested_at, Job.paused_at)
    ).first()
    return Wish(row[0] is not None, row[1] is not None) if row else None


def held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """The fence: true only while this attempt is the job's newest and still at work."""
    return (Job.id == claim.job_id, Job.attempt == claim.attempt, Job.status == RUNNING)


def finish(
    conn: Connection, claim: Claim, status: str, *, code: str | None = None, message: str | None = None
) -> bool:
    """running -> succeeded, failed or cancelled, by the attempt that holds the job."""
    return _change(
        conn,
        held(claim),
        status=status,
        error_code=code,
        error_message=message,
        finished_at=func.clock_timestamp(),
        lease_expires_at=None,
    )


def requeue(
    conn: Connection, claim: Claim, *, after: timedelta = timedelta(0), forgive: bool = False
) -> bool:
    """running -> queued: to be tried again after a pause; `forgive` gives the attempt back."""
    return _change(
        conn,
        held(claim),
        status=QUEUED,
        lease_expires_at=None,
        dispatched_at=None,
        next_attempt_at=func.clock_timestamp() + after,
        forgiven=Job.forgiven + (1 if forgive else 0),
    )


def withdraw(
    conn: Connection, job_id: UUID, status: str, *, code: str | None = None, message: str | None = None
) -> bool:
    """queued -> cancelled or failed, before anybody has it."""
    return _change(
        conn,
        (Job.id == job_id, Job.status == QUEUED),
        status=status,
        error_code=code,
        error_message=message,
        finished_at=func.clock_timestamp(),
    )


def share(conn: Connection, job_id: UUID, leader_id: UUID, rows: int) -> bool:
    """queued -> succeeded, with the file of the job that it follows."""
    return _change(
        conn,
        (Job.id == job_id, Job.status == QUEUED, Job.follows_id == leader_id),
        status=SUCCEEDED,
        progress_done=rows,
        progress_total=rows,
        finished_at=func.clock_timestamp(),
    )


def leave(conn: Connection, job_id: UUID, leader_id: UUID, follows: UUID | None = None) -> bool:
    """Leave the job that is followed, for another one or to be made alone. The status stays: queued."""
    return _change(
        conn,
        (Job.id == job_id, Job.status == QUEUED, Job.follows_id == leader_id),
        follows_id=follows,
        sharing=Job.sharing if follows else None,
        # Until now it waited for a file, not for a worker.
        next_attempt_at=func.clock_timestamp(),
        progress_done=0,
        progress_total=None,
    )


def reopen(conn: Connection, job_id: UUID) -> bool:
    """failed or cancelled -> queued, with a fresh set of attempts."""
    return _change(
        conn,
        (Job.id == job_id, Job.status.in_((FAILED, CANCELLED))),
        status=QUEUED,
        forgiven=Job.attempt,
        error_code=None,
        error_message=None,
        # How long it takes, and its rate, are measured from the new beginning.
        started_at=None,
        finished_at=None,
        # It waits since now, not since it was first asked for.
        next_attempt_at=func.clock_timestamp(),
        dispatched_at=None,
        cancel_requested_at=None,
        paused_at=None,
        follows_id=None,
        sharing=None,
        progress_done=0,
        progress_total=None,
    )


def _change(conn: Connection, where: Iterable[ColumnElement[bool]], **values: Any) -> bool:
    changed = conn.execute(update(Job).where(*where).values(**values).returning(Job.id)).first()
    return changed is not None
