"""Handing a job's id to a queue. A hint only: a message that is lost is sent again by the sweep."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

import dramatiq
from dramatiq.errors import BrokerError
from flask import current_app
from redis import RedisError
from sqlalchemy import String, cast, func, select, update

from app.extensions import db
from app.models.job import QUEUED, SMALL, Job, due

log = logging.getLogger(__name__)

# Named, not imported: the actors stand above this module.
ACTORS = {"export": "run_export", "import": "run_import"}
DELIVER, DELIVER_QUEUE = "deliver", "high"


def send(job_id: UUID) -> bool:
    """Put a queued job's message on its queue; False if Redis did not take it.

    `dispatched_at` is committed only after Redis took the message. The other way round, a process
    killed in between would leave a job that looks sent.
    """
    with db.engine.connect() as conn:
        row = conn.execute(
            db.select(Job.kind, Job.queue).where(Job.id == job_id, Job.status == QUEUED)
        ).first()
    if row is None or not enqueue(ACTORS[row.kind], row.queue, str(job_id)):
        return False
    with db.engine.begin() as conn:
        conn.execute(
            update(Job)
            .where(Job.id == job_id, Job.status == QUEUED)
            .values(dispatched_at=func.clock_timestamp())
        )
    return True


def send_next(queues: Collection[str], *, small_only: bool = False, waited: timedelta = timedelta(0)) -> bool:
    """Put a message on each of these queues where a job that is due has `waited`; False if Redis took it not.

    Which job a message names matters little: whoever hears it takes the one whose turn it is.
    """
    lane = [Job.size == SMALL] if small_only else []
    since = func.coalesce(Job.next_attempt_at, Job.created_at)
    waiting = (
        select(Job.queue, Job.kind, func.min(cast(Job.id, String)).label("id"))
        .where(due(), Job.queue.in_(queues), since <= func.clock_timestamp() - waited, *lane)
        .group_by(Job.queue, Job.kind)
    )
    with db.engine.connect() as conn:
        found = conn.execute(waiting).all()
    sent = [enqueue(ACTORS[row.kind], row.queue, row.id) for row in found]
    return all(sent)


def send_delivery(delivery_id: int) -> bool:
    """Put a delivery's message on its queue; False if Redis did not take it."""
    return enqueue(DELIVER, DELIVER_QUEUE, delivery_id)


def enqueue(actor: str, queue: str, *args: str | int, delay: int | None = None) -> bool:
    """Put a message on its queue, to be heard after `delay` milliseconds; False if Redis did not take it."""
    message: dramatiq.Message[None] = dramatiq.Message(
        queue_name=queue, actor_name=actor, args=args, kwargs={}, options={}
    )
    try:
        current_app.extensions["waybill.broker"].enqueue(message, delay=delay)
    except (RedisError, BrokerError) as error:
        log.warning("Redis took no message for %s%r (%s); the sweep will send it.", actor, args, error)
        return False
    return True
