"""A job's log: the only module that writes a line, reads lines, or names a channel.

A line is committed in PostgreSQL before anybody hears of it; Redis carries a copy of the whole line
so that watchers need not ask the database. Losing Redis loses time, never a line.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import redis
from flask import has_request_context
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Integer,
    Uuid,
    any_,
    column,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)

from app.extensions import db, redis_client
from app.models.event import Event
from app.models.job import FINAL, Claim, Job, held
from app.models.sentence import storable

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


@dataclass(frozen=True)
class State:
    """What a watcher wants to know of a job beside its lines; `last_event` is the number of its last line.

    A status changes only together with a line, so `last_event` also tells the older state from the newer.
    """

    job_id: UUID
    owner_id: int
    status: str
    done: int
    total: int | None
    unit: str
    last_event: int

    @property
    def progress(self) -> dict[str, Any]:
        return {"done": self.done, "total": self.total, "unit": self.unit}

    def looks_like(self, other: State) -> bool:
        """The same but for the lines."""
        return (self.status, self.done, self.total) == (other.status, other.done, other.total)


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
    text = storable(text)
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
    """The committed lines behind `number`, oldest first, at most `limit`."""
    statement = (
        select(Event.number, Event.at, Event.level, Event.text)
        .where(Event.job_id == job_id, Event.number > number)
        .order_by(Event.number)
        .limit(limit)
    )
    with _reading() as conn:
        return [Line(*row) for row in conn.execute(statement)]


def unseen(positions: Mapping[UUID, int], limit: int = 200) -> list[tuple[UUID, Line]]:
    """The lines behind each job's position, in one query; at most `limit` a job, each job's oldest first."""
    columns = (column("job_id", Uuid()), column("number", Integer()))
    arrays = (_array(positions.keys(), Uuid()), _array(positions.values(), Integer()))
    seen = func.unnest(*arrays).table_valued(*columns, name="seen").render_derived()
    lines = (
        select(Event.job_id, Event.number, Event.at, Event.level, Event.text)
        .where(Event.job_id == seen.c.job_id, Event.number > seen.c.number)
        .order_by(Event.number)
        .limit(limit)
        .lateral("lines")
    )
    statement = select(lines).select_from(seen.join(lines, true())).order_by(lines.c.job_id, lines.c.number)
    with _reading() as conn:
        return [(job_id, Line(*line)) for job_id, *line in conn.execute(statement)]


def states(job_ids: Collection[UUID]) -> dict[UUID, State]:
    """The state of each of these jobs that still exists, in one query."""
    return _states(Job.id == any_(_array(job_ids, Uuid())))


def recent(owners: Collection[int] | None, limit: int = 1000) -> dict[UUID, State]:
    """The unfinished jobs of these people (None: of everybody), and those that finished within a day."""
    late = or_(Job.status.not_in(FINAL), Job.finished_at > func.clock_timestamp() - timedelta(days=1))
    mine = true() if owners is None else Job.owner_id == any_(_array(owners, Integer()))
    return _states(late, mine, limit=limit)


def _states(*where: ColumnElement[bool], limit: int | None = None) -> dict[UUID, State]:
    statement = (
        select(
            Job.id,
            Job.owner_id,
            Job.status,
            Job.progress_done,
            Job.progress_total,
            Job.progress_unit,
            Job.last_event,
        )
        .where(*where)
        .order_by(Job.created_at.desc())
        .limit(limit)
    )
    with _reading() as conn:
        return {row.id: State(*row) for row in conn.execute(statement)}


@contextmanager
def _reading() -> Iterator[Connection]:
    """In a request its own connection: were each to take a second one, all could wait for each other."""
    if has_request_context():
        yield db.session.connection()
    else:
        with db.engine.connect() as conn:
            yield conn


def _array(values: Collection[Any], kind: Any) -> Any:
    """One bound parameter, however many values there are."""
    return literal(list(values), ARRAY(kind))


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


def read_channel(name: str) -> tuple[int, UUID]:
    """(owner's id, job's id) of a channel; ValueError if it is none of ours."""
    _, _, owner_id, job_id = name.split(":")
    return int(owner_id), UUID(job_id)


def rfc3339(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds: 2026-01-31T09:15:00.123456Z."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
