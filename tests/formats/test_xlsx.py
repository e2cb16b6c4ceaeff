"""Workbooks: what only they promise."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import openpyxl
import pyarrow as pa
import pytest
import python_calamine
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import IncompleteArtifact, QueryFailed
from app.formats import _zip
from app.formats._sheet import CUT_MARK, TEXT_LIMIT, letters
from app.formats.xlsx import SheetCounter, Workbook
from app.sources import Batch, Field


def made(*rows: tuple[Any, ...], zone: str = "UTC", limit: int = 1_048_576) -> bytes:
    columns = [f"c{at}" for at in range(len(rows[0]))]
    return b"".join(Workbook(zone, limit).rows(columns, rows))


def cells(content: bytes, row: int = 1) -> list[Any]:
    """One row as openpyxl sees it."""
    found: list[Any] = list(openpyxl.load_workbook(io.BytesIO(content)).active)[row]
    return found


def values(content: bytes) -> list[list[Any]]:
    """All rows as calamine sees them."""
    return (
        python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(content)).get_sheet_by_index(0).to_python()
    )


def sheet(content: bytes, number: int = 1) -> str:
    return zipfile.ZipFile(io.BytesIO(content)).read(f"xl/worksheets/sheet{number}.xml").decode()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (42, 42),
        (999_999_999_999_999, 999_999_999_999_999),
        (1_000_000_000_000_000, "1000000000000000"),
        (-(2**63), str(-(2**63))),
        (2**70, str(2**70)),
        (Decimal("-1.50"), -1.5),
        (Decimal("1234567890123456.7"), "1234567890123456.7"),
        (Decimal("0.00000000001"), 1e-11),
        (Decimal("NaN"), "NaN"),
        (1e300, 1e300),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (float("nan"), "NaN"),
        (True, True),
        ("=SUM(A1:A9)", "=SUM(A1:A9)"),
        ("0012", "0012"),
        (time(23, 59, 59), time(23, 59, 59)),
        (b"\x00\xff", "\\x00ff"),
    ],
)
def test_each_value_has_its_cell(value: Any, shown: Any) -> None:
    cell = cells(made((value, 1)))[0]
    assert cell.value == shown
    assert cell.data_type != "f"


@pytest.mark.parametrize(
    ("day", "serial"),
    [
        (date(1899, 12, 31), "1899-12-31"),
        (date(1900, 1, 1), 1),
        (date(1900, 2, 28), 59),
        (date(1900, 3, 1), 61),
        (date(2026, 1, 31), 46053),
        (date(9999, 12, 31), 2958465),
        (date(1, 1, 1), "0001-01-01"),
    ],
)
def test_a_date_has_the_number_that_excel_gives_it(day: date, serial: int | str) -> None:
    """Excel counts a 29 February 1900: 60 is no day."""
    text = sheet(made((day,)))
    assert f">{serial}<" in text
    assert ('s="3"><v>' in text) == isinstance(serial, int)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.datetimes(datetime(1900, 3, 1), datetime(9999, 12, 31, 23, 59, 59)), min_size=1))  # noqa: DTZ001
def test_moments_come_back_to_the_millisecond(moments: list[datetime]) -> None:
    rows = list(openpyxl.load_workbook(io.BytesIO(made(*[(at, 1) for at in moments]))).active)
    for at, row in zip(moments, rows[1:], strict=True):
        assert abs((at - row[0].value).total_seconds()) < 0.002


def test_moments_are_on_the_requesters_clock() -> None:
    at = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
    assert cells(made((at,), zone="Europe/Berlin"))[0].value == datetime(2026, 7, 1, 14, 0)  # noqa: DTZ001


def test_a_column_of_every_kind_of_value_loses_none() -> None:
    content = made((1,), ("x",), (2.5,), (date(2026, 1, 1),), (None,), (True,))
    assert [row[0] for row in values(content)[1:]] == [1, "x", 2.5, "2026-01-01", "", "t"]


@pytest.mark.parametrize(
    "text", ["_x0041_", "_x005F_", "__x0041_x0042_", "a\r\nb", "\x00\x0b", "_X0041_", "x_"]
)
def test_characters_that_xml_has_none_for(text: str) -> None:
    assert values(made((text, 1)))[1][0] == text


def test_characters_that_are_no_characters() -> None:
    assert "_xFFFE__xFFFF_" in sheet(made(("\ufffe\uffff",)))


def test_a_text_longer_than_a_cell_is_cut_and_told() -> None:
    book = Workbook("UTC")
    rows = [("é" * 40_000,), ("😀" * 20_000,), ("x" * TEXT_LIMIT,)]
    content = b"".join(book.rows(["text"], rows))
    found = [row[0] for row in values(content)[1:]]
    assert all(len(text.encode("utf-16-le")) // 2 <= TEXT_LIMIT for text in found)
    assert found[0] == "é" * (TEXT_LIMIT - len(CUT_MARK)) + CUT_MARK
    assert found[1].endswith("😀" + CUT_MARK)
    assert found[2] == "x" * TEXT_LIMIT
    assert "2 texts were cut" in book.notes[0]


def test_rows_past_a_sheet_go_to_the_next() -> None:
    book = Workbook("UTC", limit=1_001)
    content = b"".join(book.rows(["id", "text"], ((i, str(i)) for i in range(7_500))))
    read = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(content))
    assert read.sheet_names == [f"Sheet{number}" for number in range(1, 9)]
    sheets = [read.get_sheet_by_name(name).to_python() for name in read.sheet_names]
    assert all(rows[0] == ["id", "text"] for rows in sheets)
    assert [len(rows) for rows in sheets] == [1_001] * 7 + [501]
    assert [row[0] for rows in sheets for row in rows[1:]] == list(range(7_500))
    counter = SheetCounter()
    counter.feed(content)
    assert counter.rows == 7_500
    assert "8 sheets" in book.notes[0]


def test_a_sheet_that_is_just_full_has_no_empty_one_behind_it() -> None:
    content = made(*[(i,) for i in range(1_000)], limit=1_001)
    assert len(openpyxl.load_workbook(io.BytesIO(content)).sheetnames) == 1


def test_the_titles_stand_out_and_stay() -> None:
    book = openpyxl.load_workbook(io.BytesIO(made((1, "a text of some length"), (2, None))))
    assert book.active.freeze_panes == "A2"
    assert book.active["A1"].font.bold
    assert not book.active["A2"].font.bold
    assert book.active.column_dimensions["B"].width > book.active.column_dimensions["A"].width


def test_decimals_show_the_digits_their_column_promises() -> None:
    field = Field("amount", "decimal", 12, 2)
    batch = Batch([pa.array([Decimal("1.50")], pa.decimal128(12, 2))], 1)
    content = b"".join(Workbook("UTC").batches([field], [batch]))
    cell = cells(content)[0]
    assert (cell.value, cell.number_format) == (1.5, "0.00")


def test_a_long_whole_number_is_not_shown_with_an_exponent() -> None:
    assert cells(made((123_456_789_012,)))[0].number_format == "0"


def test_more_columns_than_a_sheet_has() -> None:
    with pytest.raises(QueryFailed, match="16,385 columns"):
        made((1,) * 16_385)


def test_columns_are_named_as_sheets_do() -> None:
    assert [letters(at) for at in (0, 25, 26, 701, 702, 16_383)] == ["A", "Z", "AA", "ZZ", "AAA", "XFD"]
    assert cells(made((1,) * 703))[702].coordinate == "AAA2"


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_the_counter_reads_any_blocks(size: int) -> None:
    content = made(*[(i, "<row ") for i in range(300)])
    counter = SheetCounter()
    for at in range(0, len(content), size):
        counter.feed(content[at : at + size])
    assert counter.rows == 300


def test_the_counter_finds_damage() -> None:
    content = bytearray(made(*[(i, f"text {i}") for i in range(5_000)]))
    _flip_checksum(content)
    with pytest.raises(IncompleteArtifact, match="damaged"):
        SheetCounter().feed(bytes(content))


def _flip_checksum(content: bytearray) -> None:
    """In the sheet's own descriptor: its data unpack well, but are not what was meant."""
    at = content.index(b"PK\x07\x08")
    content[at + 4] ^= 1


def _archive() -> Iterator[bytes]:
    archive = _zip.Zip()
    yield archive.add("small.txt", b"small")
    yield archive.open("large.txt")
    yield archive.write(b"x" * 100_000)
    yield archive.write(memoryview(b"y" * 100_000))
    yield archive.close()
    yield archive.add("é.txt", b"")
    yield archive.finish()


@pytest.mark.parametrize("limit", [0xFFFFFFFF, 100])
def test_archives_beyond_four_gigabytes(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is lowered rather than reached."""
    monkeypatch.setattr(_zip, "LIMIT_32", limit)
    content = b"".join(_archive())
    assert (b"PK\x06\x06" in content) == (limit == 100)
    read = zipfile.ZipFile(io.BytesIO(content))
    assert read.testzip() is None
    assert read.namelist() == ["small.txt", "large.txt", "é.txt"]
    assert read.read("large.txt") == b"x" * 100_000 + b"y" * 100_000
