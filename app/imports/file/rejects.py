"""The refused rows as a file that can be corrected and sent in again.

Each row is as it stood in the file, byte for byte, in the file's delimiter and quotes, with four columns
more: line, column, code, message. A row that is none of the file's columns (a cell too many, a quote that is
not closed) stands whole in the first cell instead: so it spoils no other row, and is not taken for a good one
when it comes back as it is.

Nothing is done against formulas in the original cells: who corrects what we gave out, and sends it in again,
must find it unchanged. They are the sender's own. The cells that we add are never formulas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Protocol

from app.formats._spreadsheet import Rules
from app.imports.file.dialect import Dialect
from app.imports.file.header import names, own
from app.imports.file.parse import UNREADABLE
from app.imports.rows import Reject

BOM, END = "\ufeff", "\r\n"
# What is written at once, in bytes.
BLOCK = 256 * 1024


class Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...


def write(rejects: Iterable[Reject], header: Sequence[str], dialect: Dialect, writer: Writer) -> int:
    """Write the whole file in UTF-8, a line of titles first; returns how many rows were written."""
    shape, rows, block = _Shape(header, dialect), 0, bytearray()
    block += shape.titles()
    for reject in rejects:
        block += shape.row(reject)
        rows += 1
        if len(block) >= BLOCK:
            writer.write(bytes(block))
            block.clear()
    writer.write(bytes(block))
    return rows


class _Shape:
    """How one file's rows are written."""

    def __init__(self, header: Sequence[str], dialect: Dialect) -> None:
        self._header = header[: own(header)]
        self._dialect = dialect
        # Of a file that came back, the reasons of the last time go.
        self._came_back = len(self._header) < len(header)

    def titles(self) -> bytes:
        titles = [*self._header, *names(self._header)]
        return (BOM + self._dialect.delimiter.join(map(self._cell, titles)) + END).encode()

    def row(self, reject: Reject) -> bytes:
        # One that quotes a cell begins with an apostrophe, and is text to a spreadsheet as it is.
        said = reject.message if reject.message.startswith("'") else Rules().text(reject.message)
        ours = [str(reject.line), reject.column or "", reject.code, said]
        added = self._dialect.delimiter.join(map(self._cell, ours))
        return self._original(reject) + f"{self._dialect.delimiter}{added}{END}".encode()

    def _original(self, reject: Reject) -> bytes:
        if reject.code in UNREADABLE:
            text = reject.record.decode(errors="backslashreplace").replace("\0", "\\x00")
            return (self._cell(text) + self._dialect.delimiter * (len(self._header) - 1)).encode()
        if not self._came_back:
            return reject.record
        cells = self._one_cell.finditer(reject.record)
        last = next(cell for number, cell in enumerate(cells, 1) if number == len(self._header))
        return reject.record[: last.end()]

    def _cell(self, text: str) -> str:
        quote, delimiter = self._dialect.quote, self._dialect.delimiter
        if quote is None:
            # There is no way to write these, then.
            return re.sub(rf"[\r\n{re.escape(delimiter)}]+", " ", text)
        if not any(sign in text for sign in (quote, delimiter, "\r", "\n", self._dialect.escape or quote)):
            return text
        for sign in filter(None, (self._dialect.escape, quote)):
            text = text.replace(sign, (self._dialect.escape or quote) + sign)
        return quote + text + quote

    @cached_property
    def _one_cell(self) -> re.Pattern[bytes]:
        """A cell of a record, and what is before it."""
        delimiter, quote = re.escape(self._dialect.delimiter), re.escape(self._dialect.quote or "")
        if self._dialect.escape:
            sign = re.escape(self._dialect.escape)
            plain, quoted = rf"(?:{sign}.|[^{delimiter}{sign}])*", rf"(?:{sign}.|[^{quote}{sign}])*"
        else:
            plain, quoted = f"[^{delimiter}]*", f"(?:[^{quote}]|{quote}{quote})*"
        within = f"(?:{quote}{quoted}{quote})?{plain}" if quote else plain
        return re.compile(rf"(?:(?<!.)|{delimiter}){within}".encode(), re.DOTALL)
