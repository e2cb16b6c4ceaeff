"""An import, its processes killed at every checkpoint and its surroundings failing: the table is that of an
undisturbed run, and so are the counts.

A worker is a process of its own. A trigger makes a database hold its breath at one boundary; there the worker
is killed, its lease is run out, and the next one goes on.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import current_app
from sqlalchemy import func, select, text, update

from app import imports, jobs, leases
from app.extensions import db, redis_client
from app.imports import apply as leading
from app.imports import chunks as applying
from app.imports import requests
from app.models import Chunk, Job
from tests.chaos.killing import Boundary, held_breath
from tests.importing import Landing, landed, text_of
from tests.waiting import until

LOCKS = count(77_000)
ROWS, CHUNKS = 400, 10
# A file with new, changed and refused rows, and keys that come again.
FILE = (
    text_of(ROWS)
    + "".join(f"{n},,1,2026-01-01,,yes,\n" for n in range(500, 510))
    + text_of(60, first=150, name="Again").partition("\n")[2]
)
BEFORE = text_of(120, first=50, name="Old")
# (where, table, condition): before a merge's rows, its ledger and its checkpoint are in, and around them.
BOUNDARIES = [
    *((f"chunk {number} {status}", "chunks", f"NEW.number = {number} AND NEW.status = '{status}'")
      for number, status in ((1, "running"), (4, "running"), (4, "done"), (CHUNKS, "done"))),
    *((f"checkpoint {number}", "waybill_journal.chunks", f"NEW.number = {number}")
      for number in (1, 4, CHUNKS)),
    ("a row", "landing.things", "NEW.id = 222"),
    ("a change", "landing.things", "NEW.id = 60"),
    ("a reject", "waybill_journal.rejects", "true"),
    ("the end", "artifacts", "true"),
]  # fmt: skip


@pytest.fixture(scope="session")
def landing_url(services: Any) -> str:
    return str(services.database("chaos_landing"))


@pytest.fixture
def landing(app: Any, landing_url: str, member: Any) -> Iterator[Landing]:
    def empty() -> str:
        with psycopg.connect(landing_url, autocommit=True) as conn:
            conn.execute("DROP SCHEMA IF EXISTS landing, waybill_journal CASCADE")
        return landing_url

    with landed(app, empty, member, chunk_bytes=3200, attempts_limit=99) as landing:
        landing.apply(BEFORE)
        yield landing


@pytest.fixture(scope="session")
def expectation() -> dict[str, Any]:
    """Of the first undisturbed run, for all tests."""
    return {}


@pytest.fixture
def undisturbed(landing: Landing, expectation: dict[str, Any]) -> dict[str, Any]:
    if not expectation:
        job = landing.apply(FILE)
        expectation |= {"digest": landing.digest(), "result": landing.result(job)}
        assert db.session.scalar(select(func.count()).where(Chunk.job_id == job.id)) == CHUNKS
        landing.conn.execute("TRUNCATE landing.things")
        landing.apply(BEFORE)
    return expectation


def check(landing: Landing, job: Job, undisturbed: dict[str, Any]) -> None:
    assert job.status == "succeeded", landing.log(job.id)
    assert (landing.digest(), landing.result(job)) == (undisturbed["digest"], undisturbed["result"])
    query = "SELECT count(*) FROM waybill_journal.rejects WHERE import_id = %s"
    (refused,) = landing.conn.execute(query, (job.import_id,)).fetchone() or (None,)
    assert refused == undisturbed["result"]["refused"]
    ledger = f"waybill_journal.ledger_{job.import_id.hex}"  # type: ignore[union-attr]
    entries = f"SELECT count(*), count(DISTINCT k1) FROM {ledger}"
    written = undisturbed["result"]["inserted"] + undisturbed["result"]["updated"]
    assert landing.rows(entries) == [(written, written)]


@pytest.mark.parametrize(("where", "table", "condition"), BOUNDARIES, ids=[where for where, *_ in BOUNDARIES])
def test_a_leader_killed_at_a_boundary(
    where: str, table: str, condition: str, landing: Landing, undisturbed: dict[str, Any], app: Any
) -> None:
    job_id = landing.ask(FILE)
    _kill_at(landing, table, condition, app, job_id)
    _run_out(job_id)
    job = landing.run(job_id)
    assert job.attempt == 2
    check(landing, job, undisturbed)


def test_killed_again_and_again(landing: Landing, undisturbed: dict[str, Any], app: Any) -> None:
    """A seeded row of kills over one job: every attempt goes on where the last one fell."""
    seed = 20_261
    fate = random.Random(seed)
    job_id = landing.ask(FILE)
    for _ in range(5):
        _, table, condition = fate.choice(BOUNDARIES)
        with _held_breath(landing, table, condition) as boundary:
            worker = _worker(app, job_id)
            if boundary.wait(3):
                os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
            boundary.forget()
        if db.session.scalar(select(Job.status).where(Job.id == job_id)) == "succeeded":
            break
        _run_out(job_id)
        db.session.rollback()
    job = db.session.get_one(Job, job_id)
    if job.status != "succeeded":
        job = landing.run(job_id)
    check(landing, job, undisturbed)


@pytest.mark.parametrize("where", ["a row", "checkpoint 4", "chunk 4 done"])
def test_a_helper_may_die(
    where: str, landing: Landing, undisturbed: dict[str, Any], app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its chunk is applied by the leader once its lease has run out."""
    monkeypatch.setattr(leading, "_threads", lambda: 1)
    table, condition = next((table, condition) for name, table, condition in BOUNDARIES if name == where)
    job_id = landing.ask(FILE)
    leader = _worker(app, job_id)
    until(lambda: _chunks(job_id) > 3)
    with _held_breath(landing, table, condition) as boundary:
        helper = _worker(app, job_id, helping=True)
        assert boundary.wait()
        os.kill(helper, signal.SIGKILL)
        os.waitpid(helper, 0)
        boundary.forget()
    _run_out(job_id, Chunk)
    os.waitpid(leader, 0)
    job = db.session.get_one(Job, job_id)
    assert job.attempt == 1
    check(landing, job, undisturbed)


def test_several_helpers_at_once(
    landing: Landing, undisturbed: dict[str, Any], app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "_threads", lambda: 1)
    job_id = landing.ask(FILE)
    leader = _worker(app, job_id)
    until(lambda: _chunks(job_id) > 3)
    helpers = [_worker(app, job_id, helping=True) for _ in range(3)]
    for pid in (*helpers, leader):
        os.waitpid(pid, 0)
    check(landing, db.session.get_one(Job, job_id), undisturbed)


def test_a_sleeper_that_wakes_up_writes_nothing(
    landing: Landing, undisturbed: dict[str, Any], app: Any
) -> None:
    """Stopped in its merge, it holds the fence: the next attempt takes it, and that merge never happened."""
    job_id = landing.ask(FILE)
    with _held_breath(landing, "waybill_journal.chunks", "NEW.number = 4") as boundary:
        sleeper = _worker(app, job_id)
        assert boundary.wait()
        os.kill(sleeper, signal.SIGSTOP)
        boundary.release()
        _run_out(job_id)
        job = landing.run(job_id)
        os.kill(sleeper, signal.SIGCONT)
        os.waitpid(sleeper, 0)
    check(landing, job, undisturbed)


def test_a_worker_that_shuts_down(landing: Landing, undisturbed: dict[str, Any]) -> None:
    job_id = landing.ask(FILE)
    with _held_breath(landing, "waybill_journal.chunks", "NEW.number = 4") as boundary:
        thread = _thread(landing, job_id)
        assert boundary.wait()
        leases.stopping.set()
        thread.join(30)
    leases.stopping.clear()
    db.session.remove()
    job = db.session.get_one(Job, job_id)
    assert (job.status, job.forgiven) == ("queued", 1)
    check(landing, landing.run(job_id), undisturbed)


@pytest.mark.parametrize("wish", ["cancel", "pause"])
def test_cancelled_or_paused_in_the_middle_of_a_merge(
    wish: str, landing: Landing, undisturbed: dict[str, Any]
) -> None:
    """The merge is broken off, and what is in is a beginning of the file."""
    job_id = landing.ask(FILE)
    with _held_breath(landing, "waybill_journal.chunks", "NEW.number = 4") as boundary:
        thread = _thread(landing, job_id)
        assert boundary.wait()
        getattr(requests, wish)(db.session.get_one(Job, job_id))
        db.session.remove()
        began = time.monotonic()
        thread.join(30)
        took = time.monotonic() - began
    assert took < 20
    job = db.session.get_one(Job, job_id)
    at = landing.rows("SELECT max(number), max(next_line) FROM waybill_journal.chunks WHERE number < 99")
    assert at[0][0] is not None
    said = landing.log(job_id)[-1]
    assert "All before line" in said
    if wish == "cancel":
        assert job.status == "cancelled"
        assert landing.result(job)["read"] > 0
        jobs.retry(job)
    else:
        assert (job.status, job.paused_at is None) == ("queued", False)
        assert leases.claim(job_id) is None
        requests.resume(job)
    check(landing, landing.run(job_id), undisturbed)


def test_redis_is_emptied(landing: Landing, undisturbed: dict[str, Any]) -> None:
    job_id = landing.ask(FILE)
    with _held_breath(landing, "waybill_journal.chunks", "NEW.number = 4") as boundary:
        thread = _thread(landing, job_id)
        assert boundary.wait()
        redis_client().flushdb()
        boundary.release()
        thread.join(30)
    db.session.remove()
    check(landing, db.session.get_one(Job, job_id), undisturbed)


def test_the_targets_connections_are_cut(landing: Landing, undisturbed: dict[str, Any]) -> None:
    job_id = landing.ask(FILE)
    with (
        _held_breath(landing, "waybill_journal.chunks", "NEW.number = 2") as second,
        _held_breath(landing, "waybill_journal.chunks", "NEW.number = 4") as fourth,
    ):
        thread = _thread(landing, job_id)
        for boundary in (second, fourth):
            assert boundary.wait()
            boundary.forget()
        thread.join(60)
    db.session.remove()
    job = db.session.get_one(Job, job_id)
    assert job.attempt == 1
    check(landing, job, undisturbed)


def test_the_leaders_own_connection_is_cut(landing: Landing, undisturbed: dict[str, Any]) -> None:
    job_id = landing.ask(FILE)
    with _held_breath(landing, "waybill_journal.chunks", "NEW.number = 4") as boundary:
        thread = _thread(landing, job_id)
        assert boundary.wait()
        landing.conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'waybill % lead'"
        )
        boundary.release()
        thread.join(60)
    db.session.remove()
    job = db.session.get_one(Job, job_id)
    if job.status == "queued":
        db.session.execute(update(Job).values(next_attempt_at=None))
        db.session.commit()
        job = landing.run(job_id)
    check(landing, job, undisturbed)


def test_somebody_else_inserts_the_same_key(landing: Landing, undisturbed: dict[str, Any]) -> None:
    """A unique violation from outside, in the middle: the row is there by then, and is changed."""
    job_id = landing.ask(FILE)
    with psycopg.connect(landing.url) as other:
        other.execute("INSERT INTO landing.things (id, name) VALUES (222, 'from outside')")
        thread = _thread(landing, job_id)
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        until(lambda: landing.rows(waits)[0][0] > 0)
        other.commit()
    thread.join(60)
    db.session.remove()
    job = db.session.get_one(Job, job_id)
    assert job.status == "succeeded", landing.log(job_id)
    assert landing.digest() == undisturbed["digest"]
    expected = undisturbed["result"]
    assert landing.result(job) == expected | {
        "inserted": expected["inserted"] - 1,
        "updated": expected["updated"] + 1,
    }


def test_a_deadlock(landing: Landing, undisturbed: dict[str, Any]) -> None:
    """The server breaks off one of two: if it is ours, the chunk is merged once more."""
    landing.conn.execute("INSERT INTO landing.things (id, name) VALUES (5, 'x'), (30, 'y')")
    job_id = landing.ask(FILE)
    # Only we are ever the one that is broken off.
    with psycopg.connect(landing.url) as other:
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("UPDATE landing.things SET touched = 0 WHERE id = 30")
        thread = _thread(landing, job_id)
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        until(lambda: landing.rows(waits)[0][0] > 0)
        other.execute("UPDATE landing.things SET touched = 0 WHERE id = 5")
        other.commit()
    thread.join(60)
    db.session.remove()
    assert db.session.get_one(Job, job_id).status == "succeeded", landing.log(job_id)
    assert landing.digest() == undisturbed["digest"]


def test_two_imports_into_one_table_at_once(landing: Landing, app: Any) -> None:
    one = landing.ask(text_of(400, name="One"))
    two = landing.ask(text_of(400, first=200, name="Two"))
    workers = [_worker(app, one), _worker(app, two)]
    for pid in workers:
        os.waitpid(pid, 0)
    found = [db.session.get_one(Job, job_id) for job_id in (one, two)]
    assert [job.status for job in found] == ["succeeded"] * 2
    assert landing.rows("SELECT count(*), count(DISTINCT id) FROM landing.things") == [(599, 599)]
    results = [landing.result(job) for job in found]
    assert sum(result["read"] for result in results) == 800
    assert sum(result.get("inserted", 0) for result in results) == 599 - 120


def test_the_same_file_twice_at_once(landing: Landing, undisturbed: dict[str, Any], app: Any) -> None:
    both = [landing.ask(FILE), landing.ask(FILE)]
    workers = [_worker(app, job_id) for job_id in both]
    for pid in workers:
        os.waitpid(pid, 0)
    results = [landing.result(db.session.get_one(Job, job_id)) for job_id in both]
    assert landing.digest() == undisturbed["digest"]
    assert sum(result.get("inserted", 0) for result in results) == undisturbed["result"]["inserted"]


def _chunks(job_id: UUID) -> int:
    db.session.rollback()
    return int(db.session.scalar(select(func.count()).where(Chunk.job_id == job_id)) or 0)


def _thread(landing: Landing, job_id: UUID) -> threading.Thread:
    """One attempt, in a thread of this process."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]

    def work() -> None:
        with app.app_context():
            lease = leases.claim(job_id)
            assert lease is not None
            imports.run(lease)
            db.session.remove()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _worker(app: Any, job_id: UUID, *, helping: bool = False) -> int:
    """A process that leads the job (or applies chunks of it); its pid."""
    db.session.remove()
    attempt = db.session.scalar(select(Job.attempt).where(Job.id == job_id)) or 0
    db.session.remove()
    pid = os.fork()
    if pid:
        return pid
    try:
        db.engine.dispose(close=False)
        with app.app_context():
            if helping:
                applying.help_out(job_id, attempt)
            else:
                lease = leases.claim(job_id)
                if lease:
                    imports.run(lease)
    finally:
        os._exit(0)


def _kill_at(landing: Landing, table: str, condition: str, app: Any, job_id: UUID) -> None:
    """Start a leader that applies by itself, and kill it where it meets the condition."""
    with _held_breath(landing, table, condition) as boundary:
        worker = _worker(app, job_id)
        assert boundary.wait()
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        boundary.forget()


@contextmanager
def _held_breath(landing: Landing, table: str, condition: str) -> Iterator[Boundary]:
    """`killing.held_breath`, in the target's database for tables with a schema."""
    if "." not in table:
        with held_breath(table, condition) as boundary:
            yield boundary
        return
    lock = next(LOCKS)
    name = f"{table.partition('.')[0]}.hold_{lock}"
    with psycopg.connect(landing.url, autocommit=True) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", (lock,))
        conn.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {condition} THEN"
            f" PERFORM pg_advisory_xact_lock_shared({lock}); END IF; RETURN NEW; END $$;"
            f"CREATE TRIGGER hold_{lock} AFTER INSERT OR UPDATE ON {table}"
            f" FOR EACH ROW EXECUTE FUNCTION {name}()"
        )
        try:
            yield Boundary(conn, lock)
        finally:
            conn.execute("SELECT pg_advisory_unlock_all()")
            conn.execute(f"DROP FUNCTION {name} CASCADE")


def _run_out(job_id: UUID, *tables: Any) -> None:
    """The dead worker's leases, as if the time had passed."""
    for table in tables or (Job, Chunk):
        place = Job.id if table is Job else Chunk.job_id
        past = text("now() - interval '1 second'")
        running = update(table).where(place == job_id, table.status == "running")
        db.session.execute(running.values(lease_expires_at=past))
    db.session.commit()
