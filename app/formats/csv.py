"""Comma-separated values, RFC 4180.

The `machine` dialect is lossless: NULL is nothing, an empty text is `""`.
Values look as PostgreSQL writes them, whether PostgreSQL wrote them or we did.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal

from app.formats import BLOCK, Counter, Format

# Every byte but the quote and the line end.
_NEITHER = bytes(set(range(256)) - set(b'"\n'))
_QUOTED = re.compile(r'[",\r\n]|^\s|\s$|^\\\.$|^$')


class Csv(Format):
    name = "csv"
    title = "CSV"
    extension = "csv"
    content_type = "text/csv; charset=utf-8"
    dialects = ("machine",)

    def encode(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], dialect: str
    ) -> Iterator[bytes]:
        block, size = [_record(columns)], 0
        for row in rows:
            record = _record(row)
            block.append(record)
            size += len(record)
            if size >= BLOCK:
                yield "".join(block).encode()
                block, size = [], 0
        yield "".join(block).encode()

    def counter(self) -> RecordCounter:
        return RecordCounter()

    def copy_options(self, dialect: str) -> str:
        return "FORMAT csv, HEADER, ENCODING 'UTF8'"


FORMAT = Csv()


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


def _record(row: Sequence[object]) -> str:
    return ",".join(map(_field, row)) + "\n"


def _field(value: object) -> str:
    if value is None:
        return ""
    text = _text(value)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def _text(value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return "t" if value else "f"
        case datetime():
            text = value.isoformat(sep=" ")
            return text.removesuffix(":00") if value.tzinfo else text
        case Decimal():
            return format(value, "f")
        case _:
            return str(value)
