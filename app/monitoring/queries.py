"""The state of the installation, asked from its database alone, in a few cheap queries.

They have a connection of their own: when all others are in use, one must see it all the more. All together
have `PATIENCE` seconds, so that whoever asks is told soon that the database does not answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from flask import current_app
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    cast,
    create_engine,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import aliased
from sqlalchemy.pool import NullPool

from app import settings
from app.models import job as jobs
from app.models.artifact import Artifact
from app.models.clock import PROMPT, SLOW, Clock
from app.models.delivery import Delivery
from app.models.imports import APPLY, Import
from app.models.job import FAILED, FINAL, QUEUED, RUNNING, SUCCEEDED, Job
from app.models.upload import Upload
from app.models.worker import Worker
from app.monitoring.state import (
    FORGOTTEN,
    ClockState,
    Ended,
    Failures,
    Kept,
    Mails,
    Overdue,
    Queue,
    Stopped,
    WorkerState,
)

# Seconds: to reach the database, and for all answers together.
CONNECTING, PATIENCE = 3, 5.0
# A host that is gone is noticed when it is silent for about as long.
CONNECTED = {
    "connect_timeout": CONNECTING,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": round(PATIENCE * 1000),
}
# What is finished is told of for so long, and what is going wrong now is that of the last hour.
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
Query = Select[*tuple[Any, ...]]


class Asker:
    """Puts queries one after the other, each with what is left of the time for all."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._ends = time.monotonic() + PATIENCE
        self.now: datetime = self.rows(select(func.clock_timestamp()))[0][0]

    def rows(self, query: Query) -> Sequence[Any]:
        # 0 would be "no limit".
        left = max(round((self._ends - time.monotonic()) * 1000), 1)
        self._conn.execute(select(func.set_config("statement_timeout", str(left), True)))
        return self._conn.execute(query).all()

    def since(self, at: datetime | None) -> float:
        """Seconds; 0.0 for never."""
        return max((self.now - at).total_seconds(), 0.0) if at else 0.0


@contextmanager
def asking() -> Iterator[Asker]:
    """Everything is asked of one snapshot. Raises OperationalError: no answer in time."""
    with _engine().connect() as conn:
        yield Asker(conn)


def _engine() -> Engine:
    """One an app; it keeps no connection open."""
    extensions = current_app.extensions
    if "waybill.monitoring" not in extensions:
        extensions["waybill.monitoring"] = create_engine(
            settings.current().database_url,
            poolclass=NullPool,
            isolation_level="REPEATABLE READ",
            connect_args=CONNECTED | {"application_name": "waybill monitoring"},
        )
    found: Engine = extensions["waybill.monitoring"]
    return found


def queues(ask: Asker, names: Sequence[str], listening: Sequence[WorkerState]) -> list[Queue]:
    """Those of `names`, in that order, and any other that something is on; mails wait on the first."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    for row in ask.rows(_unfinished()):
        found.setdefault(row.queue, []).append(row)
    mails, oldest = ask.rows(_unsent())[0]
    return [
        _queue(ask, name, rows, listening, *((mails, oldest) if name == names[0] else (0, None)))
        for name, rows in found.items()
    ]


def _unfinished() -> Query:
    since = func.greatest(Job.created_at, Job.next_attempt_at)
    due = jobs.due()
    return (
        select(
            Job.queue,
            Job.size,
            func.count().filter(due).label("due"),
            func.count().filter(Job.status == QUEUED, ~due).label("later"),
            func.count().filter(Job.status == RUNNING).label("running"),
            func.min(since).filter(due).label("waiting_since"),
        )
        .where(Job.status.in_((QUEUED, RUNNING)))
        .group_by(Job.queue, Job.size)
        .order_by(Job.queue, Job.size)
    )


def _open_mail() -> ColumnElement[bool]:
    return and_(Delivery.sent_at.is_(None), Delivery.given_up_at.is_(None))


def _unsent() -> Query:
    untried = (Delivery.tries == 0, Delivery.next_attempt_at <= func.clock_timestamp())
    return select(func.count(), func.min(Delivery.next_attempt_at)).where(_open_mail(), *untried)


def _queue(
    ask: Asker,
    name: str,
    rows: Sequence[Any],
    listening: Sequence[WorkerState],
    mails: int,
    mail_since: datetime | None,
) -> Queue:
    who = [worker for worker in listening if name in worker.queues and not worker.silent]
    waits = [ask.since(row.waiting_since) for row in rows]
    return Queue(
        name,
        due={row.size: row.due for row in rows},
        running={row.size: row.running for row in rows},
        later=sum(row.later for row in rows),
        mails=mails,
        longest_wait=max([*waits, ask.since(mail_since)]),
        workers=len(who),
        threads=sum(worker.threads for worker in who),
    )


def workers(ask: Asker) -> list[WorkerState]:
    """Those that were seen lately, with the jobs that they hold."""
    held = select(Job.worker, func.count().label("jobs")).where(Job.status == RUNNING).group_by(Job.worker)
    holds = held.subquery()
    query = (
        select(Worker, func.coalesce(holds.c.jobs, 0).label("jobs"))
        .outerjoin(holds, holds.c.worker == Worker.id)
        .where(Worker.seen_at > func.clock_timestamp() - FORGOTTEN)
        .order_by(Worker.started_at, Worker.id)
    )
    return [
        WorkerState(row.id, tuple(row.queues), row.threads, row.started_at, row.jobs, ask.since(row.seen_at))
        for row in ask.rows(query.with_only_columns(*Worker.__table__.c, query.selected_columns.jobs))
    ]


def overdue(ask: Asker) -> Overdue:
    query = select(func.count(), func.min(Job.lease_expires_at)).where(jobs.lapsed())
    count, since = ask.rows(query)[0]
    return Overdue(count, ask.since(since))


def ended(ask: Asker) -> list[Ended]:
    query = (
        select(Job.kind, Job.definition, Job.status, func.count())
        .where(Job.finished_at > func.clock_timestamp() - DAY)
        .group_by(Job.kind, Job.definition, Job.status)
        .order_by(Job.kind, Job.definition, Job.status)
    )
    return [Ended(*row) for row in ask.rows(query)]


def failures(ask: Asker) -> list[Failures]:
    """Most first."""
    now = func.clock_timestamp()
    why = (Job.kind, Job.definition, Job.error_code)
    within = func.count().filter(Job.finished_at > now - HOUR).over(partition_by=why)
    count = func.count().over(partition_by=why)
    each = (
        select(
            *(Job.kind, Job.definition, Job.title, Job.error_code),
            *(count.label("jobs"), within.label("recent")),
            *(Job.finished_at, Job.id, Job.error_message),
        )
        .where(Job.finished_at > now - DAY, Job.status == FAILED)
        .ext(distinct_on(*why))
        .order_by(*why, Job.finished_at.desc())
    )
    found = [
        Failures(kind, definition, title, code or "unknown", count, recent, at, job_id, message or "")
        for kind, definition, title, code, count, recent, at, job_id, message in ask.rows(each)
    ]
    return sorted(found, key=lambda one: (-one.jobs, one.title, one.code))


def mails(ask: Asker) -> Mails:
    late = (_open_mail(), Delivery.last_error.is_not(None))
    given_up = (
        Delivery.given_up_at > func.clock_timestamp() - DAY,
        Delivery.error_code.is_distinct_from("pointless"),
    )
    late_count, since = ask.rows(select(func.count(), func.min(Delivery.created_at)).where(*late))[0]
    lost_count = ask.rows(select(func.count()).where(*given_up))[0][0]
    last_late = select(Delivery.last_error).where(*late).order_by(Delivery.next_attempt_at.desc())
    last_lost = select(Delivery.last_error, Delivery.job_id).where(*given_up)
    last_lost = last_lost.order_by(Delivery.given_up_at.desc())
    late_row = ask.rows(last_late.limit(1))[0] if late_count else ("",)
    lost_row = ask.rows(last_lost.limit(1))[0] if lost_count else ("", None)
    return Mails(late_count, ask.since(since), late_row[0], lost_count, lost_row[0] or "", lost_row[1])


def stopped(ask: Asker) -> Stopped:
    """Begun, failed, nothing of it at work or undone, and its upload is still there to go on from."""
    later = aliased(Job)
    latest = ~exists().where(
        later.import_id == Import.id,
        or_(later.status.not_in(FINAL), later.created_at > Job.created_at, later.status == SUCCEEDED),
        or_(later.status.not_in(FINAL), later.step == APPLY),
    )
    counts = [
        func.coalesce(cast(Import.result[name].astext, BigInteger), 0) for name in ("inserted", "updated")
    ]
    # Whose worker died has left no counts.
    changed = or_(Import.result.is_(None), counts[0] + counts[1] > 0)
    query = (
        select(Job.id, Import.title)
        .join(Import, Import.id == Job.import_id)
        .join(Upload, Upload.id == Import.upload_id)
        .where(
            *(Job.step == APPLY, Job.status == FAILED, Job.attempt > 0, latest, changed),
            *(Import.forgotten_at.is_(None), Import.undone.is_(None), Upload.removed_at.is_(None)),
        )
        .order_by(Job.finished_at.desc())
    )
    found = ask.rows(query)
    return Stopped(len(found), found[0].id, found[0].title) if found else Stopped()


def kept(ask: Asker) -> Kept:
    files = select(Artifact.key, Artifact.bytes).where(Artifact.removed_at.is_(None)).distinct().subquery()
    number = func.unnest(Upload.sizes).column_valued("size")
    size = select(func.sum(number)).scalar_subquery()
    total = func.coalesce(func.sum(files.c.bytes), 0)
    uploaded = select(func.count(), func.coalesce(func.sum(size), 0)).where(Upload.removed_at.is_(None))
    artifacts, bytes = ask.rows(select(func.count(), total).select_from(files))[0]
    uploads, upload_bytes = ask.rows(uploaded)[0]
    return Kept(artifacts, int(bytes), uploads, int(upload_bytes))


def clock(ask: Asker) -> ClockState:
    rows = ask.rows(select(Clock.passes, Clock.seen_at, Clock.failing).order_by(Clock.seen_at.desc()))
    last = {passes: next((row for row in rows if row.passes == passes), None) for passes in (PROMPT, SLOW)}
    silent = {passes: None if row is None else ask.since(row.seen_at) for passes, row in last.items()}
    failing = {name: why for row in last.values() if row for name, why in row.failing.items()}
    return ClockState(silent[PROMPT], silent[SLOW], failing)
