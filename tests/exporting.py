"""Exports made in the test's own process: ask for one, run an attempt of it, look at its file."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from flask import current_app

from app import events, exports, jobs, leases
from app.extensions import db
from app.models import Artifact, Job
from app.reports import Registry
from app.storage import Storage


@contextmanager
def clean(app: Any) -> Iterator[None]:
    """The app's context over an empty storage."""
    with app.app_context():
        for stat in list(storage().list("")):
            storage().delete(stat.key)
        yield
        db.session.remove()


def adder(app: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """add("name.sql", text): a report of one's own in the app."""

    def add(name: str, text: str) -> None:
        (folder / name).write_text(dedent(text).lstrip())
        registry = Registry.load(str(folder), sources=app.config["WAYBILL"].source_urls)
        registry.check()
        monkeypatch.setitem(app.extensions, "waybill.reports", registry)

    return add


def make(user: Any, key: str, **options: Any) -> Job:
    """Ask for an export, run one attempt of it here, and give the job as it is then."""
    options.setdefault("fresh", True)
    return attempt(jobs.request_export(db.session.merge(user), key, options.pop("params", {}), **options).id)


def attempt(job_id: Any) -> Job:
    db.session.remove()
    lease = leases.claim(job_id)
    assert lease is not None
    exports.run(lease)
    db.session.remove()
    return db.session.get_one(Job, job_id)


def artifact(job: Job) -> tuple[Artifact, bytes]:
    assert job.status == "succeeded", job.error_message
    found = jobs.artifact_of(job)
    assert found is not None
    return found, b"".join(storage().open(found.key))


def storage() -> Storage:
    opened: Storage = current_app.extensions["waybill.storage"]
    return opened


def lines(job: Job) -> list[str]:
    return [line.text for line in events.after(job.id, 0)]


def opened(content: bytes) -> zipfile.ZipFile:
    """The archive, whole."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.testzip() is None
    return archive


def table(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))
