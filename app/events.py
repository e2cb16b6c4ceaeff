"""A job's log: the only module that writes a line, reads lines, or names a channel.

A line is committed in PostgreSQL before anybody hears of it; Redis carries a copy of the whole line
so that watchers need not ask the database. Losing Redis loses time, never a line.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import redis
from sqlalchemy import Connection, insert, select, update

from app.extensions import db, redis_client
from app.models.event import Event
from app.models.job import Claim, Job, held

log = logging.getLogger(__name__)

PATTERN = "waybill:events:*"


@dataclass(frozen=True)
class Line:
    """One committed line of a job's log."""

    number: int
    at: datetime
    level: str
    text: str

    def as_json(self) -> dict[str, Any]:
        return {"number": self.number, "at": rfc3339(self.at), "level": self.level, "text": self.text}


def write(
    conn: Connection, job_id: UUID, text: str, *, level: str = "info", claim: Claim | None = None
) -> Line | None:
    """Insert the job's next line in the caller's transaction; None if `claim` no longer holds the job.

    The job's row lock orders the numbers: they are committed in order and without a gap.
    """
    where = held(claim) if claim else (Job.id == job_id,)
    number = conn.execute(
        update(Job).where(*where).values(last_event=Job.last_event + 1).returning(Job.last_event)
    ).scalar()
    if number is None:
        return None
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")[:10_000]
    at = conn.execute(
        insert(Event).values(job_id=job_id, number=number, level=level, text=text).returning(Event.at)
    ).scalar_one()
    return Line(number, at, level, text)


def append(job_id: UUID, owner_id: int, text: str, *, level: str = "info") -> Line | None:
    """Write a line in a transaction of its own and publish it."""
    with db.engine.begin() as conn:
        line = write(conn, job_id, text, level=level)
    if line:
        publish_line(job_id, owner_id, line)
    return line


def after(job_id: UUID, number: int, limit: int = 1000) -> Sequence[Line]:
    """The committed lines behind `number`, oldest first, at most `limit`; holds no connection afterwards."""
    statement = (
        select(Event.number, Event.at, Event.level, Event.text)
        .where(Event.job_id == job_id, Event.number > number)
        .order_by(Event.number)
        .limit(limit)
    )
    with db.engine.connect() as conn:
        return [Line(*row) for row in conn.execute(statement)]


def publish_line(job_id: UUID, owner_id: int, line: Line) -> None:
    publish(job_id, owner_id, {"event": "log", **line.as_json()})


def publish_status(job_id: UUID, owner_id: int, status: str) -> None:
    publish(job_id, owner_id, {"event": "status", "status": status})


def publish_progress(job_id: UUID, owner_id: int, done: int, total: int | None, unit: str) -> None:
    publish(job_id, owner_id, {"event": "progress", "done": done, "total": total, "unit": unit})


def publish(job_id: UUID, owner_id: int, message: dict[str, Any]) -> None:
    """Hand a message to whoever watches. Without Redis the watchers ask the database themselves."""
    try:
        redis_client().publish(channel(owner_id, job_id), json.dumps(message))
    except redis.RedisError as error:
        log.warning("Redis took no live message (%s); watchers will read it from the database.", error)


def channel(owner_id: int, job_id: UUID) -> str:
    return f"waybill:events:{owner_id}:{job_id}"


def rfc3339(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds: 2026-01-31T09:15:00.123456Z."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
