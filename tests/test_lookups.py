"""Lists of values, pasted or long, and what of them was not found."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app import jobs, lists
from app.errors import InvalidParams
from app.extensions import db
from app.models import Job, User
from app.reports import Registry
from app.sweep import cleaning
from tests.exporting import adder, artifact, attempt, clean, lines, make, opened, storage, table

FIND = """
/*
title = "Find tasks"
description = "Tasks by number."
lookup = { param = "ids", column = "id" }
[params.ids]
type = "list"
items = "int"
*/
SELECT id, title, status FROM tasks WHERE id = ANY(:ids) ORDER BY id
"""


@pytest.fixture
def context(app: Any, demo: None) -> Iterator[None]:
    with clean(app):
        yield


@pytest.fixture
def report(
    app: Any, context: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], None]:
    return adder(app, tmp_path, monkeypatch)


def test_what_was_not_found_is_a_file_of_its_own(report: Callable[..., None], member: User) -> None:
    report("find.sql", FIND)
    job = make(member, "find", params={"ids": "5, 999999, 3, 5, 888888"})
    found, content = artifact(job)
    archive = opened(content)
    assert archive.namelist() == ["find.csv", "not_found.csv"]
    assert [row[0] for row in table(archive.read("find.csv"))] == ["id", "3", "5"]
    assert table(archive.read("not_found.csv")) == [["ids"], ["999999"], ["888888"]]
    assert found.rows == found.receipt["rows"] == 2
    assert found.receipt["lookup"] == {"param": "ids", "column": "id", "asked": 4, "not_found": 2}
    assert "Not found: 2 of the 4 values asked for." in lines(job)


def test_a_long_list_is_kept_in_the_storage_once(report: Callable[..., None], member: User) -> None:
    report("find.sql", FIND)
    ids = list(range(1, 200_001))
    job = make(member, "find", params={"ids": ids})
    found, content = artifact(job)
    kept, sameness = job.params, job.sameness
    assert kept == {"ids": {"sha256": kept["ids"]["sha256"], "count": 200_000}}
    assert found.receipt["params"] == kept
    sha256 = found.sha256
    assert found.rows == 2000
    assert found.receipt["lookup"]["not_found"] == 198_000
    assert len(table(opened(content).read("not_found.csv"))) == 198_001
    again = make(member, "find", params=kept)
    assert (again.params, again.sameness) == (kept, sameness)
    assert [stat.key for stat in storage().list("lists/")] == [lists.key_of(kept["ids"]["sha256"])]
    assert artifact(again)[0].sha256 == sha256


def test_a_list_goes_when_nobody_needs_it(report: Callable[..., None], member: User) -> None:
    report("find.sql", FIND)
    raw = {"ids": list(range(1, 2001))}
    waiting = jobs.request_export(db.session.merge(member), "find", raw).id
    kept = db.session.get_one(Job, waiting).params
    assert cleaning.old_lists(timedelta(0)) == 0
    assert attempt(waiting).status == "succeeded"
    assert cleaning.old_lists(timedelta(0)) == 1
    assert not list(storage().list("lists/"))
    with pytest.raises(InvalidParams, match="not kept any more"):
        make(member, "find", params=kept)
    late = attempt(jobs.again(db.session.merge(member), db.session.get_one(Job, waiting)).id)
    assert (late.error_code, late.status) == ("list_gone", "failed")
    assert "give it once more" in (late.error_message or "")


def test_a_list_that_was_changed_in_the_storage_is_refused(report: Callable[..., None], member: User) -> None:
    report("find.sql", FIND)
    waiting = jobs.request_export(db.session.merge(member), "find", {"ids": list(range(1, 2001))})
    with storage().writer(
        lists.key_of(waiting.params["ids"]["sha256"]), content_type="x/y", filename="x"
    ) as w:
        w.write(b"1\n2\n")
        w.commit()
    assert attempt(waiting.id).error_code == "list_gone"


def test_a_reference_that_lies_about_its_length(report: Callable[..., None], member: User) -> None:
    report("find.sql", FIND)
    true = lists.keep(list(range(1, 2001)))
    with pytest.raises(InvalidParams, match="has 2,000 values, not 5"):
        make(member, "find", params={"ids": {"sha256": true.sha256, "count": 5}})


@pytest.mark.parametrize("given", [None, [], ""])
def test_an_empty_list_finds_nothing_and_misses_nothing(
    report: Callable[..., None], member: User, given: object
) -> None:
    report("find.sql", FIND)
    found, content = artifact(make(member, "find", params={"ids": given}))
    archive = opened(content)
    assert table(archive.read("find.csv")) == [["id", "title", "status"]]
    assert table(archive.read("not_found.csv")) == [["ids"]]
    assert found.receipt["lookup"]["asked"] == 0


def test_chosen_columns_do_without_the_one_looked_up(report: Callable[..., None], member: User) -> None:
    report("find.sql", FIND)
    found, content = artifact(make(member, "find", params={"ids": [1, 0]}, columns=["title"], format="xlsx"))
    assert opened(content).namelist() == ["find.xlsx", "not_found.xlsx"]
    assert found.receipt["lookup"]["not_found"] == 1


def test_a_lookup_in_python(report: Callable[..., None], member: User) -> None:
    report(
        "find.py",
        """
        from app.reports import Column, Lookup, Param, Params, Report

        class Find(Report):
            title = "Find"
            params = Params([Param("ids", "list")])
            columns = (Column("id"), Column("square"))
            lookup = Lookup("ids", "id")

            def rows(self, params, context):
                for number in range(5):
                    yield number, number * number
        """,
    )
    job = make(member, "find", params={"ids": "3, 7, x, 0"}, format="jsonl", columns=["square"])
    found, content = artifact(job)
    assert found.rows == 5
    assert opened(content).read("not_found.jsonl") == b'{"ids":"7"}\n{"ids":"x"}\n'


def test_a_lookup_names_a_column_that_is_there(report: Callable[..., None], member: User) -> None:
    report("find.sql", FIND.replace('column = "id"', 'column = "number"'))
    job = make(member, "find", params={"ids": [1]})
    assert "the result has none of that name" in (job.error_message or "")


def test_a_lookup_in_sqlite_whose_types_change_late(
    app: Any, report: Callable[..., None], member: User, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "things.db"
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, size)")
        conn.executemany("INSERT INTO things VALUES (?, ?)", ((n, n * 2) for n in range(30_000)))
        conn.execute("UPDATE things SET size = 'huge' WHERE id = 29999")
    conn.close()
    sources = replace(app.config["WAYBILL"], sources={"demo": f"sqlite:///{path}"})
    monkeypatch.setitem(app.config, "WAYBILL", sources)
    head = FIND[: FIND.index("SELECT")].replace('column = "id"', 'column = "size"')
    report("find.sql", head + "SELECT id, size FROM things WHERE id >= 0 OR id IN :ids ORDER BY id\n")
    job = make(member, "find", params={"ids": [59_996, 59_998, 3]})
    found, content = artifact(job)
    assert found.rows == 30_000
    assert any("Starting the archive again" in line for line in lines(job))
    archive = opened(content)
    assert archive.read("find.csv").endswith(b"29998,59996\n29999,huge\n")
    assert table(archive.read("not_found.csv")) == [["ids"], ["59998"], ["3"]]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ('lookup = "ids"', "lookup must be"),
        ('lookup = { param = "ids" }', "lookup must be"),
        ('lookup = { param = "ids", column = "id", more = "x" }', "lookup must be"),
        ('lookup = { param = "id", column = "id" }', "no param of the type list"),
    ],
)
def test_a_wrong_lookup_is_told_its_author(tmp_path: Path, head: str, words: str) -> None:
    (tmp_path / "find.sql").write_text(
        FIND.lstrip().replace('lookup = { param = "ids", column = "id" }', head)
    )
    found = Registry.load(str(tmp_path)).problems
    assert [words in str(problem) for problem in found] == [True]
    assert str(found[0]).startswith(f"{tmp_path}/find.sql:4: ")


def test_the_members_of_a_list_of_addresses(context: None, admin: User) -> None:
    emails = ["member@demo.waybill.test", "nobody@example.org", "admin@demo.waybill.test"]
    job = make(admin, "lookup_members", params={"emails": emails})
    archive = opened(artifact(job)[1])
    assert [row[0] for row in table(archive.read("lookup_members.csv"))[1:]] == [emails[0], emails[2]]
    assert table(archive.read("not_found.csv")) == [["emails"], [emails[1]]]
