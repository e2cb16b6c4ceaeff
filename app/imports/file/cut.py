"""Cutting a text into pieces at the ends of records, a line break in quotes being none. Pure.

Records are what `records` says. Where all quotes of a stretch stand as they should, their parity
alone tells where records end, which costs a tenth; elsewhere `scan` goes through it. A piece's bytes are
held while its end is looked for, and forgotten: only offsets come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from app.imports.file.dialect import Dialect
from app.imports.file.records import scan

SIZE = 8 * 1024 * 1024
# How far to look for the end of a record, in bytes; a quote still open there never closes.
LONGEST = 64 * 1024 * 1024
# What is looked at behind `size` at first: a record's end is not far.
MARGIN = 64 * 1024
LF, CR = 10, 13

Positions = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Piece:
    """Bytes `start` to `end` of the text, whole records of it, of which the first begins in `first_line`.

    Numbers and lines count from 1. `next_line` is where the record behind the piece begins.
    """

    number: int
    start: int
    end: int
    first_line: int
    next_line: int


def cut(
    blocks: Iterator[bytes],
    dialect: Dialect,
    *,
    start: int = 0,
    first_line: int = 1,
    first_number: int = 1,
    size: int | Callable[[], int] = SIZE,
) -> Iterator[Piece]:
    """Pieces of at least `size` bytes, but for the last one; `size` is asked anew for each.

    `blocks` are the text's bytes from `start` on. From its beginning, lines before the header and the header
    are passed over; any other `start` must be an `end` of an earlier cut, and `first_line` its `next_line`.
    Where the cuts are depends on `start` and the sizes alone.
    """
    text = _Text(blocks)
    if start == 0:
        head = _pass_head(text, dialect)
        start, first_line = start + len(head), first_line + head.count(b"\n")
    number = first_number
    while piece := _next(text, dialect, size() if callable(size) else size):
        # Where every line has one, a search for it is slower than looking at every byte.
        lines = int(np.count_nonzero(np.frombuffer(piece, np.uint8) == LF)) + (piece[-1] != LF)
        yield Piece(number, start, start + len(piece), first_line, first_line + lines)
        number, start, first_line = number + 1, start + len(piece), first_line + lines


class _Text:
    """What lies ahead, as far as somebody looked."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._held = b""
        self.over = False

    def ahead(self, size: int) -> bytes:
        """The next `size` bytes or a few more; fewer only if the text is over."""
        missing, blocks = size - len(self._held), [self._held]
        while missing > 0 and not self.over:
            block = next(self._blocks, None)
            if block is None:
                self.over = True
            else:
                blocks.append(block)
                missing -= len(block)
        if len(blocks) > 1:
            self._held = b"".join(blocks)
        return self._held

    def take(self, size: int) -> memoryview:
        """The next bytes, not copied."""
        taken, self._held = memoryview(self._held)[:size], self._held[size:]
        return taken


def _pass_head(text: _Text, dialect: Dialect) -> bytes:
    """Take the lines before the header, blank ones, and the header."""
    no_quotes = replace(dialect, quote=None, escape=None)
    head = b""
    for _ in range(dialect.skip):
        head += _next(text, no_quotes, 1)
    while text.ahead(2)[:2] in (b"\r\n", b"\r") or text.ahead(1)[:1] == b"\n":
        head += _next(text, no_quotes, 1)
    return head + (_next(text, dialect, 1) if dialect.header else b"")


def _next(text: _Text, dialect: Dialect, size: int) -> memoryview:
    """Take the records that end at or behind `size` bytes from here; none when the text is over."""
    reach = size + MARGIN
    while True:
        ahead = text.ahead(reach)
        if len(ahead) <= size:
            return text.take(len(ahead))
        last = text.over or len(ahead) > size + LONGEST
        ends = record_ends(ahead, dialect, last=last, behind=size)
        if len(ends):
            return text.take(int(ends[0]))
        if last:
            return text.take(len(ahead))
        reach *= 2


def record_ends(text: bytes, dialect: Dialect, *, last: bool, behind: int = 1) -> Positions:
    """Where records of `text` end, behind their line ends: those at `behind` bytes or further.

    `last`: the text is over; otherwise what is not certain without more of it is left out.
    """
    regular = None if dialect.escape else _by_parity(text, dialect, behind)
    if regular is not None:
        return regular
    ends = scan(text, dialect, last=last).nexts
    return ends[np.searchsorted(ends, behind) :]


def _by_parity(text: bytes, dialect: Dialect, behind: int) -> Positions | None:
    """The ends, if all quotes open and close cells as they should."""
    data = np.frombuffer(text, np.uint8)
    breaks = behind - 1 + np.flatnonzero(data[behind - 1 :] == LF)
    quote = dialect.quote
    if quote is None or quote.encode() not in text:
        return breaks + 1
    quotes = np.flatnonzero(data == ord(quote))
    border = np.zeros(256, np.bool_)
    border[[LF, CR, ord(dialect.delimiter), ord(quote)]] = True
    opening, closing = quotes[::2], quotes[1::2]
    opens = border[data[opening[opening > 0] - 1]]
    closes = border[data[closing[closing < len(data) - 1] + 1]]
    if not (opens.all() and closes.all()) or len(quotes) % 2:
        return None
    ends: Positions = breaks[np.searchsorted(quotes, breaks) % 2 == 0] + 1
    return ends
