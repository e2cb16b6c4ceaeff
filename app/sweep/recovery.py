"""Jobs and mails that nobody is at: their worker died, or their message was lost or never sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, false, func, or_, select, true, update

from app import dispatch, events, leases, settings, sharing
from app.extensions import db, redis_client
from app.models import job as jobs
from app.models.delivery import Delivery
from app.models.imports import APPLY, UNDO
from app.models.job import CANCELLED, FAILED, QUEUED, Claim, Job
from app.sweep.batches import T, each, first

# Steps of imports that change a table as they go, checkpoint by checkpoint.
WRITING = (APPLY, UNDO)

# A job that was just committed is dispatched by whoever committed it.
FRESH = timedelta(seconds=2)
# When a message should have been heard: soon, if its queue holds nothing; at last, if it holds too few.
UNHEARD, LONG_UNHEARD = timedelta(seconds=15), timedelta(minutes=10)
# A key that is in Redis for as long as nobody empties it.
MARKER = "waybill:marker"


def lapsed_jobs() -> int:
    """Take the jobs of silent workers from them: on to the next attempt, or to their end."""
    return each(first(select(Job.id).where(jobs.lapsed()).order_by(Job.lease_expires_at)), _take_over)


def _take_over(job_id: UUID) -> bool:
    with db.engine.begin() as conn:
        # Locked until we commit: a worker that wakes up now renews its lease before this, or never.
        job = conn.execute(
            select(Job.owner_id, Job.attempt, Job.forgiven, Job.cancel_requested_at, Job.step)
            .where(Job.id == job_id, jobs.lapsed())
            .with_for_update(skip_locked=True)
        ).first()
        if job is None:
            return False
        claim = Claim(job_id, job.owner_id, job.attempt)
        tries, cancelled = job.attempt - job.forgiven, bool(job.cancel_requested_at)
        status, text, level = _verdict(tries, cancelled=cancelled, writes=job.step in WRITING)
        line = events.write(conn, job_id, text, level=level, claim=claim)
        if status == QUEUED:
            jobs.requeue(conn, claim)
        elif status == CANCELLED:
            jobs.finish(conn, claim, CANCELLED)
        else:
            jobs.finish(conn, claim, FAILED, code="worker_lost", message=text)
            leases.announce(conn, job_id, job.attempt, "failed")
    _tell(job_id, job.owner_id, status, line)
    return True


def _verdict(tries: int, *, cancelled: bool, writes: bool) -> tuple[str, str, str]:
    """What becomes of a job whose worker fell silent: its status, its line, and the line's level."""
    left = tries < settings.current().attempts_limit
    if cancelled and not (writes and left):
        return CANCELLED, f"Cancelled. {_remains(writes)}", "warning"
    if left:
        # One that is cancelled and writes goes on, too: only its next attempt can tell what is in.
        return QUEUED, "The worker stopped answering; another one goes on with this job.", "warning"
    text = (
        f"The job's worker died {_times(tries)} (killed, out of memory, or cut off from the database), "
        f"so the job was not started again. {_remains(writes)} Try again, and if it ends like this once "
        "more, show this log to your administrator."
    )
    return FAILED, text, "error"


def _remains(writes: bool) -> str:
    if writes:
        return "What was written up to its last checkpoint stands; trying again goes on behind it."
    return "Nothing was published."


def exhausted_jobs() -> int:
    """Fail the queued jobs that no worker may claim, no attempt being left."""
    return each(first(select(Job.id).where(*_exhausted())), _exhaust)


def _exhausted() -> tuple[ColumnElement[bool], ...]:
    return (jobs.due(), Job.attempt - Job.forgiven >= settings.current().attempts_limit)


def _exhaust(job_id: UUID) -> bool:
    with db.engine.begin() as conn:
        # Asked again: another clock may have failed it, and its owner reopened it.
        job = conn.execute(
            select(Job.owner_id, Job.attempt, Job.forgiven, Job.step)
            .where(Job.id == job_id, *_exhausted())
            .with_for_update()
        ).first()
        if job is None:
            return False
        text = (
            f"The job was started {_times(job.attempt - job.forgiven)} and came to no end, so it was not "
            f"started again. {_remains(job.step in WRITING)}"
        )
        jobs.withdraw(conn, job_id, FAILED, code="attempts_used", message=text)
        line = events.write(conn, job_id, text, level="error")
        leases.announce(conn, job_id, job.attempt, "failed")
    _tell(job_id, job.owner_id, FAILED, line)
    return True


def followers() -> int:
    """Help those who wait for the file of a job that is over."""
    return each(first(sharing.lost_followers()), lambda leader_id: bool(sharing.settle(leader_id)))


def _times(count: int) -> str:
    return {1: "once", 2: "twice", 3: "three times"}.get(count, f"{count} times")


def _tell(job_id: UUID, owner_id: int, status: str, line: events.Line | None) -> None:
    if line:
        events.publish_line(job_id, owner_id, line)
    events.publish_status(job_id, owner_id, status)


def lost_messages() -> int:
    """Forget that a message was sent, where Redis seems to have lost it: the next steps send it again.

    Redis was emptied, or a queue holds nothing though a message was put there a while ago, or for long fewer
    than it should: otherwise nobody reads it, and more messages would only pile up. Messages that a worker
    holds in its memory are in no queue, too; sending these twice does no harm.
    """
    client = redis_client()
    emptied = not client.exists(MARKER)
    waiting = _unheard()
    lengths = {queue: client.llen(f"dramatiq:{queue}") for queue in waiting}
    idle = {queue for queue, length in lengths.items() if not length}
    short = {queue for queue, length in lengths.items() if length < waiting[queue]}
    mails = dispatch.DELIVER_QUEUE
    with db.engine.begin() as conn:
        lost = _lost(Job.dispatched_at, Job.queue.in_(idle), Job.queue.in_(short), emptied)
        statement = update(Job).where(jobs.due(), lost).values(dispatched_at=None)
        forgotten = conn.execute(statement).rowcount
        lost = _lost(Delivery.dispatched_at, _constant(mails in idle), _constant(mails in short), emptied)
        statement = update(Delivery).where(_owed(), lost).values(dispatched_at=None)
        forgotten += conn.execute(statement).rowcount
    # Last: a clock that dies before this leaves it all to the next pass.
    client.set(MARKER, 1)
    return forgotten


def _unheard() -> Counter[str]:
    """How many messages of each queue should have been heard by now."""
    then = func.clock_timestamp() - UNHEARD
    due = select(Job.queue, func.count()).where(jobs.due(), Job.dispatched_at < then).group_by(Job.queue)
    owed = select(func.count()).where(_owed(), Delivery.dispatched_at < then)
    found = Counter[str]()
    with db.engine.connect() as conn:
        for queue, count in conn.execute(due):
            found[queue] = count
        found[dispatch.DELIVER_QUEUE] += conn.execute(owed).scalar_one()
    return found


def _lost(
    dispatched_at: Any, idle: ColumnElement[bool], short: ColumnElement[bool], emptied: bool
) -> ColumnElement[bool]:
    if emptied:
        return and_(dispatched_at.is_not(None))
    now = func.clock_timestamp()
    return or_(and_(dispatched_at < now - LONG_UNHEARD, short), and_(dispatched_at < now - UNHEARD, idle))


def _constant(value: bool) -> ColumnElement[bool]:
    return true() if value else false()


def waiting_jobs() -> int:
    """Send the messages of due jobs that have none, oldest first."""
    fresh = func.clock_timestamp() - FRESH
    unsent = select(Job.id).where(jobs.due(), Job.dispatched_at.is_(None), Job.created_at < fresh)
    return _send(first(unsent.order_by(Job.created_at)), dispatch.send)


def due_deliveries() -> int:
    """Send the messages of mails that are due and have none for this try."""
    unsent = or_(Delivery.dispatched_at.is_(None), Delivery.dispatched_at < Delivery.next_attempt_at)
    owed = select(Delivery.id).where(_owed(), unsent).order_by(Delivery.next_attempt_at)
    return _send(first(owed), _send_delivery)


def _owed() -> ColumnElement[bool]:
    """Mails that are neither sent nor given up, and due."""
    return and_(
        Delivery.sent_at.is_(None),
        Delivery.given_up_at.is_(None),
        Delivery.next_attempt_at <= func.clock_timestamp(),
    )


def _send_delivery(delivery_id: int) -> bool:
    if not dispatch.send_delivery(delivery_id):
        return False
    # As with jobs: noted only after Redis took the message.
    with db.engine.begin() as conn:
        conn.execute(
            update(Delivery).where(Delivery.id == delivery_id).values(dispatched_at=func.clock_timestamp())
        )
    return True


def _send(ids: Sequence[T], send: Callable[[T], bool]) -> int:
    """How many messages Redis took; raises RedisError as soon as Redis does not answer."""
    if ids:
        redis_client().ping()
    sent = 0
    for each_id in ids:
        if send(each_id):
            sent += 1
        else:
            # Cancelled meanwhile, or Redis is gone: then this raises.
            redis_client().ping()
    return sent
