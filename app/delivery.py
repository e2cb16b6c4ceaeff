"""Telling the owner that a job ended: one mail an ending.

The row in `deliveries` is made in the transaction that ends the job, so no ending is untold. A sender takes
the row by compare-and-set, sends without holding a connection, then notes the outcome. A sender that dies
between the mail server's "accepted" and that note leaves a mail that is sent again: SMTP has no way to ask.
Both copies carry one Message-ID, by which mailboxes fold them into one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any, Literal, cast

from flask import current_app
from sqlalchemy import func, select, update
from sqlalchemy.exc import SQLAlchemyError

from app import events, links, mail, settings
from app.errors import WaybillError
from app.extensions import db
from app.imports.rows import Counts
from app.models.artifact import Artifact
from app.models.delivery import Delivery
from app.models.imports import APPLY, DRY_RUN, UNDO, Import
from app.models.job import FAILED, SUCCEEDED, Job
from app.params import Param, Params
from app.params.kinds import Reference
from app.reports import registry
from app.storage import Storage

log = logging.getLogger(__name__)

# Which mail, a folder of templates/mail, tells of which ending; nobody is told what they did themselves.
NAMES = {SUCCEEDED: "ready", FAILED: "failed"}
# How long a sender keeps others off; more than it may take (mail.WHOLE).
HOLD = timedelta(minutes=5)
FIRST_PAUSE, LONGEST_PAUSE, PATIENCE = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
# Noting that a mail went out is worth waiting for: otherwise it goes out again. Tries, seconds between.
NOTES, NOTE_PAUSE = 10, 1.0
LIST_SHOWN = 5


class Pointless(WaybillError):
    """The mail would say what is no longer true."""

    code = "pointless"


class FileNotThere(WaybillError):
    """The file cannot be seen whole in the storage now, so that no mail may speak of it."""

    code = "file_not_there"
    retryable = True


@dataclass(frozen=True)
class DeliveryState:
    """What a page says of the mail on a job's ending.

    none: there is none to send. waiting: it goes out any moment. late: the mail server (or the storage) did
    not play along; `at` is the next try. sent: `at` is when. given_up: `at` is when; nobody tries again.
    `reason` is one sentence, for late and given_up.
    """

    status: Literal["none", "waiting", "late", "sent", "given_up"]
    to: str
    at: datetime | None = None
    reason: str | None = None


def state(job: Job) -> DeliveryState:
    """How telling the owner of this job's ending stands."""
    to = job.owner.email
    mails = select(Delivery).where(Delivery.job_id == job.id, Delivery.name == NAMES.get(job.status))
    delivery: Delivery | None = db.session.scalar(mails.order_by(Delivery.id.desc()).limit(1))
    if delivery is None:
        return DeliveryState("none", to)
    if delivery.sent_at:
        return DeliveryState("sent", to, delivery.sent_at)
    if delivery.given_up_at:
        return DeliveryState("given_up", to, delivery.given_up_at, delivery.last_error)
    if delivery.last_error:
        return DeliveryState("late", to, delivery.next_attempt_at, delivery.last_error)
    return DeliveryState("waiting", to)


def deliver(delivery_id: int) -> None:
    """Send the mail, unless it is sent, given up, not due, or in another sender's hands."""
    tries = _claim(delivery_id)
    if tries is None:
        return
    delivery = db.session.get_one(Delivery, delivery_id)
    try:
        with _detached():
            message = _message(delivery)
        mail.send(message)
    except WaybillError as error:
        log.warning("Delivery %d was not sent: %s (%r)", delivery_id, error, error.__cause__)
        _missed(delivery, tries, error)
    except Exception as error:
        log.exception("Delivery %d failed in a way nobody foresaw.", delivery_id)
        _missed(delivery, tries, mail.MailLate(f"The mail could not be written ({type(error).__name__})."))
    else:
        _sent(delivery)


def pause(tries: int) -> timedelta | None:
    """How long to wait after so many tries: 1, 2, 4 … 60, 60 minutes; None once these add up to a day."""
    pauses = [min(FIRST_PAUSE * 2 ** min(n, 10), LONGEST_PAUSE) for n in range(tries)]
    return pauses[-1] if sum(pauses, timedelta()) <= PATIENCE else None


def _claim(delivery_id: int) -> int | None:
    """Take the delivery for `HOLD`; the number of this try, or None if there is nothing to do."""
    with db.engine.begin() as conn:
        return conn.execute(
            update(Delivery)
            .where(
                Delivery.id == delivery_id,
                Delivery.sent_at.is_(None),
                Delivery.given_up_at.is_(None),
                Delivery.next_attempt_at <= func.clock_timestamp(),
            )
            .values(
                tries=Delivery.tries + 1,
                next_attempt_at=func.clock_timestamp() + HOLD,
                # Completed once and kept, so that all tries carry the same, whatever the settings become.
                message_id=func.replace(Delivery.message_id, "@waybill>", f"@{mail.domain()}>"),
            )
            .returning(Delivery.tries)
        ).scalar()


@contextmanager
def _detached() -> Iterator[None]:
    """Inside, rows are read; afterwards they are plain values and no connection is held."""
    try:
        yield
    finally:
        db.session.expunge_all()
        db.session.remove()


# What the mail says. Raises Pointless, or a storage's error when the file is not there yet.


def _message(delivery: Delivery) -> EmailMessage:
    job = delivery.job
    if not job.owner.active:
        raise Pointless(f"The account of {job.owner.email} is closed.")
    words = _failed(delivery) if delivery.name == "failed" else None
    if job.kind == "import":
        template = "import_failed" if words else "imported"
        words = (words or {}) | _imported(job)
    else:
        template, words = delivery.name, words or _ready(job)
    return mail.compose(
        template,
        to=job.owner.email,
        message_id=delivery.message_id,
        headers={"X-Waybill-Job": str(job.id)},
        words={
            "title": mail.one_line(job.title, 100),
            "params": _params(job),
            "job_url": f"{settings.current().public_url.rstrip('/')}/jobs/{job.id}",
            **words,
        },
    )


def _ready(job: Job) -> dict[str, Any]:
    artifact: Artifact | None = db.session.scalar(select(Artifact).where(Artifact.job_id == job.id))
    now = db.session.scalars(select(func.clock_timestamp())).one()
    if job.status != SUCCEEDED or artifact is None:
        raise Pointless("The job has no file any more.")
    if artifact.removed_at or artifact.expires_at <= now:
        raise Pointless("The file expired before a mail could be sent.")
    if artifact.link_revoked_at:
        raise Pointless("The link was revoked before a mail could be sent.")
    _there(artifact)
    signed_in = job.definition in registry() and registry().get(job.definition).link == "signed-in"
    return {
        "artifact": artifact,
        "url": links.url(artifact),
        "expires": _when(artifact.expires_at),
        "signed_in": signed_in,
    }


def _imported(job: Job) -> dict[str, Any]:
    """What a step of an import found or did, also if it stopped."""
    import_ = db.session.get_one(Import, job.import_id)
    raw = {APPLY: import_.result, DRY_RUN: import_.forecast, UNDO: import_.undone}[job.step or APPLY]
    counts = Counts.of(raw or {})
    artifact: Artifact | None = db.session.scalar(select(Artifact).where(Artifact.job_id == job.id))
    now = db.session.scalars(select(func.clock_timestamp())).one()
    good = artifact and not (artifact.removed_at or artifact.link_revoked_at) and artifact.expires_at > now
    if artifact and good:
        _there(artifact)
    changed = job.step == APPLY and counts.inserted + counts.updated > 0 and job.finished_at is not None
    kept = timedelta(hours=settings.current().retention_hours)
    return {
        "step": job.step,
        "filename": import_.upload.filename,
        "counts": counts if raw else None,
        "facts": _counted(counts, job.step or APPLY) if raw else [],
        "artifact": artifact if good else None,
        "url": links.url(artifact) if artifact and good else None,
        "expires": _when(artifact.expires_at) if artifact and good else None,
        "undo_until": _when(job.finished_at + kept) if changed and job.finished_at else None,
        "import_url": f"{settings.current().public_url.rstrip('/')}/imports/{import_.id}",
    }


def _counted(counts: Counts, step: str) -> list[tuple[str, str]]:
    """The counts in words; those of nothing are left out, but for what matters."""
    if step == UNDO:
        told = [("Put back", counts.updated), ("Removed again", counts.inserted)]
        more = [("Left alone, as edited since", counts.skipped)]
    else:
        would = "Would be " if step == DRY_RUN else ""
        names = [f"{would}{word}" for word in ("inserted", "updated", "refused")]
        figures = (counts.inserted, counts.updated, counts.refused)
        told = [("Rows read", counts.read)]
        told += [(name.capitalize(), figure) for name, figure in zip(names, figures, strict=True)]
        more = [("Unchanged", counts.unchanged), ("Left alone", counts.skipped)]
        more.append(("Replaced by a later line", counts.superseded))
    return [(name, f"{figure:,}") for name, figure in [*told, *(pair for pair in more if pair[1])]]


def _there(artifact: Artifact) -> None:
    """No mail speaks of a file that is not there, whole."""
    storage = cast(Storage, current_app.extensions["waybill.storage"])
    try:
        found = storage.stat(artifact.key).bytes
    except WaybillError as error:
        raise FileNotThere(error.message) from error
    if found != artifact.bytes:
        raise FileNotThere(f"The storage holds {found:,} bytes of a file that has {artifact.bytes:,}.")


def _failed(delivery: Delivery) -> dict[str, Any]:
    job = delivery.job
    if job.status != FAILED or job.attempt != delivery.attempt:
        raise Pointless("The job was tried again before a mail could be sent.")
    reason = mail.one_line(job.error_message or "The job stopped.", 1000)
    return {"reason": reason, "tries": job.attempt - job.forgiven}


def _params(job: Job) -> list[tuple[str, str]]:
    """Label and value of every param that was filled in, in words and in the order of asking."""
    known = registry().get(job.definition).params if job.definition in registry() else Params()
    filled = {name: value for name, value in job.params.items() if value not in (None, "", [])}
    asked = [(param.label, _spoken(filled.pop(param.name), param)) for param in known if param.name in filled]
    # The report may have changed since: a param it no longer has goes by its name.
    return asked + [(name, _spoken(value)) for name, value in filled.items()]


def _spoken(value: Any, param: Param | None = None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if kept := Reference.of(value):
        return f"{kept.count:,} values"
    if isinstance(value, list):
        more = len(value) - LIST_SHOWN
        shown = ", ".join(mail.one_line(str(item), 60) for item in value[:LIST_SHOWN])
        return f"{shown} and {more:,} more" if more > 0 else shown
    labels = {choice.value: choice.label for choice in param.choices} if param else {}
    return mail.one_line(labels.get(str(value), str(value)), 200)


def _when(at: datetime) -> str:
    """Saturday 31 January 2026, 09:15 UTC."""
    at = at.astimezone(UTC)
    return f"{at:%A} {at.day} {at:%B %Y, %H:%M} UTC"


# How a try ends.


def _sent(delivery: Delivery) -> None:
    for left in reversed(range(NOTES)):
        try:
            noted = _note(delivery.id, sent_at=func.clock_timestamp(), error_code=None, last_error=None)
            break
        except SQLAlchemyError as error:
            if not left:
                raise
            log.warning("Delivery %d is sent, but the database does not answer (%s).", delivery.id, error)
            time.sleep(NOTE_PAUSE)
    if noted:
        _say(delivery, f"Mail sent to {delivery.job.owner.email}.", "info")


def _missed(delivery: Delivery, tries: int, error: WaybillError) -> None:
    """Wait in the database for the next try, or give up; the job's log hears of each reason once."""
    wait = pause(tries) if error.retryable else None
    why = {"error_code": error.code, "last_error": error.message}
    if wait is None:
        if _note(delivery.id, tries, given_up_at=func.clock_timestamp(), **why):
            level = "info" if isinstance(error, Pointless) else "error"
            _say(delivery, f"No mail was sent to {delivery.job.owner.email}. {error.message}", level)
    else:
        due = func.clock_timestamp() + wait
        at = _note(delivery.id, tries, next_attempt_at=due, **why)
        if at and error.message != delivery.last_error:
            text = f"{error.message} The mail is late; it is tried again at {at:%H:%M:%S} UTC."
            _say(delivery, text, "warning")


def _note(delivery_id: int, tries: int | None = None, **values: Any) -> datetime | None:
    """Note an outcome; None if it came too late: the mail is sent, or a later try (not `tries`) goes on."""
    where = [Delivery.id == delivery_id, Delivery.sent_at.is_(None)]
    if tries is not None:
        where += [Delivery.tries == tries, Delivery.given_up_at.is_(None)]
    with db.engine.begin() as conn:
        at = conn.execute(
            update(Delivery).where(*where).values(**values).returning(Delivery.next_attempt_at)
        ).scalar()
    return at.astimezone(UTC) if at else None


def _say(delivery: Delivery, text: str, level: str) -> None:
    events.append(delivery.job_id, delivery.job.owner_id, text, level=level)
