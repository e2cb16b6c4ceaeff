"""One suite over every format, read back by readers that nobody here wrote."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import openpyxl
import pandas as pd
import pyarrow as pa
import pytest
import python_calamine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isal import igzip

from app.errors import IncompleteArtifact, InvalidRequest
from app.exports.flow import compressor
from app.formats import Unfit, check_compression, find, formats
from app.sources import Reading, open_source

ALL = sorted(formats())
WAYS = [(name, dialect) for name in ALL for dialect in formats()[name].dialects]
LOSSLESS = [("csv", "machine"), ("jsonl", "standard"), ("parquet", "standard"), ("xlsx", "standard")]

NASTY = [
    "plain",
    "",
    " both ends ",
    'a "quoted", one',
    "two\nlines",
    "two\r\nlines",
    "a\ttab; a semicolon",
    "Zoë 😀 \u202eright to left\u202c 日本語",
    "\\. \\N \\x",
    "<row r='1'><c/></row> & ]]>",
    "=1+1",
    "＝HYPERLINK(1)",
    "@x",
    "-5",
    "0012",
    "12345678901234567890",
    "NULL",
    "_x0041_",
    "\x01\x07\x0b\x1f\x7f\x85\u2028",
    "x" * 30_000,
]


@pytest.fixture
def reading(services: Any) -> Iterator[Reading]:
    with open_source("tests", services.postgres.url, timedelta(minutes=5)).reading() as opened:
        yield opened


@pytest.fixture
def query(reading: Reading) -> Callable[..., Iterator[bytes]]:
    """query(format, dialect, sql, **values): the file's blocks, as an export makes them."""

    def blocks(name: str, dialect: str, sql: str, **values: Any) -> Iterator[bytes]:
        texts: set[int] = set()
        while True:
            writing = find(name)[0].writing(dialect, texts=texts)
            copy = writing.copy(lambda: reading.fields(sql, values))
            try:
                if copy:
                    yield copy.head
                    yield from reading.copy(sql, values, copy)
                else:
                    fields = writing.typed(reading.fields(sql, values))
                    with closing(reading.batches(sql, values, fields)) as batches:
                        yield from list(writing.batches(fields, batches))
                return
            except Unfit as unfit:
                texts.add(unfit.position)

    return blocks


def by_rows(name: str, dialect: str, columns: list[str], rows: list[tuple[Any, ...]]) -> bytes:
    texts: set[int] = set()
    while True:
        try:
            return b"".join(find(name)[0].writing(dialect, texts=texts).rows(columns, rows))
        except Unfit as unfit:
            texts.add(unfit.position)


def counted(name: str, content: bytes, size: int = 70_001) -> int:
    counter = find(name)[0].counter()
    for at in range(0, len(content), size):
        counter.feed(content[at : at + size])
    return counter.rows


# --- readers ----------------------------------------------------------------------------------------------


def read_csv(content: bytes) -> list[list[Any]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def read_jsonl(content: bytes) -> list[list[Any]]:
    lines = [json.loads(line, parse_float=Decimal) for line in content.decode().split("\n")[:-1]]
    return [list(lines[0]) if lines else [], *(list(line.values()) for line in lines)]


def read_parquet(content: bytes) -> list[list[Any]]:
    """DuckDB, from a real file."""
    with duckdb.connect() as db:
        path = Path(f"/tmp/{id(content)}.parquet")
        path.write_bytes(content)
        try:
            found = db.execute("SELECT * FROM read_parquet(?)", [str(path)])
            names = [column[0] for column in found.description or ()]
            return [names, *map(list, found.fetchall())]
        finally:
            path.unlink()


def read_xlsx(content: bytes) -> list[list[Any]]:
    """calamine; an empty cell and an empty text are the same to it."""
    book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(content))
    return [row for name in book.sheet_names for row in book.get_sheet_by_name(name).to_python()]


READERS: dict[str, Callable[[bytes], list[list[Any]]]] = {
    "csv": read_csv,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "xlsx": read_xlsx,
}


def test_every_format_has_a_reader_here() -> None:
    assert READERS.keys() == formats().keys()


# --- promises ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dialect"), WAYS)
@pytest.mark.parametrize("rows", [0, 1, 10_001])
def test_the_counter_counts_what_was_written(
    query: Callable[..., Iterator[bytes]], name: str, dialect: str, rows: int
) -> None:
    sql = (
        "SELECT i AS id, CASE mod(i, 3) WHEN 0 THEN NULL WHEN 1 THEN chr(10) || '<row ' ELSE '\"\r' END"
        " FROM generate_series(1, CAST(%(rows)s AS integer)) AS i"
    )
    content = b"".join(query(name, dialect, sql, rows=rows))
    assert counted(name, content) == counted(name, content, 997) == rows
    made = [(i, None if i % 3 else '\n<row "') for i in range(rows)]
    assert counted(name, by_rows(name, dialect, ["id", "t"], made)) == rows


@pytest.mark.parametrize(("name", "dialect"), WAYS)
def test_an_empty_result_still_tells_its_columns(
    query: Callable[..., Iterator[bytes]], name: str, dialect: str
) -> None:
    content = b"".join(query(name, dialect, "SELECT 1 AS id, 'x' AS title WHERE false"))
    assert content == by_rows(name, dialect, ["id", "title"], []) or name == "parquet"
    if name == "jsonl":
        assert content == b""
    elif dialect.endswith(("tab", "semicolon")):
        assert b"id" in content
    else:
        assert READERS[name](content) == [["id", "title"]]


@pytest.mark.parametrize(("name", "dialect"), LOSSLESS)
def test_texts_come_back_as_they_were(query: Callable[..., Iterator[bytes]], name: str, dialect: str) -> None:
    sql = "SELECT v, 1 AS one FROM unnest(CAST(%(texts)s AS text[])) AS t(v)"
    by_query = b"".join(query(name, dialect, sql, texts=NASTY))
    for content in (by_query, by_rows(name, dialect, ["v", "one"], [(text, 1) for text in NASTY])):
        assert [row[0] for row in READERS[name](content)[1:]] == NASTY


@pytest.mark.parametrize(("name", "dialect"), LOSSLESS)
def test_any_text_comes_back(name: str, dialect: str) -> None:
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufffe\uffff")

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.text(characters | st.sampled_from("_x0&<>\"'\r\n\t,"), max_size=20), min_size=1))
    def come_back(texts: list[str]) -> None:
        content = by_rows(name, dialect, ["v", "one"], [(text, 1) for text in texts])
        assert [row[0] for row in READERS[name](content)[1:]] == texts
        assert counted(name, content) == len(texts)

    come_back()


@pytest.mark.parametrize("name", ["jsonl", "parquet"])
def test_null_and_an_empty_text_stay_different(query: Callable[..., Iterator[bytes]], name: str) -> None:
    rows = READERS[name](b"".join(query(name, "standard", "SELECT '' AS a, NULL AS b, NULL::int AS c")))
    assert rows[1] == ["", None, None]


def test_null_and_an_empty_text_stay_different_in_csv(query: Callable[..., Iterator[bytes]]) -> None:
    assert b"".join(query("csv", "machine", "SELECT '' AS a, NULL AS b, 'x' AS c")) == b'a,b,c\n"",,x\n'
    assert by_rows("csv", "machine", ["a", "b", "c"], [("", None, "x")]) == b'a,b,c\n"",,x\n'


def test_null_and_an_empty_text_stay_different_in_a_workbook(query: Callable[..., Iterator[bytes]]) -> None:
    content = b"".join(query("xlsx", "standard", "SELECT '' AS a, NULL AS b, 'x' AS c"))
    sheet = zipfile.ZipFile(io.BytesIO(content)).read("xl/worksheets/sheet1.xml")
    assert b'<c r="A2"' in sheet
    assert b'<c r="B2"' not in sheet


@pytest.mark.parametrize(("name", "dialect"), WAYS)
def test_numbers_dates_and_truth_are_read_rightly(
    query: Callable[..., Iterator[bytes]], name: str, dialect: str
) -> None:
    sql = (
        "SELECT 42::bigint AS i, (-1234.50)::numeric(12, 2) AS n, 0.1::float8 AS f, true AS b,"
        " DATE '2026-01-31' AS d, TIMESTAMPTZ '2026-01-31 12:30:00+00' AS at"
    )
    content = b"".join(query(name, dialect, sql))
    at = datetime(2026, 1, 31, 12, 30)  # noqa: DTZ001
    match name:
        case "xlsx":
            row = [cell.value for cell in list(openpyxl.load_workbook(io.BytesIO(content)).active)[1]]
            assert row == [42, -1234.5, 0.1, True, datetime(2026, 1, 31), at]  # noqa: DTZ001
        case "parquet":
            row = list(pd.read_parquet(io.BytesIO(content)).iloc[0])
            assert row == [42, Decimal("-1234.50"), 0.1, True, date(2026, 1, 31), pd.Timestamp(at, tz="UTC")]
        case "jsonl":
            expected = [
                42,
                Decimal("-1234.50"),
                Decimal("0.1"),
                True,
                "2026-01-31",
                "2026-01-31T12:30:00+00:00",
            ]
            assert read_jsonl(content)[1] == expected
        case _:
            marks = {
                "machine": (",", "."),
                "spreadsheet-semicolon": (";", ","),
                "spreadsheet-tab": ("\t", "."),
            }
            delimiter, mark = marks.get(dialect, (",", "."))
            frame = pd.read_csv(io.BytesIO(content), sep=delimiter, decimal=mark, parse_dates=["d", "at"])
            assert list(frame.iloc[0][["i", "n", "f"]]) == [42, -1234.5, 0.1]
            assert str(frame["at"][0]).startswith("2026-01-31 12:30:00")
            assert str(frame["b"][0]) in ("t", "True")


ODD_TYPES = {
    "DATE '0044-03-15 BC'": "0044-03-15 BC",
    "DATE 'infinity'": "infinity",
    "DATE '0001-01-01'": "0001-01-01",
    "TIMESTAMP '294276-12-31 23:59:59'": "294276-12-31",
    "TIME '24:00'": "24:00:00",
    "INTERVAL '1 year -2 days 3 seconds'": "P1Y-2DT3S",
    "'NaN'::numeric(5, 2)": "NaN",
    "123456789012345678901234567890.123456789::numeric": "123456789012345678901234567890.123456789",
    "9007199254740993::bigint": "9007199254740993",
    "'-infinity'::float8": "-Infinity",
    "ARRAY['a b', NULL]": "a b",
    "'{\"a\": [1, 2.50]}'::json": "2.50",
    'ARRAY[E\'{"a":\\n"broken"}\'::json]': "broken",
    "ROW(1, E'[1,\\n\"broken\"]'::json)": "broken",
    "4294967295::oid": "4294967295",
    "int4range(1, 5)": "[1,5)",
    "ROW(1, 'x')": "x",
    "'192.168.0.1/24'::inet": "192.168.0.1/24",
    "B'1011'": "1011",
    "'00000000-0000-0000-0000-000000000001'::uuid": "00000000-0000-0000-0000-000000000001",
    "point '(1,2)'": "(1,2)",
    "TIMETZ '12:00+05:30'": "12:00:00+05:30",
    "'\\x00ff'::bytea": "ff",
}


@pytest.mark.parametrize(("name", "dialect"), WAYS)
@pytest.mark.parametrize("value", ODD_TYPES)
def test_odd_types_are_neither_lost_nor_fatal(
    query: Callable[..., Iterator[bytes]], name: str, dialect: str, value: str
) -> None:
    content = b"".join(query(name, dialect, f"SELECT 1 AS id, {value} AS odd UNION ALL SELECT 2, NULL"))
    assert counted(name, content) == 2
    row = READERS[name](content)[1] if name != "csv" else [content.decode()]
    text = json.dumps(row, default=lambda value: value.hex() if isinstance(value, bytes) else str(value))
    assert _dotted(ODD_TYPES[value]) in _dotted(text)


@pytest.mark.parametrize(("name", "dialect"), WAYS)
def test_columns_of_one_name_are_both_there(
    query: Callable[..., Iterator[bytes]], name: str, dialect: str
) -> None:
    content = b"".join(query(name, dialect, 'SELECT 1 AS a, 2 AS a, 3 AS "a_2", 4 AS "we ""ird"'))
    if name != "csv":
        row = READERS[name](content)[1]
        assert row == [1, 2, 3, 4]
    assert counted(name, content) == 1


@pytest.mark.parametrize(("name", "dialect"), WAYS)
def test_the_order_is_the_querys(query: Callable[..., Iterator[bytes]], name: str, dialect: str) -> None:
    sql = "SELECT i AS id, md5(i::text) AS m FROM generate_series(1, 50000) AS i ORDER BY md5(i::text) DESC"
    if dialect.endswith(("tab", "semicolon")):
        content = b"".join(query(name, dialect, sql)).replace(b"\t", b",").replace(b";", b",")
    else:
        content = b"".join(query(name, dialect, sql))
    keys = [row[1].lstrip("'") for row in READERS[name](content)[1:]]
    assert len(keys) == 50_000
    assert keys == sorted(keys, reverse=True)


@pytest.mark.parametrize(("name", "dialect"), WAYS)
def test_rows_whose_types_disagree_are_all_there(name: str, dialect: str) -> None:
    values: list[Any] = [1, "n/a", 2.5, None, date(2026, 1, 31), True, Decimal("1.5"), b"x", [1, 2], {"a": 1}]
    content = by_rows(name, dialect, ["v", "one"], [(value, 1) for value in values])
    assert counted(name, content) == len(values)
    text = (
        json.dumps([row[:1] for row in READERS[name](content)], default=str)
        if name != "csv"
        else str(content)
    )
    for part in ("n/a", "2.5", "2026", "1.5"):
        assert part in _dotted(text)


@pytest.mark.parametrize(("name", "dialect"), WAYS)
def test_half_a_character_stops_no_file(name: str, dialect: str) -> None:
    """JSON can say it, and Python's texts hold it."""
    content = by_rows(name, dialect, ["v", "one"], [("a\ud800b", 1), ("whole", 2)])
    assert counted(name, content) == 2


@pytest.mark.parametrize(("name", "dialect"), WAYS)
def test_the_same_rows_make_the_same_bytes(
    query: Callable[..., Iterator[bytes]], name: str, dialect: str
) -> None:
    sql = "SELECT i AS id, md5(i::text) AS text, i * 1.5 AS n FROM generate_series(1, 30000) AS i"
    assert b"".join(query(name, dialect, sql)) == b"".join(query(name, dialect, sql))


@pytest.mark.parametrize(("name", "dialect"), WAYS)
def test_memory_does_not_grow_with_the_rows(reading: Reading, name: str, dialect: str) -> None:
    """A wide text of 300,000 rows, 60 MB in all, in never more than a third of that."""
    sql = "SELECT i AS id, repeat(md5(i::text), 6) AS text FROM generate_series(1, 300000) AS i"
    writing = find(name)[0].writing(dialect)
    copy = writing.copy(lambda: reading.fields(sql, {}))
    peak = 0
    tracemalloc.start()
    try:
        fields = reading.fields(sql, {})
        blocks = reading.copy(sql, {}, copy) if copy else writing.batches(fields, reading.batches(sql, {}))
        counter = find(name)[0].counter()
        if copy:
            counter.feed(copy.head)
        for block in blocks:
            counter.feed(block)
            peak = max(peak, pa.total_allocated_bytes())
        peak += tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counter.rows == 300_000
    assert peak < 100_000_000


@pytest.mark.parametrize(("name", "dialect"), WAYS)
def test_a_huge_text_passes(query: Callable[..., Iterator[bytes]], name: str, dialect: str) -> None:
    content = b"".join(query(name, dialect, "SELECT 1 AS id, repeat('abcdefgh', 1000000) AS text"))
    assert counted(name, content) == 1
    if name != "xlsx":
        assert len(content) > 8_000_000 or name == "parquet"


@pytest.mark.parametrize(("name", "dialect"), WAYS)
@pytest.mark.parametrize("missing", [1, 5, 100])
def test_a_file_cut_short_is_found_out(
    query: Callable[..., Iterator[bytes]], name: str, dialect: str, missing: int
) -> None:
    content = b"".join(query(name, dialect, "SELECT i AS id FROM generate_series(1, 1000) AS i"))
    try:
        rows = counted(name, content[:-missing])
    except IncompleteArtifact:
        return
    # What is lost behind a workbook's directory holds no row; the storage's size tells of that.
    assert rows < 1000 or name == "xlsx"


def _dotted(text: str) -> str:
    """Decimal commas as points."""
    return text.replace(",", ".")


# --- what goes around -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["csv", "jsonl"])
@pytest.mark.parametrize("compression", ["gzip", "zip"])
def test_compressed_is_the_same_file(name: str, compression: str) -> None:
    check_compression(find(name)[0], compression)
    plain = by_rows(name, find(name)[1], ["id"], [(i,) for i in range(10_000)])
    packer = compressor(compression, f"rows.{name}")
    blocks = [plain[at : at + 1_000] for at in range(0, len(plain), 1_000)]
    packed = b"".join(packer.compress(block) for block in blocks) + packer.flush()
    if compression == "gzip":
        assert igzip.decompress(packed) == plain
    else:
        archive = zipfile.ZipFile(io.BytesIO(packed))
        assert archive.testzip() is None
        assert archive.read(f"rows.{name}") == plain


@pytest.mark.parametrize("name", ["xlsx", "parquet"])
def test_what_is_compressed_already_is_not_compressed_again(name: str) -> None:
    with pytest.raises(InvalidRequest, match="compressed already"):
        check_compression(find(name)[0], "gzip")
    with pytest.raises(InvalidRequest, match="no compression 'rar'"):
        check_compression(find("csv")[0], "rar")


def test_unknown_formats_and_dialects_are_told_which_there_are() -> None:
    with pytest.raises(InvalidRequest, match="csv or jsonl or parquet or xlsx"):
        find("ods")
    with pytest.raises(InvalidRequest, match="spreadsheet"):
        find("csv", "excel")


def test_heavy_libraries_are_loaded_only_when_used() -> None:
    code = (
        "import sys; from app.formats import formats; from app.sources import open_source;"
        " from datetime import timedelta; formats(); open_source('x', 'postgresql://h/d', timedelta(1));"
        " sys.exit('pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_docs_tell_of_every_format_and_dialect() -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    for format in formats().values():
        assert f"`{format.name}`" in text
        for dialect in format.dialects:
            assert f"`{dialect}`" in text
        for compression in format.compressions:
            assert compression in text
