"""The file of refused rows: what was sent in stays as it was, and comes back corrected."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.importers import Column, Importer
from app.imports.file.check import Checker
from app.imports.file.dialect import Dialect
from app.imports.file.header import own
from app.imports.file.parse import parse
from app.imports.file.rejects import write
from app.imports.rows import Reject

NAUGHTY: list[str] = json.loads((Path(__file__).parents[2] / "data" / "blns.json").read_text())
PLAIN = Dialect()
DIALECTS = [PLAIN, Dialect(delimiter=";"), Dialect(delimiter="\t"), Dialect(escape="\\")]
HEADER = ["id", "note"]


def written(rejects: list[Reject], header: list[str] = HEADER, dialect: Dialect = PLAIN) -> str:
    buffer = io.BytesIO()
    assert write(rejects, header, dialect, buffer) == len(rejects)
    return buffer.getvalue().decode()


def read(text: str, dialect: Dialect = PLAIN) -> list[list[str]]:
    """As any program reads it."""
    doubled = dialect.escape is None
    return list(
        csv.reader(
            io.StringIO(text.removeprefix("\ufeff"), newline=""),
            delimiter=dialect.delimiter,
            doublequote=doubled,
            escapechar=dialect.escape,
        )
    )


def refuse(text: str, dialect: Dialect = PLAIN, width: int = 2) -> list[Reject]:
    """All rows of a text: each id is refused."""
    importer = Importer()
    importer.columns = (Column(name="id", required=True, pattern="never"), Column(name="note"))
    checked = Checker(importer, dialect, {"id": 0, "note": 1}, width).check(text.encode(), 2)
    assert len(checked.rows) == 0
    return list(checked.rejects)


def test_four_columns_stand_behind_the_original_ones():
    text = written(refuse('1,"a, ""b"""\r\n=2+3,\n'))
    assert text == (
        "\ufeffid,note,line,column,code,message\r\n"
        '1,"a, ""b""",2,id,pattern,\'1\' does not look as it must: never\r\n'
        "=2+3,,3,id,pattern,'=2+3' does not look as it must: never\r\n"
    )


def test_what_is_no_row_stands_whole_in_the_first_cell_and_spoils_no_other():
    bad = b'1,2,3\n4,"5\n6,\xff\n7,a\0b\n8,a\rb\n9\n'
    rejects = list(parse(bad, PLAIN, 2, 2).rejects)
    _, *rows = read(written(rejects))
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == [
        ("1,2,3", "", "2", "ragged"),
        ('4,"5', "", "3", "unclosed_quote"),
        ("6,\\xff", "", "4", "not_utf8"),
        ("7,a\\x00b", "", "5", "nul"),
        ("8,a\rb", "", "6", "stray_return"),
        ("9", "", "7", "ragged"),
    ]
    assert {len(row) for row in rows} == {6}


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (["code", "x"], ["line", "column", "code_2", "message"]),
        (["message", "message_2"], ["line", "column", "code", "message_3"]),
        (["line", "column", "code", "message"], ["line_2", "column_2", "code_2", "message_2"]),
        (["a", "a"], ["line", "column", "code", "message"]),
    ],
)
def test_names_are_unlike_those_of_the_file(header, names):
    [titles] = read(written([], header))
    assert titles == header + names
    assert own(titles) == len(header)


def test_a_file_that_came_back_has_its_new_reasons_alone():
    first = written(refuse('1,"a,\n"\n2,b\n'))
    again = first.removeprefix("\ufeff").partition("\r\n")[2]
    header = [*HEADER, "line", "column", "code", "message"]
    assert written(refuse(again, width=6), header) == first


def test_without_quotes_the_reason_gives_way():
    dialect = Dialect(delimiter="\t", quote=None)
    [reject] = refuse('1\t"a', dialect)
    message = 'A tab\there and\na line end "there"'
    text = written([Reject(reject.line, None, "own", message, reject.record)], dialect=dialect)
    assert text.splitlines()[1] == '1\t"a\t2\t\town\tA tab here and a line end "there"'


def test_our_own_cells_are_no_formulas():
    [_, row] = read(written([Reject(2, "id", "own", "=1+1 is wrong", b"=1+1,x")]))
    assert row == ["=1+1", "x", "2", "id", "own", "'=1+1 is wrong"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_naughty_strings_stay_as_they_were(dialect):
    buffer = io.StringIO()
    writer = csv.writer(
        buffer,
        delimiter=dialect.delimiter,
        lineterminator="\n",
        quoting=csv.QUOTE_ALL,
        escapechar=dialect.escape,
        doublequote=dialect.escape is None,
    )
    writer.writerows([str(number), text] for number, text in enumerate(NAUGHTY))
    _, *rows = read(written(refuse(buffer.getvalue(), dialect), dialect=dialect), dialect)
    assert [row[:2] for row in rows] == [[str(number), text] for number, text in enumerate(NAUGHTY)]
    assert {len(row) for row in rows} == {6}


@given(st.text(st.sampled_from('",\n\r\\aé;'), max_size=30), st.sampled_from(DIALECTS))
def test_each_refused_record_is_one_row_of_the_file(text, dialect):
    rejects = refuse(text, dialect)
    refused = written(rejects, dialect=dialect)
    rows = parse(refused.removeprefix("\ufeff").encode(), dialect, 1, 6)
    assert rows.rejects == []
    assert [column[1:].to_pylist() for column in rows.columns[2:5:2]] == [
        [str(reject.line) for reject in rejects],
        [reject.code for reject in rejects],
    ]
    again = refuse(refused.removeprefix("\ufeff").partition("\r\n")[2], dialect, 6)
    came_back = written(again, [*HEADER, "line", "column", "code", "message"], dialect)
    assert len(parse(came_back.removeprefix("\ufeff").encode(), dialect, 1, 6).lines) == 1 + len(rejects)
