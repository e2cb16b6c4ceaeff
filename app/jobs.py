"""What a person or a program may do with jobs: ask, look, cancel, retry, ask again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import lazyload

from app import columns as choices
from app import dispatch, events, formats, links, lists, preflight, settings, sharing, zones
from app.errors import Conflict, InvalidRequest, NotFound, TooMany
from app.extensions import db
from app.formats import Format
from app.models import job as transitions
from app.models.artifact import Artifact
from app.models.imports import APPLY, DRY_RUN, UNDO, Import
from app.models.job import CANCELLED, FINAL, QUEUED, RUNNING, STATUSES, SUCCEEDED, Job
from app.models.part import Part
from app.models.user import User
from app.models.worker import Worker
from app.paging import PAGE, page
from app.reports import Report
from app.reports import registry as registry
from app.sharing import Leader

# A worker that was not seen for so long is not listening: three of its beats.
SILENCE = timedelta(seconds=15)


def report_for(user: User, key: str) -> Report:
    """The report, if this person may ask for it; raises NotFound otherwise."""
    report = registry().get(key, roles=user.role_names)
    if not report.allows(user.role_names):
        raise NotFound(f"There is no report {key!r} for you. Ask an administrator if you need it.")
    return report


def request_export(
    user: User,
    key: str,
    raw_params: Mapping[str, object],
    *,
    format: str = "csv",
    dialect: str | None = None,
    compression: str = "none",
    idempotency_key: str | None = None,
    columns: Sequence[str] | None = None,
    time_zone: str | None = None,
    fresh: bool = False,
) -> Job:
    """Commit a queued export and dispatch it; `columns` are the chosen ones in their order, None all.

    Relative dates are those of `time_zone`, the person's own if None; so is the clock of spreadsheets.

    Unless it must be `fresh`, it joins the same export that is under way, or is handed the file of one whose
    data are as fresh as the report demands. The same idempotency key with the same request gives the job it
    gave before. Raises NotFound, InvalidParams, InvalidRequest, TooMany, or Conflict (the key was used for
    another request).
    """
    report = report_for(user, key)
    asked = fingerprint(report.key, raw_params, format, dialect, compression, columns, time_zone, fresh)
    if idempotency_key and (known := earlier(user, idempotency_key, asked)):
        return known
    given, writing = _checked(user, report, raw_params, format, dialect, compression, columns, time_zone)
    params = lists.put_away(report.params, given)
    job = Job(
        kind="export",
        definition=report.key,
        title=report.title,
        owner_id=user.id,
        params=params,
        queue=report.queue,
        idempotency_key=idempotency_key,
        request_sha256=asked,
        **writing._asdict(),
    )
    job.sameness = sharing.sameness(report, job)
    leader = None if fresh else _leader(report, job)
    if leader is None:
        # While the source is asked, we hold neither a lock nor a connection.
        query = preflight.query(report, given, user)
        db.session.rollback()
        job.size = preflight.size(report, query)
        leader = None if fresh else _leader(report, job)
    return commit_and_send(user, job, leader)


def think_of(
    user: User,
    key: str,
    raw_params: Mapping[str, object],
    *,
    format: str = "csv",
    dialect: str | None = None,
    compression: str = "none",
    columns: Sequence[str] | None = None,
    time_zone: str | None = None,
) -> preflight.Request:
    """What `request_export` would be asked, for a preflight; raises what it would raise.

    Afterwards no connection is held.
    """
    report = report_for(user, key)
    params, writing = _checked(user, report, raw_params, format, dialect, compression, columns, time_zone)
    query, program = preflight.query(report, params, user), preflight.program(report, params, user)
    db.session.rollback()
    return preflight.Request(report, query, writing.format, writing.compression, writing.columns, program)


def again(user: User, job: Job) -> Job:
    """A new job with the same frozen params, for `user`; its file is made anew. Raises Conflict."""
    if job.kind != "export":
        raise Conflict("An import is not made again by itself: send in its file once more.")
    report = report_for(user, job.definition)
    copied = (
        *("kind", "definition", "title", "params", "queue"),
        *("format", "dialect", "compression", "columns", "time_zone"),
    )
    new = Job(owner_id=user.id, parent_id=job.id, **{name: getattr(job, name) for name in copied})
    new.size, new.sameness = job.size, sharing.sameness(report, new)
    return commit_and_send(user, new)


def find(user: User, job_id: UUID) -> Job:
    """The job, if this person may see it; raises NotFound otherwise."""
    job: Job | None = db.session.scalar(visible(user).where(Job.id == job_id))
    if job is None:
        raise NotFound("There is no such job, or it is not yours.")
    return job


def visible(user: User) -> Select[Any]:
    """Jobs this person may see: their own, or all for an administrator."""
    return select(Job) if user.is_admin else select(Job).where(Job.owner_id == user.id)


def listing(
    user: User,
    *,
    status: str | None = None,
    everyone: bool = False,
    before: str | None = None,
    limit: int = PAGE,
) -> tuple[list[Job], str | None]:
    """A page of jobs, newest first, and the cursor of the next page (None: this was the last).

    `everyone` shows others' jobs to an administrator; raises InvalidRequest for a wrong status or cursor.
    """
    if status and status not in STATUSES:
        raise InvalidRequest(f"There is no status {status!r}. Use one of {', '.join(STATUSES)}.")
    query = visible(user)
    if not everyone:
        query = query.where(Job.owner_id == user.id)
    if status:
        query = query.where(Job.status == status)
    return page(query, Job, before, limit)


def counts(user: User, *, everyone: bool = False) -> dict[str, int]:
    """How many jobs there are of each status, for the list's filter."""
    query = select(Job.status, func.count()).group_by(Job.status)
    if not (everyone and user.is_admin):
        query = query.where(Job.owner_id == user.id)
    return dict.fromkeys(STATUSES, 0) | {row[0]: row[1] for row in db.session.execute(query)}


def cancel(job: Job) -> Job:
    """Cancel a queued job at once; ask a running one to stop, which it does within 3 s. Raises Conflict."""
    conn = db.session.connection()
    withdrawn = transitions.withdraw(conn, job.id, CANCELLED)
    if not withdrawn and not _flag_cancel(job.id):
        db.session.rollback()
        raise Conflict(f"This job is {job.status} already; there is nothing to cancel.")
    text = "Cancelled before it began." if withdrawn else "Cancelling was asked for."
    say(job, text, CANCELLED if withdrawn else None)
    if withdrawn:
        sharing.settle(job.id)
    return job


def retry(job: Job) -> Job:
    """Put a failed or cancelled job back on its queue with a fresh set of attempts.

    Raises Conflict and TooMany.
    """
    if job.final:
        check_limit(job.owner)
    conn = db.session.connection()
    # Whoever asks anew wants what is true now, not parts of what was.
    conn.execute(delete(Part).where(Part.job_id == job.id))
    if not transitions.reopen(conn, job.id):
        db.session.rollback()
        raise Conflict(f"This job is {job.status}; only a failed or cancelled one can be tried again.")
    say(job, "Put back on the queue.", QUEUED)
    dispatch.send(job.id)
    return job


def queue_position(job: Job) -> int | None:
    """1 for the next in line; None unless queued, and for a job that waits for another one's file."""
    if job.status != QUEUED or job.follows_id:
        return None
    busy = transitions.running_by_owner()
    order = (transitions.held_back(Job), Job.created_at, Job.id)
    # Each one's second job comes after everybody's first.
    turn = func.row_number().over(partition_by=Job.owner_id, order_by=order) + func.coalesce(busy.c.jobs, 0)
    waiting = (Job.queue == job.queue, Job.status == QUEUED, Job.follows_id.is_(None))
    turns = select(Job.id, turn.label("turn"), *(term.label(f"by_{n}") for n, term in enumerate(order)))
    taken = turns.outerjoin(busy, busy.c.owner_id == Job.owner_id).where(*waiting).subquery()
    place = func.row_number().over(order_by=[taken.c.turn, taken.c.by_0, taken.c.by_1, taken.c.by_2])
    places = select(taken.c.id, place.label("place")).subquery()
    found: int | None = db.session.scalar(select(places.c.place).where(places.c.id == job.id))
    return found


def listening(queue: str) -> bool:
    """Whether a living worker listens to this queue."""
    alive = select(Worker.id).where(
        Worker.queues.contains([queue]),
        Worker.seen_at > func.clock_timestamp() - SILENCE,
    )
    return db.session.scalar(alive.limit(1)) is not None


def artifact_of(job: Job) -> Artifact | None:
    artifact: Artifact | None = db.session.scalar(select(Artifact).where(Artifact.job_id == job.id))
    return artifact


def artifacts_of(found: Sequence[Job]) -> dict[UUID, Artifact]:
    """The artifacts of many jobs in one query; the session has the jobs."""
    query = select(Artifact).where(Artifact.job_id.in_([job.id for job in found]))
    query = query.options(lazyload(Artifact.job))
    return {artifact.job_id: artifact for artifact in db.session.scalars(query)}


def link_url(artifact: Artifact, now: datetime | None = None) -> str | None:
    """The Link, absolute; None if it is revoked, expired, or its bytes are gone."""
    gone = artifact.removed_at or artifact.link_revoked_at or artifact.expires_at <= (now or database_now())
    return None if gone else links.url(artifact)


def imports_of(found: Sequence[Job]) -> dict[UUID | None, Import]:
    """The imports that these jobs are steps of, by their ids; one query if there is any."""
    wanted = {job.import_id for job in found if job.import_id}
    known = db.session.scalars(select(Import).where(Import.id.in_(wanted))) if wanted else ()
    return {import_.id: import_ for import_ in known}


def as_json(
    job: Job,
    artifact: Artifact | None = None,
    now: datetime | None = None,
    import_: Import | None = None,
) -> dict[str, Any]:
    """The job as the API shows it; for a list, give it the artifact, the database's time and the import."""
    ended = job.status == SUCCEEDED or (job.kind == "import" and job.final)
    artifact = artifact or (artifact_of(job) if ended else None)
    import_ = import_ or (db.session.get(Import, job.import_id) if job.import_id else None)
    return {
        "id": str(job.id),
        "kind": job.kind,
        "report": job.definition if job.kind == "export" else None,
        "title": job.title,
        "params": job.params,
        "format": job.format,
        "dialect": job.dialect,
        "compression": job.compression,
        "columns": job.columns,
        "time_zone": job.time_zone,
        "sharing": job.sharing,
        "import": _import_json(job, import_) if import_ else None,
        "status": job.status,
        "progress": {"done": job.progress_done, "total": job.progress_total, "unit": job.progress_unit},
        "attempt": job.attempt,
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "artifact": _artifact_json(artifact, now) if artifact else None,
        "created_at": events.rfc3339(job.created_at),
        "started_at": events.rfc3339(job.started_at) if job.started_at else None,
        "finished_at": events.rfc3339(job.finished_at) if job.finished_at else None,
    }


def _import_json(job: Job, import_: Import) -> dict[str, Any]:
    counts = {APPLY: import_.result, DRY_RUN: import_.forecast, UNDO: import_.undone}[job.step or APPLY]
    return {
        "id": str(import_.id),
        "importer": import_.importer,
        "step": job.step,
        "counts": counts and {name: value for name, value in counts.items() if name != "examples"},
        "paused_at": events.rfc3339(job.paused_at) if job.paused_at else None,
    }


def database_now() -> datetime:
    """The database's time: the only clock that all processes share."""
    now: datetime = db.session.scalars(select(func.clock_timestamp())).one()
    return now


def _artifact_json(artifact: Artifact, now: datetime | None) -> dict[str, Any]:
    read = artifact.snapshot_at
    return {
        "filename": artifact.filename,
        "bytes": artifact.bytes,
        "rows": artifact.rows,
        "sha256": artifact.sha256,
        "snapshot_at": events.rfc3339(read) if read else None,
        "url": (url := link_url(artifact, now)),
        "receipt_url": url and f"{url}/receipt",
        "expires_at": events.rfc3339(artifact.expires_at),
    }


class _Writing(NamedTuple):
    """How rows become the file: what a job of an export is told beside its params."""

    format: str
    dialect: str
    compression: str
    columns: list[str] | None
    time_zone: str


def _checked(
    user: User,
    report: Report,
    raw_params: Mapping[str, object],
    format: str,
    dialect: str | None,
    compression: str,
    columns: Sequence[str] | None,
    time_zone: str | None,
) -> tuple[dict[str, Any], _Writing]:
    """The frozen params, long lists still in them, and the rest; afterwards no connection is held."""
    found, dialect = formats.find(format, dialect)
    compression = _compression(report, found, compression)
    zone = user.zone if time_zone is None else zones.check(time_zone)
    params = report.params.validate(raw_params, now=database_now(), tz=zones.zone(zone))
    db.session.rollback()  # the source may be asked for its columns
    chosen = None if columns is None else choices.choose(report, columns)
    return params, _Writing(format, dialect, compression, chosen, zone)


def _compression(report: Report, format: Format, compression: str) -> str:
    """What will be done; several files are always in one zip archive. Raises InvalidRequest."""
    if not report.bundled:
        formats.check_compression(format, compression)
        return compression
    if compression not in ("none", "zip"):
        raise InvalidRequest(
            f"{report.title!r} gives several files in one zip archive. Leave {compression} out."
        )
    return "zip"


def _leader(report: Report, job: Job) -> Leader | None:
    assert job.sameness is not None
    return sharing.find_leader(db.session.connection(), job.sameness, report.freshness)


def commit_and_send(user: User, job: Job, leader: Leader | None = None) -> Job:
    """The job, or the one that the same idempotency key gave. Raises TooMany, Conflict."""
    key, asked = job.idempotency_key, job.request_sha256
    try:
        return _commit_and_send(user, job, leader)
    except IntegrityError:
        # The same key arrived twice at once, and the other one was first.
        db.session.rollback()
        if key and asked and (known := earlier(user, key, asked)):
            return known
        raise


def _commit_and_send(user: User, job: Job, leader: Leader | None = None) -> Job:
    if leader and leader.sharing == sharing.REUSED:
        return _hand_over(user, job, leader)
    check_limit(user)
    if leader:
        job.follows_id, job.sharing = leader.job_id, leader.sharing
    db.session.add(job)
    db.session.flush()
    say(job, _asked_by(user, job), QUEUED)
    if leader:
        text = "The same export is under way already: this one waits for its file."
        events.append(job.id, job.owner_id, text)
    elif not dispatch.send(job.id):
        events.append(
            job.id,
            job.owner_id,
            "The queue does not answer. The job is safe and starts when it does.",
            level="warning",
        )
    return job


def _hand_over(user: User, job: Job, leader: Leader) -> Job:
    """The job begins and ends at once, with a file that is there."""
    job.follows_id, job.sharing = leader.job_id, leader.sharing
    db.session.add(job)
    db.session.flush()
    conn = db.session.connection()
    events.write(conn, job.id, _asked_by(user, job))
    if sharing.hand_over(conn, job.id, leader) is None:
        # It expired within this second.
        db.session.rollback()
        job.follows_id = job.sharing = None
        return _commit_and_send(user, job)
    db.session.commit()
    return job


def _asked_by(user: User, job: Job) -> str:
    return f"{job.title}: asked for by {user.email}."


def say(job: Job, text: str, status: str | None) -> None:
    """Write a line in the session's transaction, commit, and only then tell the watchers."""
    line = events.write(db.session.connection(), job.id, text)
    db.session.commit()
    if line:
        events.publish_line(job.id, job.owner_id, line)
    if status:
        events.publish_status(job.id, job.owner_id, status)


def _flag_cancel(job_id: UUID) -> bool:
    flagged = db.session.execute(
        update(Job)
        .where(Job.id == job_id, Job.status == RUNNING)
        .values(cancel_requested_at=func.coalesce(Job.cancel_requested_at, func.clock_timestamp()))
        .returning(Job.id)
    ).first()
    return flagged is not None


def check_limit(user: User) -> None:
    limit = settings.current().user_running_limit
    unfinished = db.session.scalar(
        select(func.count()).where(Job.owner_id == user.id, Job.status.not_in(FINAL))
    )
    if (unfinished or 0) >= limit:
        raise TooMany(
            f"You have {unfinished} unfinished jobs; {limit} are allowed at a time. "
            "Wait for one, or cancel one.",
            retry_after=10,
        )


def earlier(user: User, idempotency_key: str, asked: str) -> Job | None:
    if len(idempotency_key) > 200:
        raise InvalidRequest("The Idempotency-Key is longer than 200 characters.")
    job: Job | None = db.session.scalar(
        select(Job).where(Job.owner_id == user.id, Job.idempotency_key == idempotency_key)
    )
    if job is not None and job.request_sha256 != asked:
        raise Conflict("This Idempotency-Key was used for another request. Use a new key for a new request.")
    if job is not None:
        job.replayed = True
    return job


def fingerprint(*request: object) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()
