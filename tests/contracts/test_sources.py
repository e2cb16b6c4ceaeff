"""One suite over every source: what reports may rely on, whatever database they read."""

from __future__ import annotations

import io
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from python_calamine import CalamineWorkbook

from app.dev.child import free_port
from app.dev.mariadb import MariaDb
from app.errors import BadSettings, QueryFailed, SourceDown
from app.formats import find
from app.params import Param, Params
from app.reports import SqlReport, compose, statement
from app.reports._sql import tokens
from app.sources import Again, Field, Reading, Source, open_source

MEMBERS = ("postgres", "sqlite", "mysql", "duckdb", "other")
HOSTILE = (
    "'; DROP TABLE things; --",
    "\\'); --",
    '"; --',
    "%s %(x)s %% ?1 :y $1",
    "back\\slash \\n",
    "Zoë 😀 \N{NO-BREAK SPACE}",
    "two\nlines",
    "",
)


@dataclass
class Member:
    """A database with the table `things`, and how it says what every suite needs."""

    url: str
    # `{rows}` numbers from 1 on, in order, as `id` beside a text of a hundred characters, as `note`.
    many: str
    # Never comes to an end by itself.
    endless: str
    # Where nothing answers.
    down: str
    # How it gives the columns of `things`, where that is not as it was put in.
    gives: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    # Rows (id, moment) of `CLOCK`, where the database knows moments; "" where it has texts at most.
    moments: str = ""
    # A database of its own kind whose account may write; None where that has no meaning.
    writable: str | None = None

    def source(self, timeout: float = 60) -> Source:
        return open_source("shop", self.url, timedelta(seconds=timeout))


COLUMNS = ("id", "name", "amount", "ratio", "day", "moment", "data")
THINGS: list[tuple[Any, ...]] = [
    (
        1,
        "Zoë 😀",
        Decimal("1234567890.1250"),
        0.1 + 0.2,
        date(2026, 1, 31),
        datetime.fromisoformat("2026-01-31 23:59:58"),
        b"\0\xff",
    ),
    (
        2,
        'a "quoted", one\non two lines',
        Decimal("-3.0000"),
        -1e-300,
        date(1582, 10, 15),
        datetime.fromisoformat("1999-01-01"),
        b"",
    ),
    (
        3,
        "",
        Decimal("0.0001"),
        1e300,
        date(9999, 12, 31),
        datetime.fromisoformat("2026-07-01 12:00:00.250"),
        b"x",
    ),
    (2**53 + 1, None, None, None, None, None, None),
]


# One value of each of MySQL's types of whole numbers.
WHOLES = (-128, 255, -32768, 8388607, -(2**31), 2**64 - 1, 2026, 1, 2**64 - 1)

# Each hour around the nights in which Berlin's clocks are changed, in UTC.
CLOCK = [
    datetime(2026, month, day, tzinfo=UTC) + timedelta(hours=hour, minutes=30)
    for month, day in ((3, 28), (10, 24))
    for hour in range(20, 30)
]


@pytest.fixture(params=MEMBERS)
def member(request: pytest.FixtureRequest) -> Member:
    found: Member = request.getfixturevalue(f"{request.param}_member")
    return found


@pytest.fixture
def reading(member: Member) -> Iterator[Reading]:
    with member.source().reading() as found:
        yield found


@pytest.fixture(scope="module")
def postgres_member(services: Any) -> Member:
    url = services.database("source_suite")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "CREATE TABLE things (id bigint, name text, amount numeric(14, 4), ratio double precision,"
            " day date, moment timestamp, data bytea)"
        )
        with conn.cursor() as cursor:
            cursor.executemany("INSERT INTO things VALUES (%s, %s, %s, %s, %s, %s, %s)", THINGS)
            cursor.execute("CREATE TABLE moments (id bigint, moment timestamptz)")
            cursor.executemany("INSERT INTO moments VALUES (%s, %s)", list(enumerate(CLOCK)))
    return Member(
        url,
        "SELECT i AS id, repeat('x', 100) AS note FROM generate_series(1, {rows}) AS i ORDER BY i",
        "SELECT pg_sleep(600)",
        f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none",
        moments="SELECT id, moment FROM moments ORDER BY id",
        writable=url,
    )


@pytest.fixture(scope="module")
def mysql_member(session_directory: Path) -> Iterator[Member]:
    server = MariaDb(session_directory / "mariadb")
    server.start()
    try:
        with server.connect() as conn, conn.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE waybill.things (id bigint, name text, amount decimal(14, 4), ratio double,"
                " day date, moment datetime(6), data blob)"
            )
            cursor.executemany("INSERT INTO waybill.things VALUES (%s, %s, %s, %s, %s, %s, %s)", THINGS)
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute("CREATE TABLE waybill.moments (id bigint, moment timestamp)")
            cursor.executemany("INSERT INTO waybill.moments VALUES (%s, %s)", list(enumerate(CLOCK)))
            cursor.execute(
                "CREATE TABLE waybill.wholes (t tinyint, u tinyint unsigned, s smallint, m mediumint, i int,"
                " b bigint unsigned, y year, flag bit(1), bits bit(64))"
            )
            cursor.execute("INSERT INTO waybill.wholes VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)", WHOLES)
            cursor.execute("CREATE USER reader IDENTIFIED BY 'p@ss/word'")
            cursor.execute("GRANT SELECT ON waybill.* TO reader")
        yield Member(
            server.url.replace("root@", "reader:p%40ss%2Fword@"),
            "SELECT seq AS id, repeat('x', 100) AS note FROM seq_1_to_{rows}",
            "SELECT count(*) FROM seq_1_to_1000000 AS a, seq_1_to_1000000 AS b WHERE a.seq + b.seq < 0",
            f"mysql://nobody:secret@127.0.0.1:{free_port()}/none",
            moments="SELECT id, moment FROM moments ORDER BY id",
            writable=server.url,
        )
    finally:
        server.stop()


SQLITE_MANY = (
    "WITH RECURSIVE numbers(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < {rows})"
    " SELECT id, printf('%%100s', 'x') AS note FROM numbers"
)
SQLITE_ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c WHERE x < 0"
SQLITE_GIVES: dict[str, Callable[[Any], Any]] = {
    "amount": float,
    "day": str,
    "moment": lambda at: at.isoformat(sep=" "),
}


@pytest.fixture(scope="module")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("a folder") / "shop.db"
    with sqlite3.connect(path) as conn:
        conn.execute(
            "CREATE TABLE things (id INTEGER, name TEXT, amount NUMERIC, ratio REAL,"
            " day TEXT, moment TEXT, data BLOB)"
        )
        for row in THINGS:
            values = [
                SQLITE_GIVES.get(name, lambda value: value)(value) if value is not None else None
                for name, value in zip(COLUMNS, row, strict=True)
            ]
            conn.execute("INSERT INTO things VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    conn.close()
    return path


@pytest.fixture(scope="module")
def sqlite_member(sqlite_file: Path) -> Member:
    url = f"sqlite:///{str(sqlite_file).replace(' ', '%20')}"
    return Member(url, SQLITE_MANY, SQLITE_ENDLESS, "sqlite:////nowhere/none.db", SQLITE_GIVES)


@pytest.fixture(scope="module")
def other_member(sqlite_file: Path) -> Member:
    return Member(
        f"sqlite+pysqlite:///{sqlite_file}",
        SQLITE_MANY,
        SQLITE_ENDLESS,
        "sqlite+pysqlite:////nowhere/none.db",
        SQLITE_GIVES,
    )


@pytest.fixture(scope="module")
def duckdb_member(tmp_path_factory: pytest.TempPathFactory) -> Member:
    import duckdb

    path = tmp_path_factory.mktemp("duckdb") / "shop.duckdb"
    with duckdb.connect(str(path)) as conn:
        conn.execute(
            "CREATE TABLE things (id bigint, name text, amount decimal(14, 4), ratio double, day date,"
            " moment timestamp, data blob)"
        )
        conn.executemany("INSERT INTO things VALUES (?, ?, ?, ?, ?, ?, ?)", THINGS)
        conn.execute("CREATE TABLE moments (id bigint, moment timestamptz)")
        conn.executemany("INSERT INTO moments VALUES (?, ?)", list(enumerate(CLOCK)))
    return Member(
        f"duckdb:///{path}",
        "SELECT i AS id, repeat('x', 100) AS note FROM range(1, {rows} + 1) AS r(i) ORDER BY i",
        "SELECT count(*) FROM range(10000000) AS a(x), range(10000000) AS b(y) WHERE x + y < 0",
        "duckdb:////nowhere/none.duckdb",
        moments="SELECT id, moment FROM moments ORDER BY id",
    )


def composed(sql: str, **bound: Any) -> tuple[str, dict[str, Any]]:
    """The query of a Python report."""
    found = compose(sql, bound)
    return found.sql, found.values


def asked(sql: str, params: Params, **bound: Any) -> tuple[str, dict[str, Any]]:
    """The query of an SQL report."""
    report = type("Asked", (SqlReport,), {"query": tokens(sql), "params": params})()
    person = type("Person", (), {"id": 7, "email": "ann@example.org"})()
    found = statement(report, bound, person)
    return found.sql, found.values


def values(reading: Reading, sql: str, bound: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What the batches hold."""
    fields = reading.fields(sql, bound)
    return [row for batch in reading.batches(sql, bound, fields) for row in batch.values()]


def expected(member: Member) -> list[tuple[Any, ...]]:
    given = [member.gives.get(name, lambda value: value) for name in COLUMNS]
    return [
        tuple(None if value is None else give(value) for give, value in zip(given, row, strict=True))
        for row in THINGS
    ]


# --- what is read -----------------------------------------------------------------------------------------


def test_values_come_as_they_are(member: Member, reading: Reading) -> None:
    sql, bound = composed("SELECT * FROM things ORDER BY id")
    assert values(reading, sql, bound) == expected(member)
    assert reading.rows_read == len(THINGS)
    rows = [tuple(row) for row in reading.rows(sql, bound)]
    assert [row[0:2] for row in rows] == [row[0:2] for row in THINGS]
    assert rows[-1][1:] == (None,) * 6
    assert reading.rows_read == len(THINGS)


def test_fields_tell_names_and_kinds(member: Member, reading: Reading) -> None:
    fields = reading.fields(*composed("SELECT id, name, ratio, name FROM things"))
    assert [found.name for found in fields][:3] == ["id", "name", "ratio"]
    assert [found.kind for found in fields] == ["int64", "text", "float64", "text"]


def test_columns_of_one_name_are_both_there(reading: Reading) -> None:
    sql, bound = composed("SELECT id, name AS x, ratio AS x FROM things WHERE id = 1")
    assert values(reading, sql, bound) == [(1, "Zoë 😀", 0.1 + 0.2)]


def test_text_can_be_asked_for(reading: Reading) -> None:
    sql, bound = composed("SELECT id, ratio FROM things ORDER BY id")
    fields = [replace(found, kind="text") for found in reading.fields(sql, bound)]
    rows = [row for batch in reading.batches(sql, bound, fields) for row in batch.values()]
    assert rows[0] == ("1", "0.30000000000000004")
    assert rows[3] == (str(2**53 + 1), None)


def test_an_empty_result_has_its_columns(reading: Reading) -> None:
    sql, bound = composed("SELECT id, name FROM things WHERE id < 0")
    assert [found.name for found in reading.fields(sql, bound)] == ["id", "name"]
    assert values(reading, sql, bound) == []
    assert list(reading.rows(sql, bound)) == []
    assert reading.rows_read == 0


def test_the_file_is_written_of_it(member: Member, reading: Reading) -> None:
    """All formats, from columns, by whatever source."""
    sql, bound = composed("SELECT id, name, ratio FROM things ORDER BY id")
    for name in ("csv", "jsonl", "xlsx", "parquet"):
        writing = find(name)[0].writing(find(name)[1])
        fields = writing.typed(reading.fields(sql, bound))
        content = b"".join(writing.batches(fields, reading.batches(sql, bound, fields)))
        counter = find(name)[0].counter()
        counter.feed(content)
        assert counter.rows == len(THINGS)
        if name == "csv":
            assert content.startswith(
                b'id,name,ratio\n1,Zo\xc3\xab \xf0\x9f\x98\x80,0.30000000000000004\n2,"a ""'
            )
            assert content.endswith(b'3,"",1e+300\n9007199254740993,,\n')


# --- whose clock, which columns ---------------------------------------------------------------------------


def test_spreadsheets_show_the_requesters_clock(member: Member, reading: Reading) -> None:
    """The same bytes by whatever source, where clocks are put forward, back, and otherwise."""
    if not member.moments:
        assert member.url.startswith("sqlite")
        return
    local = [at.astimezone(ZoneInfo("Europe/Berlin")).replace(tzinfo=None) for at in CLOCK]
    text = "\ufeffid,moment\r\n" + "".join(f"{at},{moment}\r\n" for at, moment in enumerate(local))
    assert written(reading, member.moments, "csv", "spreadsheet").decode() == text
    book = CalamineWorkbook.from_filelike(io.BytesIO(written(reading, member.moments, "xlsx", "standard")))
    assert [row[1] for row in book.get_sheet_by_index(0).to_python()[1:]] == local
    exact = written(reading, member.moments, "csv", "machine").decode().splitlines()
    assert [line.partition(",")[2] for line in exact[1:]] == [f"{at:%Y-%m-%d %H:%M:%S}+00" for at in CLOCK]


def written(reading: Reading, sql: str, name: str, dialect: str) -> bytes:
    """The file for somebody in Berlin."""
    writing = find(name)[0].writing(dialect, "Europe/Berlin")
    copy = writing.copy(lambda: reading.fields(sql, {})) if reading.copies else None
    if copy:
        return copy.head + b"".join(reading.copy(sql, {}, copy))
    fields = writing.typed(reading.fields(sql, {}))
    return b"".join(writing.batches(fields, reading.batches(sql, {}, fields)))


def test_a_zone_that_the_database_lacks_is_told(postgres_member: Member) -> None:
    copy = find("csv")[0].writing("spreadsheet", "Nowhere/Land").copy(lambda: [Field("at", "instant")])
    assert copy is not None
    with (
        postgres_member.source().reading() as reading,
        pytest.raises(QueryFailed, match=r"Nowhere/Land.*Choose another"),
    ):
        list(reading.copy("SELECT now()", {}, copy))


def test_columns_are_chosen_and_the_order_of_rows_stays(member: Member, reading: Reading) -> None:
    sql, bound = composed("SELECT id, name, ratio FROM things ORDER BY id DESC")
    assert [found.name for found in reading.fields(reading.nothing(sql), bound)] == ["id", "name", "ratio"]
    chosen = reading.only(sql, ["ratio", "id"])
    assert [found.name for found in reading.fields(chosen, bound)] == ["ratio", "id"]
    expected = [(row[3], row[0]) for row in reversed(THINGS)]
    assert values(reading, chosen, bound) == expected
    assert list(map(tuple, reading.rows(chosen, bound))) == expected
    assert reading.rows_read == len(THINGS)
    assert [found.name for found in reading.fields(sql, bound)] == ["id", "name", "ratio"]


def test_another_choice_of_the_same_query_is_another_one(reading: Reading) -> None:
    sql, bound = composed("SELECT id, name, ratio FROM things WHERE id = 3")
    reading.fields(reading.only(sql, ["id", "name"]), bound)
    assert values(reading, reading.only(sql, ["name"]), bound) == [("",)]
    assert values(reading, sql, bound) == [(3, "", 1e300)]


def test_chosen_columns_can_be_text(reading: Reading) -> None:
    sql, bound = composed("SELECT id, name, ratio FROM things WHERE id = 1")
    chosen = reading.only(sql, ["ratio", "id"])
    fields = [replace(found, kind="text") for found in reading.fields(chosen, bound)]
    rows = [row for batch in reading.batches(chosen, bound, fields) for row in batch.values()]
    assert rows == [("0.30000000000000004", "1")]


def test_a_column_that_is_gone_is_told(reading: Reading) -> None:
    sql, bound = composed("SELECT id, name FROM things")
    with pytest.raises(QueryFailed, match="ratio"):
        values(reading, reading.only(sql, ["id", "ratio"]), bound)


# --- params -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", HOSTILE)
def test_params_are_values_never_sql(reading: Reading, word: str) -> None:
    params = Params([Param("word", "text")])
    sql = (
        "SELECT :word AS word, '100%' AS percent, ':word' AS colon, :current_user_email AS me, :word AS again"
    )
    assert values(reading, *asked(sql, params, word=word)) == [
        (word, "100%", ":word", "ann@example.org", word)
    ]
    assert [tuple(row) for row in reading.rows(*composed("SELECT :word AS word", word=word))] == [(word,)]


def test_params_of_every_type(reading: Reading) -> None:
    params = Params(
        [
            Param("number", "int"),
            Param("amount", "decimal"),
            Param("day", "date"),
            Param("at", "datetime"),
            Param("yes", "bool"),
            Param("none", "text"),
            Param("nothing", "date"),
        ]
    )
    sql = (
        "SELECT id FROM things WHERE id >= :number AND amount > :amount AND day >= :day AND moment < :at"
        " AND (:yes = :yes) AND (:none IS NULL OR name = :none) AND (:nothing IS NULL OR day = :nothing)"
    )
    bound = {
        "number": 1,
        "amount": Decimal("0.00005"),
        "day": date(2026, 1, 31),
        "at": datetime(2026, 7, 1, 11, 0, tzinfo=UTC),
        "yes": True,
        "none": None,
        "nothing": None,
    }
    assert values(reading, *asked(sql, params, **bound)) == [(1,)]


@pytest.mark.parametrize("wanted", [[1, 3], [], [2**53 + 1]])
def test_lists(member: Member, reading: Reading, wanted: list[int]) -> None:
    holds = "= ANY(:ids)" if member.url.startswith("postgres") else "IN :ids"
    params = Params([Param("ids", "list", items="int")])
    found = values(reading, *asked(f"SELECT id FROM things WHERE id {holds} ORDER BY id", params, ids=wanted))
    assert found == [(number,) for number in wanted]


@pytest.mark.parametrize(
    ("ids", "given", "inside", "outside"),
    [
        ([1, 3], [1, 3], [1, 3], [2, 2**53 + 1]),
        ([1], [1], [1], [2, 3, 2**53 + 1]),
        ([], [], [], [1, 2, 3, 2**53 + 1]),
        (None, [1, 2, 3, 2**53 + 1], [], []),
    ],
)
def test_lists_that_need_not_be_given(
    member: Member,
    reading: Reading,
    ids: list[int] | None,
    given: list[int],
    inside: list[int],
    outside: list[int],
) -> None:
    """Whether one IS NULL can be asked, as of any other param; nothing is in an empty one."""
    postgres = member.url.startswith("postgres")
    holds, holds_not = ("= ANY(:ids)", "<> ALL(:ids)") if postgres else ("IN :ids", "NOT IN :ids")
    params = Params([Param("ids", "list", items="int")])
    for where, wanted in (
        (f":ids IS NULL OR id {holds}", given),
        (f":ids\n is not null AND id {holds}", inside),
        (f"id {holds}", inside),
        (f"id {holds_not}", outside),
    ):
        found = values(reading, *asked(f"SELECT id FROM things WHERE {where} ORDER BY id", params, ids=ids))
        assert found == [(number,) for number in wanted], where


@pytest.mark.parametrize("condition", ["id = {}", "name = {}"])
def test_an_empty_list_of_a_programs_query_is_of_any_type(
    member: Member, reading: Reading, condition: str
) -> None:
    postgres = member.url.startswith("postgres")
    where = condition.format("ANY(:x)") if postgres else condition.replace("= {}", "IN :x")
    assert list(reading.rows(*composed(f"SELECT id FROM things WHERE {where}", x=[]))) == []


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql", ["DELETE FROM things", "INSERT INTO things (id) VALUES (99)", "CREATE TABLE x (i int)"]
)
def test_nothing_is_written(member: Member, sql: str) -> None:
    with member.source().reading() as reading, pytest.raises(QueryFailed):
        list(reading.rows(sql, {}))
    with member.source().reading() as reading:
        assert next(iter(reading.rows("SELECT count(*) FROM things", {})))[0] == len(THINGS)


def test_a_wrong_query_is_told_in_one_line(reading: Reading) -> None:
    with pytest.raises(QueryFailed, match="'shop'") as caught:
        reading.fields("SELECT nothing FROM nowhere", {})
    assert "\n" not in str(caught.value)


def test_a_source_that_is_down_is_told_without_secrets(member: Member) -> None:
    source = open_source("shop", member.down, timedelta(seconds=5))
    for ask in (source.reading().__enter__, source.warnings):
        with pytest.raises(SourceDown, match="'shop' does not answer") as caught:
            ask()
        assert "secret" not in str(caught.value)


def test_an_account_that_may_write_is_told(member: Member) -> None:
    if member.writable:
        (warning,) = open_source("shop", member.writable, timedelta(seconds=5)).warnings()
        assert "'shop'" in warning
        assert "SELECT" in warning
    elif member.url.startswith("sqlite+"):
        assert "can't be told" in member.source().warnings()[0]
    else:
        assert member.source().warnings() == ()


# --- time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["rows", "batches", "fields"])
def test_a_query_over_its_time_is_stopped(member: Member, way: str) -> None:
    if way == "fields" and member.url.startswith(("postgres", "duckdb")):
        way = "rows"  # these know their fields without running the query
    with member.source(timeout=1).reading() as reading, pytest.raises(QueryFailed, match="limit is 1 s"):
        list(getattr(reading, way)(member.endless, {}))


def test_a_query_is_broken_off_from_another_thread(member: Member) -> None:
    with member.source(timeout=600).reading() as reading:
        over = threading.Event()

        def break_off() -> None:
            while not over.wait(0.5):  # once more, if the query had not begun yet
                reading.break_off()

        thread = threading.Thread(target=break_off)
        thread.start()
        try:
            with pytest.raises((QueryFailed, SourceDown)):
                list(reading.rows(member.endless, {}))
        finally:
            over.set()
            thread.join()


def test_a_stream_is_broken_off_from_another_thread(member: Member) -> None:
    sql = member.many.format(rows=2_000_000)
    with member.source(timeout=600).reading() as reading:
        batches = reading.batches(sql, {})
        next(batches)
        reading.break_off()
        with pytest.raises((QueryFailed, SourceDown)):
            for _ in batches:
                pass
        assert reading.rows_read < 2_000_000


def test_breaking_off_what_is_over_is_harmless(reading: Reading) -> None:
    assert list(reading.rows("SELECT 1", {})) == [(1,)]
    reading.break_off()


# --- many rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [4_999, 5_000, 5_001, 60_000])
def test_every_row_comes_once_and_in_order(member: Member, reading: Reading, rows: int) -> None:
    sql = member.many.format(rows=rows)
    fields = reading.fields(sql, {})
    found = [number for batch in reading.batches(sql, {}, fields) for number in batch.columns[0].to_pylist()]
    assert found == list(range(1, rows + 1))
    assert reading.rows_read == rows


def test_the_next_query_works_after_one_was_left_early(member: Member, reading: Reading) -> None:
    sql = member.many.format(rows=100_000)
    batches = reading.batches(sql, {}, reading.fields(sql, {}))
    next(batches)
    batches.close()
    reading.fields(sql, {})
    assert list(reading.rows("SELECT 1", {})) == [(1,)]
    assert sum(batch.rows for batch in reading.batches(sql, {})) == 100_000


def test_memory_is_bounded(member: Member) -> None:
    def read(rows: int) -> None:
        with member.source().reading() as reading:
            assert sum(batch.rows for batch in reading.batches(member.many.format(rows=rows), {})) == rows

    read(20_000)
    before = _resident()
    read(500_000)
    # All of them are 60 MB as bytes, and ten times that as Python values.
    assert _resident() - before < 40_000_000


def test_of_wide_rows_fewer_are_held(member: Member) -> None:
    sql = member.many.format(rows=6_000)
    for narrow, wide in (("'%%100s'", "'%%20000s'"), ("repeat('x', 100)", "repeat('x', 20000)")):
        sql = sql.replace(narrow, wide)
    rows = 0
    with member.source().reading() as reading:
        for batch in reading.batches(sql, {}):
            assert all(len(str(row[1])) == 20_000 for row in batch.values())
            assert batch.rows * 20_000 < 20_000_000
            rows += batch.rows
    assert rows == 6_000


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- one state --------------------------------------------------------------------------------------------


def test_it_says_when_it_was_read(reading: Reading) -> None:
    assert abs((datetime.now(UTC) - reading.snapshot_at).total_seconds()) < 60


# --- SQLite's ways ----------------------------------------------------------------------------------------


UGLY: list[tuple[str, str, list[Any]]] = [
    # What most rows hold, and what comes late.
    ("1", "'late'", [1, "late"]),
    ("1", "2.5", [1, 2.5]),
    ("1", "x'00ff'", [1, b"\0\xff"]),
    ("1.5", "'late'", [1.5, "late"]),
    ("1.5", "9007199254740993", [1.5, 9007199254740993]),
    ("1.5", "7", [1.5, 7]),
    ("'text'", "0.1 + 0.2", ["text", 0.1 + 0.2]),
    ("'text'", "9223372036854775807", ["text", 2**63 - 1]),
    ("'text'", "x'ff00'", ["text", b"\xff\0"]),
    ("x'01'", "'late'", [b"\1", "late"]),
    ("NULL", "'late'", [None, "late"]),
    ("NULL", "0.1 + 0.2", [None, 0.1 + 0.2]),
    ("NULL", "12", [None, 12]),
    ("'text'", "''", ["text", ""]),
    ("'text'", "'a' || char(0) || 'b'", ["text", "a\0b"]),
    ("1", "'05'", [1, "05"]),
    ("1", "'it''s'", [1, "it's"]),
    ("1", "9e999", [1, float("inf")]),
    ("1", "CAST(x'61ff62' AS TEXT)", [1, "a\\xffb"]),
    ("'text'", "CAST(x'61ff62' AS TEXT)", ["text", "a\\xffb"]),
    ("NULL", "CAST(x'ff' AS TEXT)", [None, "\\xff"]),
]


@pytest.mark.parametrize(("usual", "late", "wanted"), UGLY)
@pytest.mark.parametrize("at", [7_000, 20_000])
def test_late_values_of_any_type_are_neither_lost_nor_fatal(
    sqlite_member: Member, usual: str, late: str, wanted: list[Any], at: int
) -> None:
    """Where nobody expects them: beyond the rows looked at, and beyond those that the driver looks at."""
    check_ugly(sqlite_member, [(usual, late, wanted)], at)


def test_types_that_disagree_from_the_start(sqlite_member: Member) -> None:
    check_ugly(sqlite_member, UGLY, 3)


def check_ugly(member: Member, columns: list[tuple[str, str, list[Any]]], at: int) -> None:
    """One row is not like the others: the file is the same as of the values themselves."""
    cells = "".join(f", CASE WHEN id = {at} THEN {late} ELSE {usual} END" for usual, late, _ in columns)
    sql = (
        "WITH RECURSIVE numbers(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < 20000)"
        f" SELECT id{cells} FROM numbers"
    )
    rows = [(number, *(values[number == at] for _, _, values in columns)) for number in range(1, 20_001)]
    writing = find("csv")[0].writing("machine")
    with member.source().reading() as reading:
        for _ in range(2):
            fields = reading.fields(sql, {})
            try:
                content = b"".join(writing.batches(fields, reading.batches(sql, {}, fields)))
                break
            except Again:
                continue
    _, _, lines = content.partition(b"\n")
    _, _, wanted = b"".join(writing.rows(["id", *"x" * len(columns)], rows)).partition(b"\n")
    assert lines == wanted


def test_bytes_that_are_no_utf_8_are_shown(sqlite_member: Member) -> None:
    for rows in (3, 20_000):
        sql = SQLITE_MANY.format(rows=rows).replace("printf('%%100s', 'x')", "CAST(x'61ff62' AS TEXT)")
        with sqlite_member.source().reading() as reading:
            assert {row[1] for row in values(reading, sql, {})} == {"a\\xffb"}


def test_the_order_is_the_querys(sqlite_member: Member) -> None:
    sql = f"SELECT id, note FROM ({SQLITE_MANY.format(rows=20_000)}) ORDER BY (id * 7919) % 20011 -- the end"
    with sqlite_member.source().reading() as reading:
        found = [row[0] for row in values(reading, compose(sql.replace("%%", "%"), {}).sql, {})]
    assert found == sorted(range(1, 20_001), key=lambda number: (number * 7919) % 20_011)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(SourceDown, match="not a database"):
        open_source("shop", f"sqlite:///{tmp_path}/x.db", timedelta(seconds=5)).warnings()


def test_a_writer_at_work_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "wal.db"
    with sqlite3.connect(path) as writer:
        writer.execute("PRAGMA journal_mode = wal")
        writer.execute("CREATE TABLE t AS SELECT 1 AS i")
        writer.commit()
        with open_source("shop", f"sqlite:///{path}", timedelta(seconds=5)).reading() as reading:
            writer.execute("INSERT INTO t VALUES (2)")
            writer.commit()
            assert list(reading.rows("SELECT i FROM t", {})) == [(1,)]
    writer.close()


# --- PostgreSQL's ways ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("DATE 'infinity'", "infinity"),
        ("DATE '0044-03-15 BC'", "0044-03-15 BC"),
        ("TIMESTAMP '294276-01-01 12:00:00.5'", "294276-01-01 12:00:00.5"),
        ("TIMESTAMPTZ '-infinity'", "-infinity"),
        ("TIME '24:00'", "24:00:00"),
        ("TIMETZ '24:00+02'", "24:00:00+02"),
        ("INTERVAL '1 year 2 mons -3 days 4.5 s'", "P1Y2M-3DT4.5S"),
        ("ARRAY[DATE '2026-01-31', 'infinity']", [date(2026, 1, 31), "infinity"]),
    ],
)
def test_rows_hold_as_text_what_python_has_no_type_for(
    postgres_member: Member, value: str, wanted: object
) -> None:
    with postgres_member.source().reading() as reading:
        assert list(reading.rows(f"SELECT {value} AS v", {})) == [(wanted,)]


# --- MySQL's ways -----------------------------------------------------------------------------------------


def test_whole_numbers_of_any_size_are_numbers(mysql_member: Member) -> None:
    with mysql_member.source().reading() as reading:
        sql, bound = composed("SELECT * FROM wholes")
        fields = reading.fields(sql, bound)
        (batch,) = reading.batches(sql, bound, fields)
    assert not batch.strays
    assert list(batch.values()) == [WHOLES]


# --- DuckDB's ways ----------------------------------------------------------------------------------------


DUCKDB_ODD = [
    ("DATE 'infinity'", "infinity"),
    ("DATE '290000-02-28'", "290000-02-28"),
    ("DATE '0044-03-15 (BC)'", "0044-03-15 BC"),
    ("TIMESTAMP '-infinity'", "-infinity"),
    ("TIMESTAMP '290000-01-01 12:00:00.5'", "290000-01-01 12:00:00.5"),
    ("TIMESTAMPTZ '0001-01-01 (BC) 00:00:00+00'", "0001-01-01 00:00:00+00 BC"),
    ("TIME '24:00:00'", "24:00:00"),
    ("TIMETZ '12:00:00+05:30'", "12:00:00+05:30"),
    ("TIMESTAMP_NS '2026-01-01 00:00:00.123456789'", "2026-01-01 00:00:00.123456789"),
    ("INTERVAL '14 months 3 days 4 hours'", "1 year 2 months 3 days 04:00:00"),
    ("340282366920938463463374607431768211455::UHUGEINT", "340282366920938463463374607431768211455"),
    ("170141183460469231731687303715884105727::HUGEINT", "170141183460469231731687303715884105727"),
    ("'101'::BIT", "101"),
    ("[1.10::DECIMAL(4, 2), NULL]", "[1.10,null]"),
    ("{'a': DATE '2026-01-31', 'b': ['x']}", '{"a":"2026-01-31","b":["x"]}'),
    ("MAP {'k': 1}", '{"k":1}'),
    ("'{\"a\": 1.10}'::JSON", '{"a": 1.10}'),
]
# These are as they are where rows are Python's.
DUCKDB_NESTED = ("[", "{", "MAP")
TEXTS = (Field("v"), Field("b"))


@pytest.mark.parametrize(("value", "wanted"), DUCKDB_ODD)
def test_odd_values_of_duckdb_are_neither_lost_nor_fatal(
    duckdb_member: Member, value: str, wanted: str
) -> None:
    """In each format: the odd one, an ordinary one beside it, and NULL."""
    sql = f'SELECT {value} AS v, 1 AS "a ""b%" UNION ALL SELECT NULL, 2'.replace("%", "%%")
    with duckdb_member.source().reading() as reading:
        assert values(reading, sql, {}) == [(wanted, 1), (None, 2)]
        texts = [row for batch in reading.batches(sql, {}, TEXTS) for row in batch.values()]
        assert texts == [(wanted, "1"), (None, "2")]
        assert [found.name for found in reading.fields(sql, {})] == ["v", 'a "b%']
        rows = list(reading.rows(sql, {}))
        assert rows == [(wanted, 1), (None, 2)] or value.startswith(DUCKDB_NESTED)


def test_ordinary_days_beside_odd_ones_stay_days(duckdb_member: Member) -> None:
    sql = "SELECT unnest([DATE 'infinity', DATE '2026-01-31', NULL, DATE '9999-12-31']) AS d"
    with duckdb_member.source().reading() as reading:
        assert values(reading, sql, {}) == [("infinity",), (date(2026, 1, 31),), (None,), (date.max,)]


def test_nested_values_beyond_the_calendar_are_told(duckdb_member: Member) -> None:
    with (
        duckdb_member.source().reading() as reading,
        pytest.raises(QueryFailed, match="Cast it to VARCHAR"),
    ):
        values(reading, "SELECT [DATE 'infinity'] AS v", {})


# --- URLs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://", "names no file"),
        ("sqlite://host/x.db", "names no file"),
        ("duckdb://", "names no file"),
        ("mysql://x:y", "no good"),
        ("mysql://localhost/x?nonsense=1", "nonsense"),
        ("nonsense://x", "nothing installed here speaks"),
        ("oracle+oracledb://x", "not installed"),
        ("no url", "no URL"),
    ],
)
def test_a_url_nobody_understands_is_told(url: str, said: str) -> None:
    with pytest.raises(BadSettings, match=said) as caught:
        open_source("shop", url, timedelta(seconds=5))
    assert "SOURCE_SHOP_URL" in str(caught.value)
    assert "x:y" not in str(caught.value)
