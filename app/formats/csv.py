"""Comma-separated values, RFC 4180, for programs and for spreadsheets.

The `machine` dialect is lossless: NULL is nothing, an empty text is `""`.
Values look as PostgreSQL writes them, whether PostgreSQL wrote them or we did.
The `spreadsheet` dialects are what opens rightly by double click; `_spreadsheet` has their rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from app.formats import BLOCK, Counter, Format, Writing
from app.formats._spreadsheet import Rules
from app.formats._values import as_text
from app.sources import Batch, Copy, Field

# Every byte but the quote and the line end.
_NEITHER = bytes(set(range(256)) - set(b'"\n'))
BOM = "\ufeff"


class Csv(Format):
    name = "csv"
    title = "CSV"
    extension = "csv"
    content_type = "text/csv; charset=utf-8"
    dialects = {  # noqa: RUF012
        "machine": "programs (exact)",
        "spreadsheet": "spreadsheets",
        "spreadsheet-semicolon": "spreadsheets, semicolon and decimal comma",
        "spreadsheet-tab": "spreadsheets, tab",
    }
    local_dialects = ("spreadsheet", "spreadsheet-semicolon", "spreadsheet-tab")

    def writing(self, dialect: str, zone: str = "UTC", texts: Collection[int] = ()) -> Writing:
        if dialect == "machine":
            return _Machine()
        return _Spreadsheet(
            _DELIMITERS[dialect], Rules("," if dialect == "spreadsheet-semicolon" else ".", zone)
        )

    def counter(self) -> RecordCounter:
        return RecordCounter()


FORMAT = Csv()

_DELIMITERS = {"spreadsheet": ",", "spreadsheet-semicolon": ";", "spreadsheet-tab": "\t"}


class _Machine(Writing):
    def copy(self, fields: Callable[[], Sequence[Field]]) -> Copy:
        # The head is ours, not COPY's HEADER: only an export's first part has one.
        head = _Line(",", "\n")([field.name for field in fields()])
        return Copy("FORMAT csv, ENCODING 'UTF8'", head=head.encode())

    def batches(self, fields: Sequence[Field], batches: Iterable[Batch]) -> Iterator[bytes]:
        # Arrow is heavy: whoever has PostgreSQL write its CSV never loads it.
        from app.formats import _lines

        yield _Line(",", "\n")([field.name for field in fields]).encode()
        for batch in batches:
            yield _lines.lines(batch)

    def rows(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
        line = _Line(",", "\n")
        return _blocks(line(columns), (line([_text(value) for value in row]) for row in rows))


@dataclass
class _Spreadsheet(Writing):
    delimiter: str
    rules: Rules

    def copy(self, fields: Callable[[], Sequence[Field]]) -> Copy:
        found = fields()
        refs = [f"c{at}" for at in range(len(found))]
        cells = ", ".join(self.rules.sql(field, ref) for field, ref in zip(found, refs, strict=True))
        return Copy(
            f"FORMAT csv, DELIMITER '{self.delimiter}', ENCODING 'UTF8'",
            head=self._head([field.name for field in found]).encode(),
            before=f"SELECT {cells} FROM (",
            # A subquery keeps the order it asks for.
            after=f") AS report({', '.join(refs)})",
            line_end=b"\r\n",
        )

    def rows(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
        line = _Line(self.delimiter, "\r\n")
        return _blocks(self._head(columns), (line(list(map(self._cell, row))) for row in rows))

    def _head(self, columns: Sequence[str]) -> str:
        return BOM + _Line(self.delimiter, "\r\n")([self.rules.text(name) for name in columns])

    def _cell(self, value: object) -> str | None:
        return None if value is None else self.rules.cell(value)


class _Line:
    """Joins texts to one record, quoting where PostgreSQL would."""

    def __init__(self, delimiter: str, end: str) -> None:
        self._delimiter, self._end = delimiter, end
        self._quoted = re.compile(rf'[{delimiter}"\r\n]|^\\\.$|^$')

    def __call__(self, texts: Sequence[str | None]) -> str:
        return self._delimiter.join(map(self._field, texts)) + self._end

    def _field(self, text: str | None) -> str:
        if text is None:
            return ""
        return '"' + text.replace('"', '""') + '"' if self._quoted.search(text) else text


def _text(value: object) -> str | None:
    return None if value is None else as_text(value)


def _blocks(head: str, lines: Iterable[str]) -> Iterator[bytes]:
    block, size = [head], 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= BLOCK:
            yield _bytes(block)
            block, size = [], 0
    yield _bytes(block)


def _bytes(lines: Iterable[str]) -> bytes:
    # A lone half of a surrogate pair is no character, and UTF-8 has none for it: it becomes `?`.
    return "".join(lines).encode(errors="replace")


class RecordCounter(Counter):
    """Counts line ends outside quotes: inside, a quote is doubled, so parity tells in from out."""

    def __init__(self) -> None:
        self._records = 0
        self._quoted = False

    def feed(self, block: bytes) -> None:
        pieces = block.translate(None, _NEITHER).split(b'"')
        self._records += len(b"".join(pieces[self._quoted :: 2]))
        self._quoted ^= len(pieces) % 2 == 0

    @property
    def rows(self) -> int:
        return max(0, self._records - 1)
