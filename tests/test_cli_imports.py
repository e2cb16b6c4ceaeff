"""flask imports: a file sent in from the command line, and undone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app import imports, leases
from app.extensions import db
from app.models.imports import Import
from app.models.job import Job
from tests.waiting import until

FILE = "email,name,company,joined\nann@example.org,Ann,Acme,2026-01-31\nbob@example.org,Bob,Acme,2026-02-28\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "members.csv"
    path.write_text(FILE)
    return path


@pytest.fixture
def flask(runner, admin):
    """flask("create", …): the command's result."""
    return lambda *words: runner.invoke(args=["imports", *map(str, words)])


def only(app) -> tuple[Import, Job]:
    with app.app_context():
        job = db.session.scalars(db.select(Job)).one()
        return db.session.get_one(Import, job.import_id), job


def test_a_file_is_sent_in(flask, file, app):
    result = flask(
        *("create", "members", file, "--mode", "insert", "--map", "role=name", "--map", "last_seen_at="),
        *("--map", "name=email", "--map", "email=company", "--read", "dates=dmy", "--rate", 500),
        *("--reject-limit", -1),
    )
    assert result.exit_code == 1
    assert "Company is required" in result.output
    result = flask(
        "create",
        "members",
        file,
        "--mode",
        "insert",
        "--read",
        "dates=dmy",
        "--rate",
        500,
        "--reject-limit",
        -1,
    )
    assert result.exit_code == 0, result.output
    import_, job = only(app)
    assert f"/jobs/{job.id}" in result.output
    assert f"Import: {import_.id}" in result.output
    assert (import_.mode, import_.rate, import_.reject_limit, import_.reject_percent) == (
        "insert",
        500,
        None,
        5,
    )
    assert import_.dialect["dates"] == "dmy"
    assert import_.mapping["email"] == 0
    assert job.step == "apply"
    assert str(import_.id) in flask("list").output


def test_a_dry_run(flask, file, app):
    assert flask("create", "members", file, "--dry-run").exit_code == 0
    assert only(app)[1].step == "dry-run"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nope"], "no importer"),
        (["members", "--map", "nope=email"], "nope"),
        (["members", "--map", "email"], "NAME=VALUE"),
        (["members", "--read", "delimiter=ab"], "delimiter"),
        (["members", "--mode", "replace"], "replace"),
        (["members", "--rate", "0"], "rate"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(flask, file, words, told):
    result = flask("create", words[0], file, *words[1:])
    assert result.exit_code != 0
    assert told in result.output
    assert "Traceback" not in result.output


def test_a_file_that_is_not_there(flask, tmp_path):
    assert flask("create", "members", tmp_path / "none.csv").exit_code == 2


def test_an_import_that_is_not_there(flask):
    for verb in ("undo", "apply"):
        result = flask(verb, "5b0d3a52-6f43-4b9e-8f0e-0d6d3f6f7f21")
        assert result.exit_code == 1
        assert "no such import" in result.output


def test_waiting_ends_with_the_job(flask, file, app, tmp_path):
    """The counts and the refusal are told; a failed job exits 1."""

    def work() -> None:
        until(lambda: queued(app))
        with app.app_context():
            lease = leases.claim(queued(app)[0])
            assert lease is not None
            with lease:
                counts = {"read": 2, "inserted": 1, "refused": 1}
                lease.fail("too_many", "Too many rows were refused.", lambda conn: note(conn, counts))

    def note(conn: Any, counts: dict[str, int]) -> None:
        conn.execute(db.update(Import).values(result=counts))

    worker = threading.Thread(target=work)
    worker.start()
    result = flask("create", "members", file, "--wait", "--rejects", tmp_path / "refused.csv")
    worker.join()
    assert result.exit_code == 1
    assert "Every row was taken" not in result.output
    assert "2 read, 1 inserted, 0 updated, 0 unchanged, 1 refused." in result.output
    assert "Too many rows were refused" in result.output


def test_refused_rows_are_saved(flask, tmp_path, app, demo):
    """A dry run with the real engine: it writes nothing, and its refused rows are a file all the same."""
    file, refused = tmp_path / "members.csv", tmp_path / "refused.csv"
    file.write_text(FILE.replace("Ann,", ","))

    def work() -> None:
        until(lambda: queued(app))
        with app.app_context():
            lease = leases.claim(queued(app)[0])
            assert lease is not None
            imports.run(lease)

    worker = threading.Thread(target=work)
    worker.start()
    result = flask("create", "members", file, "--dry-run", "--rejects", refused)
    worker.join()
    assert result.exit_code == 0, result.output
    assert "2 read, 0 inserted, 0 updated, 0 unchanged, 2 refused." in result.output
    lines = refused.read_text("utf-8-sig").splitlines()
    assert lines[0].startswith("email,name,company,joined,line,column,code,message")
    assert len(lines) == 3


def queued(app) -> list[UUID]:
    with app.app_context():
        return list(db.session.scalars(db.select(Job.id).where(Job.status == "queued")))
