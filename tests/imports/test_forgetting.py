"""What imports keep in their target is dropped once it is of no more use, and never before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from app import jobs
from app.dev.child import free_port
from app.errors import Conflict
from app.extensions import db
from app.imports import apply, requests
from app.imports.table import journal
from app.imports.table.connection import TargetDown, TargetRefused
from app.models import Import, Job, Upload, User
from app.sweep.ledgers import spent_ledgers
from tests.importing import Known, Landing, Things, text_of


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else listens: the conductor applies the chunks itself, and need not wait for others first."""
    monkeypatch.setattr(apply, "LOOK_ROUND", 0.0)
    monkeypatch.setattr(apply, "GLANCE", 0.001)


@pytest.fixture
def age() -> Callable[[UUID], None]:
    """Let an import's jobs have ended longer ago than files are kept."""

    def age(import_id: UUID) -> None:
        past = sa.func.clock_timestamp() - timedelta(days=3)
        ended = sa.update(Job).where(Job.import_id == import_id, Job.finished_at.is_not(None))
        db.session.execute(ended.values(finished_at=past))
        db.session.commit()

    return age


def applied(landing: Landing, rows: int = 60) -> UUID:
    import_id = landing.apply(text_of(rows)).import_id
    assert import_id is not None
    return import_id


def kept(landing: Landing, import_id: UUID) -> bool:
    """Whether the target still knows of it; all of it, or nothing."""
    found = landing.conn.execute("SELECT to_regclass(%s)", (journal.ledger(import_id),)).fetchone()
    counts = [
        landing.conn.execute(f"SELECT count(*) FROM waybill_journal.{table} WHERE {column} = %s".encode(),
                             (import_id,)).fetchone()
        for table, column in (("imports", "id"), ("chunks", "import_id"))
    ]  # fmt: skip
    there = {found != (None,), *(count != (0,) for count in counts)}
    assert len(there) == 1
    return there.pop()


def forgotten(import_id: UUID) -> bool:
    db.session.remove()
    return db.session.get_one(Import, import_id).forgotten_at is not None


def test_it_is_kept_as_long_as_it_can_be_undone(landing: Landing, age: Callable[[UUID], None]) -> None:
    old, young = applied(landing), applied(landing)
    assert spent_ledgers() == 0
    age(old)
    assert spent_ledgers() == 1
    assert (kept(landing, old), kept(landing, young)) == (False, True)
    assert (forgotten(old), forgotten(young)) == (True, False)
    assert spent_ledgers() == 0
    assert landing.rows("SELECT count(*) FROM landing.things") == [(60,)]


def test_then_it_can_not_be_undone(landing: Landing, age: Callable[[UUID], None], app: Any) -> None:
    import_id = applied(landing)
    age(import_id)
    assert spent_ledgers() == 1
    # Not even if files are kept for longer from now on.
    app.config["WAYBILL"] = replace(app.config["WAYBILL"], retention_hours=1000)
    import_ = db.session.get_one(Import, import_id)
    user = db.session.get_one(User, import_.owner_id)
    with pytest.raises(Conflict, match="no longer kept"):
        requests.request(user, import_, "undo")


def test_refused_rows_go_with_it(landing: Landing, age: Callable[[UUID], None]) -> None:
    job = landing.apply(text_of(20) + "x,Bad,1,2026-01-01,,yes,\n")
    assert job.import_id
    age(job.import_id)
    assert spent_ledgers() == 1
    assert landing.rows("SELECT count(*) FROM waybill_journal.rejects") == [(0,)]


@pytest.mark.parametrize("status", ["queued", "running"])
def test_an_undo_at_work_keeps_it(status: str, landing: Landing, age: Callable[[UUID], None]) -> None:
    import_id = applied(landing)
    undo_id = landing.ask_again(import_id, "undo")
    if status == "running":
        db.session.execute(sa.update(Job).where(Job.id == undo_id).values(status="running", attempt=1))
        db.session.commit()
    age(import_id)
    assert spent_ledgers() == 0
    assert kept(landing, import_id)
    if status == "queued":
        assert landing.run(undo_id).status == "succeeded"
        assert landing.rows("SELECT count(*) FROM landing.things") == [(0,)]
        age(import_id)
        assert spent_ledgers() == 1


def test_what_stopped_in_the_middle_is_kept_with_its_upload(
    landing: Landing, age: Callable[[UUID], None]
) -> None:
    """Who tries it again goes on behind the checkpoint, which must be there."""
    bad = "".join(f"x{n},Bad,1,2026-01-01,,yes,\n" for n in range(200))
    job = landing.run(landing.ask(text_of(100) + bad, reject_limit=5))
    assert job.status == "failed"
    assert job.import_id
    import_id = job.import_id
    age(import_id)
    assert spent_ledgers() == 0
    assert kept(landing, import_id)
    # Tried again, and cancelled before anybody began: it was applied in part all the same.
    job = db.session.get_one(Job, job.id)
    jobs.retry(job)
    jobs.cancel(job)
    age(import_id)
    db.session.execute(sa.update(Upload).values(removed_at=sa.func.clock_timestamp()))
    db.session.commit()
    assert spent_ledgers() == 1
    assert not kept(landing, import_id)


def test_what_was_never_applied_is_not_looked_for(landing: Landing, age: Callable[[UUID], None]) -> None:
    job = landing.run(landing.ask(text_of(10), step="dry-run"))
    assert job.import_id
    age(job.import_id)
    db.session.execute(sa.update(Upload).values(removed_at=sa.func.clock_timestamp()))
    db.session.commit()
    assert spent_ledgers() == 0
    assert not forgotten(job.import_id)


def test_a_target_that_does_not_answer_is_asked_again(
    landing: Landing, age: Callable[[UUID], None], app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(Things):
        key, title, source = "aaway", "Away", "away"

    lost, here = applied(landing), applied(landing)
    db.session.execute(sa.update(Import).where(Import.id == lost).values(importer="aaway"))
    for import_id in (lost, here):
        age(import_id)
    away = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    config = app.config["WAYBILL"]
    app.config["WAYBILL"] = replace(config, targets=dict(config.targets) | {"away": away})
    app.extensions["waybill.importers"] = Known(Things(), Away())
    with pytest.raises(TargetDown, match="'away' does not answer"):
        spent_ledgers()
    assert "The target away does not answer" in caplog.text
    assert (forgotten(lost), forgotten(here)) == (False, True)
    # It is back.
    app.config["WAYBILL"] = replace(
        config, targets=dict(config.targets) | {"away": config.targets["landing"]}
    )
    assert spent_ledgers() == 1
    assert forgotten(lost)


def test_one_imports_trouble_is_not_the_others(landing: Landing, age: Callable[[UUID], None]) -> None:
    stuck, held, fine = applied(landing), applied(landing), applied(landing)
    for import_id in (stuck, held, fine):
        age(import_id)
    landing.conn.execute(f"CREATE VIEW landing.pinned AS SELECT * FROM {journal.ledger(stuck)}".encode())
    with landing.conn.transaction():
        landing.conn.execute(f"LOCK TABLE {journal.ledger(held)} IN ACCESS SHARE MODE".encode())
        with pytest.raises(Exception, match="landing"):
            spent_ledgers()
        assert [forgotten(each) for each in (stuck, held, fine)] == [False, False, True]
    assert (kept(landing, stuck), kept(landing, fine)) == (True, False)
    with pytest.raises(TargetRefused, match="landing"):
        spent_ledgers()
    assert [forgotten(each) for each in (stuck, held)] == [False, True]
    landing.conn.execute("DROP VIEW landing.pinned")
    assert spent_ledgers() == 1


def test_an_importer_that_is_gone(landing: Landing, age: Callable[[UUID], None], app: Any) -> None:
    """Nobody knows where it wrote: all targets are asked."""
    import_id = applied(landing)
    age(import_id)
    app.extensions["waybill.importers"] = Known()
    config = app.config["WAYBILL"]
    app.config["WAYBILL"] = replace(config, sources=dict(config.sources) | {"lite": "sqlite:///x"})
    assert spent_ledgers() == 1
    assert not kept(landing, import_id)


def test_a_target_that_was_made_anew(landing: Landing, age: Callable[[UUID], None]) -> None:
    import_id = applied(landing)
    age(import_id)
    landing.conn.execute("DROP SCHEMA waybill_journal CASCADE")
    assert spent_ledgers() == 1
    assert forgotten(import_id)


def test_several_clocks_at_once(landing: Landing, age: Callable[[UUID], None], app: Any) -> None:
    import_ids = [applied(landing, rows=5) for _ in range(4)]
    for import_id in import_ids:
        age(import_id)
    counts: list[int] = []
    start = threading.Barrier(3)

    def clock() -> None:
        with app.app_context():
            start.wait()
            counts.append(spent_ledgers())

    threads = [threading.Thread(target=clock) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    # Each is dropped by somebody, and told once; one that another clock is at is passed over.
    assert sum(counts) + spent_ledgers() == 4
    assert len(counts) == 3
    assert not any(kept(landing, import_id) for import_id in import_ids)


def test_what_was_tried_again_and_cancelled_can_be_undone(landing: Landing) -> None:
    bad = "".join(f"x{n},Bad,1,2026-01-01,,yes,\n" for n in range(200))
    job = landing.run(landing.ask(text_of(100) + bad, reject_limit=5))
    assert job.status == "failed"
    jobs.cancel(jobs.retry(job))
    import_ = db.session.get_one(Import, job.import_id)
    undo = requests.request(db.session.get_one(User, import_.owner_id), import_, "undo")
    assert landing.run(undo.id).status == "succeeded"
    assert landing.rows("SELECT count(*) FROM landing.things") == [(0,)]
