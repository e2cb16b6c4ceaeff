"""Columns of texts with their lines, whatever the file; what is no row refused by itself."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.imports.file.dialect import Dialect
from app.imports.file.parse import NOT_TEXT, NUL, RAGGED, RETURN, UNCLOSED, Parsed, parse
from app.imports.rows import Reject

DATA = Path(__file__).parents[2] / "data"
NAUGHTY: list[str] = json.loads((DATA / "blns.json").read_text())
SPECTRUM: dict[str, dict[str, Any]] = json.loads((DATA / "csv-spectrum.json").read_text())
PLAIN = Dialect()
TABS = Dialect(delimiter="\t", quote=None)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


def rows(parsed: Parsed) -> list[list[str | None]]:
    return [list(row) for row in zip(*(column.to_pylist() for column in parsed.columns), strict=True)]


def read(text: str | bytes, dialect: Dialect = PLAIN, width: int = 2, first_line: int = 1) -> Parsed:
    return parse(text.encode() if isinstance(text, str) else text, dialect, first_line, width)


def refused(parsed: Parsed) -> list[tuple[int, str, bytes]]:
    return [(reject.line, reject.code, reject.record) for reject in parsed.rejects]


def written(table: list[list[str]], dialect: Dialect, end: str = "\n") -> str:
    buffer = io.StringIO()
    csv.writer(
        buffer,
        delimiter=dialect.delimiter,
        lineterminator=end,
        quoting=csv.QUOTE_ALL,
        escapechar=dialect.escape,
    ).writerows(table)
    return buffer.getvalue()


def test_lines_are_told_for_every_record():
    parsed = read('a,b\n"two\nlines","and\r\nmore"\n\n\r\nc,d\r\ne,f', first_line=10)
    assert rows(parsed) == [["a", "b"], ["two\nlines", "and\r\nmore"], ["c", "d"], ["e", "f"]]
    assert parsed.lines.to_pylist() == [10, 11, 16, 17]
    assert parsed.read == 4


def test_a_cell_in_quotes_may_be_empty_and_one_without_text_is_null():
    assert rows(read('"",\n,""\n')) == [["", None], [None, ""]]


def test_the_dialects_nulls_are_null_where_they_stand_without_quotes():
    assert rows(read('NULL,"NULL"\nNULLS,x\n', Dialect(nulls=("NULL",)))) == [[None, "NULL"], ["NULLS", "x"]]


def test_blank_lines_are_no_records_but_for_one_column_they_are_null():
    assert rows(read("\na,b\n\n")) == [["a", "b"]]
    assert rows(read('a\n\n""\n', width=1)) == [["a"], [None], [""]]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"1,2,3", RAGGED),
        (b"1", RAGGED),
        (b'1,"2', UNCLOSED),
        (b'"1" x,2', UNCLOSED),
        (b"1,a\0b", NUL),
        (b"1,\xff", NOT_TEXT),
        (b"1,\xc3", NOT_TEXT),
        (b"1,a\rb", RETURN),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_alone(bad, code):
    parsed = read(b'a,b\n"c\n",d\n' + bad + b'\n"e\n",f\n' + bad + b"\ng,h\n", first_line=2)
    assert rows(parsed) == [["a", "b"], ["c\n", "d"], ["e\n", "f"], ["g", "h"]]
    assert parsed.lines.to_pylist() == [2, 3, 6, 9]
    assert refused(parsed) == [(5, code, bad), (8, code, bad)]
    assert parsed.read == 6


def test_every_message_says_what_to_do():
    bad = b'1,2,3\n1,"2\n1,a\0b\n1,\xff\n1,a\rb\n'
    messages = [reject.message for reject in read(bad).rejects]
    assert len(set(messages)) == 5
    assert all(len(message.split(". ")) > 1 for message in messages)


def test_nothing_is_nothing():
    for text in ("", "\n", "\r\n\n"):
        parsed = read(text)
        assert (rows(parsed), parsed.rejects, parsed.read) == ([], [], 0)


def test_only_wanted_columns_are_kept_in_the_order_they_are_wanted_in():
    parsed = parse(b"a,b,c\nd,e\nf,g,h\n", PLAIN, 1, 3, [2, 0, 2])
    assert rows(parsed) == [["c", "a", "c"], ["h", "f", "h"]]
    assert refused(parsed) == [(2, RAGGED, b"d,e")]
    assert parse(b"a,b,c\nd,e\n", PLAIN, 1, 3, []).lines.to_pylist() == [1]


def test_a_row_gives_its_record_back():
    parsed = read('"a\n",b\r\nx\nc,d')
    assert [parsed.record(at) for at in range(2)] == [b'"a\n",b', b"c,d"]


def test_cells_of_a_megabyte():
    large = 'x"\n,é' * 250_000
    parsed = read('a,"' + large.replace('"', '""') + '"\nc,d\n')
    assert rows(parsed) == [["a", large], ["c", "d"]]


def test_ten_thousand_columns():
    line = ",".join(map(str, range(10_000)))
    parsed = read(f"{line}\n{line},x\n{line}\n", width=10_000)
    assert len(parsed.columns) == 10_000
    assert rows(parsed)[1] == [str(number) for number in range(10_000)]
    assert [reject.line for reject in parsed.rejects] == [2]


def test_many_lines_of_another_encoding_are_refused_quickly_each_by_itself():
    parsed = read(b"1,\xe4\xf6\n2,ok\n" * 20_000)
    assert len(parsed.rejects) == len(parsed.lines) == 20_000


@pytest.mark.parametrize("name", SPECTRUM)
def test_csv_spectrum(name):
    expected = SPECTRUM[name]["rows"]
    if name == "location_coordinates":
        # Its file and its answer are not of the same telephone.
        expected = [expected | {"Contact Phone Number": "2095257564"}]
    parsed = read(SPECTRUM[name]["csv"], width=len(expected[0]))
    header, *found = [[cell or "" for cell in row] for row in rows(parsed)]
    assert [dict(zip(header, row, strict=True)) for row in found] == expected
    assert parsed.rejects == []


@pytest.mark.parametrize("dialect", [PLAIN, Dialect(delimiter=";"), Dialect(delimiter="\t")])
def test_naughty_strings_pass_whole(dialect):
    table = [[str(number), text] for number, text in enumerate(NAUGHTY)]
    assert rows(read(written(table, dialect), dialect)) == table


@given(
    st.lists(st.lists(texts, min_size=3, max_size=3), max_size=8),
    st.sampled_from([PLAIN, Dialect(delimiter=";"), Dialect(delimiter="\t")]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_writer_wrote_is_read_with_the_lines_that_pythons_csv_has(table, dialect, end):
    text = written(table, dialect, end)
    # Split as editors split: for Python a lone CR would end a line, too.
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=dialect.delimiter)
    lines = [1, *(reader.line_num + 1 for _ in reader)]
    parsed = read(text, dialect, width=3)
    assert rows(parsed) == table
    assert parsed.rejects == []
    assert parsed.lines.to_pylist() == lines[: len(table)]


@given(st.binary(max_size=30) | st.text(st.sampled_from('",\n\r\\aé'), max_size=30).map(str.encode))
def test_every_record_is_a_row_or_refused_once(text):
    for width in (1, 2, 3):
        parsed = read(text, width=width)
        lines = [*parsed.lines.to_pylist(), *(reject.line for reject in parsed.rejects)]
        assert len(lines) == len(set(lines)) == parsed.read
        assert all(len(column) == len(parsed.lines) for column in parsed.columns)
        records = [parsed.record(at) for at in range(len(parsed.lines))]
        kept = sorted([*zip(parsed.lines.to_pylist(), records, strict=True), *map(_placed, parsed.rejects)])
        assert b"".join(record for _, record in kept).translate(None, b"\r\n") == text.translate(
            None, b"\r\n"
        )


def _placed(reject: Reject) -> tuple[int, bytes]:
    return reject.line, reject.record


# Real data.


def test_unicodes_own_table_passes_whole():
    """Every character that has a name, as a cell of its own."""
    signs = (chr(point) for point in range(1, 0x110000) if not 0xD800 <= point < 0xE000)
    table = [[sign, unicodedata.name(sign)] for sign in islice(signs, 0x30000) if unicodedata.name(sign, "")]
    assert len(table) > 100_000
    parsed = read(written(table, PLAIN))
    assert rows(parsed) == table
    assert parsed.rejects == []


def test_the_worlds_countries_and_time_zones():
    """Files of the time zone database, with tabs; comments stand in lines of their own."""
    folder = files("tzdata").joinpath("zoneinfo")
    countries = folder.joinpath("iso3166.tab").read_bytes()
    parsed = read(countries, TABS)
    names = {row[0]: row[1] for row in rows(parsed) if row[0] and row[0].isalpha()}
    assert (names["AX"], names["CI"], len(names)) == ("Åland Islands", "Côte d’Ivoire", 249)

    zones = folder.joinpath("zone1970.tab").read_bytes()
    expected = [line.split("\t") for line in zones.decode().splitlines()]
    parsed = read(zones, TABS, width=4)
    assert rows(parsed) == [cells for cells in expected if len(cells) == 4]
    assert [reject.line for reject in parsed.rejects] == [
        line for line, cells in enumerate(expected, 1) if len(cells) != 4
    ]
