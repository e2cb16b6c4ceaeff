"""What a spreadsheet would take for something else stays what it is, in a file by either way."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest

from app.formats import find

LEADS = [
    "=",
    "+",
    "-",
    "@",
    "＝",
    "＋",
    "－",
    "＠",
    "\t",
    "\r",
    "\n",
    "\t=",
    " =",
    "\u00a0=",
    "\u200b=",
    "\ufeff@",
]


def by_rows(dialect: str, columns: list[str], *rows: tuple[Any, ...]) -> str:
    return b"".join(find("csv")[0].writing(dialect).rows(columns, rows)).decode()


def cells(text: str, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=delimiter))


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("rest", ["1+1", "cmd|' /C calc'!A0", 'HYPERLINK("http://x")', "x"])
def test_no_text_is_a_formula(copied: Callable[..., bytes], lead: str, rest: str) -> None:
    text = lead + rest
    ours = by_rows("spreadsheet", ["v"], (text,))
    assert cells(ours)[1] == ["'" + text]
    assert ours.encode() == copied("csv", "spreadsheet", "SELECT CAST(%(v)s AS text) AS v", v=text)


def test_no_title_is_a_formula(copied: Callable[..., bytes]) -> None:
    title = "=cmd|' /C calc'!A0 and as long as PostgreSQL lets a name be, so 63"[:63]
    ours = by_rows("spreadsheet", [title], (1,))
    assert cells(ours)[0] == ["'" + title]
    assert ours.encode() == copied("csv", "spreadsheet", f'SELECT 1 AS "{title}"')


@pytest.mark.parametrize(
    "text", ["-5", "-12.50", "5", "0", "0.5", "2026-01-31", "12:30", "abc", "555-1234", "a=b", ""]
)
def test_what_is_read_rightly_is_left_alone(text: str) -> None:
    assert cells(by_rows("spreadsheet", ["v", "1"], (text, 1)))[1][0] == text


@pytest.mark.parametrize(
    "text",
    [
        "0012",
        " 0012",
        "-05",
        "00.5",
        "12345678901234567890",
        "1E5",
        "1e5",
        "2.5E10",
        "1-2",
        "3/4",
        "2026-05",
        "-1-2",
    ],
)
def test_what_would_lose_digits_is_marked(text: str) -> None:
    assert cells(by_rows("spreadsheet", ["v"], (text,)))[1] == ["'" + text]


def test_numbers_are_numbers_up_to_fifteen_digits(copied: Callable[..., bytes]) -> None:
    sql = (
        "SELECT -5 AS a, -12.50::numeric AS b, 999999999999999::bigint AS c, 1000000000000000::bigint AS d,"
        " -1234567890123456.5::numeric AS e, '-Infinity'::float8 AS f, 1e20::float8 AS g"
    )
    row = cells(copied("csv", "spreadsheet", sql).decode())[1]
    assert row == [
        "-5",
        "-12.50",
        "999999999999999",
        "'1000000000000000",
        "'-1234567890123456.5",
        "'-Infinity",
        "1e+20",
    ]


def test_a_nul_is_shown(copied: Callable[..., bytes]) -> None:
    assert cells(by_rows("spreadsheet", ["v"], ("\0a\0",)))[1] == ["'␀a␀"]


def test_marks_and_line_ends_are_the_dialects(copied: Callable[..., bytes]) -> None:
    sql = "SELECT 1.5::numeric AS n, 'a;b' AS t, E'two\\nlines' AS l, true AS b"
    assert copied("csv", "spreadsheet", sql).decode() == '\ufeffn,t,l,b\r\n1.5,a;b,"two\nlines",TRUE\r\n'
    assert copied("csv", "spreadsheet-semicolon", sql).decode() == (
        '\ufeffn;t;l;b\r\n1,5;"a;b";"two\nlines";TRUE\r\n'
    )
    assert (
        copied("csv", "spreadsheet-tab", sql).decode()
        == '\ufeffn\tt\tl\tb\r\n1.5\ta;b\t"two\nlines"\tTRUE\r\n'
    )


def test_percent_signs_pass(copied: Callable[..., bytes]) -> None:
    """A query without values, and one with: psycopg reads % in the latter alone."""
    assert cells(copied("csv", "spreadsheet", "SELECT '50 %%' AS \"a %%\"").decode()) == [["a %"], ["50 %"]]
    assert cells(copied("csv", "spreadsheet", "SELECT %(v)s || '%%' AS v", v="5").decode()) == [["v"], ["5%"]]
