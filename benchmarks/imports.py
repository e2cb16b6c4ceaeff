"""Imports against psql's own \\copy of the same file: time from the request to succeeded, resume, memory.

    python -m benchmarks.imports [--rows 3000000] [--rounds 3] [--large 10000000]

Starts PostgreSQL, Valkey, SMTP, a worker that leads and two that apply chunks. The rows are validated, and
upserted into an empty table with its primary key, ledger and rejects included; \\copy does none of that. The
two sides take turns, and the ratio is that of each turn; the table shows medians.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import psycopg

from app.dev.postgres import programs
from app.dev.stack import Stack
from benchmarks.exports import TABLE
from benchmarks.stand import MB, median, processes, services, show

ROWS, ROUNDS, LARGE = 3_000_000, 3, 10_000_000
SMALL, RESUMED = 10_000, 5_000_000
TIME_LIMIT, DRY_LIMIT, RESUME_LIMIT, MEMORY_LIMIT = 2.0, 0.7, 2.0, 100.0

COLUMNS = (
    "id bigint PRIMARY KEY, title text NOT NULL, body text, status text, email text,"
    " amount numeric(14, 2), created_at timestamptz, billed boolean"
)
IMPORTER = """
title = "Wide"
description = "For measuring"
table = "wide"
source = "bench"
natural_key = ["id"]
[columns.id]
type = "int"
required = true
[columns.title]
required = true
max_length = 200
[columns.body]
[columns.status]
choices = ["open", "done"]
[columns.email]
pattern = '[^@]+@[^@]+'
[columns.amount]
type = "decimal"
min = 0
[columns.created_at]
type = "datetime"
[columns.billed]
type = "bool"
"""


@dataclass
class Bench:
    """The stand of one run."""

    app: Any
    environ: dict[str, str]
    database: psycopg.Connection[Any]
    hands: list[psutil.Process]
    user_id: int

    def file(self, rows: int) -> Path:
        """A CSV of so many rows; every third has quotes and a line break."""
        path = Path(self.environ["LOGS"]) / f"{rows}.csv"
        if not path.exists():
            self.database.execute("DROP SCHEMA IF EXISTS demo CASCADE")
            self.database.execute(TABLE.format(rows=rows).encode())
            self._psql(f"\\copy demo.wide TO '{path}' WITH (FORMAT csv, HEADER)")
            self.database.execute("DROP SCHEMA demo CASCADE")
        return path

    def copy(self, path: Path) -> float:
        """The seconds of \\copy into the empty table."""
        self.empty()
        begun = time.monotonic()
        self._psql(f"\\copy bench.wide FROM '{path}' WITH (FORMAT csv, HEADER)")
        return time.monotonic() - begun

    def ask(self, path: Path, step: str = "apply") -> UUID:
        """Send the file in, empty the table, ask for a step; the job's id. Sending is not measured."""
        from app import uploads
        from app.extensions import db
        from app.imports import requests
        from app.models import User

        self.empty()
        with self.app.app_context():
            upload = uploads.send(db.session.get_one(User, self.user_id), path)
            import_ = requests.create(db.session.get_one(User, self.user_id), "wide", upload)
            self.begun = time.monotonic()
            return UUID(str(requests.request(db.session.get_one(User, self.user_id), import_, step).id))

    def wait(self, job_id: UUID) -> float:
        """The seconds from the request until it succeeded."""
        status, message = "queued", None
        while status in ("queued", "running"):
            time.sleep(0.01)
            query = "SELECT status, error_message FROM jobs WHERE id = %s"
            status, message = self.database.execute(query, (job_id,)).fetchone() or ("gone", None)
        if status != "succeeded":
            raise SystemExit(f"The import ended {status}: {message}")
        return time.monotonic() - self.begun

    def resume(self, job_id: UUID, row: int) -> float:
        """Pause when `row` is in, then go on: the seconds until the next rows are in."""
        from app.extensions import db
        from app.imports import requests
        from app.models import Job

        self._until(lambda: self._read(job_id) >= row)
        with self.app.app_context():
            requests.pause(db.session.get_one(Job, job_id))
            self._until(lambda: self._status(job_id) == "queued")
            before, begun = self._read(job_id), time.monotonic()
            requests.resume(db.session.get_one(Job, job_id))
        self._until(lambda: self._read(job_id) > before)
        return time.monotonic() - begun

    def resident(self) -> float:
        """The peak resident memory of the worst of the two, since they were last asked, in MB."""
        peaks = []
        for hand in self.hands:
            status = Path(f"/proc/{hand.pid}/status").read_text()
            peaks.append(int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1]))
            Path(f"/proc/{hand.pid}/clear_refs").write_text("5")
        return max(peaks) * 1024 / MB

    def empty(self) -> None:
        self.database.execute("DROP SCHEMA IF EXISTS bench CASCADE")
        self.database.execute(f"CREATE SCHEMA bench; CREATE TABLE bench.wide ({COLUMNS})".encode())
        self.database.execute("CHECKPOINT")

    def _read(self, job_id: UUID) -> int:
        query = (
            "SELECT coalesce(max((c.total ->> 'read')::bigint), 0) FROM waybill_journal.chunks AS c"
            " JOIN jobs AS j ON j.import_id = c.import_id WHERE j.id = %s"
        )
        try:
            row = self.database.execute(query, (job_id,)).fetchone()
        except psycopg.errors.UndefinedTable:
            return 0
        return int(row[0]) if row else 0

    def _status(self, job_id: UUID) -> str:
        row = self.database.execute("SELECT status FROM jobs WHERE id = %s", (job_id,)).fetchone()
        return str(row[0]) if row else "gone"

    def _until(self, condition: Any) -> None:
        while not condition():
            time.sleep(0.01)

    def _psql(self, command: str) -> None:
        subprocess.run([programs() / "bin/psql", self.environ["DATABASE_URL"], "-qc", command], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure imports against psql.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--large", type=int, default=LARGE, help="rows of the resume and memory test; 0: none"
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        bench = stand(stack, stack.enter_context(services()))
        rows = measure(bench, options.rows, options.rounds)
        if options.large:
            rows += measure_large(bench, options.large)
    show(f"Imports of {options.rows:,} rows, 8 columns, two workers apply", rows)


def measure(bench: Bench, rows: int, rounds: int) -> list[tuple[str, str, str]]:
    bench.wait(bench.ask(bench.file(SMALL)))
    path, ratios, times, dry = bench.file(rows), [], [], []
    for _ in range(rounds):
        base = bench.copy(path)
        times.append(bench.wait(bench.ask(path)))
        ratios.append(times[-1] / base)
        dry.append(bench.wait(bench.ask(path, "dry-run")) / times[-1])
        print(f"  \\copy {base:.2f} s, import {times[-1]:.2f} s, dry run {dry[-1]:.2f} x", flush=True)
    return [
        ("size of the file", f"{path.stat().st_size / MB:,.0f} MB", ""),
        ("request to succeeded", f"{median(times):.2f} s", ""),
        ("against psql \\copy", f"{median(ratios):.2f} x", f"at most {TIME_LIMIT} x"),
        ("dry run against apply", f"{median(dry):.2f} x", f"at most {DRY_LIMIT} x"),
    ]


def measure_large(bench: Bench, large: int) -> list[tuple[str, str, str]]:
    bench.resident()
    bench.wait(bench.ask(bench.file(SMALL)))
    small = bench.resident()
    at = min(RESUMED, large // 2)
    job_id = bench.ask(bench.file(large))
    resumed = bench.resume(job_id, at)
    bench.wait(job_id)
    return [
        (f"resume at row {at:,}", f"{resumed:.2f} s", f"at most {RESUME_LIMIT} s"),
        (
            f"worker's memory, {large:,} rows over {SMALL:,}",
            f"{bench.resident() - small:+.0f} MB",
            f"under {MEMORY_LIMIT:.0f} MB",
        ),
    ]


def stand(stack: ExitStack, environ: dict[str, str]) -> Bench:
    """Migrated, the importer known, the processes running."""
    from flask_migrate import upgrade

    from app import accounts, create_app
    from app.extensions import db

    folder = Path(environ["LOGS"]) / "importers"
    folder.mkdir()
    (folder / "wide.toml").write_text(IMPORTER)
    environ |= {
        "IMPORTERS_PATH": str(folder),
        "SOURCE_BENCH_URL": f"{environ['DATABASE_URL']}?options=-csearch_path%3Dbench",
        "WORKER_THREADS": "1",
    }
    app = create_app(environ)
    with app.app_context():
        upgrade()
        user_id = accounts.create_user("bench@example.org", "correct horse battery staple").id
        db.engine.dispose()
    database = stack.enter_context(psycopg.connect(environ["DATABASE_URL"], autocommit=True))
    running = stack.enter_context(processes(environ, "web", "worker", "bulk", "clock"))
    second = Stack(environ, Path(environ["LOGS"]) / "second", ("bulk",))
    stack.callback(second.stop)
    second.start()
    hands: list[psutil.Process] = []
    while len(hands) < 2:
        time.sleep(1)
        hands = [hand for run in (running, second) if (hand := _heavy(run["bulk"].pid))]
    time.sleep(5)  # they say that they are there
    return Bench(app, environ, database, hands, user_id)


def _heavy(pid: int) -> psutil.Process | None:
    found = psutil.Process(pid).children(recursive=True)
    return next((child for child in found if child.memory_info().rss > 60 * MB), None)


if __name__ == "__main__":
    main()
