"""Finding placeholders in SQL, against PostgreSQL's own reading of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import QueryFailed
from app.reports import Param, Params, SqlReport, compose, statement
from app.reports._sql import BadSql, placeholders, render, tokens, unsafe


def names(sql: str) -> list[str]:
    return list(placeholders(tokens(sql)))


def reasons(sql: str) -> list[tuple[int, str]]:
    return [(problem.line, str(problem)) for problem in unsafe(tokens(sql))]


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT :a, :b_2, :a", ["a", "b_2"]),
        ("SELECT x::int, y::text || :a::text", ["a"]),
        ("SELECT ':a', 'it''s :a', E'\\':a', e'\\\\', :b", ["b"]),
        ("SELECT E'x'\n  '\\':a', :b", ["b"]),
        ("SELECT 'back\\', :a", ["a"]),
        ('SELECT ":a", "say "":a""", :b', ["b"]),
        ("SELECT `it's :a`, `a``:b`, :c", ["c"]),
        ("SELECT $$ :a ' $$, $tag$ :a $$ :b $tag$, $Ünï$ :a $Ünï$, :c", ["c"]),
        ("SELECT a$b$c, :d, e$f$", ["d"]),
        ("SELECT 1 -- :a '\n, :b", ["b"]),
        ("SELECT 1 /* :a /* :b */ :c ' */, :d", ["d"]),
        ("SELECT f(x := :a)", ["a"]),
        ("SELECT x[1:2], y[:a : :b]", ["a", "b"]),
        ("SELECT 1 WHERE :a IS NULL OR x=:a AND y>:b", ["a", "b"]),
        ("SELECT U&'\\0061:a', B'01', X'ff', N'x:a', :b", ["b"]),
        ("SELECT tabl\u00e9', :a '", []),
        ("SELECT 10 % 3, x -> 'a:b', y @> :a", ["a"]),
    ],
)
def test_placeholders_are_found_where_postgresql_would_see_code(sql, found):
    assert names(sql) == found


@pytest.mark.parametrize(
    ("sql", "message", "line"),
    [
        ("SELECT\n'abc", "this string never ends", 2),
        ('SELECT "abc', "this quoted name never ends", 1),
        ("SELECT $x$ abc $y$", "this dollar-quoted string never ends", 1),
        ("SELECT 1\n\n/* /* */", "this comment never ends", 3),
    ],
)
def test_what_never_ends_is_told_with_its_line(sql, message, line):
    with pytest.raises(BadSql, match=message) as caught:
        tokens(sql)
    assert caught.value.line == line


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "select 1;",
        " ( SELECT 1 ) UNION (SELECT 2) ; -- done",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "WITH RECURSIVE x AS MATERIALIZED (VALUES (1)) TABLE x",
        "VALUES (1), (2)",
        "TABLE tasks",
        'SELECT "update", t.delete, count(insert) AS insert FROM t',
        "SELECT 'DELETE FROM tasks; DROP TABLE tasks' -- ; INSERT INTO",
        "SELECT substring(title for 3) FROM tasks",
        "SELECT $$; DELETE FROM x; $$",
        "SELECT do, call, copy FROM t",
    ],
)
def test_reading_queries_are_safe(sql):
    assert reasons(sql) == []


@pytest.mark.parametrize(
    ("sql", "line", "message"),
    [
        ("", 1, "there is no query"),
        ("-- nothing\n;", 1, "there is no query"),
        ("DELETE FROM tasks", 1, "the query begins with DELETE, but a report only reads"),
        ("\n\nCOPY tasks TO STDOUT", 3, "the query begins with COPY"),
        ("DO $$ BEGIN END $$", 1, "the query begins with DO"),
        ("CALL f()", 1, "the query begins with CALL"),
        ("SET work_mem = '1GB'", 1, "the query begins with SET"),
        ("EXPLAIN SELECT 1", 1, "the query begins with EXPLAIN"),
        ("SELECT 1;\nSELECT 2", 1, "there is more than one statement"),
        ("SELECT 1; DROP TABLE tasks", 1, "there is more than one statement"),
        ("SELECT *\nINTO copy FROM tasks", 2, "INTO writes"),
        ("WITH x AS (\nDELETE FROM tasks RETURNING *) SELECT * FROM x", 2, "DELETE writes"),
        ("WITH x AS (SELECT 1)\nUPDATE tasks SET title = ''", 2, "UPDATE writes"),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", 1, "INSERT writes"),
        ("WITH x AS (MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE) SELECT 1", 1, "MERGE writes"),
        ("SELECT * FROM tasks\nFOR UPDATE", 2, "FOR UPDATE locks rows"),
        ("SELECT * FROM tasks FOR NO KEY UPDATE", 1, "FOR NO locks rows"),
        ("SELECT * FROM tasks FOR SHARE", 1, "FOR SHARE locks rows"),
        ("SELECT $1", 1, "$1 has no meaning here"),
    ],
)
def test_whatever_writes_is_refused_with_its_line(sql, line, message):
    assert (line, message) in [(found, text[: len(message)]) for found, text in reasons(sql)]


def test_comments_and_the_last_semicolon_leave_the_line_breaks_only():
    found = render(tokens("SELECT /* a\nb */ 1 -- c\n, 2 % 3;  -- d\n"), str)
    assert found == "SELECT \n 1  \n, 2 %% 3"


@given(st.text(alphabet="aE'\"$:%-/*\n\\ é;1", max_size=40))
def test_any_text_is_read_or_refused_and_nothing_is_lost(sql):
    try:
        found = tokens(sql)
    except BadSql:
        return
    parts = [":" + token.text if token.kind == "placeholder" else token.text for token in found]
    assert "".join(parts) == sql
    for number, token in enumerate(found):
        assert token.line == 1 + "".join(parts[:number]).count("\n")


QUOTED = [
    "'a:b%s%%'",
    "'it''s'",
    "E'a\\'b\\\\'",
    "$$a'b:c%$$",
    "$q$ $$ :x $q$",
    "U&'\\0061:b'",
    '":x"',
    "/* ' :x /* */ */ 1",
    "-- :x '\n 1",
    "5 % 3",
    "'{1,2,3}'::int[]",
    "(ARRAY[1,2,3])[1 : 2]",
    ":n::text",
    "lower('%x%') LIKE '%x%'",
]


@given(st.lists(st.sampled_from(QUOTED), min_size=1, max_size=6))
def test_rendering_keeps_what_postgresql_understands(parts):
    sql = "SELECT " + ", ".join(part if part != '":x"' else '(SELECT 1 AS ":x")' for part in parts)
    rendered = compose(sql, {"n": 7})
    plain = rendered.sql.replace("%%", "%")
    assert rendered.values == ({"n": 7} if ":n::text" in parts else {})
    assert plain.count("CAST(%(n)s AS bigint)") == parts.count(":n::text")


def report(sql: str, *params: Param) -> SqlReport:
    found = SqlReport()
    found.query, found.params = tokens(sql), Params(params)
    return found


USER = SimpleNamespace(id=7, email="o'hara@example.com")

NULLABLE = [
    (Param("it", "text"), "text", "x%y'z\\"),
    (Param("it", "int"), "bigint", 2**62),
    (Param("it", "decimal"), "numeric", "0.10"),
    (Param("it", "bool"), "boolean", True),
    (Param("it", "date"), "date", "2026-01-31"),
    (Param("it", "datetime"), "timestamp with time zone", "2026-01-31T10:00:00Z"),
    (Param("it", "enum", choices=("a",)), "text", "a"),
    (Param("it", "list"), "text[]", ["a,b", 'c"d', "é\n"]),
    (Param("it", "list", items="int"), "bigint[]", [1, 2]),
]


@pytest.mark.parametrize(("param", "pg_type", "frozen"), NULLABLE)
@pytest.mark.parametrize("way", ["in_client", "in_server"])
def test_every_type_binds_null_or_not_on_both_sides(reading, param, pg_type, frozen, way):
    sql = "SELECT (:it IS NULL OR :it = :it), pg_typeof(:it)::text, :it"
    found = report(sql, param)
    run = getattr(reading, way)
    for value in (None, frozen):
        bound = found.params.bind({"it": value})
        query = statement(found, bound, USER)
        assert run(query.sql, query.values) == [(True, pg_type, bound["it"])]


@pytest.mark.parametrize("way", ["in_client", "in_server"])
def test_lists_are_used_with_any(reading, way):
    found = report(
        "SELECT id FROM projects WHERE id = ANY(:ids) ORDER BY id", Param("ids", "list", items="int")
    )
    for ids, rows in (([3, 1], [(1,), (3,)]), ([], [])):
        query = statement(found, found.params.bind({"ids": ids}), USER)
        assert getattr(reading, way)(query.sql, query.values) == rows


@pytest.mark.parametrize("way", ["in_client", "in_server"])
def test_the_current_user_is_always_bound_as_text(reading, way):
    found = report("SELECT :current_user_email, :current_user_id::bigint, '100%', 7 % 4 -- 50%")
    query = statement(found, {}, USER)
    assert getattr(reading, way)(query.sql, query.values) == [("o'hara@example.com", 7, "100%", 3)]


@pytest.mark.parametrize("way", ["in_client", "in_server"])
def test_a_value_is_never_code(reading, way):
    found = report("SELECT :it", Param("it"))
    for text in (
        "'; DROP TABLE demo.tasks; --",
        "\\'; SELECT 1; --",
        "%(it)s",
        "$$",
        ":it",
        "'||version()||'",
    ):
        query = statement(found, {"it": text}, USER)
        assert getattr(reading, way)(query.sql, query.values) == [(text,)]


def test_the_query_stays_on_its_lines_and_may_stand_in_parentheses(reading):
    found = report("")
    found.query = tokens("SELECT 1 AS a -- last\n;", line=9)
    query = statement(found, {}, USER)
    assert query.sql == "\n" * 8 + "SELECT 1 AS a"
    assert reading.in_client(f"SELECT * FROM ({query.sql}) AS r", query.values) == [(1,)]


def test_a_python_reports_query_takes_the_types_of_its_values(reading):
    sql = "SELECT :n + 1, :d, :b, :l, :t || 'x', :none IS NULL"
    values = {"n": 1, "d": 1.5, "b": True, "l": ["a"], "t": "y", "none": None}
    query = compose(sql, values)
    assert reading.in_server(query.sql, query.values) == [(2, 1.5, True, ["a"], "yx", True)]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT 1;\nDELETE FROM x", "refused, line 1: there is more than one statement"),
        ("SELECT 'x", "refused, line 1: this string never ends"),
        ("SELECT :a", "names :a, but no such value was given"),
    ],
)
def test_a_python_reports_query_is_checked_when_it_runs(sql, message):
    with pytest.raises(QueryFailed, match=message):
        compose(sql, {})
