"""The mail about a step of an import: what came of it, the refused rows, how long it can be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from apiflask import APIFlask

from app import delivery, leases
from app.dev.mailbox import Mailbox
from app.extensions import db
from app.models import Artifact, Delivery, Job
from app.models.imports import Import
from app.models.upload import Upload
from app.storage import artifact_key

NOW = sa.func.clock_timestamp()
TITLES = {"apply": "Import: Members", "dry-run": "Dry run: Members", "undo": "Undo: Members"}
COUNTS = {"read": 5_000_000, "inserted": 4_200_000, "updated": 650_000, "unchanged": 149_753, "refused": 247}

Told = Callable[..., Any]


@pytest.fixture(autouse=True)
def context(app: APIFlask) -> Iterator[None]:
    with app.app_context():
        yield


@pytest.fixture
def told(app: APIFlask, member: Any, mailbox: Mailbox) -> Told:
    """told("apply", result={…}): the mail about a step that ended just now; `file` says that there is one."""

    def tell(step: str, *, name: str = "ready", file: bool = True, error: str = "", **known: Any) -> Any:
        upload = Upload(
            id=uuid4(), owner_id=member.id, filename="members.csv", expires_at=NOW, names=[], sizes=[]
        )
        import_ = Import(
            id=uuid4(),
            owner_id=member.id,
            importer="members",
            title="Members",
            upload_id=upload.id,
            dialect={},
            header=[],
            mapping={},
            mode="upsert",
            **known,
        )
        job_id = uuid4()
        db.session.add(upload)
        db.session.flush()
        db.session.add(import_)
        db.session.flush()
        job = Job(
            id=job_id,
            kind="import",
            definition="members",
            title=TITLES[step],
            owner_id=member.id,
            status={"ready": "succeeded", "failed": "failed"}[name],
            attempt=1,
            finished_at=NOW,
            import_id=import_.id,
            step=step,
            error_message=error,
        )
        db.session.add(job)
        db.session.flush()
        if file:
            _publish(app, job_id)
        leases.announce(db.session.connection(), job_id, 1, name)
        db.session.commit()
        delivery.deliver(db.session.scalars(sa.select(Delivery.id)).one())
        return mailbox.wait(to=member.email)

    return tell


def _publish(app: APIFlask, job_id: Any) -> None:
    key = artifact_key(job_id, 1, "csv")
    with app.extensions["waybill.storage"].writer(key, content_type="text/csv", filename="x.csv") as writer:
        writer.write(b"email\r\n")
        writer.commit()
    db.session.add(
        Artifact(
            job_id=job_id,
            key=key,
            filename="members-refused.csv",
            content_type="text/csv",
            bytes=7,
            rows=247,
            sha256="ab" * 32,
            receipt={},
            expires_at=NOW + sa.text("interval '1 day'"),
        )
    )


def test_an_import_that_is_done(told: Told) -> None:
    mail = told("apply", result=COUNTS)
    assert mail.subject == "Done: Import: Members, 247 rows refused"
    for part in (mail.text, mail.html):
        assert "members.csv" in part
        assert "4,200,000" in part
        assert "247" in part
        assert "/d/" in part
        assert "/imports/" in part
        assert "undone until" in part


def test_an_import_without_a_refused_row(told: Told) -> None:
    mail = told("apply", file=False, result=COUNTS | {"refused": 0})
    assert mail.subject == "Done: Import: Members"
    for part in (mail.text, mail.html):
        assert "/d/" not in part
        assert "/jobs/" in part


def test_an_import_that_changed_nothing_speaks_of_no_undo(told: Told) -> None:
    mail = told("apply", file=False, result={"read": 2, "unchanged": 2})
    assert "undone until" not in mail.text


def test_a_dry_run(told: Told) -> None:
    mail = told("dry-run", forecast=COUNTS)
    for part in (mail.text, mail.html):
        assert "Nothing was written" in part
        assert "Would be inserted" in part
        assert "undone until" not in part


def test_an_undo_that_left_rows_alone(told: Told) -> None:
    mail = told("undo", result=COUNTS, undone={"updated": 9, "inserted": 4, "skipped": 2})
    assert "2 rows left alone" in mail.subject
    for part in (mail.text, mail.html):
        assert "Put back" in part
        assert "/d/" in part


def test_one_that_stopped_says_why_and_what_is_in(told: Told) -> None:
    mail = told("apply", name="failed", result=COUNTS, error="More than 5 % of the rows were refused.")
    assert mail.subject == "Stopped: Import: Members"
    for part in (mail.text, mail.html):
        assert "More than 5 %" in part
        assert "stays in" in part
        assert "4,200,000" in part
        assert "/d/" in part


def test_a_dry_run_that_failed(told: Told) -> None:
    mail = told("dry-run", name="failed", file=False, error="The source does not answer.")
    assert mail.subject == "Failed: Dry run: Members"
    assert "Nothing was written" in mail.text
