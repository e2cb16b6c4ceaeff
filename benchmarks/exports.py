"""Exports against psql's own \\copy of the same query: time from POST to succeeded, and the worker's memory.

    python -m benchmarks.exports [--rows 3000000] [--rounds 3] [--large 30000000]

Starts PostgreSQL, Valkey, SMTP, SeaweedFS and the Procfile's processes. The two sides take turns, and
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

from app.dev.postgres import programs
from app.dev.stack import Stack
from benchmarks.stand import MB, median, processes, services, show

ROWS, ROUNDS, LARGE = 3_000_000, 3, 30_000_000
TIME_LIMIT, PARTS_LIMIT, GZIP_LIMIT, S3_LIMIT, MEMORY_LIMIT = 1.25, 0.9, 1.15, 1.5, 60.0

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
PLAIN = "against psql \\copy"
QUERY, ORDERED = "SELECT * FROM wide", "SELECT * FROM wide ORDER BY id"
REPORT = '/*\ntitle = "{title}"\ndescription = "For measuring"\n{options}\n*/\n{query}\n'


@dataclass
class Bench:
    """The stand of one run, and what a round needs."""

    environ: dict[str, str]
    token: str
    worker: psutil.Process
    database: psycopg.Connection[Any]

    def post(self, report: str, **options: str) -> tuple[float, dict[str, Any]]:
        """Ask for an export; the seconds from the POST until it succeeded, and the job."""
        begun = time.monotonic()
        job = self._call("/api/v1/exports", {"report": report, "fresh": True, **options})
        # By the database, which costs next to nothing: polling the API would take a core from the worker.
        status = "queued"
        while status in ("queued", "running"):
            time.sleep(0.01)
            row = self.database.execute("SELECT status FROM jobs WHERE id = %s", (job["id"],)).fetchone()
            status = row[0] if row else "gone"
        seconds = time.monotonic() - begun
        job = self._call(f"/api/v1/jobs/{job['id']}")
        self._forget(job["id"])
        if job["status"] != "succeeded":
            raise SystemExit(f"The export ended {job['status']}: {job['error']}")
        return seconds, job

    @property
    def copied(self) -> Path:
        """What psql writes."""
        return Path(self.environ["LOGS"]) / "psql.csv"

    def psql(self, query: str, *, keep: bool = False) -> float:
        """The seconds of \\copy of a query into a file of the same disk."""
        query = query.replace("FROM ", "FROM demo.")
        copy = f"\\copy ({query}) TO '{self.copied}' WITH (FORMAT csv, HEADER)"
        begun = time.monotonic()
        subprocess.run([programs() / "bin/psql", self.environ["DATABASE_URL"], "-qc", copy], check=True)
        seconds = time.monotonic() - begun
        if not keep:
            self.copied.unlink()
        return seconds

    def upload(self) -> float:
        """The seconds of boto3's own upload of the file that psql left, which then goes."""
        from app.storage.s3 import connect

        bucket = self.environ["STORAGE_URL"].split("/")[2]
        begun = time.monotonic()
        connect(self.environ).upload_file(str(self.copied), bucket, self.copied.name)
        seconds = time.monotonic() - begun
        self.copied.unlink()
        return seconds

    def resident(self) -> float:
        """The worker's peak resident memory since it was last asked, in MB."""
        status = Path(f"/proc/{self.worker.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        Path(f"/proc/{self.worker.pid}/clear_refs").write_text("5")
        return int(peak.split()[1]) * 1024 / MB

    def server_seconds(self) -> float:
        """SeaweedFS's CPU time so far."""
        port = self.environ["AWS_ENDPOINT_URL_S3"].rpartition(":")[2]
        (server,) = (p for p in psutil.Process().children() if f"-s3.port={port}" in p.cmdline())
        times = server.cpu_times()
        return float(times.user + times.system)

    def _forget(self, job_id: str) -> None:
        """Take the file away, as psql's is: whoever leaves none behind writes into memory that is at hand."""
        for path in (Path(self.environ["LOGS"]) / "storage" / "artifacts" / job_id).glob("*.csv*"):
            path.unlink()

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
    local = float(next(found for what, found, _ in rows if what == PLAIN).split()[0])
    rows += measure_s3(options.rows, options.rounds, local)
    show(f"Exports of {options.rows:,} rows, 8 columns", rows)


def measure(rows: int, rounds: int, large: int) -> list[tuple[str, str, str]]:
    with ExitStack() as stack:
        bench = stand(stack, stack.enter_context(services()), rows, large)
        bench.post("warm")
        bench.resident()
        idle = bench.resident()
        plain, packed, times, size = [], [], [], 0
        for _ in range(rounds):
            base = bench.psql(QUERY)
            seconds, job = bench.post("wide")
            size = job["artifact"]["bytes"]
            times.append(seconds)
            plain.append(seconds / base)
            packed.append(bench.post("wide", compression="gzip")[0] / seconds)
        grown = bench.resident() - idle
        found = [
            ("size of the file", f"{size / MB:,.0f} MB", ""),
            ("POST to succeeded", f"{median(times):.2f} s", ""),
            (PLAIN, f"{median(plain):.2f} x", f"at most {TIME_LIMIT} x"),
            ("gzip against plain", f"{median(packed):.2f} x", f"at most {GZIP_LIMIT} x"),
            ("worker's memory over idle", f"{grown:+.0f} MB", f"under {MEMORY_LIMIT:.0f} MB"),
        ]
        if large:
            bench.post("large")
            over = bench.resident() - idle
            found.append((f"the same for {large:,} rows", f"{over:+.0f} MB", f"under {MEMORY_LIMIT:.0f} MB"))
        return found + measure_parts(stack, bench, rounds)


def measure_parts(stack: ExitStack, bench: Bench, rounds: int) -> list[tuple[str, str, str]]:
    """The same in parts, by the one worker process and then by two, against psql's ordered \\copy."""
    found = []
    for workers in (1, 2):
        ratios = [bench.post("cut")[0] / bench.psql(ORDERED) for _ in range(rounds)]
        limit = f"at most {PARTS_LIMIT} x" if workers == 2 else ""
        found.append(
            (f"in parts, {workers} worker process{'es' * (workers - 1)}", f"{median(ratios):.2f} x", limit)
        )
        if workers == 1:
            second = Stack(bench.environ, Path(bench.environ["LOGS"]) / "second", ("worker",))
            stack.callback(second.stop)
            second.start()
            time.sleep(10)  # it boots, and says that it is there
    return found


def measure_s3(rows: int, rounds: int, local: float) -> list[tuple[str, str, str]]:
    """One stream into SeaweedFS on the same machine; `local` is the ratio to psql of a local folder."""
    with ExitStack() as stack:
        bench = stand(stack, stack.enter_context(services(s3=True)), rows, 0)
        bench.post("warm")
        bench.resident()
        bench.post("tenth")
        tenth = bench.resident()
        ratios, uploads, server = [], [], 0.0
        for _ in range(rounds):
            before = bench.server_seconds()
            seconds = bench.post("wide")[0]
            server += (bench.server_seconds() - before) / rounds
            base = bench.psql(QUERY, keep=True)
            ratios.append(seconds / base)
            uploads.append(bench.upload() / base)
        grown = bench.resident() - tenth
        return [
            (
                "S3 against local, each by its psql",
                f"{median(ratios) / local:.2f} x",
                f"at most {S3_LIMIT} x",
            ),
            (
                "boto3's upload of a finished file, against the local export",
                f"{median(uploads) / local:.2f} x",
                "",
            ),
            ("SeaweedFS's own CPU time for each file", f"{server:.1f} s", ""),
            (
                f"worker's memory, S3, over {rows // 10:,} rows",
                f"{grown:+.0f} MB",
                f"under {MEMORY_LIMIT:.0f} MB",
            ),
        ]


def stand(stack: ExitStack, environ: dict[str, str], rows: int, large: int) -> Bench:
    """Migrated, the table made, the processes running, the reports known."""
    from flask_migrate import upgrade

    from app import accounts, create_app
    from app.extensions import db
    from app.models import ApiToken

    folder = Path(environ["LOGS"]) / "reports"
    folder.mkdir()
    queries = {"warm": "SELECT * FROM wide LIMIT 10000", "wide": QUERY, "cut": ORDERED}
    queries["tenth"] = f"SELECT * FROM wide WHERE id <= {rows // 10}"
    queries["large"] = f"SELECT wide.* FROM wide, generate_series(1, {max(1, large // rows)})"
    for key, query in queries.items():
        options = 'partition_by = "id"' if key == "cut" else ""
        (folder / f"{key}.sql").write_text(REPORT.format(title=key.title(), options=options, query=query))
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
        conn.execute("ALTER TABLE demo.wide ADD PRIMARY KEY (id)")
        conn.execute("VACUUM ANALYZE demo.wide")
    running = stack.enter_context(processes(environ, "web", "worker", "clock"))
    (worker,) = (
        child
        for child in psutil.Process(running["worker"].pid).children(recursive=True)
        if child.memory_info().rss > 80 * MB
    )
    database = stack.enter_context(psycopg.connect(environ["DATABASE_URL"], autocommit=True))
    return Bench(environ, token, worker, database)


if __name__ == "__main__":
    main()
