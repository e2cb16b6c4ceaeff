"""Undoing: the table is as it was before, but for what somebody wrote since."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from threading import Timer
from typing import Any
from uuid import UUID

import psycopg
import pytest

from app import imports, jobs, leases, storage
from app.errors import Cancelled, Stopping
from app.extensions import db
from app.importers import Column, Importer, Reference
from app.imports import apply, chunks
from app.imports.table import connection, journal
from app.imports.table.connection import connect
from app.imports.table.undoing import Undoing
from app.models import Import, Job
from app.models.delivery import Delivery
from tests.importing import TABLE, Landing, Things, landed, text_of

# Rows that are there before the import; those from 101 on are none of the file's.
BEFORE = """
INSERT INTO landing.things (id, name, amount, day, note, touched)
SELECT i, 'Old ' || i, i, '2020-01-01', CASE WHEN i %% 2 = 0 THEN 'old' END, i
FROM generate_series(1, 140, 3) AS i
"""


@pytest.fixture
def before(landing: Landing) -> str:
    landing.conn.execute(BEFORE.replace("%%", "%").encode())
    return landing.digest()


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else listens: the conductor applies the chunks itself, and need not wait for others first."""
    monkeypatch.setattr(apply, "LOOK_ROUND", 0.0)
    monkeypatch.setattr(apply, "GLANCE", 0.001)


def undo(landing: Landing, applied: Job) -> Job:
    return landing.run(landing.ask_again(import_of(applied), "undo"))


def import_of(job: Job) -> UUID:
    db.session.add(job)
    assert job.import_id is not None
    return job.import_id


def undone(job: Job) -> tuple[int, int, int]:
    """Put back, removed, left alone."""
    counts = db.session.get_one(Import, job.import_id).undone or {}
    return counts["updated"], counts["inserted"], counts["skipped"]


def left_alone(job: Job) -> list[list[str]]:
    artifact = jobs.artifact_of(job)
    assert artifact is not None
    content = b"".join(storage.current().open(artifact.key)).decode("utf-8-sig")
    titles, *rows = csv.reader(io.StringIO(content))
    assert titles[-2:] == ["line", "what"]
    assert artifact.rows == len(rows)
    return rows


def messy(rows: int = 300) -> str:
    """Good rows, some of them twice in other chunks with other values, some refused."""
    title, _, rest = text_of(rows).partition("\n")
    again = text_of(40, name="Again").partition("\n")[2]
    late = text_of(40, first=rows - 20, name="Late").partition("\n")[2]
    bad = f'{rows + 100},,"1.00",,,,\n{rows + 101},Bad,-3,,,,\nx,Worse,1,,,,\n'
    return f"{title}\n{rest}{bad}{again}{late}"


@pytest.mark.parametrize("mode", ["upsert", "insert", "update", "skip"])
def test_all_is_as_it_was(landing: Landing, before: str, mode: str) -> None:
    applied = landing.apply(messy(), mode=mode, reject_limit=None, reject_percent=None)
    counts = landing.result(applied)
    assert counts["refused"] >= 2
    assert landing.digest() != before
    job = undo(landing, applied)
    assert job.status == "succeeded", landing.log(job.id)
    assert landing.digest() == before
    assert undone(job) == (counts.get("updated", 0), counts.get("inserted", 0), 0)
    assert jobs.artifact_of(job) is None
    assert job.progress_done == job.progress_total == counts.get("updated", 0) + counts.get("inserted", 0)
    assert landing.log(job.id)[-1].startswith("Undone. ")


def test_what_somebody_wrote_since_stays_and_is_named(landing: Landing, before: str) -> None:
    applied = landing.apply(text_of(200))
    landing.conn.execute(b"UPDATE landing.things SET note = 'mine' WHERE id IN (1, 2)")
    landing.conn.execute(b"UPDATE landing.things SET note = note WHERE id = 199")
    landing.conn.execute(b"DELETE FROM landing.things WHERE id IN (3, 4)")
    kept = landing.rows("SELECT * FROM landing.things WHERE id IN (1, 2, 199) ORDER BY id")
    job = undo(landing, applied)
    assert job.status == "succeeded"
    assert undone(job) == (45, 150, 5)
    assert landing.rows("SELECT * FROM landing.things WHERE id IN (1, 2, 3, 4, 199) ORDER BY id") == kept
    rows = left_alone(job)
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "199"]
    assert rows[0][1:] == ["2", "Somebody edited it since, so it was not put back."]
    assert rows[1][2] == "Somebody edited it since, so it was not removed."
    assert rows[2][2] == "It is no longer there, so there was nothing to remove."
    assert rows[3][2] == "It is no longer there, so nothing was put back."
    log = landing.log(job.id)
    assert "Left alone: id 1 (line 2). Somebody edited it since, so it was not put back." in log
    assert "5 left alone" in log[-1]
    landing.conn.execute(b"DELETE FROM landing.things WHERE id IN (1, 2, 4, 199)")
    landing.conn.execute(BEFORE.replace("%%", "%").replace("AS i", "AS i WHERE i IN (1, 4, 199)").encode())
    assert landing.digest() == before


def test_many_rows_left_are_named_in_the_file(landing: Landing) -> None:
    applied = landing.apply(text_of(60))
    landing.conn.execute(b"UPDATE landing.things SET note = 'mine'")
    kept = landing.digest()
    job = undo(landing, applied)
    assert undone(job) == (0, 0, 60)
    assert len(left_alone(job)) == 60
    assert "50 more rows are left alone; the file names them all." in landing.log(job.id)
    assert landing.digest() == kept


def test_of_a_row_edited_between_two_lines_of_the_file_the_edit_comes_back(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first part inserts it, somebody edits it, the second part changes it once more."""
    text = text_of(200) + text_of(3, name="Again").partition("\n")[2]
    merge = chunks.Hand._merge_in_turn

    def edited(hand: Any, hold: Any, taken: Any, ready: Any) -> None:
        if taken.number == 2:
            landing.conn.execute(b"UPDATE landing.things SET note = 'mine' WHERE id = 2")
        merge(hand, hold, taken, ready)

    monkeypatch.setattr(chunks.Hand, "_merge_in_turn", edited)
    applied = landing.apply(text)
    assert landing.rows("SELECT name FROM landing.things WHERE id = 2") == [("Again 2",)]
    job = undo(landing, applied)
    assert undone(job) == (1, 199, 1)
    assert landing.rows("SELECT id, name, note FROM landing.things") == [(2, "Thing 2", "mine")]
    assert [row[0] for row in left_alone(job)] == ["2"]


# --- other tables -----------------------------------------------------------------------------------------

FAMILY = (
    TABLE
    + """;
CREATE TABLE landing.kinds (id integer PRIMARY KEY, name text UNIQUE NOT NULL);
INSERT INTO landing.kinds SELECT i, 'kind ' || i FROM generate_series(1, 5) AS i;
CREATE TABLE landing.parts (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text UNIQUE NOT NULL, slot integer UNIQUE,
    kind_id integer REFERENCES landing.kinds, parent text REFERENCES landing.parts (code)
);
INSERT INTO landing.parts (code, slot, kind_id) VALUES ('a', 1, 1), ('b', 2, 2), ('c', 3, 3);
CREATE TABLE landing.uses (
    part_id integer REFERENCES landing.parts ON DELETE CASCADE,
    code text REFERENCES landing.parts (code) ON DELETE SET NULL
);
CREATE TABLE landing.notes (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text);
INSERT INTO landing.notes (text) VALUES ('old');
"""
)


class Parts(Importer):
    key, title, source, table, natural_key = "parts", "Parts", "landing", "parts", ("code",)
    columns = (
        Column(name="code", required=True),
        Column(name="slot", type="int"),
        Column(name="kind_id", references=Reference("kinds", "name")),
        Column(name="parent"),
    )


class Notes(Importer):
    key, title, source, table, modes = "notes", "Notes", "landing", "notes", ("insert",)
    columns = (Column(name="text"),)


@pytest.fixture
def family(app: Any, database: Callable[[], str], member: Any) -> Iterator[Landing]:
    importers = (Things(), Parts(), Notes())
    with landed(app, database, member, *importers, table=FAMILY, chunk_bytes=64) as landing:
        yield landing


def parts(landing: Landing) -> list[Any]:
    return landing.rows("SELECT code, slot, kind_id, parent FROM landing.parts ORDER BY code")


NAMED = {"code": 0, "slot": 1, "kind_id": 2, "parent": 3}


def apply_parts(landing: Landing, *lines: str, **options: Any) -> Job:
    text = "\n".join(["code,slot,kind_id,parent", *lines]) + "\n"
    return landing.apply(text, key="parts", mapping=NAMED, reject_percent=None, **options)


def test_references_are_put_back(family: Landing) -> None:
    was = parts(family)
    applied = apply_parts(family, "a,10,kind 4,", "x,11,kind 5,", "y,12,no such kind,", "c,,,")
    counts = family.result(applied)
    assert counts.pop("refused_by") == {"unknown_reference": 1}
    assert counts == {"read": 4, "inserted": 1, "updated": 2, "refused": 1}
    assert undone(undo(family, applied)) == (2, 1, 0)
    assert parts(family) == was


def test_rows_that_somebody_refers_to_stay_with_their_references(family: Landing) -> None:
    was = parts(family)
    applied = apply_parts(family, "x,11,,", "y,12,,", "z,13,,", "w,14,,")
    family.conn.execute(b"INSERT INTO landing.uses (part_id) SELECT id FROM landing.parts WHERE code = 'x'")
    family.conn.execute(b"INSERT INTO landing.uses (code) VALUES ('z')")
    used = family.rows("SELECT * FROM landing.uses")
    job = undo(family, applied)
    assert job.status == "succeeded"
    assert undone(job) == (0, 2, 2)
    assert family.rows("SELECT * FROM landing.uses") == used
    assert [row[0] for row in parts(family)] == ["a", "b", "c", "x", "z"]
    assert {row[0] for row in left_alone(job)} == {"x", "z"}
    assert all("Rows of landing.uses refer to it" in row[2] for row in left_alone(job))
    family.conn.execute(b"DELETE FROM landing.uses")
    family.conn.execute(b"DELETE FROM landing.parts WHERE code IN ('x', 'z')")
    assert parts(family) == was


def test_a_row_that_refers_to_another_of_the_import_goes_with_it(family: Landing) -> None:
    """By its own table's key, over chunks and within one; but not what somebody's row hangs on."""
    was = parts(family)
    applied = apply_parts(family, "x,11,,", "y,12,,", *(f"f{i},{20 + i},," for i in range(8)), "z,13,,y")
    family.conn.execute(b"UPDATE landing.parts SET parent = 'f3' WHERE code = 'a'")
    job = undo(family, applied)
    assert undone(job) == (0, 10, 1)
    assert [row[0] for row in left_alone(job)] == ["f3"]
    family.conn.execute(b"UPDATE landing.parts SET parent = NULL WHERE code = 'a'")
    family.conn.execute(b"DELETE FROM landing.parts WHERE code = 'f3'")
    assert parts(family) == was


def test_values_that_went_from_row_to_row_go_back(family: Landing) -> None:
    """No two rows may have one slot: each must wait for another to give up its own."""
    was = parts(family)
    lines: list[str] = []
    for line in ("x,50,,", "a,51,,", "x,1,,", "b,50,,", "x,2,,"):
        # Enough between them that each is in a chunk of its own.
        lines += [line, *(f"filler{len(lines) + i},{100 + len(lines) + i},," for i in range(5))]
    applied = apply_parts(family, *lines)
    slots = "SELECT slot FROM landing.parts WHERE code IN ('a', 'b', 'x') ORDER BY code"
    assert family.rows(slots) == [(51,), (50,), (2,)]
    job = undo(family, applied)
    assert undone(job) == (2, 26, 0)
    assert parts(family) == was


def test_what_the_table_refuses_is_named_and_the_others_go_on(family: Landing) -> None:
    applied = apply_parts(family, "a,10,,", "b,20,,", "c,30,,", "x,11,,", "y,12,,")
    family.conn.execute(b"INSERT INTO landing.parts (code, slot) VALUES ('theirs', 2)")
    family.conn.execute(
        b"CREATE FUNCTION landing.no() RETURNS trigger LANGUAGE plpgsql AS"
        b" $$ BEGIN IF OLD.code = 'y' THEN RAISE 'y is for ever'; END IF; RETURN OLD; END $$;"
        b"CREATE TRIGGER no BEFORE DELETE ON landing.parts FOR EACH ROW EXECUTE FUNCTION landing.no()"
    )
    job = undo(family, applied)
    assert undone(job) == (2, 1, 2)
    whys = {row[0]: row[2] for row in left_alone(job)}
    assert "duplicate key value" in whys["b"]
    assert whys["y"] == "The table refused it: y is for ever."
    assert [row[:2] for row in parts(family)] == [("a", 1), ("b", 20), ("c", 3), ("theirs", 2), ("y", 12)]


def test_rows_without_a_natural_key(family: Landing) -> None:
    was = family.rows("SELECT * FROM landing.notes")
    applied = family.apply("text\n" + "".join(f"note {i}\n" for i in range(50)), key="notes", mode="insert")
    assert family.rows("SELECT count(*) FROM landing.notes") == [(51,)]
    assert undone(undo(family, applied)) == (0, 50, 0)
    assert family.rows("SELECT * FROM landing.notes") == was


# --- how it ends ------------------------------------------------------------------------------------------


class Watched:
    """A lease that hears of a wish after so many chunks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int, wish: Callable[[], None]) -> None:
        self._left, self._wish = after, wish
        note = Undoing._note

        def counted(undoing: Undoing, chunk: int, again: bool) -> None:
            note(undoing, chunk, again)
            self._left -= 1
            if self._left == 0:
                self._wish()

        monkeypatch.setattr(Undoing, "_note", counted)


def test_cancelled_between_chunks_it_says_what_is_undone(
    landing: Landing, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied = landing.apply(text_of(300))
    job_id = landing.ask_again(import_of(applied), "undo")
    db.session.remove()
    lease = leases.claim(job_id)
    assert lease is not None
    Watched(monkeypatch, 2, lambda: lease._interrupt(Cancelled))
    imports.run(lease)
    db.session.remove()
    job = db.session.get_one(Job, job_id)
    assert job.status == "cancelled"
    put_back, removed, left = undone(job)
    assert (left, landing.digest() == before) == (0, False)
    assert 0 < put_back + removed < 300
    text = landing.log(job_id)[-1]
    assert text.startswith(f"Cancelled. {put_back:,} rows were put back, {removed:,} removed.")
    assert f"to {300 - put_back - removed:,} other rows" in text
    again = undo(landing, applied)
    assert again.status == "succeeded"
    assert landing.digest() == before
    assert undone(again) == (47, 253, 0)


def test_cancelled_at_once(landing: Landing) -> None:
    applied = landing.apply(text_of(50))
    was = landing.digest()
    job_id = landing.ask_again(import_of(applied), "undo")
    lease = leases.claim(job_id)
    assert lease is not None
    lease._interrupt(Cancelled)
    imports.run(lease)
    assert landing.digest() == was
    db.session.remove()
    assert db.session.get_one(Job, job_id).status == "cancelled"


def test_shutting_down_hands_it_back_and_another_worker_goes_on(
    landing: Landing, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied = landing.apply(text_of(300))
    job_id = landing.ask_again(import_of(applied), "undo")
    lease = leases.claim(job_id)
    assert lease is not None
    Watched(monkeypatch, 2, lambda: lease._interrupt(Stopping))
    imports.run(lease)
    db.session.remove()
    assert db.session.get_one(Job, job_id).status == "queued"
    job = landing.run(job_id)
    assert (job.status, job.attempt, job.forgiven) == ("succeeded", 2, 1)
    assert landing.digest() == before
    assert any(line.startswith("Going on: ") for line in landing.log(job_id))


def test_undone_once_and_never_applied_again(landing: Landing, before: str) -> None:
    applied = landing.apply(text_of(100))
    assert undo(landing, applied).status == "succeeded"
    landing.conn.execute(b"INSERT INTO landing.things (id, name) VALUES (2, 'new')")
    now = landing.digest()
    again = undo(landing, applied)
    assert again.status == "succeeded"
    assert landing.digest() == now
    late = landing.run(landing.ask_again(import_of(applied)))
    assert late.status == "failed"
    assert landing.digest() == now


def test_what_is_no_longer_kept_can_not_be_undone(landing: Landing) -> None:
    applied = landing.apply(text_of(20))
    now = landing.digest()
    with connect("landing", "test") as there:
        journal.forget(there, import_of(applied))
    job = undo(landing, applied)
    assert (job.status, job.error_code) == ("failed", "nothing_kept")
    assert landing.digest() == now


def test_what_a_stopped_import_left_is_undone(landing: Landing, before: str) -> None:
    text = text_of(150) + "x,Bad,,,,,\n" * 10 + text_of(100, first=200).partition("\n")[2]
    stopped = landing.run(landing.ask(text, reject_limit=5))
    assert (stopped.status, landing.digest() == before) == ("failed", False)
    assert undo(landing, stopped).status == "succeeded"
    assert landing.digest() == before


def test_of_two_imports_the_later_one_keeps_its_rows(landing: Landing, before: str) -> None:
    first = landing.apply(text_of(80))
    second = landing.apply(text_of(20, first=71, name="Later"))
    job = undo(landing, first)
    assert undone(job)[2] == 10
    assert landing.rows("SELECT count(*) FROM landing.things WHERE name LIKE 'Later%'") == [(20,)]
    assert undo(landing, second).status == "succeeded"
    assert landing.rows("SELECT count(*) FROM landing.things WHERE name LIKE 'Later%'") == [(0,)]


def test_after_a_later_import_is_undone_the_earlier_one_knows_its_rows(landing: Landing, before: str) -> None:
    """And so on, for any number of them; but not where somebody else wrote in between."""
    first = landing.apply(text_of(80))
    between = landing.digest()
    landing.conn.execute(b"UPDATE landing.things SET note = 'mine' WHERE id IN (10, 20)")
    second = landing.apply(text_of(70, first=1, name="Second"))
    assert undone(undo(landing, second)) == (70, 0, 0)
    third = landing.apply(text_of(70, first=5, name="Third"))
    fourth = landing.apply(text_of(70, first=1, name="Fourth"))
    landing.conn.execute(b"UPDATE landing.things SET note = 'mine' WHERE id = 30")
    assert undone(undo(landing, fourth)) == (69, 0, 1)
    assert undone(undo(landing, third)) == (69, 0, 1)
    others = "SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM landing.things AS t WHERE note <> 'mine'"
    assert landing.digest() != between
    assert landing.rows(others) != []
    job = undo(landing, first)
    assert [row[0] for row in left_alone(job)] == ["10", "20", "30"]
    assert undone(job)[2] == 3
    mine = landing.rows("SELECT id, name, note FROM landing.things WHERE note = 'mine' ORDER BY id")
    assert mine == [(10, "Thing 10", "mine"), (20, "Thing 20", "mine"), (30, "Fourth 30", "mine")]
    landing.conn.execute(b"DELETE FROM landing.things WHERE note = 'mine'")
    landing.conn.execute(BEFORE.replace("%%", "%").encode() + b" ON CONFLICT DO NOTHING")
    assert landing.digest() == before


def test_what_an_undo_had_to_find_by_halves_is_known_as_well(landing: Landing, before: str) -> None:
    """Rows that it puts back beside others which the table refuses."""
    first = landing.apply(text_of(40))
    second = landing.apply(text_of(40, name="Second"))
    landing.conn.execute(
        b"ALTER TABLE landing.things ADD CONSTRAINT no CHECK (id <> 7 OR name <> 'Thing 7') NOT VALID"
    )
    assert undone(undo(landing, second)) == (39, 0, 1)
    landing.conn.execute(b"ALTER TABLE landing.things DROP CONSTRAINT no")
    job = undo(landing, first)
    assert [row[0] for row in left_alone(job)] == ["7"]


def test_importers_may_know_the_same_row_by_different_keys(
    app: Any, database: Callable[[], str], member: Any
) -> None:
    table = """
    CREATE SCHEMA landing;
    CREATE TABLE landing.people (id integer PRIMARY KEY, email text UNIQUE NOT NULL, name text);
    INSERT INTO landing.people SELECT i, i || '@x', 'old ' || i FROM generate_series(1, 30) AS i
    """

    class ById(Importer):
        key, title, source, table, natural_key = "by_id", "People", "landing", "people", ("id",)
        columns = (Column(name="id", type="int", required=True), Column(name="email"), Column(name="name"))

    class ByEmail(Importer):
        key, title, source, table, natural_key = "by_email", "People", "landing", "people", ("email",)
        modes = ("update",)
        columns = (Column(name="email", required=True), Column(name="name"))

    with landed(app, database, member, ById(), ByEmail(), table=table, chunk_bytes=100) as landing:
        everybody = "SELECT * FROM landing.people ORDER BY id"
        before = landing.rows(everybody)
        rows = "".join(f"{i},{i}@y,first {i}\n" for i in range(1, 41))
        first = landing.apply("id,email,name\n" + rows, key="by_id")
        rows = "".join(f"{i}@y,second {i}\n" for i in range(40, 0, -1))
        second = landing.apply("email,name\n" + rows, key="by_email", mode="update")
        assert undone(undo(landing, second)) == (40, 0, 0)
        assert undone(undo(landing, first)) == (30, 10, 0)
        assert landing.rows(everybody) == before


def test_a_cut_connection_is_tried_again(
    landing: Landing, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut() -> None:
        landing.conn.execute(
            b"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            b" WHERE application_name LIKE '%undo'"
        )

    applied = landing.apply(text_of(200))
    Watched(monkeypatch, 2, cut)
    job = undo(landing, applied)
    assert job.status == "queued", landing.log(job.id)
    db.session.execute(db.update(Job).values(next_attempt_at=None))
    db.session.commit()
    assert landing.run(job.id).status == "succeeded"
    assert landing.digest() == before


def test_a_row_that_another_one_has_locked_is_waited_for(
    landing: Landing, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not overwritten once it is free."""
    monkeypatch.setattr(connection, "LOCK_TIMEOUT", 1)
    applied = landing.apply(text_of(30))
    with psycopg.connect(landing.url) as other:
        other.execute(b"UPDATE landing.things SET note = 'theirs' WHERE id = 5")
        timer = Timer(1.5, other.commit)
        timer.start()
        job = undo(landing, applied)
        timer.join()
    assert undone(job)[2] == 1
    assert landing.rows("SELECT note FROM landing.things WHERE id = 5") == [("theirs",)]


def test_its_owner_is_told(landing: Landing) -> None:
    job = undo(landing, landing.apply(text_of(10)))
    told = db.session.scalars(db.select(Delivery.name).where(Delivery.job_id == job.id)).all()
    assert told == ["ready"]
