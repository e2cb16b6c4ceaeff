"""The storage fails while a file is applied: what is in is told, and nothing is lost or done twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app import jobs, leases, storage, uploads
from app.errors import StorageFull, StorageRefused, StorageUnavailable
from app.extensions import db
from app.imports import apply
from app.models import Import, Job
from app.storage.local import Local
from tests.importing import Landing, text_of
from tests.waiting import until

ROWS = 400
# Refused by the file's own check, spread over the whole of it.
BAD = 8


class Faulty(Local):
    """A folder that fails while there is an error: at reading behind the first `reads`, and at writing."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reading: Exception | None = None
        self.writing: Exception | None = None
        self.reads = 0
        # Seconds that the next readings take.
        self.slow: list[float] = []
        self.before_writing: Callable[[], None] = lambda: None

    def open(self, key: str, start: int = 0, end: int | None = None) -> Any:
        if self.slow:
            time.sleep(self.slow.pop())
        if self.reading:
            self.reads -= 1
            if self.reads < 0:
                raise self.reading
        return super().open(key, start, end)

    def writer(self, key: str, **options: Any) -> Any:
        self.before_writing()
        if self.writing:
            raise self.writing
        return super().writer(key, **options)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else listens: the conductor applies the chunks itself, and need not wait for others first."""
    monkeypatch.setattr(apply, "LOOK_ROUND", 0.0)
    monkeypatch.setattr(apply, "GLANCE", 0.001)


@pytest.fixture
def faulty(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    found = Faulty(tmp_path)
    monkeypatch.setitem(app.extensions, "waybill.storage", found)
    return found


@pytest.fixture
def undisturbed(landing: Landing) -> str:
    """What the table is like after an import that nothing stood in the way of."""
    landing.apply(spoilt())
    digest = landing.digest()
    landing.conn.execute("TRUNCATE landing.things")
    return digest


def spoilt() -> str:
    head, *lines = text_of(ROWS).splitlines()
    bad = [f"x{n},Bad,1,2026-01-01,,yes,bad" for n in range(BAD)]
    # Only where a record begins: some have line breaks.
    places = [n for n, line in enumerate(lines) if line[0].isdigit()]
    for place, line in zip(reversed(places[:: len(places) // BAD][:BAD]), bad, strict=True):
        lines.insert(place, line)
    return "\n".join([head, *lines]) + "\n"


def once_more(landing: Landing, job_id: UUID) -> Job:
    """What a person asks for, and then the attempt."""
    jobs.retry(db.session.get_one(Job, job_id))
    return landing.run(job_id)


def by_itself(landing: Landing, job_id: UUID) -> Job:
    """The attempt that follows, without the pause before it."""
    job = db.session.get_one(Job, job_id)
    assert job.status == "queued", job.error_message
    job.next_attempt_at = None
    db.session.commit()
    return landing.run(job_id)


def inside(landing: Landing) -> int:
    """How many rows are in: always a beginning of the file."""
    ids = [row[0] for row in landing.rows("SELECT id FROM landing.things ORDER BY id")]
    assert ids == list(range(1, len(ids) + 1))
    return len(ids)


def check_whole(landing: Landing, job: Job, undisturbed: str) -> None:
    assert job.status == "succeeded", landing.log(job.id)
    assert landing.digest() == undisturbed
    assert landing.result(job)["inserted"] == ROWS
    artifact = jobs.artifact_of(job)
    assert artifact is not None
    assert artifact.rows == landing.result(job)["refused"] == BAD
    assert len(b"".join(storage.current().open(artifact.key)).splitlines()) == BAD + 1


def test_a_storage_that_refuses_to_be_read(landing: Landing, undisturbed: str, faulty: Faulty) -> None:
    job_id = landing.ask(spoilt())
    faulty.reading, faulty.reads = StorageRefused("The storage refuses."), 5
    job = landing.run(job_id)
    assert (job.status, job.error_code) == ("failed", "storage_refused")
    begun = inside(landing)
    assert 0 < begun < ROWS
    assert str(job.error_message).startswith("The storage refuses. All before line ")
    assert f"({begun:,} inserted, 0 updated), and nothing behind it." in str(job.error_message)
    assert landing.result(job)["inserted"] == begun
    faulty.reading = None
    check_whole(landing, once_more(landing, job_id), undisturbed)


def test_a_storage_that_refuses_everything(landing: Landing, undisturbed: str, faulty: Faulty) -> None:
    """What is in is told although not even the refused rows can be written."""
    job_id = landing.ask(spoilt())
    faulty.reading, faulty.reads = StorageRefused("The storage refuses."), 5
    faulty.writing = StorageUnavailable("It is away.")
    job = landing.run(job_id)
    assert (job.status, job.error_code) == ("failed", "storage_refused")
    assert f"({inside(landing):,} inserted, 0 updated), and nothing behind it." in str(job.error_message)
    assert str(job.error_message).endswith("The file of refused rows could not be written: It is away.")
    assert jobs.artifact_of(job) is None
    faulty.reading = faulty.writing = None
    check_whole(landing, once_more(landing, job_id), undisturbed)


def test_a_storage_that_is_slow(landing: Landing, undisturbed: str, faulty: Faulty, app: Any) -> None:
    """Slower than the lease lasts: the attempt keeps its hold, and is the only one."""
    app.config["WAYBILL"] = replace(app.config["WAYBILL"], lease_seconds=3)
    job_id = landing.ask(spoilt())
    faulty.slow = [0.1, 5.0, 0.1, 0.1]
    job = landing.run(job_id)
    check_whole(landing, job, undisturbed)
    assert (job.attempt, faulty.slow) == (1, [])


def test_a_storage_that_comes_back(landing: Landing, undisturbed: str, faulty: Faulty) -> None:
    job_id = landing.ask(spoilt())
    faulty.reading, faulty.reads = StorageUnavailable("It is away."), 5
    landing.run(job_id)
    begun = inside(landing)
    assert 0 < begun < ROWS
    faulty.reads = 0
    by_itself(landing, job_id)
    assert inside(landing) == begun
    faulty.reading = None
    check_whole(landing, by_itself(landing, job_id), undisturbed)
    assert any(line.startswith("Going on at line ") for line in landing.log(job_id))


def test_a_storage_that_stays_away(landing: Landing, undisturbed: str, faulty: Faulty, app: Any) -> None:
    job_id = landing.ask(spoilt())
    faulty.reading, faulty.reads = StorageUnavailable("It is away."), 5
    job = landing.run(job_id)
    begun = inside(landing)
    for _ in range(app.config["WAYBILL"].attempts_limit - 1):
        job = by_itself(landing, job_id)
    assert (job.status, job.error_code) == ("failed", "storage_unavailable")
    assert f"({begun:,} inserted, 0 updated), and nothing behind it." in str(job.error_message)
    assert landing.result(job)["inserted"] == begun
    faulty.reading = None
    check_whole(landing, once_more(landing, job_id), undisturbed)


def test_a_part_of_the_upload_is_missing(
    landing: Landing, undisturbed: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (uploads, storage):
        monkeypatch.setattr(module, "BLOCK", 10_000)
    job_id = landing.ask(spoilt())
    upload = db.session.get_one(Import, db.session.get_one(Job, job_id).import_id).upload
    sizes, lost = list(upload.sizes), faulty.root / uploads.key(upload.id, upload.names[1])
    assert len(sizes) >= 3
    kept = lost.read_bytes()
    lost.unlink()
    job = landing.run(job_id)
    assert (job.status, job.error_code) == ("failed", "object_missing")
    begun = inside(landing)
    assert begun < ROWS
    text = spoilt().encode()
    assert begun <= text[: sizes[0]].count(b",Thing ")
    assert "A part of the uploaded file is missing from the storage" in str(job.error_message)
    if begun:
        assert f"({begun:,} inserted, 0 updated), and nothing behind it." in str(job.error_message)
    else:
        assert str(job.error_message).endswith("Nothing of the file is in.")
    # An operator brought it back.
    lost.write_bytes(kept)
    check_whole(landing, once_more(landing, job_id), undisturbed)


@pytest.mark.parametrize("error", [StorageFull("No room."), StorageRefused("The storage refuses.")])
def test_the_refused_rows_can_not_be_written(
    error: Any, landing: Landing, undisturbed: str, faulty: Faulty
) -> None:
    job_id = landing.ask(spoilt())
    faulty.writing = error
    job = landing.run(job_id)
    assert (job.status, job.error_code) == ("failed", error.code)
    assert landing.digest() == undisturbed
    assert str(job.error_message) == (
        f"{error.message} The rows are in, to the last one (408 rows: 400 inserted, 8 refused); only the "
        "file of refused rows is missing. Trying again writes nothing but that file."
    )
    # So that it may also be undone.
    assert landing.result(job)["inserted"] == ROWS
    before = landing.rows("SELECT xmin::text, id FROM landing.things ORDER BY id")
    faulty.writing = None
    check_whole(landing, once_more(landing, job_id), undisturbed)
    assert landing.rows("SELECT xmin::text, id FROM landing.things ORDER BY id") == before


def test_the_refused_rows_are_written_later(
    landing: Landing, undisturbed: str, faulty: Faulty, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = landing.ask(spoilt())
    faulty.writing = StorageUnavailable("It is away.")
    landing.run(job_id)
    before = landing.rows("SELECT xmin::text, id FROM landing.things ORDER BY id")
    # Not even the last attempt leaves the rows untold.
    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], attempts_limit=2))
    job = by_itself(landing, job_id)
    assert (job.status, job.error_code) == ("failed", "storage_unavailable")
    assert "The rows are in, to the last one (408 rows" in str(job.error_message)
    faulty.writing = None
    check_whole(landing, once_more(landing, job_id), undisturbed)
    assert landing.rows("SELECT xmin::text, id FROM landing.things ORDER BY id") == before


def test_what_an_undo_left_alone_can_not_be_written(landing: Landing, faulty: Faulty) -> None:
    import_id = landing.apply(text_of(100)).import_id
    assert import_id
    landing.conn.execute("UPDATE landing.things SET note = 'mine' WHERE id IN (3, 50)")
    job_id = landing.ask_again(import_id, "undo")
    faulty.writing = StorageFull("No room.")
    job = landing.run(job_id)
    assert (job.status, job.error_code) == ("failed", "storage_full")
    assert str(job.error_message).startswith(
        "No room. Undone. 0 rows were put back, 98 removed, 2 left alone. Only the file"
    )
    assert (db.session.get_one(Import, import_id).undone or {})["inserted"] == 98
    faulty.writing = None
    job = once_more(landing, job_id)
    assert job.status == "succeeded"
    assert (db.session.get_one(Import, import_id).undone or {})["inserted"] == 98
    artifact = jobs.artifact_of(job)
    assert artifact is not None
    assert artifact.rows == 2


def test_cancelled_while_the_refused_rows_wait(
    landing: Landing, undisturbed: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told that nothing was changed."""
    job_id = landing.ask(spoilt())
    faulty.writing = StorageUnavailable("It is away.")
    monkeypatch.setattr(leases, "HEARTBEAT", 0.05)

    def cancel() -> None:
        jobs.cancel(db.session.get_one(Job, job_id))
        # Two more beats of the lease: the one on its way may have been too early to see it.
        first = renewed()
        until(lambda: renewed() > first)
        second = renewed()
        until(lambda: renewed() > second)

    def renewed() -> Any:
        with db.engine.connect() as conn:
            return conn.execute(select(Job.lease_expires_at).where(Job.id == job_id)).scalar_one()

    faulty.before_writing = cancel
    job = landing.run(job_id)
    assert job.status == "cancelled"
    assert "The rows are in, to the last one" in landing.log(job_id)[-1]
    assert landing.digest() == undisturbed
