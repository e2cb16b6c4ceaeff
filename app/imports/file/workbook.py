"""Workbooks (.xlsx): a sheet as a stream of CSV, in memory that does not grow with it.

Of all ways to read one, measured with 200,000 rows of 8 columns: openpyxl takes 15 s, calamine 0.9 s and
130 MiB (as it holds the sheet), expat 1.9 s and nothing to speak of. So it is expat.
"""

from __future__ import annotations

import posixpath
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.parsers import expat
from zipfile import ZipInfo

from app.errors import BadFile
from app.imports.file import packed, workbook_cells
from app.imports.file.packed import Opener

MIB = 1024 * 1024
# What the lists of sheets, links and styles may have, unpacked; and all texts that cells share.
SMALL, SHARED = 4 * MIB, 256 * MIB
# No XML of a workbook nests deeper, and no tag or text of one is longer.
DEPTH, TOKEN = 50, 2 * MIB
# How many rows say how wide the table is.
BEGINNING = 100
# The sizes of the largest sheet.
ROWS, COLUMNS = 1_048_576, 16_384
# Empty cells are bytes, too: so many times the sheet's own, and then some.
SPARSE, SPARSE_FROM = 32, 16 * MIB
# So are texts that many cells share: of those in one piece of a sheet no more than this is made.
HELD = 64 * MIB
# Days come again and again: each is put into words once.
REMEMBERED = 20_000

Start = Callable[[str, Any], None]
End = Callable[[str], None]


def sheets(name: str, opener: Opener, found: list[ZipInfo]) -> tuple[str, ...]:
    """The names of its sheets, hidden ones only if there are no others; raises BadFile."""
    return tuple(_Parts(name, opener, found).sheets())


def check(name: str, opener: Opener, found: list[ZipInfo], probe: int) -> None:
    """Unpack `probe` bytes of each large part: raises BadFile for bombs and damage."""
    for info in found:
        if info.file_size > SMALL or info.file_size > info.compress_size * packed.RATIO:
            count = 0
            for piece in packed.unzip(name, opener, info):
                count += len(piece)
                if count > probe:
                    break
                time.sleep(0)  # lets others of a web process have their turn


def rows(name: str, opener: Opener, size: int, sheet: str | None) -> Iterator[bytes]:
    """The rows of a sheet, the first one if it is not named, as CSV in UTF-8; raises BadFile.

    A line is a row of the sheet, empty ones included, as long as no text in it has line ends of its own.
    """
    parts = _Parts(name, opener, packed.entries(name, opener, size))
    return _Sheet(parts, parts.sheet(sheet)).rows()


class _Parts:
    """The parts of a workbook beside its sheets."""

    def __init__(self, name: str, opener: Opener, found: list[ZipInfo]) -> None:
        self.name = name
        self._opener = opener
        self._found = {info.filename.lstrip("/"): info for info in found}
        self.since_1904 = False
        self._listed: list[tuple[str, str, bool]] = []

    def sheets(self) -> dict[str, str]:
        """Each sheet's part, by its name."""
        self._small("xl/workbook.xml", self._list)
        links: dict[str, str] = {}

        def link(tag: str, said: dict[str, str]) -> None:
            if tag == "Relationship" and said.get("Type", "").endswith("/worksheet"):
                links[said.get("Id", "")] = posixpath.normpath(posixpath.join("/xl", said.get("Target", "")))

        self._small("xl/_rels/workbook.xml.rels", link)
        known = [
            (title, links[link].lstrip("/"), hidden) for title, link, hidden in self._listed if link in links
        ]
        visible = {title: part for title, part, hidden in known if not hidden}
        found = visible or {title: part for title, part, _ in known}
        if not found:
            raise BadFile(f"{self.name} is a workbook without a sheet.")
        return found

    def sheet(self, title: str | None) -> str:
        found = self.sheets()
        if title is None:
            return next(iter(found.values()))
        if title not in found:
            names = ", ".join(found)
            raise BadFile(f"{self.name} has no sheet {title!r}. It has: {names}.")
        return found[title]

    def kinds(self) -> list[str | None]:
        """What each style makes of a number."""
        codes: dict[int, str | None] = dict(workbook_cells.BUILT_IN)
        used: list[int] = []
        inside = [False]

        def style(tag: str, said: dict[str, str]) -> None:
            if tag == "numFmt":
                codes[int(said.get("numFmtId", "0"))] = workbook_cells.kind_of(said.get("formatCode", ""))
            elif tag in ("cellXfs", "cellStyleXfs", "cellStyles"):
                inside[0] = tag == "cellXfs"
            elif tag == "xf" and inside[0]:
                used.append(int(said.get("numFmtId", "0")))

        if "xl/styles.xml" in self._found:
            self._small("xl/styles.xml", style)
        return [codes.get(number) for number in used]

    def pieces(self, part: str) -> Iterator[bytes]:
        if part not in self._found:
            raise BadFile(f"{self.name} is a damaged workbook: {part} is missing. Save it once more.")
        return packed.unzip(self.name, self._opener, self._found[part])

    def has(self, part: str) -> bool:
        return part in self._found

    def parse(self, pieces: Iterator[bytes], start: Start, end: End) -> tuple[Any, Iterator[int]]:
        """The parser, and a step for each piece that is parsed: the number of its bytes."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.ordered_attributes = True
        parser.StartElementHandler = start
        parser.EndElementHandler = end
        # Entities are how XML bombs are made; no workbook has any.
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        return parser, self._steps(parser, pieces)

    def _steps(self, parser: Any, pieces: Iterator[bytes]) -> Iterator[int]:
        fed = 0
        try:
            for piece in pieces:
                parser.Parse(piece, False)
                fed += len(piece)
                if fed - parser.CurrentByteIndex > TOKEN:
                    raise self.damaged("something in it is far too long")
                yield len(piece)
            parser.Parse(b"", True)
        except (expat.ExpatError, ValueError) as error:
            raise self.damaged(str(error)) from error

    def check_text(self, texts: list[str]) -> None:
        """Refuse a text that goes on and on; asked after each piece."""
        if sum(map(len, texts)) > TOKEN:
            raise self.damaged("a text in it is far too long")

    def damaged(self, why: str) -> BadFile:
        return BadFile(f"{self.name} is a damaged workbook ({why}). Save it once more, or save it as CSV.")

    def _refuse_doctype(self, *_: object) -> None:
        raise self.damaged("it defines entities, which no workbook does")

    def _small(self, part: str, tell: Callable[[str, dict[str, str]], None]) -> None:
        """Tell of each element of a short part: its name without a prefix, its attributes likewise."""
        depth = [0]

        def start(tag: str, said: list[str]) -> None:
            depth[0] += 1
            if depth[0] > DEPTH:
                raise self.damaged("it nests too deeply")
            names = (name.rpartition(":")[2] if name != "r:id" else name for name in said[::2])
            tell(tag.rpartition(":")[2], dict(zip(names, said[1::2], strict=True)))

        def end(tag: str) -> None:
            depth[0] -= 1

        _, steps = self.parse(self.pieces(part), start, end)
        if sum(steps) > SMALL:
            raise self.damaged(f"{part} is far too long")

    def _list(self, tag: str, said: dict[str, str]) -> None:
        if tag == "sheet":
            link = said.get("r:id", said.get("id", ""))
            self._listed.append((said.get("name", ""), link, said.get("state", "visible") != "visible"))
        elif tag == "workbookPr":
            self.since_1904 = said.get("date1904", "0") in ("1", "true")


class _Shared:
    """The texts that cells share by number, read only as far as they are asked for; each as a CSV cell."""

    PART = "xl/sharedStrings.xml"

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._blob = bytearray()
        self._ends = array("Q", [0])
        self._depth = self._phonetic = 0
        self._texts: list[str] = []
        self._parser: Any = None
        self._steps: Iterator[int] = iter(())
        if parts.has(self.PART):
            self._parser, self._steps = parts.parse(parts.pieces(self.PART), self._start, self._end)

    def __getitem__(self, number: int) -> bytes:
        if number < 0:
            raise self._parts.damaged(f"it has no shared text number {number}")
        while len(self._ends) <= number + 1:
            if next(self._steps, None) is None:
                raise self._parts.damaged(f"it has no shared text number {number}")
            self._parts.check_text(self._texts)
            if len(self._blob) > SHARED:
                raise BadFile(
                    f"{self._parts.name} holds more than {SHARED // MIB} MiB of different texts. "
                    "Save it as CSV."
                )
        return bytes(self._blob[self._ends[number] : self._ends[number + 1]])

    def _start(self, tag: str, said: list[str]) -> None:
        self._depth += 1
        if self._depth > DEPTH:
            raise self._parts.damaged("it nests too deeply")
        local = tag.rpartition(":")[2]
        if local == "rPh":
            self._phonetic = self._depth
        elif local == "t" and not self._phonetic:
            self._parser.CharacterDataHandler = self._texts.append

    def _end(self, tag: str) -> None:
        local = tag.rpartition(":")[2]
        if local == "t":
            self._parser.CharacterDataHandler = None
        elif local == "si":
            self._blob += workbook_cells.text("".join(self._texts))
            self._ends.append(len(self._blob))
            self._texts.clear()
        elif self._phonetic == self._depth:
            self._phonetic = 0
        self._depth -= 1


@dataclass
class _Sheet:
    """One sheet on its way."""

    parts: _Parts
    part: str

    def rows(self) -> Iterator[bytes]:
        self._shared, self._kinds = _Shared(self.parts), self.parts.kinds()
        self._columns: dict[str, int] = {}
        self._days: dict[tuple[str, str], bytes] = {}
        # Rows that are read and not yet given: number and cells.
        self._ready: list[tuple[int, list[bytes]]] = []
        self._row = self._depth = 0
        # Empty cells that were made, and bytes that wait to be given.
        self._empty = self._held = 0
        self._cells: list[bytes] = []
        self._cell: dict[str, str] = {}
        self._column = -1
        self._texts: list[str] = []
        self._valued = self._formula = self._inside = False
        self._parser, steps = self.parts.parse(self.parts.pieces(self.part), self._root, self._end)
        self._parser.ordered_attributes = False
        return self._written(steps)

    def _written(self, steps: Iterator[int]) -> Iterator[bytes]:
        width, last, read = 0, 0, 0
        for count in steps:
            read += count
            self.parts.check_text(self._texts)
            if width or len(self._ready) >= BEGINNING:
                width = width or self._width()
                block, last = self._lines(width, last)
                self._check_sparse(width, read)
                yield block
        block, last = self._lines(width or self._width(), last)
        yield block

    def _width(self) -> int:
        return max((len(row) for _, row in self._ready[:BEGINNING]), default=0)

    def _lines(self, width: int, last: int) -> tuple[bytes, int]:
        """The rows that are ready, as lines; with an empty one for each that the sheet leaves out."""
        lines = []
        for number, row in self._ready:
            if number - last > 1:
                lines.append(b"\n" * (number - last - 1))
            lines.append(b",".join(row) + b"," * (width - len(row)) + b"\n")
            self._empty += max(0, width - len(row))
            last = number
        self._ready.clear()
        self._held = sum(map(len, self._cells))
        return b"".join(lines), last

    def _check_sparse(self, width: int, read: int) -> None:
        if self._empty > read * SPARSE + SPARSE_FROM:
            raise BadFile(
                f"{self.parts.name} is {width:,} columns wide, and nearly all of them are empty. Delete what "
                "stands far to the right, or save it as CSV."
            )

    # What expat calls; these take nearly all of the time.

    def _root(self, tag: str, said: dict[str, str]) -> None:
        """The first tag tells the prefix of all: `x:worksheet` or, mostly, `worksheet`."""
        prefix = tag.removesuffix("worksheet")
        if prefix == tag:
            raise self.parts.damaged(f"{self.part} is no sheet")
        names = ("c", "v", "row", "f", "t", "rPh")
        self._c, self._v, self._r, self._f, self._t, self._p = (prefix + name for name in names)
        self._parser.StartElementHandler = self._start
        self._depth = 1

    def _start(self, tag: str, said: dict[str, str]) -> None:
        self._depth += 1
        if tag == self._c:
            self._cell = said
            self._column += 1
            self._valued = self._formula = False
        elif tag == self._v:
            self._valued = True
            self._parser.CharacterDataHandler = self._texts.append
        elif tag == self._r:
            self._begin_row(said.get("r"))
        elif tag == self._t and self._cell.get("t") == "inlineStr" and not self._inside:
            self._valued = True
            self._parser.CharacterDataHandler = self._texts.append
        elif tag == self._f:
            self._formula = True
        elif tag == self._p:
            self._inside = True
        if self._depth > DEPTH:
            raise self.parts.damaged("it nests too deeply")

    def _end(self, tag: str) -> None:
        self._depth -= 1
        if tag in (self._v, self._t):
            self._parser.CharacterDataHandler = None
        elif tag == self._c:
            if place := self._cell.get("r"):
                self._column = self._column_of(place)
            if self._valued:
                texts = self._texts
                raw = texts[0] if len(texts) == 1 else "".join(texts)
                texts.clear()
                kind = self._cell.get("t", "n")
                if not raw and kind == "n" and self._formula:
                    raise self._uncalculated(place)
                if value := self._value(raw, kind):
                    self._place(value)
            elif self._formula:
                raise self._uncalculated(place)
        elif tag == self._r and self._cells:
            self._ready.append((self._row, self._cells))
            self._cells = []
        elif tag == self._p:
            self._inside = False

    def _uncalculated(self, place: str | None) -> BadFile:
        return BadFile(
            f"{self.parts.name} has a formula without its result in cell {place}. "
            "Open it, let it calculate, and save it once more."
        )

    def _begin_row(self, number: str | None) -> None:
        row = int(number) if number else self._row + 1
        if not self._row < row <= ROWS:
            raise self.parts.damaged(f"row {row} comes after row {self._row}")
        self._row, self._column, self._cells = row, -1, []

    def _column_of(self, place: str) -> int:
        letters = place.rstrip("0123456789")
        column = self._columns.get(letters)
        if column is None:
            column = -1
            if letters.isascii() and letters.isalpha():
                for letter in letters[:4].upper():
                    column = (column + 1) * 26 + ord(letter) - 65
            if not 0 <= column < COLUMNS:
                raise self.parts.damaged(f"there is no cell {place[:20]!r}")
            self._columns[letters] = column
        return column

    def _place(self, value: bytes) -> None:
        gap = self._column - len(self._cells)
        if gap < 0:
            raise self.parts.damaged(f"cell {self._cell.get('r')} stands in the wrong place")
        if gap:
            self._cells.extend([b""] * gap)
            self._empty += gap
        self._cells.append(value)
        self._held += len(value)
        if self._held > HELD:
            raise BadFile(
                f"{self.parts.name} repeats long texts so often that it would be many times its size. "
                "Save it as CSV."
            )

    def _value(self, raw: str, kind: str) -> bytes:
        if kind == "s":
            return self._shared[int(raw)]
        if kind == "n":
            return self._number(raw, self._cell.get("s"))
        if kind == "b":
            return b"true" if raw.strip() in ("1", "true") else b"false"
        if kind == "d":
            return workbook_cells.text(raw.replace("T", " ").removesuffix("Z"))
        return workbook_cells.text(raw)

    def _number(self, raw: str, style: str | None) -> bytes:
        at = int(style) if style else 0
        meaning = self._kinds[at] if at < len(self._kinds) else None
        if meaning is None or not raw:
            return workbook_cells.number(raw) if raw else b""
        shown = self._days.get((raw, meaning))
        if shown is None:
            if len(self._days) > REMEMBERED:
                self._days.clear()
            shown = workbook_cells.instant(raw, meaning, since_1904=self.parts.since_1904)
            self._days[raw, meaning] = shown
        return shown
