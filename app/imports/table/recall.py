"""Whether keys were met before: surely not, or perhaps. Pure, and of a fixed size in memory.

A Bloom filter of which each key concerns one word, so that it waits for the memory once; filled and asked for
a whole chunk at once. Among ten million keys one in 1,500 new ones is taken for an old one; whoever must know
looks these few up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

# 32 MiB as words of 64 bits, so many as this power of two; each key sets so many bits of its word.
WORDS, MARKS = 22, 6
# Rows whose bytes are multiplied at once, so that long keys take little memory; and places in a text that
# are told apart.
ROWS, PLACES = 4096, 1024

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


def can_tell(type: Any) -> bool:
    """Whether keys of this Arrow type can be asked for: equal ones must look the same."""
    return bool(pa.types.is_integer(type) or pa.types.is_string(type))


class Recall:
    def __init__(self) -> None:
        self._words = np.zeros(1 << WORDS, np.uint64)
        chance = np.random.default_rng(20_261)
        self._factors = chance.integers(0, 1 << 64, PLACES, np.uint64, endpoint=False) | np.uint64(1)

    def meet(self, columns: Sequence[Any]) -> Flags:
        """Which rows' keys may have been met in an earlier call; remembers all. `columns` make up the key."""
        hashes = np.zeros(len(columns[0]), np.uint64)
        for column in columns:
            hashes = _mixed(hashes * np.uint64(31) + self._hashed(column))
        place = (hashes >> np.uint64(64 - WORDS)).astype(np.intp)
        marks = np.zeros(len(hashes), np.uint64)
        for number in range(MARKS):
            marks |= np.uint64(1) << ((hashes >> np.uint64(6 * number)) & np.uint64(63))
        before: Flags = (self._words[place] & marks) == marks
        while len(place):
            # Of several for one word only the last one is written: the others once more.
            self._words[place] |= marks
            missing = (self._words[place] & marks) != marks
            place, marks = place[missing], marks[missing]
        return before

    def _hashed(self, column: Any) -> Hashes:
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if pa.types.is_integer(whole.type):
            numbers: Hashes = whole.cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64)
            return numbers
        slices = [whole.slice(start, ROWS) for start in range(0, len(whole), ROWS)]
        return np.concatenate([self._hashed_texts(some) for some in slices])

    def _hashed_texts(self, texts: Any) -> Hashes:
        """Each byte times a factor of its place, summed up."""
        offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[first:last]
        starts = offsets.astype(np.int64) - first
        sizes = np.diff(starts)
        place = np.arange(last - first) - np.repeat(starts[:-1], sizes)
        sums = np.zeros(last - first + 1, np.uint64)
        np.cumsum((data.astype(np.uint64) + np.uint64(1)) * self._factors[place % PLACES], out=sums[1:])
        hashes: Hashes = sums[starts[1:]] - sums[starts[:-1]]
        return hashes


def _mixed(hashes: Hashes) -> Hashes:
    """Every bit depends on every other one (the finish of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
