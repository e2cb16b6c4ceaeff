"""Workers as processes of their own, killed where the database holds its breath."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import select, text, update

from app import exports, leases
from app.exports import parts as making
from app.extensions import db
from app.models import Job, Part

LOCKS = count(4242)


def kill_at(table: str, condition: str, app: Any, job_id: UUID) -> None:
    """Start a worker on the job, and kill it where it meets the condition."""
    with held_breath(table, condition) as boundary:
        pid = worker(app, job_id)
        assert boundary.wait()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        boundary.forget()


def worker(app: Any, job_id: UUID, *, helping: bool = False) -> int:
    """A process that claims the job (or helps with it); its pid."""
    db.session.remove()
    attempt = db.session.scalar(select(Job.attempt).where(Job.id == job_id)) or 0
    db.session.remove()
    pid = os.fork()
    if pid:
        return pid
    db.engine.dispose(close=False)
    with app.app_context():
        if helping:
            making.help_out(job_id, attempt)
        else:
            lease = leases.claim(job_id)
            if lease:
                exports.run(lease)
    os._exit(0)


class Boundary:
    """A place in the database where everybody stops until told otherwise."""

    def __init__(self, conn: psycopg.Connection[Any], lock: int) -> None:
        self._conn, self._lock = conn, lock

    def wait(self, seconds: float = 30) -> bool:
        """True once somebody stopped here."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._waiting():
                return True
            time.sleep(0.02)
        return False

    def release(self) -> None:
        self._conn.execute("SELECT pg_advisory_unlock_all()")

    def forget(self) -> None:
        """The dead worker's connection ends, and with it what it had not committed."""
        for pid in self._waiting():
            self._conn.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        self.release()

    def _waiting(self) -> list[int]:
        query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
        rows = self._conn.execute(query, (self._lock,))
        return [row[0] for row in rows]


@contextmanager
def held_breath(table: str, condition: str) -> Iterator[Boundary]:
    url = db.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    lock = next(LOCKS)
    name = f"hold_{lock}"
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", (lock,))
        conn.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {condition} THEN"
            f" PERFORM pg_advisory_xact_lock_shared({lock}); END IF; RETURN NEW; END $$;"
            f"CREATE TRIGGER {name} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
        )
        try:
            yield Boundary(conn, lock)
        finally:
            conn.execute("SELECT pg_advisory_unlock_all()")
            conn.execute(f"DROP FUNCTION {name} CASCADE")


def run_out(job_id: UUID, *tables: Any) -> None:
    """The dead worker's leases, as if the time had passed."""
    for table in tables or (Job, Part):
        column = Job.id if table is Job else Part.job_id
        db.session.execute(
            update(table)
            .where(column == job_id, table.status == "running")
            .values(lease_expires_at=text("now() - interval '1 second'"))
        )
    db.session.commit()
