"""Cells as typed values, column by column. Pure.

The usual ways to write a value are read by Arrow, all rows at once. What it can't read is looked at again,
first by patterns and then, each distinct text once, in Python: rare, or wrong.

int becomes int64, bool bool, date date32, and datetime a timestamp in microseconds UTC. text, decimal, uuid
and json stay texts: a decimal without groups, with "." for its mark and no sign but "-", so that it keeps its
digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.formats._spreadsheet import Rules
from app.importers import Column
from app.imports.file.dialect import Dialect
from app.imports.file.single import DIGITS, Single, truth, uuid, why_no_json

Cells: TypeAlias = "pa.Array[Any]"
Read = Callable[[str], Any]

MOMENT = pa.timestamp("us", "UTC")
TYPES = {
    "text": pa.string(),
    "int": pa.int64(),
    "decimal": pa.string(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "datetime": MOMENT,
    "uuid": pa.string(),
    "json": pa.string(),
}
# Years for which Arrow knows what clocks showed: those that time zones list one by one, not by a rule.
KNOWN = (1902, 2036)
# In an ISO file days and months have a place of their own: Arrow reads them once they are in it.
_SWAPPED = {
    "dmy": (r"^(\d\d)[-/.](\d\d)[-/.](\d{4})", r"\3-\2-\1"),
    "mdy": (r"^(\d\d)[-/.](\d\d)[-/.](\d{4})", r"\3-\1-\2"),
}
# What Arrow reads for sure; other days it may read, too, but one that it doesn't stops it for all.
_SURE_DAY = "[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
_SURE_MOMENT = _SURE_DAY + "[ T]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6})?)?"
_SURE_OFFSET = "(Z|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)"
_OFFSET = re.compile(r"[Zz]$|:.*[+-]\d{2}(:?\d{2})?$", re.ASCII)
WHITE = b" \t\n\v\f\r"
_HYPHENATED = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"


@dataclass(frozen=True)
class Typed:
    """A column's values, NULL where a cell is empty or `bad`: rows whose text is no such value."""

    values: Cells
    bad: np.ndarray[Any, np.dtype[np.int64]]


class Reader:
    """Reads the cells of one column."""

    def __init__(self, column: Column, dialect: Dialect) -> None:
        self._column, self._dialect, self._single = column, dialect, Single(dialect)
        self._read: Callable[[Cells], Cells] = getattr(self, f"_{column.type}")

    def read(self, cells: Cells) -> Typed:
        """`cells` are strings; one that is empty is NULL, unless it is of a column of texts."""
        texts = self._unmarked(cells)
        if self._column.type != "text":
            texts = _filled(texts)
        elif self._column.required or self._column.default is not None:
            texts = pc.if_else(pc.equal(texts, ""), None, texts)
        values = self._values(texts)
        lost = values.null_count - texts.null_count
        bad = np.flatnonzero(pc.and_(pc.is_valid(texts), pc.is_null(values))) if lost else np.zeros(0, int)
        return Typed(values, bad)

    def complaint(self, text: str) -> str:
        """What is wrong with a cell that is no such value."""
        return self._single.complaint(self._column.type, text)

    def _unmarked(self, cells: Cells) -> Cells:
        """Without the apostrophes that keep spreadsheets from guessing."""
        if not self._dialect.apostrophes or b"'" not in raw(cells):
            return cells
        rules = Rules(self._dialect.decimal)
        marked = pc.fill_null(pc.starts_with(cells, "'"), False)
        bare = [rules.unmarked(text) for text in cells.filter(marked).to_pylist()]
        return pc.replace_with_mask(cells, marked, pa.array(bare, pa.string()))

    def _values(self, texts: Cells) -> Cells:
        """Days repeat, and are read once each where that takes more than one look."""
        days = self._column.type == "datetime" and self._dialect.dates != "iso"
        if days or self._column.type == "date":
            coded = pc.dictionary_encode(texts)
            if len(coded.dictionary) * 2 < len(texts):
                return self._read(coded.dictionary).take(coded.indices)
        return self._read(texts)

    def _text(self, texts: Cells) -> Cells:
        return texts

    def _int(self, texts: Cells) -> Cells:
        if not raw(texts).translate(None, b"0123456789-"):
            values = _cast(texts, pa.int64())
            if values is not None:
                return values
        return _mostly(texts, "^-?[0-9]{1,18}$", pa.int64(), self._single.whole)

    def _decimal(self, texts: Cells) -> Cells:
        mark = self._dialect.decimal
        if not raw(texts).translate(None, b"0123456789-" + mark.encode()):
            plain = pc.replace_substring(texts, mark, ".") if mark != "." else texts
            longest = pc.max(pc.binary_length(plain)).as_py() or 0
            if longest <= DIGITS and _cast(plain, pa.float64()) is not None and not _bare_points(plain):
                return plain
        found = _mostly(texts, rf"^-?[0-9]{{1,18}}([{mark}][0-9]{{1,18}})?$", pa.string(), self._single.exact)
        return found if mark == "." else pc.replace_substring(found, mark, ".")

    def _bool(self, texts: Cells) -> Cells:
        return _each(texts, truth, pa.bool_())

    def _date(self, texts: Cells) -> Cells:
        values = _cast(texts, pa.date32())
        if values is None or not _within_calendar(values):
            return _mostly(texts, f"^{_SURE_DAY}$", pa.date32(), self._single.day)
        return values

    def _datetime(self, texts: Cells) -> Cells:
        if self._dialect.dates in _SWAPPED:
            pattern, swapped = _SWAPPED[self._dialect.dates]
            arranged = pc.replace_substring_regex(texts, pattern, swapped)
        else:
            arranged = texts
        offsets = self._has_offset(arranged)
        values = self._cast_moments(arranged, offsets)
        if values is not None and _within_calendar(values):
            return values
        sure = f"^{_SURE_MOMENT}{_SURE_OFFSET if offsets else ''}$"
        matching = pc.fill_null(pc.match_substring_regex(arranged, sure), False)
        values = self._cast_moments(pc.if_else(matching, arranged, None), offsets)
        if values is None:
            return _each(arranged, self._single.moment, MOMENT)
        return _with_others(values, arranged, matching, self._single.moment)

    def _cast_moments(self, texts: Cells, offsets: bool) -> Cells | None:
        if offsets:
            return _cast(texts, MOMENT)
        local = _cast(texts, pa.timestamp("us"))
        return None if local is None else self._moments(local, texts)

    def _has_offset(self, texts: Cells) -> bool:
        """Whether the first one has: Arrow takes its time to say of each that it doesn't."""
        first = texts.drop_null()[:1].to_pylist()
        return bool(first and _OFFSET.search(first[0]))

    def _moments(self, local: Cells, texts: Cells) -> Cells | None:
        """Of an hour that a clock shows twice, the first; None if one is among them that it leaves out."""
        zone = self._dialect.zone
        try:
            zoned = pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="raise")
        except pa.ArrowInvalid:
            return None
        values = pc.cast(zoned, MOMENT)
        years = pc.year(local)
        known = pc.and_(pc.greater_equal(years, KNOWN[0]), pc.less_equal(years, KNOWN[1]))
        if zone == "UTC" or pc.all(known).as_py() in (True, None):
            return values
        others = pc.fill_null(pc.invert(known), False)
        return pc.replace_with_mask(values, others, _each(texts.filter(others), self._single.moment, MOMENT))

    def _uuid(self, texts: Cells) -> Cells:
        return pc.ascii_lower(_mostly(texts, _HYPHENATED, pa.string(), uuid))

    def _json(self, texts: Cells) -> Cells:
        return _each(texts, lambda text: None if why_no_json(text) else text, pa.string())


def raw(cells: Cells) -> bytes:
    """The bytes of all its texts."""
    data = cells.buffers()[2]
    if data is None or not len(cells):
        return b""
    offsets = np.frombuffer(cells.buffers()[1], np.int32)
    first, last = int(offsets[cells.offset]), int(offsets[cells.offset + len(cells)])
    return bytes(data.slice(first, last - first).to_pybytes())


def _filled(texts: Cells) -> Cells:
    """Without white space around, and NULL where nothing is left."""
    data = raw(texts)
    if not data.isascii() or any(sign in data for sign in WHITE):
        texts = pc.utf8_trim_whitespace(texts)
    if pc.min(pc.binary_length(texts)).as_py() == 0:
        texts = pc.if_else(pc.equal(texts, ""), None, texts)
    return texts


def _cast(texts: Cells, type: pa.DataType) -> Cells | None:
    try:
        return pc.cast(texts, type)
    except pa.ArrowInvalid:
        return None


def _bare_points(numbers: Cells) -> bool:
    """Whether one has no digit before its point, or none behind it."""
    bare = (pc.starts_with(numbers, "."), pc.starts_with(numbers, "-."), pc.ends_with(numbers, "."))
    return any(pc.any(found).as_py() for found in bare)


def _mostly(texts: Cells, usual: str, type: pa.DataType, read: Read) -> Cells:
    """Those that match are cast, the others read one by one."""
    matching = pc.fill_null(pc.match_substring_regex(texts, usual), False)
    values = pc.cast(pc.if_else(matching, texts, None), type)
    return _with_others(values, texts, matching, read)


def _with_others(values: Cells, texts: Cells, matching: Cells, read: Read) -> Cells:
    others = pc.and_(pc.invert(matching), pc.is_valid(texts))
    return pc.replace_with_mask(values, others, _each(texts.filter(others), read, values.type))


def _each(texts: Cells, read: Read, type: pa.DataType) -> Cells:
    """Each distinct text is read once."""
    coded = pc.dictionary_encode(texts)
    values = pa.array([read(text) for text in coded.dictionary.to_pylist()], type)
    return values.take(coded.indices)


def _within_calendar(values: Cells) -> bool:
    """PostgreSQL and Python know no year 0."""
    least = pc.year(pc.min(values)).as_py()
    return least is None or least >= 1
