"""Exports against psql's own \\copy of the same query: time from POST to succeeded, and the worker's memory.

    python -m benchmarks.exports [--rows 3000000] [--rounds 3] [--large 30000000]

Starts PostgreSQL, Valkey, SMTP and the Procfile's web, worker and clock. The two sides take turns, and
the ratio is that of each turn; the table shows medians.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks.stand import MB, median, processes, services, show

ROWS, ROUNDS, LARGE = 3_000_000, 3, 30_000_000
TIME_LIMIT, MEMORY_LIMIT = 1.5, 60.0

# Eight columns; every third text has quotes and a line break.
TABLE = """
CREATE SCHEMA IF NOT EXISTS demo;
CREATE TABLE demo.wide AS SELECT
    i AS id,
    'Title of number ' || i AS title,
    CASE WHEN i % 3 = 0 THEN 'He said "hello", then' || chr(10) || 'left; ' || md5(i::text)
         ELSE 'plain text ' || md5(i::text) END AS body,
    CASE WHEN i % 4 = 0 THEN NULL ELSE 'open' END AS status,
    'member' || (i % 5000) || '@example.com' AS email,
    (i * 1.37)::numeric(14, 2) AS amount,
    timestamptz '2025-01-01' + i * interval '37 seconds' AS created_at,
    i % 2 = 0 AS billed
FROM generate_series(1, {rows}) AS i
"""
QUERY = "SELECT * FROM wide"
REPORT = '/*\ntitle = "{title}"\ndescription = "For measuring"\n*/\n{query}\n'


@dataclass
class Bench:
    """The stand of one run, and what a round needs."""

    environ: dict[str, str]
    token: str
    worker: psutil.Process

    def post(self, report: str, **options: str) -> tuple[float, dict[str, Any]]:
        """Ask for an export; the seconds from the POST until it succeeded, and the job."""
        begun = time.monotonic()
        job = self._call("/api/v1/exports", {"report": report, **options})
        while job["status"] in ("queued", "running"):
            time.sleep(0.02)
            job = self._call(f"/api/v1/jobs/{job['id']}")
        seconds = time.monotonic() - begun
        if job["status"] != "succeeded":
            raise SystemExit(f"The export ended {job['status']}: {job['error']}")
        return seconds, job

    def psql(self, psql: Path) -> float:
        """The seconds of \\copy into a file of the same disk."""
        out = Path(self.environ["LOGS"]) / "psql.csv"
        copy = f"\\copy ({QUERY.replace('FROM ', 'FROM demo.')}) TO '{out}' WITH (FORMAT csv, HEADER)"
        begun = time.monotonic()
        subprocess.run([psql, self.environ["DATABASE_URL"], "-qc", copy], check=True)
        seconds = time.monotonic() - begun
        out.unlink()
        return seconds

    def resident(self) -> float:
        """The worker's peak resident memory since it was last asked, in MB."""
        status = Path(f"/proc/{self.worker.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        Path(f"/proc/{self.worker.pid}/clear_refs").write_text("5")
        return int(peak.split()[1]) * 1024 / MB

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            self.environ["PUBLIC_URL"] + path,
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure exports against psql.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--large", type=int, default=LARGE, help="rows of the memory test; 0 leaves it out")
    options = parser.parse_args()
    rows = measure(options.rows, options.rounds, options.large)
    show(f"Exports of {options.rows:,} rows, 8 columns", rows)


def measure(rows: int, rounds: int, large: int) -> list[tuple[str, str, str]]:
    from app.dev.postgres import programs

    with ExitStack() as stack:
        bench = stand(stack, stack.enter_context(services()), rows, large)
        psql = programs() / "bin/psql"
        bench.post("warm")
        bench.resident()
        idle = bench.resident()
        plain, packed, times, size = [], [], [], 0
        for _ in range(rounds):
            base = bench.psql(psql)
            seconds, job = bench.post("wide")
            size = job["artifact"]["bytes"]
            times.append(seconds)
            plain.append(seconds / base)
            packed.append(bench.post("wide", compression="gzip")[0] / seconds)
        grown = bench.resident() - idle
        found = [
            ("size of the file", f"{size / MB:,.0f} MB", ""),
            ("POST to succeeded", f"{median(times):.2f} s", ""),
            ("against psql \\copy", f"{median(plain):.2f} x", f"at most {TIME_LIMIT} x"),
            ("gzip against plain", f"{median(packed):.2f} x", ""),
            ("worker's memory over idle", f"{grown:+.0f} MB", f"under {MEMORY_LIMIT:.0f} MB"),
        ]
        if large:
            bench.post("large")
            over = bench.resident() - idle
            found.append((f"the same for {large:,} rows", f"{over:+.0f} MB", f"under {MEMORY_LIMIT:.0f} MB"))
        return found


def stand(stack: ExitStack, environ: dict[str, str], rows: int, large: int) -> Bench:
    """Migrated, the table made, the processes running, the reports known."""
    from flask_migrate import upgrade

    from app import accounts, create_app
    from app.extensions import db
    from app.models import ApiToken

    folder = Path(environ["LOGS"]) / "reports"
    folder.mkdir()
    queries = {"warm": "SELECT * FROM wide LIMIT 10000", "wide": QUERY}
    queries["large"] = f"SELECT wide.* FROM wide, generate_series(1, {max(1, large // rows)})"
    for key, query in queries.items():
        (folder / f"{key}.sql").write_text(REPORT.format(title=key.title(), query=query))
    environ |= {"REPORTS_PATH": str(folder)}
    app = create_app(environ)
    with app.app_context():
        upgrade()
        user = accounts.create_user("bench@example.org", "correct horse battery staple")
        _, token = ApiToken.create(user, "bench")
        db.session.commit()
        db.engine.dispose()
    with psycopg.connect(environ["DATABASE_URL"], autocommit=True) as conn:
        conn.execute(TABLE.format(rows=rows).encode())
        conn.execute("VACUUM ANALYZE demo.wide")
    running = stack.enter_context(processes(environ, "web", "worker", "clock"))
    (worker,) = (
        child
        for child in psutil.Process(running["worker"].pid).children(recursive=True)
        if child.memory_info().rss > 80 * MB
    )
    return Bench(environ, token, worker)


if __name__ == "__main__":
    main()
