"""The whole way of an export in one process, over real PostgreSQL, Valkey and storage."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text, update

from app import exports, jobs, leases
from app.errors import IncompleteArtifact, NotFound, StorageFull, StorageUnavailable
from app.exports import flow
from app.extensions import db
from app.models import Delivery, Job, User
from app.reports import Registry
from app.storage.local import Local, LocalWriter
from tests.exporting import adder, artifact, attempt, clean, lines, make, storage
from tests.waiting import until


@pytest.fixture
def context(app: Any) -> Iterator[None]:
    with clean(app):
        yield


@pytest.fixture
def report(
    app: Any, context: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], None]:
    """report("name.sql", text): add a report of one's own to the app."""
    return adder(app, tmp_path, monkeypatch)


def sql(query: str, head: str = "") -> str:
    return f'/*\ntitle = "Rows"\ndescription = "Some rows"\n{head}\n*/\n{query}\n'


def objects() -> list[str]:
    return [stat.key for stat in storage().list("")]


def test_the_file_is_what_the_database_holds(report: Callable[..., None], member: User) -> None:
    report(
        "mixed.sql",
        sql(
            "SELECT * FROM (VALUES (1, 'plain', NULL, 1.50, DATE '2026-01-31'),"
            " (2, 'a \"quoted\", one' || chr(10) || 'on two lines', '', -3, NULL),"
            " (3, E'Zo\\u00eb \\U0001F600', 'x', 12345678901234567890.123456789, DATE '0044-03-15 BC'))"
            " AS t (id, title, note, amount, day) ORDER BY id"
        ),
    )
    job = make(member, "mixed")
    found, content = artifact(job)
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    assert job.status == "succeeded"
    assert rows[0] == ["id", "title", "note", "amount", "day"]
    assert rows[2][1] == 'a "quoted", one\non two lines'
    assert b',"",-3,\n' in content
    assert b"1,plain,,1.50," in content
    assert rows[3] == ["3", "Zoë 😀", "x", "12345678901234567890.123456789", "0044-03-15 BC"]
    assert found.rows == 3
    assert found.bytes == len(content)
    assert found.sha256 == hashlib.sha256(content).hexdigest() == found.receipt["sha256"]
    assert (job.progress_done, job.progress_total) == (3, 3)
    assert lines(job)[-1].startswith("Done: 3 rows")
    assert db.session.query(Delivery).filter_by(job_id=job.id).one().name == "ready"


def test_the_receipt_is_beside_the_file(report: Callable[..., None], member: User) -> None:
    report("three.sql", sql("SELECT i AS id FROM generate_series(1, :n) AS i", '[params.n]\ntype = "int"'))
    job = make(member, "three", params={"n": 3})
    found, content = artifact(job)
    receipt = json.loads(b"".join(storage().open(f"{found.key}.receipt.json")))
    assert receipt == found.receipt
    assert (receipt["rows_expected"], receipt["rows"], receipt["bytes"]) == (3, 3, len(content))
    assert receipt["sha256"] == hashlib.sha256(content).hexdigest()
    assert (receipt["job"], receipt["params"], receipt["dialect"]) == (str(job.id), {"n": 3}, "machine")
    assert len(receipt["definition_sha256"]) == 64
    assert (receipt["attempt"], receipt["parts"], receipt["filename"]) == (1, [], found.filename)


def test_an_empty_result_is_a_file_with_the_header_alone(report: Callable[..., None], member: User) -> None:
    report("none.sql", sql("SELECT 1 AS id, 'x' AS title WHERE false"))
    job = make(member, "none")
    found, content = artifact(job)
    assert (found.rows, content) == (0, b"id,title\n")
    assert "header alone" in lines(job)[-1]


def test_gzip_holds_the_same_bytes(report: Callable[..., None], member: User) -> None:
    report("many.sql", sql("SELECT i AS id, md5(i::text) AS text FROM generate_series(1, 200000) AS i"))
    plain = artifact(make(member, "many"))[1]
    found, packed = artifact(make(member, "many", compression="gzip"))
    assert found.filename.endswith(".csv.gz")
    assert found.content_type == "application/gzip"
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain)
    assert found.rows == 200_000


def test_params_are_values_never_sql(report: Callable[..., None], member: User) -> None:
    report(
        "echo.sql",
        sql(
            "SELECT :word AS word, :current_user_email AS me", '[params.word]\ntype = "text"\nrequired = true'
        ),
    )
    for hostile in (
        "'; DROP TABLE users; --",
        "\\'); --",
        "<script>",
        "%s %(x)s %",
        "$1",
        "a\N{NO-BREAK SPACE}é",
    ):
        rows = list(
            csv.reader(io.StringIO(artifact(make(member, "echo", params={"word": hostile}))[1].decode()))
        )
        assert rows[1] == [hostile, member.email]


def test_a_python_report_logs_progresses_and_queries(
    app: Any, context: None, demo: None, member: User
) -> None:
    job = make(member, "company_stats")
    found, content = artifact(job)
    assert job.status == "succeeded"
    assert found.rows > 0
    assert len(lines(job)) > 5
    assert len(list(csv.reader(io.StringIO(content.decode())))) == found.rows + 1


def test_a_python_report_with_a_row_of_the_wrong_width_publishes_nothing(
    report: Callable[..., None], member: User
) -> None:
    report(
        "ragged.py",
        """
        from app.reports import Column, Report

        class Ragged(Report):
            title = "Ragged"
            description = "One row is short"
            columns = (Column("a"), Column("b"))

            def rows(self, params, context):
                yield (1, 2)
                yield (1,)
        """,
    )
    job = make(member, "ragged")
    assert job.status != "succeeded"
    assert jobs.artifact_of(job) is None
    assert "Row 2 has 1 values" in " ".join(lines(job))
    assert objects() == []


def test_a_python_report_that_breaks_says_so(report: Callable[..., None], member: User) -> None:
    report(
        "broken.py",
        """
        from app.reports import Column, Report

        class Broken(Report):
            title = "Broken"
            description = "Divides by zero"
            columns = (Column("a"),)

            def rows(self, params, context):
                yield (1 / 0,)
        """,
    )
    job = make(member, "broken")
    assert (job.status, job.error_code) == ("failed", "internal")
    assert "ZeroDivisionError" in (job.error_message or "")
    assert db.session.query(Delivery).filter_by(job_id=job.id).one().name == "failed"


def test_sql_that_fails_half_way_publishes_nothing(report: Callable[..., None], member: User) -> None:
    report("half.sql", sql("SELECT 1 / (150000 - i) AS x FROM generate_series(1, 200000) AS i"))
    job = make(member, "half")
    assert (job.status, job.error_code) == ("failed", "query_failed")
    assert "division by zero" in (job.error_message or "")
    assert objects() == []
    assert jobs.artifact_of(job) is None


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "xlsx"])
def test_a_query_without_columns_is_told(report: Callable[..., None], member: User, format: str) -> None:
    report("bare.sql", sql("SELECT FROM generate_series(1, 3)"))
    job = make(member, "bare", format=format)
    assert (job.status, job.error_code) == ("failed", "query_failed")
    assert "no columns" in (job.error_message or "")


def test_a_report_may_not_write(report: Callable[..., None], member: User) -> None:
    report("writer.sql", sql("SELECT set_config('x.y', nextval('sneaky')::text, false)"))
    with psycopg.connect(db.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")) as conn:
        conn.execute("CREATE SCHEMA IF NOT EXISTS demo; CREATE SEQUENCE IF NOT EXISTS demo.sneaky")
    job = make(member, "writer")
    assert job.status == "failed"
    assert "tries to write" in (job.error_message or "")


def test_a_query_over_the_time_limit_says_so(
    app: Any, report: Callable[..., None], member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], statement_timeout_seconds=1))
    report("slow.sql", sql("SELECT pg_sleep(30)"))
    job = make(member, "slow")
    assert job.status == "failed"
    assert "the limit is 1 s" in (job.error_message or "")


def test_a_source_that_is_down_is_tried_again_then_fails(
    app: Any, report: Callable[..., None], member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    report("rows.sql", sql("SELECT 1 AS id"))
    down = replace(app.config["WAYBILL"], sources={"demo": "postgresql://nobody:x@127.0.0.1:1/none"})
    monkeypatch.setitem(app.config, "WAYBILL", down)
    job = make(member, "rows")
    assert job.status == "queued"
    assert job.next_attempt_at is not None
    assert leases.claim(job.id) is None  # it waits in the database
    for _ in range(2):
        db.session.execute(update(Job).values(next_attempt_at=None))
        db.session.commit()
        job = attempt(job.id)
    assert (job.status, job.error_code, job.attempt) == ("failed", "source_down", 3)
    assert "does not answer" in (job.error_message or "")
    assert "x@" not in (job.error_message or "")


@pytest.mark.parametrize("format", ["csv", "jsonl", "xlsx", "parquet"])
def test_sqlite_with_types_that_change_late(
    app: Any,
    report: Callable[..., None],
    member: User,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    format: str,
) -> None:
    from dataclasses import replace

    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, size)")
        conn.executemany(
            "INSERT INTO things VALUES (?, ?)", ((number, number * 2) for number in range(30_000))
        )
        conn.execute("UPDATE things SET size = 'huge' WHERE id = 29999")
    conn.close()
    sources = replace(app.config["WAYBILL"], sources={"demo": f"sqlite:///{path}"})
    monkeypatch.setitem(app.config, "WAYBILL", sources)
    query = "SELECT id, size FROM things WHERE id >= :least ORDER BY id"
    report("things.sql", sql(query, '[params.least]\ntype = "int"\nrequired = true'))
    job = make(member, "things", params={"least": 10}, format=format)
    assert job.status == "succeeded", lines(job)
    found, content = artifact(job)
    assert found.rows == 29_990
    assert any("Starting the file again" in line for line in lines(job))
    if format == "csv":
        assert content.startswith(b"id,size\n10,20\n11,22\n")
        assert content.endswith(b"29998,59996\n29999,huge\n")


@pytest.mark.parametrize("scheme", ["duckdb", "sqlite+pysqlite"])
@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_columns_are_chosen_of_sources_that_lose_the_order(
    app: Any,
    report: Callable[..., None],
    member: User,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    scheme: str,
    format: str,
) -> None:
    from dataclasses import replace

    import duckdb
    import pyarrow.parquet

    path = tmp_path / "shop.db"
    connect: Any = duckdb.connect if scheme == "duckdb" else sqlite3.connect
    with contextlib.closing(connect(str(path))) as conn:
        conn.execute("CREATE TABLE things (id INTEGER, size INTEGER)")
        conn.executemany("INSERT INTO things VALUES (?, ?)", [(number, number % 7) for number in range(500)])
        conn.commit()
    sources = replace(app.config["WAYBILL"], sources={"demo": f"{scheme}:///{path}"})
    monkeypatch.setitem(app.config, "WAYBILL", sources)
    report("things.sql", sql("SELECT id, size, 'x' AS note FROM things ORDER BY size DESC, id"))
    job = make(member, "things", columns=["size", "id"], format=format)
    assert job.status == "succeeded", lines(job)
    _, content = artifact(job)
    rows = sorted(((number % 7, number) for number in range(500)), key=lambda row: (-row[0], row[1]))
    if format == "csv":
        assert content.decode().splitlines() == ["size,id", *(f"{size},{number}" for size, number in rows)]
    else:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
        assert [tuple(row.values()) for row in table.to_pylist()] == rows


def test_a_connection_cut_in_the_middle_is_tried_again(report: Callable[..., None], member: User) -> None:
    report("cut.sql", sql("SELECT pg_terminate_backend(pg_backend_pid())"))
    job = make(member, "cut")
    assert job.status == "queued"
    assert any("was cut" in line for line in lines(job))


@pytest.mark.parametrize(
    ("error", "status"),
    [(StorageFull("It is full."), "failed"), (StorageUnavailable("It is away."), "queued")],
)
def test_a_storage_that_refuses(
    error: Exception, status: str, report: Callable[..., None], member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    report("rows.sql", sql("SELECT repeat('x', 1000) FROM generate_series(1, 5000)"))

    def refuse(writer: Any, block: Any) -> None:
        raise error

    monkeypatch.setattr(LocalWriter, "_add", refuse)
    job = make(member, "rows")
    assert job.status == status
    assert objects() == []
    assert str(error) in " ".join(lines(job))


def test_a_file_that_came_out_short_is_not_published(
    report: Callable[..., None], member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides of the reconciliation: rows in the bytes, and bytes in the storage."""
    report("rows.sql", sql("SELECT i FROM generate_series(1, 1000) AS i"))
    with monkeypatch.context() as patch:
        kept = flow.Flow.write
        patch.setattr(flow.Flow, "write", lambda flow, block: kept(flow, block.removesuffix(b"1000\n")))
        job = make(member, "rows")
        assert job.status == "queued"
        assert any("1,000 rows were read, but 999" in line for line in lines(job))
    with monkeypatch.context() as patch:
        stat = Local.stat
        patch.setattr(Local, "stat", lambda *args: type(stat(*args))("k", 7, "e", stat(*args).modified))
        job = make(member, "rows")
        assert job.status == "queued"
        assert any("holds 7 bytes" in line for line in lines(job))
    assert jobs.artifact_of(job) is None
    assert IncompleteArtifact.retryable


def test_cancel_breaks_off_a_query_that_has_not_answered(report: Callable[..., None], member: User) -> None:
    report("slow.sql", sql("SELECT pg_sleep(600)"))
    job_id = jobs.request_export(db.session.merge(member), "slow", {}).id
    _once_asleep(lambda: jobs.cancel(db.session.get_one(Job, job_id)))
    job = attempt(job_id)
    assert job.status == "cancelled"
    assert objects() == []
    assert db.session.query(Delivery).filter_by(job_id=job.id).count() == 0


def test_a_stopping_worker_hands_its_job_back(report: Callable[..., None], member: User) -> None:
    report("slow.sql", sql("SELECT pg_sleep(600)"))
    job_id = jobs.request_export(db.session.merge(member), "slow", {}).id
    _once_asleep(leases.stopping.set)
    try:
        job = attempt(job_id)
    finally:
        leases.stopping.clear()
    assert (job.status, job.attempt, job.forgiven) == ("queued", 1, 1)
    assert "shutting down" in lines(job)[-1]


def test_a_fenced_off_attempt_changes_nothing(report: Callable[..., None], member: User) -> None:
    """The old worker wakes after another one took the job: its file and its words are dropped."""
    report("rows.sql", sql("SELECT i FROM generate_series(1, 1000) AS i"))
    job_id = jobs.request_export(db.session.merge(member), "rows", {}).id
    old = leases.claim(job_id)
    assert old is not None
    db.session.execute(update(Job).values(lease_expires_at=db.func.now()))
    db.session.commit()
    new = leases.claim(job_id)
    assert new is not None
    assert new.attempt == 2
    exports.run(old)
    assert db.session.get_one(Job, job_id).status == "running"
    assert objects() == []
    db.session.remove()
    exports.run(new)
    db.session.remove()
    job = db.session.get_one(Job, job_id)
    assert job.status == "succeeded"
    assert artifact(job)[0].receipt["attempt"] == 2
    assert sorted(key.split("/")[-1] for key in objects()) == ["2.csv", "2.csv.receipt.json"]


def test_rights_are_checked_again_when_the_job_starts(report: Callable[..., None], member: User) -> None:
    report("rows.sql", sql("SELECT 1 AS id"))
    job_id = jobs.request_export(db.session.merge(member), "rows", {}).id
    db.session.merge(member).roles.clear()
    db.session.commit()
    job = attempt(job_id)
    assert (job.status, job.error_code) == ("failed", "not_allowed")


def test_a_report_that_is_gone_says_so(
    app: Any, report: Callable[..., None], member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    report("rows.sql", sql("SELECT 1 AS id"))
    job_id = jobs.request_export(db.session.merge(member), "rows", {}).id
    monkeypatch.setitem(app.extensions, "waybill.reports", Registry.load("", sources=("demo",)))
    job = attempt(job_id)
    assert (job.status, job.error_code) == ("failed", NotFound.code)


def test_memory_does_not_grow_with_the_rows(report: Callable[..., None], member: User) -> None:
    report(
        "many.sql",
        sql(
            "SELECT i, repeat('x', 100) FROM generate_series(1, :n) AS i",
            '[params.n]\ntype = "int"\nrequired = true',
        ),
    )
    make(member, "many", params={"n": 10_000})
    before = _resident()
    job = make(member, "many", params={"n": 1_000_000})
    grown = _resident() - before
    found = jobs.artifact_of(job)
    assert found is not None
    assert found.rows == 1_000_000
    assert grown < 60_000_000


def _resident() -> int:
    """This process's resident memory, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _once_asleep(action: Callable[[], Any]) -> None:
    """Do `action` in a thread as soon as the database is at work on `pg_sleep`."""
    from flask import current_app

    app = current_app._get_current_object()  # type: ignore[attr-defined]
    asleep = text("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')")

    def look() -> bool:
        with db.engine.connect() as conn:
            return bool(conn.scalar(asleep))

    def act() -> None:
        with app.app_context():
            until(look)
            action()

    threading.Thread(target=act).start()
