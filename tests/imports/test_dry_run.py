"""A dry run: it tells what applying does, and does nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from app import imports, jobs, leases, storage
from app.errors import Cancelled, Interruption, Stopping
from app.extensions import db
from app.importers import Column, Importer
from app.imports import apply, dry_run
from app.imports.table import ready
from app.models import Import, Job
from tests.importing import Landing, Things, landed, text_of
from tests.imports.test_undo import BEFORE, FAMILY, NAMED, Notes, Parts, messy, parts
from tests.waiting import until


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else listens: the conductor applies the chunks itself, and need not wait for others first."""
    monkeypatch.setattr(apply, "LOOK_ROUND", 0.0)
    monkeypatch.setattr(apply, "GLANCE", 0.001)


@pytest.fixture
def before(landing: Landing) -> str:
    landing.conn.execute(BEFORE.replace("%%", "%").encode())
    return landing.digest()


@pytest.fixture
def family(app: Any, database: Callable[[], str], member: Any) -> Iterator[Landing]:
    importers = (Things(), Parts(), Notes())
    with landed(app, database, member, *importers, table=FAMILY, chunk_bytes=64) as landing:
        yield landing


def foresee(landing: Landing, text: str, **options: Any) -> tuple[Job, dict[str, Any]]:
    """The job and what it forecast, counts of nought left out."""
    job = landing.run(landing.ask(text, step="dry-run", **options))
    assert job.status == "succeeded", landing.log(job.id)
    forecast = db.session.get_one(Import, job.import_id).forecast or {}
    return job, {name: count for name, count in forecast.items() if count}


def both(landing: Landing, text: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the dry run of a file tells, and then what applying it does; their files of refused rows agree."""
    job, forecast = foresee(landing, text, reject_limit=None, reject_percent=None, **options)
    refused = file_of(job)
    applied = landing.run(landing.ask_again(import_of(job)))
    assert applied.status == "succeeded", landing.log(applied.id)
    result = landing.result(applied)
    assert lines_of(refused) == lines_of(file_of(applied))
    forecast.pop("examples", None)
    return forecast, result


def import_of(job: Job) -> UUID:
    assert job.import_id is not None
    return job.import_id


def file_of(job: Job) -> bytes:
    artifact = jobs.artifact_of(job)
    return b"".join(storage.current().open(artifact.key)) if artifact else b""


def lines_of(file: bytes) -> list[bytes]:
    """But for the words in which the table itself refuses a row."""
    return [line.partition(b",unknown_reference,")[0] for line in file.splitlines()]


@pytest.mark.parametrize("mode", ["upsert", "insert", "update", "skip"])
def test_it_tells_what_applying_does(landing: Landing, before: str, mode: str) -> None:
    forecast, result = both(landing, messy(), mode=mode)
    assert forecast == result
    assert forecast["superseded"] > 0
    assert forecast["refused"] > 0


def test_it_leaves_the_table_alone(landing: Landing, before: str) -> None:
    written = "SELECT ctid::text, xmin::text, xmax::text FROM landing.things ORDER BY 1"
    was = landing.rows(written)
    job, forecast = foresee(landing, text_of(300))
    assert landing.rows(written) == was
    assert (forecast["inserted"], forecast["updated"]) == (253, 47)
    assert (job.progress_done, job.progress_total) == (300, 300)
    assert landing.log(job.id)[-1].endswith("Nothing was written.")
    # Nothing of its own stays either.
    own = "SELECT FROM pg_class WHERE relname IN ('seen', 'staging', 'found', 'refused')"
    until(lambda: landing.rows(own) == [])


def test_examples_of_changed_rows(landing: Landing, before: str) -> None:
    _, forecast = foresee(landing, text_of(100).replace("Thing 4,1.48", "Old 4,4"))
    examples = forecast["examples"]
    assert len(examples) == 20
    assert examples[0] == {
        "line": 2,
        "key": {"id": "1"},
        "changes": {
            "name": ["Old 1", "Thing 1"],
            "amount": ["1.00", "0.37"],
            "day": ["2020-01-01", "2026-01-02"],
            "at": [None, "2026-01-31 10:01:00+00"],
            "note": [None, "plain 1"],
        },
    }
    assert "name" not in examples[1]["changes"]
    assert "amount" not in examples[1]["changes"]


def test_an_empty_table_and_an_empty_file(landing: Landing) -> None:
    assert both(landing, text_of(300)) == ({"read": 300, "inserted": 300},) * 2
    assert both(landing, text_of(300)) == ({"read": 300, "unchanged": 300},) * 2
    assert both(landing, text_of(0)) == ({}, {})


def test_values_that_no_two_rows_may_share(family: Landing) -> None:
    """Over chunks, within one, taken in the table, and given up by a row that the file changes."""
    lines: list[str] = []
    for line in ("x,50", "y,50", "z,2", "b,60", "z,2", "a,61", "a,1", "w,61", "v,61", "y,50"):
        # Enough between them that each is in a chunk of its own.
        lines += [f"{line},,", *(f"filler{len(lines) + i},{100 + len(lines) + i},," for i in range(5))]
    text = "\n".join(["code,slot,kind_id,parent", *lines, "m,70,,", "n,70,,"]) + "\n"
    for mode in ("upsert", "insert"):
        was = parts(family)
        forecast, result = both(family, text, key="parts", mapping=NAMED, mode=mode)
        assert forecast == result, mode
        assert forecast["refused_by"]["not_unique"] >= 3
        family.conn.execute(b"DELETE FROM landing.parts WHERE length(code) > 1 OR code > 'c'")
        family.conn.execute(
            b"UPDATE landing.parts SET (slot, kind_id) ="
            b" (SELECT n, n FROM (SELECT strpos('abc', code) AS n) AS place)"
        )
        assert parts(family) == was


def test_references(family: Landing) -> None:
    fill = [f"filler{i},{100 + i},," for i in range(5)]
    lines = ["x,11,kind 1,a", "y,12,no kind,", *fill, "z,13,,nobody", "w,14,,x", "v,15,kind 2,z", "u,16,,u"]
    text = "\n".join(["code,slot,kind_id,parent", *lines]) + "\n"
    forecast, result = both(family, text, key="parts", mapping=NAMED)
    assert forecast == result
    assert forecast["refused_by"] == {"unknown_reference": 3}


@pytest.mark.parametrize("mode", ["upsert", "insert", "skip"])
def test_few_known_rows_among_new_ones(landing: Landing, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """The sample of keys that is looked up beforehand does not have them."""
    monkeypatch.setattr(ready, "SAMPLE", 2)
    landing.conn.execute(b"INSERT INTO landing.things (id, name) VALUES (50, 'old'), (151, 'old')")
    forecast, result = both(landing, text_of(200), mode=mode)
    assert forecast == result
    assert forecast["inserted"] == 198


def test_values_that_only_the_server_reads(app: Any, database: Callable[[], str], member: Any) -> None:
    class Hosts(Importer):
        key, title, source, table, natural_key = "hosts", "Hosts", "landing", "hosts", ("name",)
        columns = (Column(name="name", required=True), Column(name="address"))

    table = "CREATE SCHEMA landing; CREATE TABLE landing.hosts (name text PRIMARY KEY, address inet)"
    lines = [f"host{i},{'10.0.0.' + str(i) if i % 9 else 'nowhere'}" for i in range(40)]
    text = "\n".join(["name,address", *lines, "host1,10.0.0.9", "host2,10.1"]) + "\n"
    with landed(app, database, member, Hosts(), table=table, chunk_bytes=200) as landing:
        for mode in ("upsert", "insert"):
            forecast, result = both(landing, text, key="hosts", mode=mode)
            assert forecast == result
            assert forecast["refused"] >= 5


def test_rows_without_a_natural_key(family: Landing) -> None:
    text = "text\n" + "".join(f"note {i % 7}\n" for i in range(60))
    assert both(family, text, key="notes", mode="insert") == ({"read": 60, "inserted": 60},) * 2


@pytest.mark.parametrize("seed", range(6))
def test_any_file_of_few_keys(family: Landing, seed: int) -> None:
    """Keys and unique values come again and again, in the table and in the file."""
    fate = random.Random(seed)
    kinds = ["kind 1", "kind 2", ""]
    lines = [
        f"{fate.choice('abcdefgh')},{fate.choice([*'123456789', ''])},{fate.choice(kinds)},"
        for _ in range(40)
    ]
    text = "\n".join(["code,slot,kind_id,parent", *lines]) + "\n"
    mode = ("upsert", "insert", "update", "skip")[seed % 4]
    forecast, result = both(family, text, key="parts", mapping=NAMED, mode=mode)
    assert forecast == result, f"seed {seed}"


# --- how it ends ------------------------------------------------------------------------------------------


def test_a_passed_limit_is_told_and_the_rest_is_looked_at(landing: Landing) -> None:
    text = text_of(100) + "x,Bad,,,,,\n" * 10 + text_of(100, first=200).partition("\n")[2]
    job, forecast = foresee(landing, text, reject_limit=5)
    assert (forecast["read"], forecast["refused"]) == (210, 10)
    assert any("applying the file would stop here" in line for line in landing.log(job.id))
    assert landing.run(landing.ask_again(import_of(job))).status == "failed"


@pytest.mark.parametrize(("wish", "status"), [(Cancelled, "cancelled"), (Stopping, "queued")])
def test_it_stops_between_chunks(
    landing: Landing, before: str, monkeypatch: pytest.MonkeyPatch, wish: type[Interruption], status: str
) -> None:
    job_id = landing.ask(text_of(400), step="dry-run")
    lease = leases.claim(job_id)
    assert lease is not None
    tell = dry_run._DryRun._tell

    def told(look: Any, piece: Any) -> None:
        tell(look, piece)
        lease._interrupt(wish)

    monkeypatch.setattr(dry_run._DryRun, "_tell", told)
    imports.run(lease)
    monkeypatch.undo()
    db.session.remove()
    job = db.session.get_one(Job, job_id)
    assert (job.status, db.session.get_one(Import, job.import_id).forecast) == (status, None)
    assert landing.digest() == before
    if status == "queued":
        assert landing.run(job_id).status == "succeeded"


def test_a_cut_connection_begins_it_again(
    landing: Landing, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = landing.ask(text_of(100), step="dry-run")
    tell = dry_run._DryRun._tell

    def told(look: Any, piece: Any) -> None:
        tell(look, piece)
        landing.conn.execute(
            b"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            b" WHERE application_name LIKE '%dry run'"
        )

    monkeypatch.setattr(dry_run._DryRun, "_tell", told)
    job = landing.run(job_id)
    assert job.status == "queued", landing.log(job_id)
    assert "broke off the connection" in landing.log(job_id)[-1]
    monkeypatch.undo()
    db.session.execute(db.update(Job).values(next_attempt_at=None))
    db.session.commit()
    assert landing.run(job_id).status == "succeeded"
