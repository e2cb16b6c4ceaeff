"""What is written, read by programs that nobody here wrote: LibreOffice, Gnumeric, calamine, openpyxl,
pandas, DuckDB, Arrow. And what Excel's own documents say of a workbook.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import duckdb
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
import python_calamine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl.utils.escape import unescape

from app.dev import spreadsheets
from app.formats import find
from app.formats._spreadsheet import Rules

DATA = Path(__file__).parent.parent / "data"
NAUGHTY: list[str] = json.loads((DATA / "blns.json").read_text())
SPECTRUM: dict[str, dict[str, Any]] = json.loads((DATA / "csv-spectrum.json").read_text())

# What must never be anything but this text, in any file for spreadsheets.
HOSTILE = [
    *("=1+1", "+1", "-1+2", "@SUM(1)", "\t=1", "\r=1", "\n=1", " =1", "＝1+1", "＋1", "－1", "＠x"),
    *("\u00a0=1", "\u200b=1", "\ufeff=1", "=cmd|' /C calc'!A0", '=HYPERLINK("http://x")', "=1+1\nx"),
    *("0012", "00.5", "-05", "12345678901234567890", "1E5", "2.5e10", "1-2", "3/4", "2026-05"),
    *("two\nlines", "two\r\nlines", 'a "q", b', "a;b", "a\tb", " both ends ", "Zoë 😀 \u202eleft"),
    *("", "\0x", "a\0b", "NULL", "'quoted", "_x0041_", "\x01\x07\x0b", "<b>&amp;]]></b>", "x" * 30_000),
]
TITLES = ["id", "v", "=end"]
ROWS = [(number, text, "end") for number, text in enumerate([*HOSTILE, *NAUGHTY])]
TYPED_TITLES = ["id", "i", "n", "f", "b", "d", "dt", "at", "t", "none"]
TYPED: list[tuple[Any, ...]] = [
    (
        *(1, 42, Decimal("-1234.50"), 0.1, True),
        *(date(2026, 1, 31), datetime.fromisoformat("2026-01-31T12:30")),
        *(datetime(2026, 7, 1, 12, tzinfo=UTC), time(9, 30), None),
    ),
    (
        *(2, 999_999_999_999_999, Decimal("0.10"), 1e20, False),
        *(date(1900, 3, 1), datetime.fromisoformat("9999-12-31T23:59:59")),
        *(datetime(2026, 1, 1, 12, tzinfo=UTC), time(23, 59, 59), ""),
    ),
]
# The same as the clock in Berlin shows it.
SHOWN = [
    (*TYPED[0][:7], datetime.fromisoformat("2026-07-01T14:00"), *TYPED[0][8:]),
    (*TYPED[1][:7], datetime.fromisoformat("2026-01-01T13:00"), *TYPED[1][8:]),
]
# A separator and a language each. Every guess that LibreOffice can make is on, formulas in text files too.
LIBREOFFICE = {
    "spreadsheet": "44,34,76,1,,1033,false,true,false,false,false,0,true",
    "spreadsheet-semicolon": "59,34,76,1,,1031,false,true,false,false,false,0,true",
    "spreadsheet-tab": "9,34,76,1,,1033,false,true,false,false,false,0,true",
}


def content(name: str, dialect: str, columns: list[str], rows: list[tuple[Any, ...]]) -> bytes:
    return b"".join(find(name)[0].writing(dialect, "Europe/Berlin").rows(columns, rows))


@dataclass
class Opened:
    """What a spreadsheet saved again as a workbook, after it had opened our file."""

    program: str
    dialect: str
    texts: Path
    typed: Path

    @property
    def rules(self) -> Rules | None:
        """None: the file was a workbook."""
        comma = "," if self.dialect == "spreadsheet-semicolon" else "."
        return None if self.dialect == "standard" else Rules(comma)

    def expected(self, text: str) -> str:
        """The cell as it was shown. Gnumeric hides the apostrophe, as typed ones are hidden."""
        shown = self.rules.text(text) if self.rules else text
        return shown.removeprefix("'") if self.rules and self.program == "Gnumeric" else shown

    def saved(self, text: str) -> str:
        """What is left of a cell when it is saved again: line ends have one sign.

        Gnumeric's workbooks lose control characters and outer spaces, and what looks like an escape is one.
        """
        text = re.sub(r"\r\n?", "\n", text)
        if self.program == "LibreOffice":
            return text
        return str(unescape(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "", text).strip(" \t\n")))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> list[Opened]:
    ours = tmp_path_factory.mktemp("ours")
    theirs = tmp_path_factory.mktemp("theirs")
    found = []

    def files(dialect: str, ending: str) -> list[Path]:
        paths = [ours / f"{kind}-{dialect}.{ending}" for kind in ("texts", "typed")]
        name = "csv" if ending == "csv" else "xlsx"
        paths[0].write_bytes(content(name, dialect, TITLES, ROWS))
        paths[1].write_bytes(content(name, dialect, TYPED_TITLES, TYPED))
        return paths

    book, text = files("standard", "xlsx"), files("spreadsheet", "csv")
    for dialect, options in LIBREOFFICE.items():
        saved = spreadsheets.open_in_libreoffice(files(dialect, "csv"), theirs / "libreoffice", options)
        found.append(Opened("LibreOffice", dialect, *saved))
    saved = spreadsheets.open_in_libreoffice(book, theirs / "libreoffice")
    found.append(Opened("LibreOffice", "standard", *saved))
    texts, typed, *others = spreadsheets.open_in_gnumeric([*text, *book], theirs / "gnumeric")
    return [*found, Opened("Gnumeric", "spreadsheet", texts, typed), Opened("Gnumeric", "standard", *others)]


def cells(path: Path) -> list[list[Any]]:
    return python_calamine.CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).to_python()


# --- spreadsheets -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Workbook contains no default style")
def test_no_cell_is_a_formula_and_no_text_another(opened: list[Opened]) -> None:
    """Naughty strings too; of these a text file's may be numbers or dates: nothing says that they aren't."""
    for file in opened:
        where = f"{file.program}, {file.dialect}"
        sheet = openpyxl.load_workbook(file.texts).active
        formulas = [cell.coordinate for row in sheet.iter_rows() for cell in row if cell.data_type == "f"]
        assert formulas == [], where
        head, *rows = cells(file.texts)
        assert head == list(map(file.expected, TITLES)), where
        assert [(row[0], row[2]) for row in rows] == [(number, "end") for number, _, _ in ROWS], where
        for (number, text, _), (_, found, _) in zip(ROWS, rows, strict=True):
            if number < len(HOSTILE) or file.rules is None or isinstance(found, str):
                assert file.saved(found) == file.saved(file.expected(text)), f"{where}: {text[:99]!r}"


def test_numbers_dates_and_truth_are_what_they_are(opened: list[Opened]) -> None:
    for file in opened:
        where = f"{file.program}, {file.dialect}"
        head, *rows = cells(file.typed)
        assert head == TYPED_TITLES, where
        for row, shown in zip(rows, SHOWN, strict=True):
            # In German LibreOffice takes WAHR for truth, and TRUE for a text.
            truth = str(shown[4]).upper() if file.dialect == "spreadsheet-semicolon" else shown[4]
            wanted = [*shown[:4], truth, *shown[5:9], shown[9] or ""]
            assert list(map(_exact, row)) == list(map(_exact, wanted)), where


def _exact(value: Any) -> Any:
    """Its type is part of it, but for kinds of numbers; a time is one of a day."""
    if isinstance(value, bool | str):
        return (type(value), value)
    return float(value) if isinstance(value, int | float | Decimal) else value


# --- libraries --------------------------------------------------------------------------------------------


def by_calamine(data: bytes) -> list[str]:
    book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
    return [str(row[1]) for row in book.get_sheet_by_index(0).to_python()[1:]]


def by_openpyxl(data: bytes) -> list[str]:
    sheet = openpyxl.load_workbook(io.BytesIO(data)).active
    # It leaves OOXML's escapes to its caller, but for the underscore.
    return [unescape(row[1].value or "") for row in list(sheet.iter_rows())[1:]]


def by_pandas_from_xlsx(data: bytes) -> list[str]:
    frame = pd.read_excel(io.BytesIO(data), engine="calamine", dtype=str, keep_default_na=False)
    return list(frame["v"])


def by_csv(data: bytes) -> list[str]:
    return [row[1] for row in csv.reader(io.StringIO(data.decode(), newline=""))][1:]


def by_pandas_from_csv(data: bytes) -> list[str]:
    return list(pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)["v"])


def by_arrow_from_csv(data: bytes) -> list[str]:
    table = pa.csv.read_csv(
        pa.BufferReader(data),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(column_types={"v": pa.string()}),
    )
    texts: list[str] = table["v"].to_pylist()
    return texts


def by_duckdb(how: str) -> Callable[[bytes, Path], list[str]]:
    def read(data: bytes, path: Path) -> list[str]:
        path.write_bytes(data)
        with duckdb.connect() as db:
            return [row[0] for row in db.execute(f"SELECT v FROM {how}", [str(path)]).fetchall()]

    return read


DUCKDB_CSV = "read_csv(?, header = true, delim = ',', quote = '\"', escape = '\"', {types}, nullstr = '',"
DUCKDB_CSV += " allow_quoted_nulls = false, parallel = false, max_line_size = 4000000)"
READERS: dict[str, tuple[str, Callable[..., list[str]]]] = {
    "csv": ("csv", by_csv),
    "csv, pandas": ("csv", by_pandas_from_csv),
    "csv, Arrow": ("csv", by_arrow_from_csv),
    "csv, DuckDB": ("csv", by_duckdb(DUCKDB_CSV.format(types="all_varchar = true"))),
    "jsonl": ("jsonl", lambda data: [json.loads(line)["v"] for line in data.decode().split("\n")[:-1]]),
    "jsonl, pandas": (
        "jsonl",
        lambda data: list(pd.read_json(io.BytesIO(data), lines=True, dtype=False)["v"]),
    ),
    "jsonl, DuckDB": ("jsonl", by_duckdb("read_json(?, columns = {id: 'BIGINT', v: 'VARCHAR'})")),
    "parquet, pandas": ("parquet", lambda data: list(pd.read_parquet(io.BytesIO(data))["v"])),
    "parquet, DuckDB": ("parquet", by_duckdb("read_parquet(?) ORDER BY id")),
    "xlsx, calamine": ("xlsx", by_calamine),
    "xlsx, openpyxl": ("xlsx", by_openpyxl),
    "xlsx, pandas": ("xlsx", by_pandas_from_xlsx),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_text_is_read_as_it_was(reader: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    # NUL ends a text for readers in C: nobody's database but SQLite has one.
    rows = [row for row in ROWS if "\0" not in row[1]]
    data = content(name, find(name)[1], TITLES, rows)
    found = read(data, tmp_path / "file") if "DuckDB" in reader else read(data)
    assert found == [text for _, text, _ in rows]


@pytest.mark.parametrize("case", SPECTRUM)
def test_csv_spectrum(case: str, tmp_path: Path) -> None:
    """Their tables, line ends inside of cells included."""
    rows = SPECTRUM[case]["rows"]
    wanted: list[dict[str, str]] = rows if isinstance(rows, list) else [rows]
    titles = list(wanted[0])
    data = content("csv", "machine", titles, [tuple(row.values()) for row in wanted])
    assert list(csv.DictReader(io.StringIO(data.decode(), newline=""))) == wanted
    assert pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False).to_dict("records") == wanted
    (tmp_path / "file.csv").write_bytes(data)
    with duckdb.connect() as db:
        how = DUCKDB_CSV.format(types="all_varchar = true")
        found = db.execute(f"SELECT * FROM {how}", [str(tmp_path / "file.csv")]).fetchall()
    assert [dict(zip(titles, row, strict=True)) for row in found] == wanted


VALUES = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.decimals(-(10**15), 10**15, places=4, allow_nan=False),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.booleans(),
    st.none() | st.dates(),
    st.none() | st.datetimes(),
    st.none() | st.datetimes(timezones=st.just(UTC)),
    st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
)
TYPES = {
    "i": "BIGINT",
    "n": "DECIMAL(38, 4)",
    "f": "DOUBLE",
    "b": "BOOLEAN",
    "d": "DATE",
    "dt": "TIMESTAMP",
    "at": "TIMESTAMPTZ",
    "v": "VARCHAR",
}


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_any_row_comes_back_with_its_types(name: str, tmp_path: Path) -> None:
    """By DuckDB, NULL and empty texts told apart."""
    path = tmp_path / "file"
    how = DUCKDB_CSV.format(types=f"columns = {TYPES!r}") if name == "csv" else "read_parquet(?)"

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(VALUES, min_size=1, max_size=15))
    def come_back(rows: list[tuple[Any, ...]]) -> None:
        path.write_bytes(content(name, find(name)[1], list(TYPES), rows))
        with duckdb.connect() as db:
            db.execute("SET TimeZone = 'UTC'")
            found = db.sql(f"SELECT * FROM {how}", params=[str(path)]).to_arrow_table().to_pylist()
        assert [tuple(row.values()) for row in found] == rows

    come_back()


# --- Excel ------------------------------------------------------------------------------------------------

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def test_a_workbook_keeps_to_what_excel_documents() -> None:
    """Limits and grammar of its "specifications and limits", and of ECMA-376."""
    with zipfile.ZipFile(io.BytesIO(content("xlsx", "standard", TITLES, ROWS))) as archive:
        assert archive.testzip() is None
        parts = {name: ElementTree.fromstring(archive.read(name)) for name in archive.namelist()}
    declared = {part.get("PartName", "") for part in parts["[Content_Types].xml"]} - {""}
    assert declared <= {f"/{name}" for name in parts}
    for sheet in parts["xl/workbook.xml"].iter(f"{MAIN}sheet"):
        assert re.fullmatch(r"[^\\/?*\[\]:']{1,31}", sheet.attrib["name"])
    styles = len(parts["xl/styles.xml"].find(f"{MAIN}cellXfs") or ())
    sheets = [part for name, part in parts.items() if name.startswith("xl/worksheets/")]
    assert sheets
    for sheet in sheets:
        assert not list(sheet.iter(f"{MAIN}f"))
        check_rows(sheet, styles)


def check_rows(sheet: ElementTree.Element, styles: int) -> None:
    for number, row in enumerate(sheet.iter(f"{MAIN}row"), 1):
        assert row.attrib["r"] == str(number)
        assert number <= 1_048_576
        columns = []
        for cell in row:
            letters, _, line = re.fullmatch(r"([A-Z]{1,3})()([0-9]+)", cell.attrib["r"]).groups()  # type: ignore[union-attr]
            assert line == str(number)
            columns.append((len(letters), letters))
            assert int(cell.get("s", "0")) < styles
            assert cell.get("t", "n") in ("n", "b", "inlineStr")
            check_value(cell)
        assert columns == sorted(set(columns))


def check_value(cell: ElementTree.Element) -> None:
    if cell.get("t") == "inlineStr":
        text = "".join(cell.itertext())
        assert len(unescape(text).encode("utf-16-le")) // 2 <= 32_767
        # What XML 1.0 has no character for is escaped.
        assert re.fullmatch(r"[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*", text)
    else:
        assert len(re.sub(r"\D", "", cell.findtext(f"{MAIN}v", "").partition("e")[0])) <= 17
