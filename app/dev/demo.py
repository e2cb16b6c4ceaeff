"""The demo domain, schema `demo`: made by demo.sql, the same every time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import psycopg
from psycopg import sql

SQL = Path(__file__).with_suffix(".sql")

_STEP = re.compile(r"^-- step: (.+)$", re.MULTILINE)
# Two loads at once would wait for each other's DROP half-way: the second waits here instead.
_LOCK = 0x57617962


def load(
    database_url: str, tasks: int = 1_000_000, report: Callable[[str], None] = lambda text: None
) -> bool:
    """Make the demo domain with that many tasks; False when just that is there already.

    One transaction, the marker within: a load that is killed leaves nothing, and is done again. `report`
    is told of each step.
    """
    url = "postgresql://" + database_url.partition("://")[2]
    with psycopg.connect(url, autocommit=True) as conn:
        with conn.transaction():
            conn.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            marker = _marker(tasks)
            if _found(conn) == marker:
                return False
            _make(conn, tasks, report)
            conn.execute(sql.SQL("COMMENT ON SCHEMA demo IS {}").format(marker))
        # Index-only scans and the first export are quicker for it; nothing depends on it.
        conn.execute("VACUUM demo.tasks")
    return True


def _marker(tasks: int) -> str:
    """Says of which text and size the data are; any change of demo.sql makes them anew."""
    return f"Waybill demo data, {tasks} tasks, {sha256(SQL.read_bytes()).hexdigest()[:16]}"


def _found(conn: psycopg.Connection[tuple[object, ...]]) -> str | None:
    row = conn.execute("SELECT obj_description(to_regnamespace('demo'), 'pg_namespace')").fetchone()
    return str(row[0]) if row and row[0] else None


def _make(conn: psycopg.Connection[tuple[object, ...]], tasks: int, report: Callable[[str], None]) -> None:
    conn.execute(
        "SELECT set_config('demo.tasks', %s, true), set_config('timezone', 'UTC', true),"
        " set_config('work_mem', '64MB', true), set_config('maintenance_work_mem', '128MB', true)",
        [str(tasks)],
    )
    _, *steps = _STEP.split(SQL.read_text(encoding="utf-8"))
    for title, text in zip(steps[::2], steps[1::2], strict=True):
        began = time.monotonic()
        conn.execute(text.encode())
        report(f"Demo data: {title} ({time.monotonic() - began:.1f} s)")
