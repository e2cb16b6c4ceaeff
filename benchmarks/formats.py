"""Formats against the tools one would use by hand, from the same PostgreSQL: time, peak memory, size.

    python -m benchmarks.formats [--rows 1000000] [--rounds 3]

Each side runs in a process of its own and takes turns with the other; a ratio is that of one turn, the table
shows medians. Our side counts, hashes and writes to a file, as an export does. XlsxWriter works in constant
memory, fed by a server-side cursor; pyarrow reads through ADBC, as DuckDB's own reader is no package. Rows
like these in a SQLite file are read by us and by SQLite's shell, where there is one (`apt install sqlite3`).
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from importlib.abc import MetaPathFinder
from pathlib import Path

import psycopg

from app import memory
from app.exports import content
from app.exports.flow import compressor
from app.formats import find
from app.reports import Statement
from app.sources import open_source
from benchmarks.stand import MB, median, services, show

ROWS, ROUNDS = 1_000_000, 3
# Eight columns of the usual types; every third text has quotes and a line break.
TABLE = """
CREATE TABLE wide AS SELECT
    i AS id,
    'Title of number ' || i AS title,
    CASE WHEN i % 3 = 0 THEN 'He said "hello", then' || chr(10) || 'left & came <back>; ' || i
         ELSE 'plain text ' || md5(i::text) END AS body,
    CASE WHEN i % 4 = 0 THEN NULL ELSE 'open' END AS status,
    date '2020-01-01' + i % 3000 AS due,
    (i * 1.37)::numeric(14, 2) AS amount,
    timestamptz '2025-01-01' + i * interval '37 seconds' AS created_at,
    i % 2 = 0 AS billed
FROM generate_series(1, {rows}) AS i
"""
# The same for SQLite, which has neither booleans, nor dates, nor exact decimals.
LITE = """
CREATE TABLE wide AS WITH RECURSIVE numbers(i) AS (
    SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {rows}
)
SELECT
    i AS id,
    'Title of number ' || i AS title,
    CASE WHEN i % 3 = 0 THEN 'He said "hello", then' || char(10) || 'left & came <back>; ' || i
         ELSE 'plain text ' || lower(hex(randomblob(16))) END AS body,
    CASE WHEN i % 4 = 0 THEN NULL ELSE 'open' END AS status,
    date('2020-01-01', (i % 3000) || ' days') AS due,
    round(i * 1.37, 2) AS amount,
    datetime('2025-01-01', (i * 37) || ' seconds') AS created_at,
    i % 2 = 0 AS billed
FROM numbers
"""
QUERY = "SELECT * FROM wide"
# A reader of SQLite is a process of its own: it needs more rows to show its rate.
LITE_TIMES = 3
SHELL = "sqlite3's shell"

# What is measured, against what, and the most that the ratio may be.
PAIRS = (
    ("xlsx", "XlsxWriter", 0.25),
    ("parquet", "pyarrow", 1.3),
    ("csv+gzip", "csv", 1.15),
    ("csv from SQLite", SHELL, 0.8),
    ("csv spreadsheet", "csv", None),
    ("jsonl", "csv", None),
)
MEMORY_LIMIT = {"xlsx": 200.0}


@dataclass(frozen=True)
class Measured:
    seconds: float
    megabytes: float
    size: int


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--side", nargs=3, metavar=("NAME", "URL", "FILE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        memory.tune()
        name, url, file = asked.side
        SIDES.get(name, ours)(name, url, Path(file))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    with services() as environ:
        with psycopg.connect(environ["DATABASE_URL"], autocommit=True) as connection:
            connection.execute(TABLE.format(rows=asked.rows))
            connection.execute("VACUUM ANALYZE wide")
        file = Path(environ["LOGS"]) / "out"
        with closing(sqlite3.connect(lite(file))) as connection:
            connection.execute(LITE.format(rows=LITE_TIMES * asked.rows))
        _table(asked.rows, environ["DATABASE_URL"], file, asked.rounds)


def lite(file: Path) -> Path:
    """The SQLite file, beside the file that is written."""
    return file.with_name("wide.db")


def _table(rows: int, url: str, file: Path, rounds: int) -> None:
    lines: list[tuple[str, str, str]] = []
    for name, peer, limit in PAIRS:
        if peer == SHELL and not shutil.which("sqlite3"):
            lines.append((f"{name} against {peer}", "there is no shell here", ""))
            continue
        turns = [(measure(name, url, file), measure(peer, url, file)) for _ in range(rounds)]
        mine, theirs = [turn[0] for turn in turns], [turn[1] for turn in turns]
        ratio = median([one.seconds / other.seconds for one, other in turns])
        lines.append((f"{name} against {peer}", f"{ratio:.2f}x", f"<= {limit}x" if limit else ""))
        lines.append((f"  {name}", _shown(mine), _memory(name)))
        lines.append((f"  {peer}", _shown(theirs), ""))
    show(f"Formats, {rows:,} rows x 8 columns, median of {rounds}", lines)


def measure(name: str, url: str, file: Path) -> Measured:
    """One run in a process of its own, its start and imports not counted."""
    command = [sys.executable, "-m", "benchmarks.formats", "--side", name, url, str(file)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, kilobytes = done.stdout.split()
    return Measured(float(seconds), int(kilobytes) * 1024 / MB, file.stat().st_size)


def ours(name: str, url: str, file: Path) -> None:
    sys.meta_path.insert(0, WithoutPandas())
    import pyarrow.compute  # noqa: F401  # as in a worker that has made such a file before

    name, _, other = name.partition(" from ")
    url = f"sqlite:///{lite(file)}" if other else url
    spoken, _, compression = name.partition("+")
    format, dialect = find(*spoken.split())
    counter, sha, packer = format.counter(), hashlib.sha256(), compressor(compression, file.name)
    writing = format.writing(dialect)
    with Timed(), open_source("bench", url, timedelta(hours=1)).reading() as reading, file.open("wb") as out:
        for block in content.of_query(Statement(QUERY, {}), reading, writing):
            counter.feed(block)
            packed = packer.compress(block) if packer else block
            sha.update(packed)
            out.write(packed)
        out.write(packer.flush() if packer else b"")


def xlsxwriter_side(name: str, url: str, file: Path) -> None:
    import xlsxwriter

    with Timed(), psycopg.connect(url) as connection, connection.cursor(name="bench") as cursor:
        book = xlsxwriter.Workbook(
            str(file), {"constant_memory": True, "default_date_format": "yyyy-mm-dd", "remove_timezone": True}
        )
        sheet = book.add_worksheet()
        cursor.itersize = 5_000
        cursor.execute(QUERY.encode())
        sheet.write_row(0, 0, ["id", "title", "body", "status", "due", "amount", "created_at", "billed"])
        for at, row in enumerate(cursor, 1):
            sheet.write_row(at, 0, row)
        book.close()


def shell_side(name: str, url: str, file: Path) -> None:
    with Timed(), file.open("wb") as out:
        subprocess.run(["sqlite3", "-csv", "-header", str(lite(file)), QUERY], check=True, stdout=out)


def pyarrow_side(name: str, url: str, file: Path) -> None:
    from adbc_driver_postgresql import dbapi
    from pyarrow import parquet

    with Timed(), closing(dbapi.connect(url)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(QUERY)
        batches = cursor.fetch_record_batch()
        with parquet.ParquetWriter(file, batches.schema, compression="zstd", compression_level=1) as writer:
            for batch in batches:
                writer.write_batch(batch)


SIDES: dict[str, Callable[[str, str, Path], None]] = {
    "XlsxWriter": xlsxwriter_side,
    "pyarrow": pyarrow_side,
    SHELL: shell_side,
}


class WithoutPandas(MetaPathFinder):
    """pyarrow loads pandas where it finds it, 40 MB; our tests need it, but Waybill does not install it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


class Timed:
    """Prints the seconds that passed inside."""

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *error: object) -> None:
        print(time.monotonic() - self._begun)


def _shown(runs: list[Measured]) -> str:
    seconds, size = median([run.seconds for run in runs]), runs[0].size / MB
    return f"{seconds:.2f} s, {max(run.megabytes for run in runs):.0f} MB of memory, file of {size:.0f} MB"


def _memory(name: str) -> str:
    return f"<= {MEMORY_LIMIT[name]:.0f} MB of memory" if name in MEMORY_LIMIT else ""


if __name__ == "__main__":
    main()
