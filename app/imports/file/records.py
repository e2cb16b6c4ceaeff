"""Where the records of a delimited text begin and end, quoted line ends and all. Pure.

Quotes count only where they begin a field, as everywhere but in PostgreSQL: 5" is a text. Where quotes are
used rightly, parity tells the line ends in quotes from those outside, for all of the text at once; only
around a quote that is out of place it goes from quote to quote.

A quoted field must end before a delimiter or a line end. One that doesn't, or that never ends, spoils the
line on which it opens, and nothing else: the next line begins a new record. So a forgotten quote costs one
row, and whoever cuts the file somewhere finds the same records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from app.imports.file.dialect import Dialect

Positions = np.ndarray[Any, np.dtype[np.int64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

LF, CR = 10, 13
# Quotes that are looked at together: few after one that was out of place, then more and more. Even numbers.
FEW, MANY = 64, 1 << 20


@dataclass(frozen=True)
class Records:
    """The records of a text, in its order: where each begins and ends (without its line end), and where the
    next one begins.

    `lines` counts the line feeds before each, so that 0 is the text's first line. By their place here,
    `unclosed` are those with a quoted field that is not closed as it should, and `returns` those with a
    carriage return, outside of quotes, that ends no line.
    """

    starts: Positions
    ends: Positions
    nexts: Positions
    lines: Positions
    unclosed: Positions
    returns: Positions

    def __len__(self) -> int:
        return len(self.starts)


def scan(text: bytes, dialect: Dialect, *, last: bool = True) -> Records:
    """All records of `text`, which begins with one; blank lines are records, too.

    `last`: the file ends here, and with it the last record. Otherwise more bytes follow, and what they may
    belong to is left out: `nexts[-1]` is where to go on.
    """
    data = np.frombuffer(text, np.uint8)
    feeds = np.flatnonzero(data == LF)
    escapes = _Escapes(text, data, dialect)
    breaks = escapes.without(feeds)
    if last and len(data) and (not len(breaks) or breaks[-1] != len(data) - 1):
        breaks = np.append(breaks, len(data))
    quotes = None
    if dialect.quote and dialect.quote.encode() in text:
        quotes = _Quotes(data, dialect, escapes, breaks, last)
    final = breaks if quotes is None else breaks[quotes.outside(breaks)]
    unclosed = np.searchsorted(final, quotes.spoilt) if quotes else final[:0]
    nexts = np.minimum(final + 1, len(data))
    starts = np.concatenate((np.zeros(min(1, len(nexts)), np.int64), nexts[:-1]))
    ends, returns = final, final[:0]
    if b"\r" in text:
        ends = _without_returns(data, starts, final)
        alone = escapes.without(_alone(data))
        alone = alone if quotes is None else alone[quotes.outside(alone)]
        place = np.searchsorted(final, alone)
        place, alone = place[place < len(ends)], alone[place < len(ends)]
        returns = np.unique(place[alone < ends[place]])
    return Records(starts, ends, nexts, np.searchsorted(feeds, starts), unclosed, returns)


def _without_returns(data: Bytes, starts: Positions, breaks: Positions) -> Positions:
    """A carriage return before a line feed, or before the text's end, belongs to the line end."""
    pairs = (breaks > starts) & (data[np.maximum(breaks - 1, 0)] == CR)
    ends: Positions = breaks - pairs
    return ends


def _alone(data: Bytes) -> Positions:
    found = np.flatnonzero(data == CR)
    following = data[np.minimum(found + 1, len(data) - 1)]
    alone: Positions = found[(following != LF)]
    return alone


class _Escapes:
    """Which characters are no signs, for an escape stands before them."""

    def __init__(self, text: bytes, data: Bytes, dialect: Dialect) -> None:
        self._escaped: Positions | None = None
        if dialect.escape and dialect.escape != dialect.quote and dialect.escape.encode() in text:
            found = np.flatnonzero(data == ord(dialect.escape))
            begins = np.diff(found, prepend=-2) != 1
            run = found[np.maximum.accumulate(np.where(begins, np.arange(len(found)), 0))]
            # Of several in a row, the second is what the first escapes.
            self._escaped = found[(found - run) % 2 == 0] + 1

    def without(self, positions: Positions) -> Positions:
        return positions if self._escaped is None else positions[~self.at(positions)]

    def at(self, positions: Positions) -> Flags:
        if self._escaped is None:
            return np.zeros(len(positions), np.bool_)
        found: Flags = np.isin(positions, self._escaped)
        return found


class _Quotes:
    """Which quotes begin and end fields, and which are text or out of place."""

    def __init__(
        self, data: Bytes, dialect: Dialect, escapes: _Escapes, breaks: Positions, last: bool
    ) -> None:
        assert dialect.quote is not None
        self._breaks, self._last = breaks, last
        self._found = found = escapes.without(np.flatnonzero(data == ord(dialect.quote)))
        border = np.zeros(256, np.bool_)
        border[[LF, CR, ord(dialect.delimiter)]] = True
        before = border[data[np.maximum(found - 1, 0)]] & ~escapes.at(found - 1)
        self._first = (found == 0) | before
        last_byte = len(data) - 1
        closes = (found == last_byte) | border[data[np.minimum(found + 1, last_byte)]]
        adjacent = (
            np.diff(found) == 1 if dialect.escape is None else np.zeros(max(0, len(found) - 1), np.bool_)
        )
        # The second of two that stand for one.
        self._second = np.concatenate((np.zeros(min(1, len(found)), np.bool_), adjacent))
        self._opens = self._first | self._second
        self._closes = closes | np.concatenate((adjacent, np.zeros(min(1, len(found)), np.bool_)))
        # Those that switch between inside and outside.
        self._switches = np.ones(len(found), np.bool_)
        self._spoilt: list[int] = []
        self._read()

    @property
    def spoilt(self) -> Positions:
        """The line ends of the records that have a quoted field which is not closed as it should."""
        return np.array(self._spoilt, np.int64)

    def outside(self, positions: Positions) -> Flags:
        """Which ones are outside of quotes."""
        found: Flags = np.searchsorted(self._found[self._switches], positions) % 2 == 0
        return found

    def _read(self) -> None:
        at = 0
        while at < len(self._found):
            at = self._even(at)
            if self._last and np.count_nonzero(self._switches) % 2:
                at = self._spoil(len(self._found) - 1)

    def _even(self, at: int) -> int:
        """Go on from a quote outside of quotes until there are no more."""
        window, after_text = FEW, True
        while at < len(self._found):
            odd = self._out_of_place(at, at + window, after_text)
            if odd is None:
                at, window, after_text = at + window, min(2 * window, MANY), False
                continue
            window, after_text = FEW, True
            if (odd - at) % 2:
                at = self._spoil(odd - 1)
            else:
                self._switches[odd] = False
                at = odd + 1
        return at

    def _out_of_place(self, at: int, until: int, after_text: bool) -> int | None:
        """The first quote that neither opens nor closes in its turn; the one `at` should open."""
        right = self._closes[at:until].copy()
        right[::2] = self._opens[at:until:2]
        if after_text:
            right[0] = self._first[at]
        first = int(np.argmin(right))
        return None if right[first] else at + first

    def _spoil(self, inside: int) -> int:
        """The field that this quote opens, or stands in as the second of two, is not closed as it should: the
        line where it opens is spoilt. Returns the next line's first quote."""
        opening = inside
        while self._second[opening]:
            opening -= 2
        line_end = int(np.searchsorted(self._breaks, self._found[opening]))
        if line_end == len(self._breaks):
            # More bytes follow.
            following = len(self._found)
        else:
            self._spoilt.append(int(self._breaks[line_end]))
            following = int(np.searchsorted(self._found, self._breaks[line_end]))
        self._switches[opening:following] = False
        return following
