"""Plain text of whatever was uploaded; and what is refused, soon and with a reason."""

from __future__ import annotations

import codecs
import gzip
import io
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openpyxl
import pytest
import xlsxwriter
from apiflask import APIFlask
from hypothesis import given
from hypothesis import strategies as st

from app import uploads
from app.errors import BadFile
from app.imports.file import plain, workbook, workbook_cells
from app.imports.file.dialect import Dialect
from app.models import Upload
from app.settings import ROOT

# ruff: noqa: DTZ001  # workbooks know no time zones

MIB = 1024 * 1024
TEXT = "email,name\nann@example.org,Ann\nzoë@example.org,Zoë\n"
ROW = b"4711,ann@example.org,2026-01-31,12.50\n"


@pytest.fixture(autouse=True)
def context(app: APIFlask) -> Iterator[None]:
    with app.app_context():
        yield


@pytest.fixture
def put(member: Any) -> Callable[..., Upload]:
    """put(b"…", "people.csv"): an upload with these bytes, not yet complete."""

    def put(data: bytes, name: str = "people.csv", *, piece: int | None = None) -> Upload:
        upload = uploads.begin(member, name)
        for start in range(0, len(data), piece or len(data) or 1):
            upload = uploads.receive(upload, start, io.BytesIO(data[start : start + (piece or len(data))]))
        return upload

    return put


def whole(upload: Upload, dialect: Dialect) -> bytes:
    """The plain text; its head and its parts are told to agree with it."""
    found = plain.plain(upload, dialect)
    data = b"".join(found.open())
    assert found.size == len(data)
    assert plain.head(upload, dialect).startswith(data[:1000])
    for start, end in ((1, len(data) - 1), (len(data) // 2, None), (0, 3), (5, 5), (len(data), None)):
        assert b"".join(found.open(start, end)) == data[start:end]
    assert (found.dialect.container, found.dialect.content, found.dialect.encoding) == (
        "none",
        "text",
        "utf-8",
    )
    return data


def objects(app: APIFlask, upload: Upload) -> list[str]:
    root = Path(urlsplit(app.config["WAYBILL"].storage_url).path) / f"uploads/{upload.id}"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def refused(upload: Upload, *words: str) -> str:
    """Why; told within two seconds, however large it would become."""
    began = time.process_time()
    with pytest.raises(BadFile) as told:
        plain.inspect(upload)
    assert time.process_time() - began < 2
    message = str(told.value)
    assert message.startswith((upload.filename, f"There is nothing in {upload.filename}"))
    for word in words:
        assert word in message, message
    return message


# --- text -------------------------------------------------------------------------------------------------


def test_plain_text_is_not_copied(app: APIFlask, put: Callable[..., Upload]) -> None:
    for data in (TEXT.encode(), TEXT.replace("\n", "\r\n").encode()):
        upload = put(data)
        assert plain.inspect(upload) == plain.Around("none", "text")
        assert whole(upload, Dialect()) == data
        assert len(objects(app, upload)) == 1


def test_a_mark_is_no_text(app: APIFlask, put: Callable[..., Upload]) -> None:
    upload = put(codecs.BOM_UTF8 + TEXT.encode())
    assert whole(upload, Dialect()) == TEXT.encode()
    assert len(objects(app, upload)) == 1


@pytest.mark.parametrize("piece", [None, 1])
@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("utf-16", "utf-16"),
        ("utf-16", "utf-16-be"),  # the mark knows it better
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("utf-32-be", "utf-32-be"),
        ("latin-1", "iso8859-1"),
        ("cp1252", "cp1252"),
        ("utf-8-sig", "utf-8-sig"),
    ],
)
def test_encodings(put: Callable[..., Upload], written: str, told: str, piece: int | None) -> None:
    upload = put(TEXT.encode(written), piece=piece)
    plain.inspect(upload)
    assert whole(upload, Dialect(encoding=told)) == TEXT.encode()


def test_utf_16_beyond_its_first_plane(put: Callable[..., Upload]) -> None:
    text = "a,😀\n" * 100_000
    for mark in (codecs.BOM_UTF16_BE, b""):
        upload = put(mark + text.encode("utf-16-be"))
        plain.inspect(upload)
        assert whole(upload, Dialect(encoding="utf-16-be")) == text.encode()


@pytest.mark.parametrize(
    ("data", "encoding", "byte", "line"),
    [
        (b"one\ntwo\n" + b"\x81\n", "cp1252", 9, 3),
        ("one\ntwo\nthree".encode("utf-16-le") + b"\x00\xd8a\0", "utf-16-le", 27, 3),
        (b"x\n" * 400_000 + b"\x81", "cp1252", 800_001, 400_001),
        ("a\n".encode("utf-16") + b"x", "utf-16", 7, 2),
        ("日本\n".encode("shift_jis") + b"\xff", "shift_jis", 6, 2),
    ],
)
def test_a_wrong_encoding_says_where(
    put: Callable[..., Upload], data: bytes, encoding: str, byte: int, line: int
) -> None:
    with pytest.raises(BadFile, match=rf"byte {byte:,}, in line {line:,}, is .*another encoding"):
        plain.plain(put(data), Dialect(encoding=encoding))


@pytest.mark.parametrize("encoding", ["klingon", "rot13", "hex", "idna", "unicode_escape"])
def test_no_encoding(put: Callable[..., Upload], encoding: str) -> None:
    with pytest.raises(BadFile, match="no encoding"):
        plain.plain(put(TEXT.encode()), Dialect(encoding=encoding))


@pytest.mark.parametrize("piece", [None, 1])
def test_lines_that_end_in_cr(put: Callable[..., Upload], piece: int | None) -> None:
    data = b'a,b\r1,"two\nlines"\r2,x\r'
    expected = b'a,b\n1,"two\nlines"\n2,x\n'
    assert whole(put(data, piece=piece), Dialect()) == expected
    assert whole(put(b"a,b\r\n1,x\r2,y\r\n", piece=piece), Dialect()) == b"a,b\r\n1,x\n2,y\r\n"


def test_a_cr_in_quotes_is_text(app: APIFlask, put: Callable[..., Upload]) -> None:
    upload = put(b'a,b\n1,"two\rlines"\n')
    assert whole(upload, Dialect()) == b'a,b\n1,"two\rlines"\n'
    assert len(objects(app, upload)) == 1


@given(st.lists(st.sampled_from(["a", "\r", "\n", "\r\n", ",", "é"]), max_size=30), st.integers(1, 5))
def test_every_line_end_is_kept_or_becomes_lf(parts: list[str], size: int) -> None:
    data = "".join(parts).encode()
    pieces = (data[start : start + size] for start in range(0, len(data), size))
    found = b"".join(plain._one_line_end(pieces))
    assert found in (data, data.replace(b"\r\n", b"\0").replace(b"\r", b"\n").replace(b"\0", b"\r\n"))
    assert found.splitlines() == data.splitlines()


# --- packed -----------------------------------------------------------------------------------------------


def zipped(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return stream.getvalue()


GZIP, ZIP = Dialect(container="gzip"), Dialect(container="zip")


def test_gzip(put: Callable[..., Upload]) -> None:
    for data in (
        gzip.compress(TEXT.encode(), mtime=0),
        gzip.compress(TEXT[:9].encode(), mtime=0) + gzip.compress(TEXT[9:].encode(), mtime=0),
    ):
        upload = put(data + bytes(500), "people.csv.gz")
        assert plain.inspect(upload) == plain.Around("gzip", "text")
        assert plain.start(upload, plain.look(upload)) == plain.Start(TEXT.encode(), True)
        assert whole(upload, GZIP) == TEXT.encode()


def test_gzip_of_another_encoding(put: Callable[..., Upload]) -> None:
    upload = put(gzip.compress(TEXT.encode("utf-16")))
    plain.inspect(upload)
    assert whole(upload, Dialect(container="gzip", encoding="utf-16")) == TEXT.encode()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("name", ["people.csv", "export/people.csv", "Menschen für Zoë.csv"])
def test_zip(put: Callable[..., Upload], method: int, name: str) -> None:
    added = [("__MACOSX/._people.csv", b"x"), ("export/", b""), ("export/.DS_Store", b"x")]
    upload = put(zipped((name, TEXT.encode()), *added, method=method), "people.zip")
    assert plain.inspect(upload) == plain.Around("zip", "text", (name,))
    assert whole(upload, ZIP) == TEXT.encode()


def test_a_large_file_is_converted_once_and_found_again(
    app: APIFlask, put: Callable[..., Upload], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "BLOCK", 100_000)
    data = b"".join(b"%d,%d\n" % (number, number * 7919) for number in range(100_000))
    upload = put(gzip.compress(data), "people.csv.gz")
    assert plain.start(upload, plain.look(upload), limit=1000) == plain.Start(data[:1000], False)
    assert whole(upload, GZIP) == data
    made = objects(app, upload)
    assert len(made) > 4
    assert whole(upload, GZIP) == data
    assert objects(app, upload) == made
    found = plain.plain(upload, GZIP)
    assert b"".join(found.open(99_990, 300_010)) == data[99_990:300_010]
    uploads.remove(upload)
    assert objects(app, upload) == []


def test_a_conversion_that_was_interrupted_is_made_anew(app: APIFlask, put: Callable[..., Upload]) -> None:
    data = ROW * (20 * MIB // len(ROW))
    upload = put(zipped(("a.csv", data[: 10 * MIB] + bytes(MIB).translate(bytes([97]) * 256) + data)))

    class Stop(BaseException):
        pass

    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 50:
            raise Stop

    with pytest.raises(Stop):
        plain.plain(upload, ZIP, check=check)
    assert not any(name.endswith("index") for name in objects(app, upload))
    found = plain.plain(upload, ZIP)
    assert sum(map(len, found.open())) == found.size > 30 * MIB


def test_too_much_text_is_refused(
    app: APIFlask, put: Callable[..., Upload], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    upload = put(gzip.compress(ROW * (2 * MIB // len(ROW))))
    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], upload_limit_bytes=100_000))
    with pytest.raises(BadFile, match=r"more than 390\.6 KiB of text"):
        plain.plain(upload, GZIP)


# --- refused ----------------------------------------------------------------------------------------------


def bomb(chunk: bytes, gigabytes: float, flags: int = 31) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, flags)
    block = chunk * (MIB // len(chunk))
    parts = [packer.compress(block) for _ in range(int(gigabytes * 1024))]
    return b"".join(parts) + packer.flush()


def test_bombs(put: Callable[..., Upload]) -> None:
    refused(put(bomb(b"1,2,3\n", 1), "people.csv.gz"), "200 times")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.csv", "w") as file:
        for _ in range(300):
            file.write(b"1,2,3\n" * (MIB // 6))
    refused(put(stream.getvalue(), "people.zip"), "200 times")


def test_a_bomb_behind_an_honest_beginning(put: Callable[..., Upload]) -> None:
    honest = b"".join(b"%d,%d\n" % (number, number**7) for number in range(2_000_000))
    upload = put(gzip.compress(honest, 1) + bomb(b"1,2,3\n", 0.2), "people.csv.gz")
    plain.inspect(upload)
    with pytest.raises(BadFile, match="200 times"):
        plain.plain(upload, GZIP)


def test_honest_repetition_is_no_bomb(put: Callable[..., Upload]) -> None:
    line = b"%d,Berlin,open,2026-01-31,the same remark in each and every row of this long file\n"
    data = b"".join(line % number for number in range(500_000))
    packed_ = gzip.compress(data)
    assert len(data) > 20 * len(packed_)
    plain.inspect(put(packed_))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("a.csv", ROW), ("b.csv", ROW)], ["2 files (a.csv, b.csv)", "each of them"]),
        ([(f"{number}.csv", ROW) for number in range(5)], ["5 files (0.csv, 1.csv, 2.csv …)"]),
        ([], ["without a file"]),
        ([("__MACOSX/a.csv", ROW)], ["without a file"]),
        ([("a.zip", zipped(("a.csv", ROW)))], ["packed itself"]),
        ([("a.csv.gz", gzip.compress(ROW))], ["packed itself"]),
        ([("../a.csv", ROW)], ["leads elsewhere"]),
        ([("/etc/passwd", ROW)], ["leads elsewhere"]),
        ([("..\\a.csv", ROW)], ["leads elsewhere"]),
        ([("C:\\a.csv", ROW)], ["leads elsewhere"]),
        ([("a.csv", b"")], ["nothing in"]),
        ([("a.pdf", b"%PDF-1.7 ...")], ["PDF"]),
        ([("mimetype", b"x"), ("content.xml", b"<x/>")], ["OpenDocument", ".xlsx"]),
        ([("[Content_Types].xml", b"<x/>"), ("word/document.xml", b"<x/>")], ["without a table"]),
        ([("[Content_Types].xml", b"<x/>"), ("xl/workbook.bin", b"x")], [".xlsb"]),
    ],
)
def test_zips_that_are_refused(
    put: Callable[..., Upload], files: list[tuple[str, bytes]], words: list[str]
) -> None:
    refused(put(zipped(*files), "people.zip"), *words)


def test_a_zip_of_very_many(put: Callable[..., Upload]) -> None:
    files = [(f"{number:06}.csv", b"") for number in range(6000)]
    refused(put(zipped(*files), "people.zip"), "6,000 files")
    files = [(f"{number:06}{'x' * 200}.csv", b"") for number in range(6000)]
    refused(put(zipped(*files), "people.zip"), "far too long")


def test_a_zip_with_a_password(put: Callable[..., Upload]) -> None:
    data = bytearray(zipped(("a.csv", ROW)))
    for header, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(header) + at] |= 1
    refused(put(bytes(data), "people.zip"), "password")


def test_a_zip_packed_otherwise(put: Callable[..., Upload]) -> None:
    refused(put(zipped(("a.csv", ROW), method=zipfile.ZIP_LZMA), "people.zip"), "a way", "gzip")


@pytest.mark.parametrize("cut", [10, 100, -30, -1])
def test_packed_files_that_are_cut_off(put: Callable[..., Upload], cut: int) -> None:
    data = b"".join(b"%d,%d\n" % (number, number**9) for number in range(10_000))
    refused(put(gzip.compress(data)[:cut], "people.csv.gz"), "Upload it once more")
    refused(put(zipped(("a.csv", data))[:cut], "people.zip"), "Upload it once more")


def test_packed_files_that_are_damaged(put: Callable[..., Upload]) -> None:
    data = b"".join(b"%d,%d\n" % (number, number**9) for number in range(10_000))
    for made, name in ((gzip.compress(data), "a.gz"), (zipped(("a.csv", data)), "a.zip")):
        broken = bytearray(made)
        broken[len(broken) // 2] ^= 255
        refused(put(bytes(broken), name), "damaged", "Upload it once more")


def test_a_zip_that_lies_about_its_size(put: Callable[..., Upload]) -> None:
    data = bytearray(zipped(("a.csv", ROW * 100)))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    refused(put(bytes(data), "a.zip"), "does not match")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["nothing in"]),
        (gzip.compress(b"", mtime=0), ["nothing in"]),
        (b"%PDF-1.7\n" + ROW, ["PDF document", ".xlsx or as CSV"]),
        (b"\x89PNG\r\n\x1a\n", ["picture"]),
        (b"\xff\xd8\xff\xe0", ["picture"]),
        (b"PAR1" + bytes(100), ["Parquet"]),
        (b"SQLite format 3\0", ["SQLite"]),
        (b"BZh91AY&SY", ["bzip2"]),
        (b"\x28\xb5\x2f\xfd" + bytes(10), ["zstd"]),
        (b"7z\xbc\xaf\x27\x1c", ["7-Zip"]),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), [".xls", ".xlsx or as CSV"]),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le"),
            ["password"],
        ),
        (b"\n<!DOCTYPE html><table><tr>", ["web page"]),
        (b'<?xml version="1.0"?><Workbook>', ["XML"]),
        (bytes(100_000), ["NUL bytes"]),
        (ROW + bytes(100_000), ["NUL bytes"]),
        (bytes(number * 7919 % 251 for number in range(5000)), ["no text"]),
        (gzip.compress(bytes(range(256)) * 100, mtime=0), ["no text"]),
        (gzip.compress(gzip.compress(ROW, mtime=0), mtime=0), ["packed twice"]),
        (gzip.compress(zipped(("a.csv", ROW))), ["packed twice"]),
    ],
)
def test_what_is_no_text(put: Callable[..., Upload], data: bytes, words: list[str]) -> None:
    refused(put(data, "people.dat"), *words)


@pytest.mark.parametrize(
    "data",
    [
        b"a",
        b"\xff\xfea\0",
        ROW + b"one NUL: \0\n" + ROW,
        "naïve,日本語,\x01\x02\x1f\n".encode() + ROW * 10,
        TEXT.encode("cp1252"),
        "日本語,テキスト\n".encode("shift_jis"),
    ],
)
def test_what_is_text(put: Callable[..., Upload], data: bytes) -> None:
    plain.inspect(put(data))


# --- workbooks --------------------------------------------------------------------------------------------

XLSX = Dialect(content="xlsx", delimiter=";", decimal=",", dates="dmy")


def book(fill: Callable[[Any], None], **options: Any) -> bytes:
    stream = io.BytesIO()
    made = xlsxwriter.Workbook(stream, {"in_memory": True, **options})
    fill(made)
    made.close()
    return stream.getvalue()


def test_a_workbook(put: Callable[..., Upload]) -> None:
    """Written by openpyxl: shared texts, numbers, days, times, truth, errors, formulas, empty cells."""
    made = openpyxl.Workbook()
    sheet = made.active
    assert sheet is not None
    sheet.title = "People"
    sheet.append(["text", "number", "day", "instant", "time", "truth", None, "last"])
    sheet.append(["a,b", 1, date(2026, 1, 31), datetime(2026, 1, 31, 9, 15), clock(9, 15), True, None, "x"])
    sheet.append(['say "hi"', -0.5, date(1900, 1, 1), datetime(2026, 1, 31, 9, 15, 0, 250_000), None, False])
    sheet.append([" padded ", 1e20, date(1900, 3, 1), datetime(2026, 1, 31), timedelta(hours=30), "#N/A"])
    sheet.append([])
    sheet.append(["two\nlines", 0.1 + 0.2, date(9999, 12, 31), None, clock(0, 0), None, None, "ü😀"])
    made.create_sheet("Second").append(["only", "here"])
    hidden = made.create_sheet("Hidden")
    hidden.sheet_state = "hidden"
    stream = io.BytesIO()
    made.save(stream)
    upload = put(stream.getvalue(), "people.xlsx")
    assert plain.inspect(upload) == plain.Around("none", "xlsx", ("People", "Second"))
    assert whole(upload, XLSX).decode().splitlines() == [
        "text,number,day,instant,time,truth,,last",
        '"a,b",1,2026-01-31,2026-01-31 09:15:00,09:15:00,true,,x',
        '"say ""hi""",-0.5,1900-01-01,2026-01-31 09:15:00.250,,false,,',
        '" padded ",100000000000000000000,1900-03-01,2026-01-31 00:00:00,30:00:00,#N/A,,',
        "",
        '"two',
        'lines",0.3,9999-12-31,,00:00:00,,,ü😀',
    ]
    assert whole(upload, Dialect(content="xlsx", member="Second")) == b"only,here\n"
    found = plain.plain(upload, XLSX).dialect
    assert (found.delimiter, found.decimal, found.dates) == (",", ".", "iso")
    with pytest.raises(BadFile, match=r"no sheet 'Third'\. It has: People, Second"):
        plain.plain(upload, Dialect(content="xlsx", member="Third"))


def test_as_other_programs_write_it(put: Callable[..., Upload]) -> None:
    """Inline texts, formulas with results, rich text, the calendar of 1904."""

    def fill(made: Any) -> None:
        sheet = made.add_worksheet("Tables & <Co>")
        bold, day = made.add_format({"bold": True}), made.add_format({"num_format": '[Red]dd/mm/yy;"none"'})
        sheet.write_rich_string(0, 0, "plain ", bold, "bold", " plain")
        sheet.write_formula(0, 1, "=1+1", None, 2)
        sheet.write_formula(0, 2, '="a"&"b"', None, "ab")
        sheet.write_datetime(0, 3, datetime(2026, 1, 31), day)
        sheet.write_formula(0, 4, "=1=1", None, True)
        sheet.write_blank(1, 9, None, bold)

    for options in ({}, {"constant_memory": True}, {"date_1904": True}):
        upload = put(book(fill, **options), "people.xlsx")
        plain.inspect(upload)
        assert whole(upload, XLSX) == b"plain bold plain,2,ab,2026-01-31,true\n"


def parts(sheet: str, **others: str | None) -> bytes:
    """A workbook by hand: `sheet` is its XML; others by their names without folder and ending."""
    files = {
        "[Content_Types].xml": "<Types/>",
        "xl/workbook.xml": '<workbook xmlns:r="r"><sheets><sheet name="One" r:id="a"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": "<Relationships>"
        '<Relationship Id="a" Type="http://x/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": sheet,
    } | {f"xl/{name}.xml": text for name, text in others.items() if text is not None}
    return zipped(*((name, text.encode()) for name, text in files.items()))


def test_prefixes_and_cells_without_places(put: Callable[..., Upload]) -> None:
    sheet = (
        '<?xml version="1.0"?><x:worksheet xmlns:x="y"><x:dimension ref="A1:XFD1048576"/><x:sheetData><x:row>'
        '<x:c t="s"><x:v>0</x:v></x:c>'
        '<x:c t="inlineStr"><x:is><x:t>in</x:t><x:rPh><x:t>no</x:t></x:rPh></x:is></x:c>'
        '</x:row><x:row r="3"><x:c r="B3"><x:v>1E-3</x:v></x:c></x:row></x:sheetData></x:worksheet>'
    )
    shared = '<x:sst xmlns:x="y"><x:si><x:t>a_x000D__x0041_</x:t><x:rPh><x:t>no</x:t></x:rPh></x:si></x:sst>'
    upload = put(parts(sheet, sharedStrings=shared))
    plain.inspect(upload)
    assert whole(upload, XLSX) == b'"a\rA",in\n\n,0.001\n'


ROWS = '<worksheet><sheetData><row r="1"><c r="A1"><v>1</v></c></row>{}</sheetData></worksheet>'
LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("sheet", "others", "words"),
    [
        (LAUGHS + ROWS.format(""), {}, ["entities"]),
        (ROWS.format(""), {"sharedStrings": LAUGHS + "<sst/>", "extra": None}, []),
        (ROWS.format(""), {"styles": LAUGHS + "<styleSheet/>"}, ["entities"]),
        (ROWS.format(""), {"workbook": LAUGHS + "<workbook/>"}, ["entities"]),
        (ROWS.format(""), {"workbook": "<workbook/>"}, ["without a sheet"]),
        (ROWS.format('<row r="1048577"/>'), {}, ["row 1048577"]),
        (ROWS.format('<row r="1"/>'), {}, ["row 1 comes after row 1"]),
        (ROWS.format('<row r="2"><c r="ZZZZ2"><v>1</v></c></row>'), {}, ["no cell 'ZZZZ2'"]),
        (
            ROWS.format('<row><c r="B2"><v>1</v></c><c r="A2"><v>1</v></c></row>'),
            {},
            ["cell A2", "wrong place"],
        ),
        (ROWS.format('<row r="2"><c r="A2" t="s"><v>7</v></c></row>'), {}, ["no shared text number 7"]),
        (ROWS.format('<row r="2"><c r="A2" t="s"><v>-1</v></c></row>'), {}, ["damaged"]),
        (ROWS.format('<row r="2"><c r="A2"><f>1+1</f></c></row>'), {}, ["formula without its result", "A2"]),
        (ROWS.format('<row r="2"><c r="A2"><f>1+1</f><v></v></c></row>'), {}, ["formula without its result"]),
        (ROWS.format('<row r="2"><c r="A2"><f>1+1</f><v/></c></row>'), {}, ["formula without its result"]),
        (ROWS.format("<a>" * 100), {}, ["nests too deeply"]),
        (ROWS.format(""), {"workbook": "<a>" * 100}, ["nests too deeply"]),
        (ROWS.format("<row"), {}, ["damaged workbook"]),
        ("<chart/>", {}, ["is no sheet"]),
        ("<worksheet/>", {}, ["nothing in"]),
    ],
)
def test_workbooks_that_are_refused(
    put: Callable[..., Upload], sheet: str, others: dict[str, str | None], words: list[str]
) -> None:
    upload = put(parts(sheet, **others), "people.xlsx")
    if words:
        refused(upload, *words)
    else:
        plain.inspect(upload)  # its shared texts are never looked at


@pytest.mark.parametrize("part", ["sheet", "shared", "styles"])
def test_workbook_bombs(put: Callable[..., Upload], part: str) -> None:
    filler = f"<!--{' ' * MIB}-->" * 100
    many = "<si><t>aaaaaaaaaaaaaaaa</t></si>" * 4_000_000
    made = {
        "sheet": lambda: parts(ROWS.format(filler)),
        "shared": lambda: parts(ROWS.format(""), sharedStrings=f"<sst>{many}</sst>"),
        "styles": lambda: parts(ROWS.format(""), styles=f"<styleSheet>{filler}</styleSheet>"),
    }
    refused(put(made[part](), "people.xlsx"), "200 times")


def test_a_sheet_that_is_nearly_empty_but_wide(put: Callable[..., Upload]) -> None:
    rows_ = "".join(f'<row r="{n}"><c r="XFD{n}"><v>{n**5}</v></c></row>' for n in range(2, 30_000))
    upload = put(parts(ROWS.format(rows_)), "people.xlsx")
    refused(upload, "16,384 columns wide")


def test_a_token_without_an_end(put: Callable[..., Upload], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "TOKEN", 100_000)
    noise = "".join(f"{number**5:x}" for number in range(100_000))
    with pytest.raises(BadFile, match="far too long"):
        plain.plain(put(parts(ROWS.format(f'<row r="2" x="{noise}"/>'))), XLSX)


def test_long_texts_that_are_repeated(put: Callable[..., Upload]) -> None:
    """A short sheet whose every cell is the same long text."""
    cell = '<c t="s"><v>0</v></c>'
    shared = f"<sst><si><t>{'x' * 30_000}</t></si></sst>"
    upload = put(parts(ROWS.format(f'<row r="2">{cell * 10_000}</row>'), sharedStrings=shared), "people.xlsx")
    refused(upload, "repeats long texts")


def test_a_text_without_an_end(put: Callable[..., Upload], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "TOKEN", 100_000)
    noise = "".join(f"{number**5:x}" for number in range(100_000))
    cell = f'<row r="2"><c t="inlineStr"><is><t>{noise}</t></is></c></row>'
    refused(put(parts(ROWS.format(cell)), "people.xlsx"), "a text in it is far too long")
    shared = f"<sst><si><t>{noise}</t></si></sst>"
    cell = '<row r="2"><c t="s"><v>0</v></c></row>'
    refused(
        put(parts(ROWS.format(cell), sharedStrings=shared), "people.xlsx"), "a text in it is far too long"
    )


def test_texts_beyond_the_limit(put: Callable[..., Upload], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "SHARED", 1000)

    def fill(made: Any) -> None:
        made.add_worksheet().write_column(0, 0, [f"text {number}" for number in range(1000)])

    with pytest.raises(BadFile, match="of different texts"):
        plain.plain(put(book(fill)), XLSX)


def test_an_empty_first_sheet_is_no_end(put: Callable[..., Upload]) -> None:
    def fill(made: Any) -> None:
        made.add_worksheet("Empty")
        made.add_worksheet("Full").write(0, 0, "x")

    upload = put(book(fill))
    assert plain.inspect(upload).members == ("Empty", "Full")
    assert whole(upload, Dialect(content="xlsx", member="Full")) == b"x\n"


def test_the_width_is_that_of_the_beginning(put: Callable[..., Upload]) -> None:
    def fill(made: Any) -> None:
        sheet = made.add_worksheet()
        sheet.write(0, 0, "A title")
        sheet.write_row(1, 0, ["a", "b", "c"])
        for number in range(2, 300):
            sheet.write(number, 0, number)
        sheet.write_row(300, 0, [1, 2, 3, 4])

    lines = whole(put(book(fill)), XLSX).decode().splitlines()
    assert lines[:3] == ["A title,,", "a,b,c", "2,,"]
    assert lines[-2:] == ["299,,", "1,2,3,4"]


# --- cells ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("General", None),
        ("0.00E+00", None),
        ('#,##0.00 "days"', None),
        ("[Red]0;[Blue]-0", None),
        ("@", None),
        ("yyyy-mm-dd", "date"),
        ("[$-409]mmmm yyyy", "date"),
        ("mmm", "date"),
        ("dd.mm.yyyy hh:mm", "datetime"),
        ("h:mm AM/PM", "time"),
        ("mm:ss", "time"),
        ("[h]:mm:ss", "elapsed"),
        ("\\d\\a\\y 0", None),
    ],
)
def test_what_a_format_means(code: str, kind: str | None) -> None:
    assert workbook_cells.kind_of(code) == kind


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("0", "0"),
        ("-12", "-12"),
        ("12345678901234567890", "12345678901234567890"),
        ("1.1000000000000001", "1.1"),
        ("0.30000000000000004", "0.3"),
        ("1E+20", "100000000000000000000"),
        ("1.5E-7", "0.00000015"),
        ("2.50", "2.5"),
        ("1.0", "1"),
        ("-0.1", "-0.1"),
        ("abc", "abc"),
    ],
)
def test_numbers(raw: str, shown: str) -> None:
    assert workbook_cells.number(raw).decode() == shown


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_keeps_its_15_digits(value: float) -> None:
    shown = workbook_cells.number(repr(value)).decode()
    assert "e" not in shown.lower()
    assert float(shown) == float(f"{value:.15g}")


@given(st.datetimes(datetime(1900, 3, 1), datetime(9999, 12, 31)))
def test_every_day_comes_back(value: datetime) -> None:
    value = value.replace(microsecond=value.microsecond // 1000 * 1000)
    days = (value - datetime(1899, 12, 30)) / timedelta(days=1)
    shown = datetime.fromisoformat(workbook_cells.instant(repr(days), "datetime").decode())
    assert abs(shown - value) <= timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("raw", "kind", "shown"),
    [
        ("0", "time", "00:00:00"),
        ("0.5", "datetime", "12:00:00"),
        ("1", "date", "1900-01-01"),
        ("59", "date", "1900-02-28"),
        ("60", "date", "1900-02-29"),
        ("61", "date", "1900-03-01"),
        ("46053.75", "date", "2026-01-31 18:00:00"),
        ("46053.999999999", "datetime", "2026-02-01 00:00:00"),
        ("1.25", "elapsed", "30:00:00"),
        ("-1", "date", "-1"),
        ("1E+10", "date", "10000000000"),
        ("x", "date", "x"),
    ],
)
def test_days(raw: str, kind: str, shown: str) -> None:
    assert workbook_cells.instant(raw, kind).decode() == shown


# --- memory -----------------------------------------------------------------------------------------------

MEMORY = """
import os, resource, sys
from app.imports.file import workbook

def rows(path):
    size = os.path.getsize(path)
    def opener(start, end=None):
        with open(path, "rb") as file:
            file.seek(start)
            left = (size if end is None else min(end, size)) - start
            while left > 0 and (block := file.read(min(262144, left))):
                left -= len(block)
                yield block
    count = sum(piece.count(b"\\n") for piece in workbook.rows("a.xlsx", opener, size, None))
    return count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

(few, before), (many, after) = rows(sys.argv[1]), rows(sys.argv[2])
print(few, many, after - before)
"""


@pytest.mark.slow
def test_a_sheet_is_read_in_flat_memory(tmp_path: Path) -> None:
    line = (
        '<row r="{0}"><c r="A{0}"><v>{0}.5</v></c><c r="B{0}" t="inlineStr"><is><t>{1:x}</t></is></c></row>'
    )
    for name, count in (("few", 5_000), ("many", 200_000)):
        filler = "".join(line.format(number, number**5) for number in range(2, count + 1))
        (tmp_path / name).write_bytes(parts(ROWS.format(filler)))
    found = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "few"), str(tmp_path / "many")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert found.returncode == 0, found.stderr
    few, many, growth = map(int, found.stdout.split())
    assert (few, many) == (5_000, 200_000)
    assert growth < 20  # MiB
