"""Applying a file: every row's effect is there once, and the counts tell of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from app import jobs, storage
from app.extensions import db
from app.importers import Column, Importer, Reference
from app.imports.table import sift
from app.models import Chunk, Import, Job, User
from tests.importing import Landing, Things, landed, text_of
from tests.waiting import until

HEAD = "id,name,amount,day,at,open,note\n"


def rows(*lines: str) -> str:
    return HEAD + "".join(f"{line}\n" for line in lines)


def thing(id: int, name: str = "x", amount: str = "1", note: str = "") -> str:
    return f"{id},{name},{amount},2026-01-01,2026-01-01T00:00:00Z,yes,{note}"


def refused(job: Job) -> list[str]:
    found = jobs.artifact_of(job)
    assert found is not None
    return b"".join(storage.current().open(found.key)).decode("utf-8-sig").splitlines()


def test_new_rows(landing: Landing) -> None:
    job = landing.apply(text_of(500))
    assert landing.result(job) == {"read": 500, "inserted": 500}
    found = landing.rows()
    assert len(found) == 500
    assert [str(value) for value in found[2]] == [
        *("3", "Thing 3", "1.11", "2026-01-04", "2026-01-31 10:03:00+00:00"),
        *("True", 'He said "3",\nthen left', "0"),
    ]
    assert (job.progress_done, job.progress_total) == (500, 500)
    assert jobs.artifact_of(job) is None
    assert len(db.session.scalars(select(Chunk)).all()) > 5


def test_the_same_file_twice_changes_nothing(landing: Landing) -> None:
    landing.apply(text_of(300))
    before = landing.rows("SELECT xmin::text, * FROM landing.things ORDER BY id")
    assert landing.result(landing.apply(text_of(300))) == {"read": 300, "unchanged": 300}
    assert landing.rows("SELECT xmin::text, * FROM landing.things ORDER BY id") == before


def test_changed_and_new_rows(landing: Landing) -> None:
    landing.apply(text_of(200))
    landing.conn.execute("UPDATE landing.things SET touched = 7")
    job = landing.apply(text_of(100) + text_of(150, first=151, name="Other").partition("\n")[2])
    assert landing.result(job) == {"read": 250, "inserted": 100, "updated": 50, "unchanged": 100}
    assert landing.rows("SELECT count(*), sum(touched) FROM landing.things") == [(300, 1400)]
    ledger = f"waybill_journal.ledger_{job.import_id.hex}"  # type: ignore[union-attr]
    assert landing.rows(f"SELECT inserted, count(*) FROM {ledger} GROUP BY 1 ORDER BY 1") == [
        (False, 50),
        (True, 100),
    ]
    assert landing.rows(f"SELECT k1, b1, line FROM {ledger} WHERE NOT inserted ORDER BY k1 LIMIT 1") == [
        (151, "Thing 151", 135)
    ]


@pytest.mark.parametrize("chunk_bytes", [4096, 100_000])
@pytest.mark.parametrize(
    ("mode", "counts", "names"),
    [
        (
            "insert",
            {"inserted": 100, "refused": 100, "refused_by": {"exists": 100}},
            {"Thing": 200, "New": 100},
        ),
        ("upsert", {"inserted": 100, "updated": 100}, {"Thing": 100, "New": 200}),
        ("update", {"updated": 100, "skipped": 100}, {"Thing": 100, "New": 100}),
        ("skip", {"inserted": 100, "skipped": 100}, {"Thing": 200, "New": 100}),
    ],
)
def test_modes(
    mode: str, counts: dict[str, Any], names: dict[str, int], chunk_bytes: int, landing: Landing, app: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    landing.apply(text_of(200))
    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], chunk_bytes=chunk_bytes))
    job = landing.apply(text_of(200, first=101, name="New"), mode=mode, reject_percent=None)
    assert landing.result(job) == {"read": 200} | counts
    found = landing.rows("SELECT split_part(name, ' ', 1), count(*)::int FROM landing.things GROUP BY 1")
    assert dict(found) == names


@pytest.mark.parametrize("chunk_bytes", [100, 4096])
@pytest.mark.parametrize("mode", ["insert", "upsert", "skip"])
def test_of_equal_keys_the_last_wins(
    mode: str, chunk_bytes: int, landing: Landing, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], chunk_bytes=chunk_bytes))
    text = rows(*(thing(n % 10, f"round {n // 10}") for n in range(50)))
    job = landing.apply(text, mode=mode)
    assert landing.result(job) == {"read": 50, "inserted": 10, "superseded": 40}
    assert set(landing.rows("SELECT name FROM landing.things")) == {("round 4",)}
    ledger = landing.rows(f"SELECT k1 FROM waybill_journal.ledger_{job.import_id.hex}")  # type: ignore[union-attr]
    assert sorted(ledger) == [(n,) for n in range(10)]


def test_refused_rows_are_a_file(landing: Landing) -> None:
    job = landing.apply(
        rows(
            thing(1),
            thing(2, "n" * 41),
            thing(3, amount="-1"),
            thing(4, amount="99999999999"),
            thing(5, amount="9999999999.999"),
            "x,y",
            thing(6, ""),
            thing(7),
        )
    )
    assert landing.result(job) == {
        "read": 8,
        "inserted": 2,
        "refused": 6,
        "refused_by": {"out_of_range": 2, "ragged": 1, "required": 1, "rule": 1, "too_long": 1},
    }
    found = refused(job)
    assert found[0] == "id,name,amount,day,at,open,note,line,column,code,message"
    assert [line.split(",")[7:10] for line in found[1:5]] == [
        ["3", "name", "too_long"],
        ["4", "amount", "rule"],
        ["5", "amount", "out_of_range"],
        ["6", "amount", "out_of_range"],
    ]
    assert "The table's rule positive does not hold: (amount >= (0)::numeric)." in found[2]
    artifact = jobs.artifact_of(job)
    assert artifact is not None
    assert artifact.rows == 6
    assert artifact.filename == "things-refused.csv"


def test_too_many_refused_stops(landing: Landing) -> None:
    text = text_of(100) + rows(*(thing(n, "") for n in range(1000, 1100))).partition("\n")[2] + text_of(500)
    job = landing.run(landing.ask(text, reject_limit=10, reject_percent=None))
    assert (job.status, job.error_code) == ("failed", "too_many_refused")
    assert "more than 10: the import stopped." in str(job.error_message)
    in_ = landing.rows("SELECT count(*) FROM landing.things")[0][0]
    assert 0 < in_ <= 100
    assert len(refused(job)) > 10
    assert landing.result(job)["inserted"] == in_


def test_per_cent_of_refused_rows(landing: Landing) -> None:
    lines = [thing(n, "" if n % 10 == 0 else "x") for n in range(2000)]
    job = landing.run(landing.ask(rows(*lines), reject_percent=9, reject_limit=None))
    assert job.error_code == "too_many_refused"
    assert 0 < landing.rows("SELECT count(*) FROM landing.things")[0][0] < 1000
    job = landing.apply(rows(*lines), reject_percent=11, reject_limit=None)
    assert landing.result(job)["refused"] == 200


def test_a_failed_import_goes_on_when_it_may(landing: Landing) -> None:
    lines = [thing(n, "" if n > 500 else "x") for n in range(1000)]
    job = landing.run(landing.ask(rows(*lines), reject_limit=10, reject_percent=None))
    assert job.status == "failed"
    at = landing.rows("SELECT count(*) FROM landing.things")[0][0]
    import_id = job.import_id
    db.session.execute(update(Import).values(reject_limit=None))
    db.session.commit()
    jobs.retry(db.session.get_one(Job, job.id))
    job = landing.run(job.id)
    assert job.status == "succeeded", landing.log(job.id)[-4:]
    assert landing.result(job) == {
        "read": 1000,
        "inserted": 501,
        "refused": 499,
        "refused_by": {"required": 499},
    }
    assert at > 300
    assert len(refused(job)) == 500
    assert landing.rows(f"SELECT count(*) FROM waybill_journal.rejects WHERE import_id = '{import_id}'") == [
        (499,)
    ]


def test_triggers_and_what_no_catalogue_tells(landing: Landing) -> None:
    landing.conn.execute(
        "CREATE FUNCTION landing.moody() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.id % 97 = 0 THEN RAISE EXCEPTION 'I do not like %', NEW.id; END IF;"
        " NEW.name = upper(NEW.name); RETURN NEW; END $$;"
        "CREATE TRIGGER moody BEFORE INSERT OR UPDATE ON landing.things"
        " FOR EACH ROW EXECUTE FUNCTION landing.moody()"
    )
    job = landing.apply(text_of(400))
    assert landing.result(job) == {
        "read": 400,
        "inserted": 396,
        "refused": 4,
        "refused_by": {"refused_by_trigger": 4},
    }
    assert landing.rows("SELECT name FROM landing.things WHERE id = 1") == [("THING 1",)]
    assert "I do not like 97" in refused(job)[1]
    ledger = landing.rows(f"SELECT count(*) FROM waybill_journal.ledger_{job.import_id.hex}")  # type: ignore[union-attr]
    assert ledger == [(396,)]


def test_rows_that_are_good_alone_but_not_together(landing: Landing) -> None:
    landing.conn.execute(
        "ALTER TABLE landing.things"
        " ADD EXCLUDE USING gist (box(point(amount, 0), point(amount + 1, 1)) WITH &&)"
    )
    job = landing.apply(rows(thing(1, "a", "1"), thing(3, "a", "3"), thing(2, "a", "2"), thing(4, "b", "9")))
    assert landing.result(job) == {
        "read": 4,
        "inserted": 3,
        "refused": 1,
        "refused_by": {"conflict": 1},
    }
    assert refused(job)[1].startswith("2,a")


def test_a_table_that_refuses_everything_is_no_long_search(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sift, "MOST", 5)
    landing.conn.execute(
        "CREATE FUNCTION landing.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'Closed for the holidays'; END $$;"
        "CREATE TRIGGER no BEFORE INSERT ON landing.things FOR EACH ROW EXECUTE FUNCTION landing.no()"
    )
    job = landing.run(landing.ask(text_of(100)))
    assert job.error_code == "target_refused"
    assert "Closed for the holidays. Nothing of the file is in." in str(job.error_message)


def test_other_unique_columns(landing: Landing) -> None:
    landing.conn.execute("CREATE UNIQUE INDEX ON landing.things (note)")
    landing.apply(rows(thing(1, note="a"), thing(2, note="b")))
    job = landing.apply(rows(thing(1, note="a"), thing(3, note="b"), thing(4, note="c"), thing(5, note="c")))
    assert landing.result(job)["refused_by"] == {"not_unique": 2}
    assert landing.rows("SELECT id, note FROM landing.things ORDER BY 1") == [(1, "a"), (2, "b"), (4, "c")]


class Parts(Importer):
    key, title, source, table, natural_key = "parts", "Parts", "landing", "parts", ("code",)
    columns = (
        Column(name="code", required=True),
        Column(name="thing_id", references=Reference("things", "name")),
        Column(name="kind"),
        Column(name="extra", type="json"),
        Column(name="tags"),
        Column(name="size", type="int"),
    )


@pytest.fixture
def parts(app: Any, database: Callable[[], str], member: Any) -> Iterator[Landing]:
    with landed(app, database, member, Things(), Parts(), chunk_bytes=4096) as landing:
        landing.conn.execute(
            "CREATE TYPE landing.kind AS ENUM ('new', 'used');"
            "CREATE TABLE landing.parts (id serial PRIMARY KEY, code text UNIQUE, kind landing.kind,"
            " thing_id bigint REFERENCES landing.things, extra jsonb, tags text[], size smallint)"
        )
        yield landing


def test_references_enums_json_arrays_and_small_numbers(parts: Landing) -> None:
    parts.apply(rows(thing(7, "seven"), thing(8, "eight"), thing(9, "twin"), thing(10, "twin")))
    lines = [
        "code,thing_id,kind,extra,tags,size",
        'a,seven,new,"{""x"": 1}","{p,q}",1',
        "b,,used,,,",
        "c,nine,new,,,2",
        "d,eight,old,,,3",
        "e,eight,new,,,40000",
        "f,twin,new,,,4",
        "g,eight,new,,{broken,5",
    ]
    job = parts.apply("\n".join(lines), key="parts")
    assert parts.result(job) == {
        "read": 7,
        "inserted": 2,
        "refused": 5,
        "refused_by": {
            "ambiguous_reference": 1,
            "choice": 1,
            "out_of_range": 1,
            "refused_by_database": 1,
            "unknown_reference": 1,
        },
    }
    found = parts.rows("SELECT code, thing_id, kind, extra, tags, size FROM landing.parts ORDER BY code")
    assert found == [("a", 7, "new", {"x": 1}, ["p", "q"], 1), ("b", None, "used", None, None, None)]
    again = parts.apply("\n".join(lines[:3]), key="parts")
    assert parts.result(again) == {"read": 2, "unchanged": 2}


def test_rows_without_a_natural_key(parts: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Parts, "natural_key", ())
    job = parts.apply("code,size\n" + "".join(f"p{n},{n}\n" for n in range(2000)), key="parts", mode="insert")
    assert parts.result(job) == {"read": 2000, "inserted": 2000}
    ledger = f"waybill_journal.ledger_{job.import_id.hex}"  # type: ignore[union-attr]
    assert parts.rows(f"SELECT count(DISTINCT k1) FROM {ledger} WHERE inserted") == [(2000,)]


def test_what_makes_no_sense_for_the_table(parts: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(text: str, **options: Any) -> str:
        job = parts.run(parts.ask(text, **options))
        assert job.status == "failed"
        return str(job.error_message)

    assert "but the file has no id" in said("name\nx\n")
    assert "needs a value in name" in said("id\n1\n")
    monkeypatch.setattr(Things, "natural_key", ("name",))
    assert "no unique index of the table is over just these columns" in said(text_of(1))
    monkeypatch.setattr(Things, "table", "nothings")
    assert "There is no table 'nothings'" in said(text_of(1))


def test_the_account_may_not_write(app: Any, database: Callable[[], str], member: Any) -> None:
    with landed(app, database, member) as landing:
        landing.conn.execute(
            "DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN PASSWORD 'reader';"
            "GRANT USAGE ON SCHEMA landing TO reader; GRANT SELECT ON landing.things TO reader"
        )
        info = landing.conn.info
        url = f"postgresql://reader:reader@{info.host}:{info.port}/{info.dbname}?options=-csearch_path%3Dlanding"
        writing = app.config["WAYBILL"]
        app.config["WAYBILL"] = replace(writing, targets={"landing": url})
        job = landing.run(landing.ask(text_of(1)))
        assert "CREATE SCHEMA waybill_journal AUTHORIZATION reader" in str(job.error_message)
        landing.conn.execute("CREATE SCHEMA waybill_journal AUTHORIZATION reader")
        job = landing.run(landing.ask(text_of(1)))
        assert "SOURCE_LANDING_WRITE_URL" in str(job.error_message)
        landing.conn.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_a_rate_is_kept(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    began = time.monotonic()
    landing.apply(text_of(1000), rate=500)
    assert time.monotonic() - began > 1000 / 500 - 1.5  # the last chunk need not be waited for


def test_nothing_but_a_header(landing: Landing) -> None:
    assert landing.result(landing.apply(HEAD)) == {}


def test_names_with_signs_that_mean_something(
    app: Any, database: Callable[[], str], member: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(Importer):
        key, title, source, table, natural_key = "odd", "Odd", "landing", 'Odd "% table', ("% id",)
        columns = (Column(name="% id", type="int"), Column(name='a "b" %s'))

    table = (
        'CREATE SCHEMA landing; CREATE TABLE landing."Odd ""% table" ("% id" int PRIMARY KEY,'
        ' "a ""b"" %s" text CHECK ("a ""b"" %s" NOT LIKE \'%x%\'))'
    )
    with landed(app, database, member, Odd(), table=table) as landing:
        text = 'i,a\n1,"%s"\n2,x\n'
        mapping = {"% id": 0, 'a "b" %s': 1}
        options: dict[str, Any] = {"key": "odd", "mapping": mapping, "reject_percent": None}
        assert landing.result(landing.apply(text, **options))["inserted"] == 1
        assert landing.result(landing.apply(text.replace("%s", "%d"), **options))["updated"] == 1


def test_connections_end_with_the_work(landing: Landing) -> None:
    landing.apply(text_of(10))
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name LIKE 'waybill %' AND datname = current_database()"
    )
    # The server takes a moment to notice.
    until(lambda: landing.rows(query) == [(0,)])


def test_of_a_closed_account_nothing_more_is_imported(landing: Landing) -> None:
    """Its imports stop where they are: what an earlier attempt wrote is in, and nobody is told otherwise."""
    job_id = landing.ask(text_of(20))
    db.session.execute(update(User).values(active=False))
    db.session.commit()
    job = landing.run(job_id)
    assert job.status == "failed"
    assert str(job.error_message).endswith("may no longer use 'Things'. Nothing was changed.")
    job = landing.run(jobs.retry(job).id)
    assert str(job.error_message).endswith("may no longer use 'Things'. Nothing more was changed.")
    assert landing.rows() == []
