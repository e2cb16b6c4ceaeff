"""What is no longer needed: expired files, objects that belong to nothing, old rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import cast
from uuid import UUID

from flask import current_app
from sqlalchemy import Text, and_, delete, exists, func, or_, select, update
from sqlalchemy import cast as cast_sql

from app import events, lists, receipts, settings, uploads
from app.extensions import db, redis_client
from app.models.artifact import Artifact
from app.models.clock import Clock
from app.models.event import Event
from app.models.job import FINAL, RUNNING, Job
from app.models.session import SignIn, SignInLink
from app.models.upload import Upload
from app.models.worker import Worker
from app.storage import Stat, Storage
from app.sweep.batches import BATCH, each, first

# Objects that belong to nothing stay for so long, and so do uploads that nobody writes to.
ORPHAN_AGE = timedelta(hours=1)
# Dead workers and dead sign-ins are remembered for a day.
REMEMBERED = timedelta(days=1)
# Listing the storage and looking through old rows is one clock's turn, then nobody's for so many seconds.
TURN_SECONDS = 600
# Jobs whose lines are deleted in one transaction.
PRUNED_JOBS = 50


def ask_storage() -> int:
    """Raises what keeps the storage from being written to, so that it is known before a job meets it."""
    _storage().check()
    return 0


def expired_artifacts() -> int:
    """Take away the bytes of expired artifacts; their rows stay, and the receipts in them.

    Jobs that share a file expire one by one, and the bytes go with the last: a new one may share the file
    only while one that has it is not expired, so no lock is needed.
    """
    expired = select(Artifact.id).where(
        Artifact.removed_at.is_(None), Artifact.expires_at <= func.clock_timestamp()
    )
    return each(first(expired.order_by(Artifact.expires_at)), _remove)


def _remove(artifact_id: UUID) -> bool:
    with db.engine.connect() as conn:
        key = conn.execute(select(Artifact.key).where(Artifact.id == artifact_id)).scalar_one()
        living = (Artifact.removed_at.is_(None), Artifact.expires_at > func.clock_timestamp())
        shared = conn.execute(select(Artifact.id).where(Artifact.key == key, *living).limit(1)).first()
    if not shared:
        receipts.delete(key)
    with db.engine.begin() as conn:
        job = conn.execute(
            update(Artifact)
            .where(Artifact.id == artifact_id, Artifact.removed_at.is_(None), Job.id == Artifact.job_id)
            .values(removed_at=func.clock_timestamp())
            .returning(Job.id, Job.owner_id)
        ).first()
    if job:
        events.append(job.id, job.owner_id, "The file expired and was removed; its receipt stays.")
    return job is not None


def abandoned_uploads() -> int:
    """End uploads whose writer was killed.

    A living one waits for its source as long as a query may take, and a report in Python may take its time
    over each row: what was written to since the oldest job at work began is left alone.
    """
    patience = timedelta(seconds=settings.current().statement_timeout_seconds)
    working = select(func.max(func.clock_timestamp() - Job.started_at)).where(Job.status == RUNNING)
    with db.engine.connect() as conn:
        longest = conn.execute(working).scalar() or timedelta(0)
    return _storage().clean(max(patience, longest) + ORPHAN_AGE)


def orphans() -> int:
    """Delete objects that belong to no artifact and to no unfinished job.

    A storage's prefix therefore belongs to one Waybill alone: another's objects would be orphans here.
    """
    storage = _storage()
    removed = 0
    for found in _batched(storage.list("artifacts/", older_than=ORPHAN_AGE)):
        for key in _unwanted([stat.key for stat in found]):
            storage.delete(key)
            removed += 1
    return removed


def _unwanted(keys: Sequence[str]) -> list[str]:
    """Asked after the storage was listed: a job that published meanwhile has its artifact by now."""
    owners = {key: job_id for key in keys if (job_id := _owner_id(key))}
    artifacts = {key.removesuffix(receipts.SUFFIX) for key in owners}
    kept = select(Artifact.key).where(Artifact.key.in_(artifacts), Artifact.removed_at.is_(None))
    unfinished = select(Job.id).where(Job.id.in_(set(owners.values())), Job.status.not_in(FINAL))
    with db.engine.connect() as conn:
        # In this order: whoever is not at work any more has its artifact by now.
        at_work = set(conn.execute(unfinished).scalars())
        wanted = set(conn.execute(kept).scalars())
    return [
        key
        for key, job_id in owners.items()
        if key.removesuffix(receipts.SUFFIX) not in wanted and job_id not in at_work
    ]


def old_lists(age: timedelta | None = None) -> int:
    """Delete lists that no unfinished job has and nobody used for `age`, else as long as a file lives."""
    storage = _storage()
    if age is None:
        age = max(ORPHAN_AGE, timedelta(hours=settings.current().retention_hours))
    removed = 0
    for found in _batched(storage.list(lists.PREFIX, older_than=age)):
        with db.engine.connect() as conn:
            query = select(cast_sql(Job.params, Text)).where(Job.status.not_in(FINAL))
            wanted = " ".join(conn.execute(query).scalars())
        for stat in found:
            if stat.key.removeprefix(lists.PREFIX) not in wanted:
                storage.delete(stat.key)
                removed += 1
    return removed


def expired_uploads() -> int:
    """Take away the bytes of uploads that nothing needs any more; their rows stay."""
    return each(first(select(Upload.id).where(uploads.expired()).order_by(Upload.expires_at)), uploads.expire)


def orphaned_blocks() -> int:
    """Delete blocks of uploads that are gone, and those that never got into their upload's row."""
    storage = _storage()
    removed = 0
    for found in _batched(storage.list("uploads/", older_than=ORPHAN_AGE)):
        for key in _unwanted_blocks([stat.key for stat in found]):
            storage.delete(key)
            removed += 1
    return removed


def _unwanted_blocks(keys: Sequence[str]) -> list[str]:
    """Asked after the storage was listed, as above. What was made of a living upload is kept with it."""
    owners = {key: upload_id for key in keys if (upload_id := _owner_id(key))}
    living = select(Upload.id, Upload.names).where(
        Upload.id.in_(set(owners.values())), Upload.removed_at.is_(None)
    )
    with db.engine.connect() as conn:
        names = {row.id: set(row.names) for row in conn.execute(living)}
    return [key for key, upload_id in owners.items() if not _is_wanted(key, names.get(upload_id))]


def _is_wanted(key: str, names: set[str] | None) -> bool:
    name = key.split("/", 2)[2]
    return names is not None and ("/" in name or name in names)


def _owner_id(key: str) -> UUID | None:
    """Whose object this is, by its key's second part; None for a file that Waybill never made."""
    try:
        return UUID(key.split("/")[1])
    except (ValueError, IndexError):
        return None


def _batched(stats: Iterator[Stat]) -> Iterator[list[Stat]]:
    while batch := list(islice(stats, BATCH)):
        yield batch


def old_events() -> int:
    """Delete the log lines of jobs that finished long ago; returns how many lines."""
    age = timedelta(days=settings.current().events_retention_days)
    # Not the last line: it says how the job ended.
    spent = and_(Event.job_id == Job.id, Event.number < Job.last_event)
    old = select(Job.id).where(
        Job.status.in_(FINAL), Job.finished_at < func.clock_timestamp() - age, exists().where(spent)
    )
    pruned = 0
    while job_ids := first(old, PRUNED_JOBS):
        with db.engine.begin() as conn:
            pruned += conn.execute(delete(Event).where(Event.job_id.in_(job_ids), spent)).rowcount
    return pruned


def old_rows() -> int:
    """Forget workers and clocks that are long dead, sign-ins that ended and sign-in links that expired."""
    then = func.clock_timestamp() - REMEMBERED
    with db.engine.begin() as conn:
        return sum(
            conn.execute(statement).rowcount
            for statement in (
                delete(Worker).where(Worker.seen_at < then),
                delete(Clock).where(Clock.seen_at < then),
                delete(SignIn).where(or_(SignIn.ended_at < then, SignIn.expires_at < then)),
                delete(SignInLink).where(SignInLink.expires_at < then),
            )
        )


def in_turn(step: Callable[[], int]) -> Callable[[], int]:
    """The step, but among all clocks only once in `TURN_SECONDS`; it says 0 in between."""

    def taking_turns() -> int:
        key = f"waybill:turn:{step.__name__}"
        if not redis_client().set(key, 1, nx=True, ex=TURN_SECONDS):
            return 0
        try:
            return step()
        except Exception:
            redis_client().delete(key)
            raise

    return taking_turns


def _storage() -> Storage:
    return cast(Storage, current_app.extensions["waybill.storage"])
