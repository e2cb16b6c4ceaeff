"""Workbooks for Excel, LibreOffice and their kin, as a stream: no row, text or sheet is held.

Written here and not by a library, as those that stream work cell by cell: `make bench` has the figures.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from isal import isal_zlib

from app.errors import IncompleteArtifact, QueryFailed
from app.formats import Counter, Format, Writing
from app.formats._zip import LIMIT_32, LOCAL, SIZES_FOLLOW, Zip
from app.sources import Batch, Field

if TYPE_CHECKING:
    from app.formats._sheet import Sheet

SHEET_ROWS = 1_048_576
SHEET_COLUMNS = 16_384
# Rows made to cells at a time, and those that tell how wide a column is.
CHUNK, SAMPLE = 2_000, 200
NARROWEST, WIDEST = 8, 60
ROW = b"<row "


class Xlsx(Format):
    name = "xlsx"
    title = "Excel"
    extension = "xlsx"
    content_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    compressions = ("none",)
    local_dialects = ("standard",)

    def writing(self, dialect: str, zone: str = "UTC", texts: Collection[int] = ()) -> Writing:
        return Workbook(zone)

    def counter(self) -> SheetCounter:
        return SheetCounter()


FORMAT = Xlsx()


class Workbook(Writing):
    """One file. `limit` is a sheet's rows, the header among them."""

    def __init__(self, zone: str, limit: int = SHEET_ROWS) -> None:
        # Arrow is heavy: a worker that writes only CSV never loads it.
        from app.formats._sheet import Sheet

        self._sheet: Sheet = Sheet(zone)
        self._limit = limit
        self._zip = Zip()
        self._sheets = 0

    def batches(self, fields: Sequence[Field], batches: Iterable[Batch]) -> Iterator[bytes]:
        return self._written([item.name for item in fields], ((fields, batch) for batch in batches))

    def rows(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
        from app.formats import _batches

        return self._written(columns, _batches.batches(columns, rows, CHUNK))

    @property
    def notes(self) -> Sequence[str]:
        found = []
        if self._sheets > 1:
            found.append(f"The workbook has {self._sheets} sheets: one holds {self._limit:,} rows.")
        if self._sheet.cut:
            texts = "1 text was" if self._sheet.cut == 1 else f"{self._sheet.cut:,} texts were"
            found.append(
                f"{texts} cut to 32,767 characters, the most that a cell holds. CSV, JSON Lines and Parquet "
                "hold them whole."
            )
        return found

    def _written(
        self, names: Sequence[str], typed: Iterable[tuple[Sequence[Field], Batch]]
    ) -> Iterator[bytes]:
        if len(names) > SHEET_COLUMNS:
            raise QueryFailed(
                f"The result has {len(names):,} columns; a sheet holds {SHEET_COLUMNS:,}. Choose CSV instead."
            )
        left = iter(typed)
        sample = next(left, None)
        opening = _opening(names, sample[1] if sample else None)
        yield self._zip.add("_rels/.rels", _RELATIONS)
        yield self._open_sheet(opening, names)
        at = 1
        for fields, batch in chain([sample] if sample else [], left):
            start = 0
            while start < batch.rows:
                if at == self._limit:
                    yield self._close_sheet()
                    yield self._open_sheet(opening, names)
                    at = 1
                piece = batch.slice(start, min(CHUNK, self._limit - at))
                yield self._zip.write(self._sheet.rows(fields, piece, at + 1))
                at += piece.rows
                start += piece.rows
        yield self._close_sheet()
        yield b"".join(self._zip.add(name, content) for name, content in _book(self._sheets))
        yield self._zip.finish()

    def _open_sheet(self, opening: bytes, names: Sequence[str]) -> bytes:
        self._sheets += 1
        begun = self._zip.open(f"xl/worksheets/sheet{self._sheets}.xml")
        return begun + self._zip.write(opening + self._sheet.header(names))

    def _close_sheet(self) -> bytes:
        return self._zip.write(_CLOSING) + self._zip.close()


def _opening(names: Sequence[str], sample: Batch | None) -> bytes:
    """A sheet's beginning: the header frozen, and each column as wide as its first values."""
    rows = list(sample.slice(0, SAMPLE).values()) if sample else []
    columns = zip(*[names, *rows], strict=True)
    widths = (min(WIDEST, max(NARROWEST, max(map(_width, column)) + 2)) for column in columns)
    cols = "".join(
        f'<col min="{at}" max="{at}" width="{width}" customWidth="1"/>' for at, width in enumerate(widths, 1)
    )
    return (
        f'{_XML}<worksheet xmlns="{_MAIN}"><sheetViews><sheetView workbookViewId="0">'
        '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/>'
        '<selection pane="bottomLeft"/></sheetView></sheetViews>'
        f"{f'<cols>{cols}</cols>' if cols else ''}<sheetData>"
    ).encode()


def _width(value: object) -> int:
    match value:
        case None:
            return 0
        case datetime():
            return len("2026-01-31 00:00:00")
        case _:
            return max(map(len, str(value)[: 10 * WIDEST].splitlines()), default=0)


def _book(sheets: int) -> Iterator[tuple[str, bytes]]:
    """The parts that tell how many sheets there are; the styles' order is `_sheet`'s."""
    numbers = range(1, sheets + 1)
    listed = "".join(f'<sheet name="Sheet{n}" sheetId="{n}" r:id="rId{n}"/>' for n in numbers)
    yield (
        "xl/workbook.xml",
        f'{_XML}<workbook xmlns="{_MAIN}" xmlns:r="{_RELATED}"><sheets>{listed}</sheets></workbook>'.encode(),
    )
    related = "".join(_relation(n, "worksheet", f"worksheets/sheet{n}.xml") for n in numbers)
    related += _relation(sheets + 1, "styles", "styles.xml")
    yield (
        "xl/_rels/workbook.xml.rels",
        f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">{related}</Relationships>'.encode(),
    )
    yield "xl/styles.xml", _styles()
    parts = [("workbook", "sheet.main"), ("styles", "styles")]
    parts += [(f"worksheets/sheet{n}", "worksheet") for n in numbers]
    types = "".join(
        f'<Override PartName="/xl/{part}.xml" ContentType="{_SHEETML}.{kind}+xml"/>' for part, kind in parts
    )
    yield (
        "[Content_Types].xml",
        (
            f'{_XML}<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
            f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Default Extension="xml" ContentType="application/xml"/>{types}</Types>'
        ).encode(),
    )


def _styles() -> bytes:
    from app.formats._sheet import SCALES

    # 165 on: our own number formats. 1 is "0": an id of twelve digits is no 1.23457E+11.
    own = [
        "yyyy\\-mm\\-dd",
        "yyyy\\-mm\\-dd\\ hh:mm:ss",
        "hh:mm:ss",
        *(f"0.{'0' * scale}" for scale in SCALES),
    ]
    formats = "".join(
        f'<numFmt numFmtId="{number}" formatCode={quoteattr(code)}/>' for number, code in enumerate(own, 165)
    )
    cells = '<xf numFmtId="0" fontId="1" fillId="2" borderId="0" xfId="0" applyFont="1" applyFill="1"/>'
    cells += "".join(
        f'<xf numFmtId="{number}" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>'
        for number in (1, *range(165, 165 + len(own)))
    )
    font = '<sz val="11"/><name val="Calibri"/><family val="2"/>'
    return (
        f'{_XML}<styleSheet xmlns="{_MAIN}"><numFmts count="{len(own)}">{formats}</numFmts>'
        f'<fonts count="2"><font>{font}</font><font><b/>{font}</font></fonts>'
        '<fills count="3"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType='
        '"gray125"/></fill><fill><patternFill patternType="solid"><fgColor rgb="FFE9ECEF"/>'
        '<bgColor indexed="64"/></patternFill></fill></fills>'
        '<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
        '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>'
        f'<cellXfs count="{len(own) + 3}"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/>'
        f"{cells}</cellXfs>"
        '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles>'
        "</styleSheet>"
    ).encode()


def _relation(number: int, kind: str, target: str) -> str:
    return f'<Relationship Id="rId{number}" Type="{_RELATED}/{kind}" Target="{target}"/>'


_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_SCHEMAS = "http://schemas.openxmlformats.org"
_MAIN = f"{_SCHEMAS}/spreadsheetml/2006/main"
_RELATED = f"{_SCHEMAS}/officeDocument/2006/relationships"
_PACKAGE = f"{_SCHEMAS}/package/2006"
_SHEETML = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_RELATIONS = (
    f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">'
    f"{_relation(1, 'officeDocument', 'xl/workbook.xml')}</Relationships>"
).encode()
# Digits kept as text are no mistake, so no cell shows the green corner.
_CLOSING = (
    b'</sheetData><ignoredErrors><ignoredError sqref="A1:XFD1048576" numberStoredAsText="1"/></ignoredErrors>'
    b"</worksheet>"
)


class SheetCounter(Counter):
    """Unpacks the archive as it passes, checks every entry's checksum, and counts the sheets' rows."""

    def __init__(self) -> None:
        self._found = 0
        self._left = b""
        self._ended = False
        self._walk = self._entries()
        next(self._walk)

    def feed(self, block: bytes) -> None:
        self._walk.send(block)

    @property
    def rows(self) -> int:
        if not self._ended:
            raise IncompleteArtifact(
                "The workbook's archive ends before its directory. Nothing was published."
            )
        return self._found

    def _entries(self) -> Generator[None, bytes, None]:
        while (yield from self._take(4)) == LOCAL:
            flags, _, _, _, crc, packed, size, name, extra = struct.unpack(
                "<2x2H2H3L2H", (yield from self._take(26))
            )
            path = (yield from self._take(name + extra))[:name]
            content = yield from self._content(path.startswith(b"xl/worksheets/"))
            if flags & SIZES_FOLLOW:
                crc, packed, size = yield from self._descriptor(content.size)
            if (crc, packed, size) != (content.crc, content.packed, content.size):
                raise IncompleteArtifact(
                    f"{path.decode()} in the workbook is damaged. Nothing was published."
                )
        self._ended = True
        while True:
            self._left = yield

    def _content(self, sheet: bool) -> Generator[None, bytes, _Content]:
        content = _Content()
        unpacker = isal_zlib.decompressobj(-15)
        joint = b""
        while not unpacker.eof:
            packed = self._left or (yield)
            data = unpacker.decompress(packed)
            self._left = unpacker.unused_data
            content.packed += len(packed) - len(self._left)
            content.size += len(data)
            content.crc = isal_zlib.crc32(data, content.crc)
            if sheet:
                self._found += data.count(ROW) + (joint + data[: len(ROW) - 1]).count(ROW)
                joint = (joint + data)[1 - len(ROW) :] if len(data) < len(ROW) else data[1 - len(ROW) :]
        # Its header is no row.
        self._found -= sheet
        return content

    def _descriptor(self, size: int) -> Generator[None, bytes, tuple[int, int, int]]:
        layout = "<4xLQQ" if size >= LIMIT_32 else "<4xLLL"
        crc, packed, size = struct.unpack(layout, (yield from self._take(struct.calcsize(layout))))
        return crc, packed, size

    def _take(self, count: int) -> Generator[None, bytes, bytes]:
        while len(self._left) < count:
            self._left += yield
        taken, self._left = self._left[:count], self._left[count:]
        return taken


@dataclass
class _Content:
    """What an entry was found to hold, once unpacked."""

    crc: int = 0
    packed: int = 0
    size: int = 0
