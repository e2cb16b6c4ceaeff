"""Tables that are not plain: a dry run tells what applying does, and an undo takes all of it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.extensions import db
from app.importers import Column, Importer
from app.imports import apply
from app.models import Import
from tests.importing import Landing, landed
from tests.imports.test_undo import undo

TABLES = """
CREATE SCHEMA landing;
CREATE TABLE landing.tree (code text PRIMARY KEY, parent text REFERENCES landing.tree, size int);
CREATE FUNCTION landing.no() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN IF NEW.size = 13 THEN RAISE '13 brings bad luck'; END IF; RETURN NEW; END $$;
CREATE TRIGGER no BEFORE INSERT ON landing.tree FOR EACH ROW EXECUTE FUNCTION landing.no();

CREATE TABLE landing.kinds (id int PRIMARY KEY);
INSERT INTO landing.kinds VALUES (1), (2);
CREATE TABLE landing.late (
    id int PRIMARY KEY, kind int REFERENCES landing.kinds DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE landing.numbered (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
INSERT INTO landing.numbered (name) VALUES ('one'), ('two');

CREATE DOMAIN landing.size AS int CHECK (VALUE > 0);
CREATE DOMAIN landing.document AS json;
CREATE TABLE landing.domains (id int PRIMARY KEY, size landing.size, document landing.document);
INSERT INTO landing.domains VALUES (1, 1, '{"a": 1}'), (2, 2, '{}');

CREATE TABLE landing.floats (id int PRIMARY KEY, small real, large double precision);
"""


class Tree(Importer):
    key, title, source, table, natural_key = "tree", "Tree", "landing", "tree", ("code",)
    columns = (Column(name="code", required=True), Column(name="parent"), Column(name="size", type="int"))


class Late(Importer):
    key, title, source, table, natural_key = "late", "Late", "landing", "late", ("id",)
    columns = (Column(name="id", type="int", required=True), Column(name="kind", type="int"))


class Numbered(Importer):
    key, title, source, table, natural_key = "numbered", "Numbered", "landing", "numbered", ("id",)
    columns = (Column(name="id", type="int", required=True), Column(name="name"))


class Domains(Importer):
    key, title, source, table, natural_key = "domains", "Domains", "landing", "domains", ("id",)
    columns = (
        Column(name="id", type="int", required=True),
        Column(name="size", type="int"),
        Column(name="document", type="json"),
    )


class Floats(Importer):
    key, title, source, table, natural_key = "floats", "Floats", "landing", "floats", ("id",)
    columns = (
        Column(name="id", type="int", required=True),
        Column(name="small", type="int"),
        Column(name="large", type="int"),
    )


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else listens: the conductor applies the chunks itself, and need not wait for others first."""
    monkeypatch.setattr(apply, "LOOK_ROUND", 0.0)
    monkeypatch.setattr(apply, "GLANCE", 0.001)


@pytest.fixture
def tables(app: Any, database: Callable[[], str], member: Any) -> Iterator[Landing]:
    importers = (Tree(), Late(), Numbered(), Domains(), Floats())
    with landed(app, database, member, *importers, table=TABLES) as landing:
        yield landing


def imported(
    landing: Landing, key: str, *lines: str, unforeseen: int = 0
) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """The counts and the rows, by their first column; `unforeseen` rows are refused by the apply alone."""
    everything = f"SELECT * FROM landing.{key} ORDER BY 1"
    before = landing.rows(everything)
    text = "\n".join(lines) + "\n"
    options: dict[str, Any] = {"key": key, "reject_limit": None, "reject_percent": None}
    dry = landing.run(landing.ask(text, step="dry-run", **options))
    assert dry.status == "succeeded", landing.log(dry.id)
    forecast = db.session.get_one(Import, dry.import_id).forecast or {}
    assert landing.rows(everything) == before
    applied = landing.apply(text, **options)
    counts, after = landing.result(applied), landing.rows(everything)
    assert forecast["inserted"] == counts.get("inserted", 0) + unforeseen
    assert forecast["updated"] == counts.get("updated", 0)
    assert undo(landing, applied).status == "succeeded"
    assert landing.rows(everything) == before
    return counts, after


def test_a_row_may_refer_to_a_later_one_whatever_else_is_refused(tables: Landing) -> None:
    """What is looked for by halves must not cost a row the one that it refers to."""
    titles = "code,parent,size"
    counts, rows = imported(tables, "tree", titles, "a,y,1", "b,,1", "c,nobody,1", "d,c,1", "y,z,1", "z,,1")
    assert counts["refused_by"] == {"unknown_reference": 2}
    assert [row[0] for row in rows] == ["a", "b", "y", "z"]
    lines = ["a,y,1", "b,,1", "c,,13", "d,,1", "y,z,1", "z,,1"]
    counts, rows = imported(tables, "tree", titles, *lines, unforeseen=1)
    assert counts["refused_by"] == {"refused_by_trigger": 1}
    assert [row[0] for row in rows] == ["a", "b", "d", "y", "z"]


def test_a_reference_that_is_checked_at_the_commit(tables: Landing) -> None:
    counts, rows = imported(tables, "late", "id,kind", "1,1", "2,3", "3,2", "4,")
    assert counts["refused_by"] == {"unknown_reference": 1}
    assert rows == [(1, 1), (3, 2), (4, None)]


def test_a_table_that_numbers_its_rows_takes_the_numbers_of_the_file(tables: Landing) -> None:
    """Some of them there, some not; so it does where all are new."""
    _, rows = imported(tables, "numbered", "id,name", "2,zwei", "7,seven")
    assert rows == [(1, "one"), (2, "zwei"), (7, "seven")]
    _, rows = imported(tables, "numbered", "id,name", "8,eight", "9,nine")
    assert rows == [(1, "one"), (2, "two"), (8, "eight"), (9, "nine")]


def test_columns_of_domains(tables: Landing) -> None:
    lines = ['1,1,"{""a"": 1}"', "2,5,[]", "3,3,", "4,-4,{}"]
    counts, rows = imported(tables, "domains", "id,size,document", *lines)
    assert counts["refused_by"] == {"rule": 1}
    assert (counts["inserted"], counts["updated"], counts["unchanged"]) == (1, 1, 1)
    assert rows == [(1, 1, {"a": 1}), (2, 5, []), (3, 3, None)]


def test_whole_numbers_of_more_digits_than_a_float_has(tables: Landing) -> None:
    """They are rounded as the table would round them."""
    _, rows = imported(tables, "floats", "id,small,large", "1,16777217,9007199254740993", "2,-3,")
    assert rows == [(1, 16777216.0, 9007199254740992.0), (2, -3.0, None)]
