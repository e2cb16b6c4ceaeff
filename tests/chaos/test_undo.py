"""An undo whose worker is killed at every boundary: the table is what it was before the import.

A worker is a process of its own. A trigger in the target makes the database hold its breath at one boundary;
there the worker is killed, its lease is run out, and the next one goes on.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
import pytest

from app import imports, leases
from app.extensions import db
from app.imports import apply
from app.models import Import, Job
from tests.chaos.killing import Boundary, held_breath, run_out
from tests.importing import Landing, landed, text_of

LOCKS, NUMBERS = count(8484), count(1)
ROWS = 220
# Odd ids of the last and the first chunk: they are inserted, those behind them were there before.
CHUNKS = {4: 201, 1: 33}
# Where a worker may be killed: at the fence; when rows are removed, put back or named, or what was done is
# noted; and before the job ends.
BOUNDARIES = [
    ("imports", "UPDATE", "true"),
    *(
        boundary
        for chunk, odd in CHUNKS.items()
        for boundary in (
            ("things", "DELETE", f"OLD.id = {odd}"),
            ("things", "UPDATE", f"NEW.id = {odd + 1}"),
            ("chunks", "UPDATE", f"NEW.number = {chunk}"),
        )
    ),
    ("left_alone", "INSERT", "NEW.chunk = 2"),
]


class Applied:
    """An import that was applied, some of its rows edited since; and what its undo must lead to."""

    def __init__(self, landing: Landing) -> None:
        self.landing = landing
        self._write(
            "INSERT INTO landing.things (id, name, touched)"
            " SELECT i, 'Old', i FROM generate_series(2, 230, 2) AS i"
        )
        was = landing.rows()
        applied = landing.apply(text_of(ROWS))
        assert applied.import_id is not None
        self.import_id = applied.import_id
        self._write("UPDATE landing.things SET note = 'mine' WHERE id IN (2, 77)")
        self._write("DELETE FROM landing.things WHERE id = 150")
        mine = landing.rows("SELECT * FROM landing.things WHERE id IN (2, 77)")
        self.expected = sorted([*mine, *(row for row in was if row[0] not in (2, 150))])

    def ask(self) -> UUID:
        return self.landing.ask_again(self.import_id, "undo")

    def check(self, job: Job) -> None:
        assert job.status == "succeeded", self.landing.log(job.id)
        assert self.landing.rows() == self.expected
        undone = db.session.get_one(Import, self.import_id).undone or {}
        assert (undone["updated"], undone["inserted"], undone["skipped"]) == (108, 109, 3)
        left = "SELECT key->>0, chunk, line FROM waybill_journal.left_alone ORDER BY chunk, line"
        assert [row[0] for row in self.landing.rows(left)] == ["2", "77", "150"]

    def _write(self, statement: str) -> None:
        self.landing.conn.execute(statement.encode())


@pytest.fixture
def applied(app: Any, services: Any, member: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Applied]:
    # Nobody else listens: the conductor applies the chunks itself, and need not wait for others first.
    monkeypatch.setattr(apply, "LOOK_ROUND", 0.0)

    def database() -> str:
        return str(services.database(f"undone_{next(NUMBERS)}"))

    with landed(app, database, member, chunk_bytes=4096, attempts_limit=99) as landing:
        yield Applied(landing)


def test_undisturbed(applied: Applied) -> None:
    chunks = "SELECT count(*) FROM waybill_journal.chunks"
    assert applied.landing.rows(chunks) == [(4,)]
    applied.check(applied.landing.run(applied.ask()))


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=lambda boundary: f"{boundary[0]} {boundary[2]}")
def test_a_worker_killed_at_a_boundary(applied: Applied, boundary: tuple[str, str, str], app: Any) -> None:
    job_id = applied.ask()
    with breath_held(applied.landing, *boundary) as place:
        kill(place, app, job_id)
    run_out(job_id, Job)
    job = applied.landing.run(job_id)
    assert job.attempt == 2
    applied.check(job)


def test_a_worker_killed_before_the_job_ends(applied: Applied, app: Any) -> None:
    job_id = applied.ask()
    with held_breath("jobs", "NEW.status = 'succeeded'") as place:
        kill(place, app, job_id)
    run_out(job_id, Job)
    applied.check(applied.landing.run(job_id))


def test_killed_again_and_again(applied: Applied, app: Any) -> None:
    """A seeded row of kills over one job: every attempt goes on where the last one fell."""
    seed = 20_261
    job_id = applied.ask()
    kills = sorted(random.Random(seed).sample(range(1, len(BOUNDARIES) - 1), 5))
    for at in kills:
        with breath_held(applied.landing, *BOUNDARIES[at]) as place:
            kill(place, app, job_id)
        run_out(job_id, Job)
    job = applied.landing.run(job_id)
    assert job.attempt == len(kills) + 1, f"seed {seed}"
    applied.check(job)


def test_a_worker_that_slept_past_its_lease_changes_nothing(applied: Applied, app: Any) -> None:
    """It wakes up in the middle of a chunk when another one has finished all."""
    job_id = applied.ask()
    with breath_held(applied.landing, *BOUNDARIES[4]) as place:
        pid = worker(app, job_id)
        assert place.wait()
        os.kill(pid, signal.SIGSTOP)
        try:
            run_out(job_id, Job)
            # Its transaction stands in the way until its connection is cut, as a server does with the dead.
            place.forget()
            applied.check(applied.landing.run(job_id))
        finally:
            os.kill(pid, signal.SIGCONT)
            os.waitpid(pid, 0)
    applied.check(db.session.get_one(Job, job_id))


def kill(place: Boundary, app: Any, job_id: UUID) -> None:
    """Start a worker on the job, and kill it there."""
    pid = worker(app, job_id)
    assert place.wait()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    place.forget()


def worker(app: Any, job_id: UUID) -> int:
    """A process that claims the job; its pid."""
    db.session.remove()
    pid = os.fork()
    if pid:
        return pid
    db.engine.dispose(close=False)
    with app.app_context():
        lease = leases.claim(job_id)
        if lease:
            imports.run(lease)
    os._exit(0)


@contextmanager
def breath_held(landing: Landing, table: str, kind: str, condition: str) -> Iterator[Boundary]:
    """As `held_breath`, in the target."""
    schema = "landing" if table == "things" else "waybill_journal"
    lock = next(LOCKS)
    name = f"landing.hold_{lock}"
    with psycopg.connect(landing.url, autocommit=True) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", (lock,))
        conn.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {condition} THEN"
            f" PERFORM pg_advisory_xact_lock_shared({lock}); END IF; RETURN coalesce(NEW, OLD); END $$;"
            f"CREATE TRIGGER hold_{lock} BEFORE {kind} ON {schema}.{table} FOR EACH ROW"
            f" EXECUTE FUNCTION {name}()".encode()
        )
        try:
            yield Boundary(conn, lock)
        finally:
            conn.execute("SELECT pg_advisory_unlock_all()")
            conn.execute(f"DROP FUNCTION {name} CASCADE".encode())
