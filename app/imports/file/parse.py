"""A chunk's text as columns of texts. What is no record is refused by itself, the others are unharmed. Pure.

Arrow's reader makes the columns; `records` says on which lines they stand, and keeps from Arrow
what it can't or shouldn't read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from app.imports.file.dialect import Dialect
from app.imports.file.records import Positions, Records, scan
from app.imports.rows import Reject

UNCLOSED = "unclosed_quote"
RETURN = "stray_return"
NUL = "nul"
NOT_TEXT = "not_utf8"
RAGGED = "ragged"
# What is no row of the file's columns; other refused rows are.
UNREADABLE = frozenset({UNCLOSED, RETURN, NUL, NOT_TEXT, RAGGED})

_UNCLOSED = (
    "A quote opens a cell here and is not closed before the next delimiter or line end. "
    "Close it, and double the quotes within."
)
_RETURN = "A carriage return stands here that ends no line. Put the cell in quotes, or take it out."
_NUL = "A NUL character stands in this row, which no database can hold. Take it out."


@dataclass(frozen=True)
class Parsed:
    """The records of a text. `columns` are the file's that were wanted, in the order they were wanted in,
    as strings without check for being empty; `lines` (int64) says where each record begins.

    `read` counts all records, the refused ones in `rejects`, too.
    """

    columns: Sequence[pa.Array[Any]]
    lines: pa.Array[Any]
    rejects: Sequence[Reject]
    read: int
    _text: bytes
    _starts: Positions
    _ends: Positions

    def record(self, at: int) -> bytes:
        """The record of the row `at`, as it stands in the file."""
        return self._text[self._starts[at] : self._ends[at]]


def parse(
    text: bytes, dialect: Dialect, first_line: int, width: int, wanted: Sequence[int] | None = None
) -> Parsed:
    """Read whole records of `width` columns, UTF-8; `first_line` is the file's line that `text` begins with.

    `wanted` are the columns to keep, by their place in the file; None: all. A cell without text is NULL where
    it is not in quotes, and so are the dialect's `nulls`.
    """
    records = scan(text, dialect)
    filled = _filled(records, width)
    refused = _refused(text, records)
    good = filled if not refused else filled[~np.isin(filled, np.fromiter(refused, np.int64))]
    columns, ragged = _columns(_joined(text, records, refused), dialect, width, wanted, len(good))
    rejects = [
        Reject(first_line + int(records.lines[at]), None, code, message, _slice(text, records, at))
        for at, (code, message) in refused.items()
    ]
    for place, cells in ragged:
        at = int(good[place])
        line = first_line + int(records.lines[at])
        rejects.append(Reject(line, None, RAGGED, _ragged(cells, width), _slice(text, records, at)))
    if ragged:
        good = np.delete(good, [place for place, _ in ragged])
    return Parsed(
        columns=columns,
        lines=pa.array(records.lines[good] + first_line, pa.int64()),
        rejects=sorted(rejects, key=lambda reject: reject.line),
        read=len(good) + len(rejects),
        _text=text,
        _starts=records.starts[good],
        _ends=records.ends[good],
    )


def _filled(records: Records, width: int) -> Positions:
    """Blank lines are no records, save where a record has one column: there they are NULL."""
    if width == 1:
        return np.arange(len(records))
    return np.flatnonzero(records.ends > records.starts)


def _refused(text: bytes, records: Records) -> dict[int, tuple[str, str]]:
    """Records that can't be read, by their place, in order: (code, message)."""
    found = {int(at): (RETURN, _RETURN) for at in records.returns}
    found |= {int(at): (NUL, _NUL) for at in _holding(text, records, _nuls(text))}
    if not text.isascii():
        for offset in _broken(text):
            at = int(np.searchsorted(records.nexts, offset, "right"))
            message = (
                f"The byte {text[offset]:#04x} in this row is no UTF-8. Save the file as UTF-8, or say "
                "which encoding it has."
            )
            found.setdefault(at, (NOT_TEXT, message))
    found |= {int(at): (UNCLOSED, _UNCLOSED) for at in records.unclosed}
    return dict(sorted(found.items()))


def _nuls(text: bytes) -> Positions:
    if b"\0" not in text:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.frombuffer(text, np.uint8) == 0)


def _holding(text: bytes, records: Records, offsets: Positions) -> Positions:
    return np.unique(np.searchsorted(records.nexts, offsets, "right"))


def _broken(text: bytes) -> Iterator[int]:
    """The first byte of every line that is no UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        at = text.rfind(b"\n", 0, error.start) + 1
    else:
        return
    for line in text[at:].split(b"\n"):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            yield at + error.start
        at += len(line) + 1


def _joined(text: bytes, records: Records, refused: Iterable[int]) -> bytes:
    """The text without these records."""
    kept, at = [], 0
    for place in refused:
        kept.append(text[at : records.starts[place]])
        at = int(records.nexts[place])
    return b"".join([*kept, text[at:]]) if kept else text


def _columns(
    text: bytes, dialect: Dialect, width: int, wanted: Sequence[int] | None, count: int
) -> tuple[list[pa.Array[Any]], list[tuple[int, int]]]:
    """The columns of a text with `count` records, and of the ragged ones (place, cells)."""
    ragged: list[tuple[int, int]] = []

    def skip(row: csv.InvalidRow) -> str:
        ragged.append((row.number - 1, row.actual_columns))
        return "skip"

    names = [str(at) for at in range(width)]
    kept = names if wanted is None else [names[at] for at in wanted]
    if not count:
        return [pa.array([], pa.string()) for _ in kept], ragged
    read = dict.fromkeys(kept or names[:1])
    table = csv.read_csv(
        pa.BufferReader(text),
        csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
        csv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char=dialect.quote or False,
            double_quote=dialect.escape is None,
            escape_char=dialect.escape or False,
            newlines_in_values=True,
            ignore_empty_lines=width > 1,
            invalid_row_handler=skip,
        ),
        csv.ConvertOptions(
            check_utf8=False,
            column_types=dict.fromkeys(read, pa.string()),
            include_columns=list(read),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=["", *dialect.nulls],
        ),
    )
    if table.num_rows + len(ragged) != count:
        raise AssertionError(f"{count} records, but {table.num_rows} rows and {len(ragged)} ragged ones")
    return [_whole(table.column(name)) for name in kept], ragged


def _whole(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    found: pa.Array[Any] = column.combine_chunks()
    return found


def _ragged(cells: int, width: int) -> str:
    has = "1 cell" if cells == 1 else f"{cells:,} cells"
    return (
        f"This row has {has}, where the file has {width:,} columns. Is a delimiter missing or one too many?"
    )


def _slice(text: bytes, records: Records, at: int) -> bytes:
    return text[records.starts[at] : records.ends[at]]
