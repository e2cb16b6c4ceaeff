"""One file for several jobs that ask the same.

A job that follows another one, its leader, has a page, a log, a mail and a link of its own; only the stored
bytes are one. It has `joined` a leader that was under way, or `reused` the file of one that had succeeded
while its data were fresh enough. A leader that comes to no file leaves its followers to themselves.

Whoever follows may run the report, and rows that depend on who asks are never shared: the person is then
part of what makes two jobs the same.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, ScalarSelect, Select, func, insert, select
from sqlalchemy.orm import Session

from app import dispatch, events, formats, leases, settings
from app.errors import NotFound
from app.extensions import db
from app.models import job as transitions
from app.models.artifact import Artifact
from app.models.job import FINAL, QUEUED, RUNNING, SUCCEEDED, Job
from app.models.user import User
from app.reports import Report, registry

JOINED, REUSED = "joined", "reused"
# A file that is about to expire is handed to nobody any more.
MARGIN = timedelta(minutes=1)
# Why a follower goes on by itself; who may not have the file then fails with the reason.
FILELESS = "The export that this one had joined came to no file, so it is made anew."
UNGIVEN = (
    "The file of the export that this one had joined is not handed on: the report is not for you any more."
)
# What a follower's artifact has in common with its leader's.
SHARED = ("key", "filename", "content_type", "bytes", "rows", "sha256", "receipt")


@dataclass(frozen=True)
class Leader:
    """The job to follow, and how; `at` is when its data were read, or when it was asked for."""

    job_id: UUID
    sharing: str
    at: datetime


def sameness(report: Report, job: Job) -> str:
    """Jobs of the same one make the same file, if they read the same data."""
    made_of = [
        *(job.kind, report.key, report.fingerprint, report.source, job.params),
        *(job.format, job.dialect, job.compression, job.columns),
        job.owner_id if report.depends_on_person else None,
        job.time_zone if job.dialect in formats.find(job.format)[0].local_dialects else None,
    ]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()


def find_leader(conn: Connection, sameness: str, freshness: timedelta | None) -> Leader | None:
    """Whom a new job of this sameness may follow. Until the caller commits, others who ask the same wait."""
    conn.execute(select(func.pg_advisory_xact_lock(int(sameness[:15], 16))))
    made = _made(sameness, freshness)
    if made is not None and (row := conn.execute(made).first()):
        return Leader(row.job_id, REUSED, row.at)
    row = conn.execute(_under_way(sameness)).first()
    return Leader(row.id, JOINED, row.created_at) if row else None


def hand_over(conn: Connection, job_id: UUID, leader: Leader) -> events.Line | None:
    """Give the job its leader's file in the caller's transaction; None: there is no such file any more."""
    artifact = conn.execute(_live().where(Artifact.job_id == leader.job_id)).first()
    if artifact is None or not transitions.share(conn, job_id, leader.job_id, artifact.rows):
        return None
    conn.execute(
        insert(Artifact).values(
            job_id=job_id,
            expires_at=func.clock_timestamp() + timedelta(hours=settings.current().retention_hours),
            **{name: getattr(artifact, name) for name in SHARED},
        )
    )
    read = "" if artifact.at is None else f" Its data were read at {artifact.at:%Y-%m-%d %H:%M:%S} UTC."
    whose = "that was being made" if leader.sharing == JOINED else "that was made before"
    text = f"Done: this is the file {whose} for the same request, {artifact.rows:,} rows.{read}"
    return events.write(conn, job_id, text)


def settle(leader_id: UUID) -> int:
    """Give the followers of a finished job its file, or else their own turn; how many were helped.

    Safe to call at any time and by several at once.
    """
    leader, followers = _followers(leader_id)
    alone: UUID | None = None
    for follower in followers:
        if not _may(follower.owner_id, follower.definition):
            _left(leader_id, follower.id, follower.owner_id, None, UNGIVEN)
        elif not _given(leader, follower.id, follower.owner_id):
            alone = _left(leader_id, follower.id, follower.owner_id, alone)
    return len(followers)


def lost_followers() -> Select[Any]:
    """Finished jobs that are still followed: whoever ended them could not settle."""
    leaders = select(Job.id).where(Job.status.in_(FINAL)).subquery()
    return select(Job.follows_id).where(Job.status == QUEUED, Job.follows_id == leaders.c.id).distinct()


def _followers(leader_id: UUID) -> tuple[Leader, list[Any]]:
    query = (
        select(Job.id, Job.owner_id, Job.definition, Job.sharing)
        .where(Job.follows_id == leader_id, Job.status == QUEUED, _finished(leader_id).is_not(None))
        .order_by(Job.created_at, Job.id)
    )
    with db.engine.connect() as conn:
        found = list(conn.execute(query))
        at = conn.execute(select(func.clock_timestamp())).scalar_one()
    return Leader(leader_id, JOINED, at), found


def _finished(leader_id: UUID) -> ScalarSelect[Any]:
    return select(Job.id).where(Job.id == leader_id, Job.status.in_(FINAL)).scalar_subquery()


def _may(owner_id: int, key: str) -> bool:
    """Asked again when the file is there, as it is when a job is started."""
    try:
        report = registry().get(key)
    except NotFound:
        return False
    with Session(db.engine) as session:
        owner = session.get_one(User, owner_id)
        return bool(owner.active and owner.may(report.roles))


def _given(leader: Leader, job_id: UUID, owner_id: int) -> bool:
    with db.engine.begin() as conn:
        line = hand_over(conn, job_id, leader)
        delivery = leases.announce(conn, job_id, 0, "ready") if line else None
    if line is None or delivery is None:
        return False
    dispatch.send_delivery(delivery)
    events.publish_line(job_id, owner_id, line)
    events.publish_status(job_id, owner_id, SUCCEEDED)
    return True


def _left(
    leader_id: UUID, job_id: UUID, owner_id: int, alone: UUID | None, text: str = FILELESS
) -> UUID | None:
    """The first that is left goes on by itself, and the others follow it; returns who goes alone."""
    with db.engine.begin() as conn:
        left = transitions.leave(conn, job_id, leader_id, alone)
        line = events.write(conn, job_id, text) if left and alone is None else None
    if line:
        events.publish_line(job_id, owner_id, line)
        dispatch.send(job_id)
    return job_id if line else alone


def _under_way(sameness: str) -> Select[UUID, datetime]:
    """Locked against its end until we commit: nobody joins a job that has just handed over its file."""
    return (
        select(Job.id, Job.created_at)
        .where(
            Job.sameness == sameness,
            Job.status.in_((QUEUED, RUNNING)),
            Job.follows_id.is_(None),
            Job.cancel_requested_at.is_(None),
        )
        .order_by(Job.created_at)
        .limit(1)
        .with_for_update(read=True, of=Job)
    )


def _made(sameness: str, freshness: timedelta | None) -> Select[Any] | None:
    if freshness is None:
        return None
    fresh = Artifact.snapshot_at > func.clock_timestamp() - freshness
    same = _live().join(Job, Job.id == Artifact.job_id).where(Job.sameness == sameness, fresh)
    return same.order_by(Artifact.snapshot_at.desc()).limit(1)


def _live() -> Select[Any]:
    columns = [getattr(Artifact, name) for name in SHARED]
    return select(Artifact.job_id, Artifact.snapshot_at.label("at"), *columns).where(
        Artifact.removed_at.is_(None), Artifact.expires_at > func.clock_timestamp() + MARGIN
    )
