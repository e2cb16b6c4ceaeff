"""Cells as typed values, column by column. Pure.

The usual ways to write a value are read by Arrow, all rows at once. What it can't read is looked at again,
first by patterns and then, each distinct text once, in Python: rare, or wrong.

int becomes int64, bool bool, date date32, and datetime a timestamp in microseconds UTC. text, decimal, uuid
and json stay texts: a decimal without groups, with "." for its mark and no sign but "-", so that it keeps its
digits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.formats._spreadsheet import Rules
from app.importers import Column
from app.imports.dialect import Dialect

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
# Digits of a decimal, on each side of its mark.
DIGITS = 38
# Years for which Arrow knows what clocks showed: those that time zones list one by one, not by a rule.
KNOWN = (1902, 2036)
TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
FALSE = frozenset({"false", "f", "no", "n", "off", "0"})

_EXAMPLES = {
    "int": ("is no whole number", "42"),
    "bool": ("is neither true nor false", "true or false"),
    "uuid": ("is no UUID", "123e4567-e89b-12d3-a456-426614174000"),
}
_DAYS = {"iso": "2026-01-31", "dmy": "31.01.2026", "mdy": "01/31/2026"}
_ISO_DAY = r"(?P<y>\d{4})(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<d>\d{1,2})"
_DAY = {
    "iso": _ISO_DAY,
    "dmy": r"(?P<d>\d{1,2})(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<y>\d{4}|\d{2})",
    "mdy": r"(?P<m>\d{1,2})(?P<s>[-/.])(?P<d>\d{1,2})(?P=s)(?P<y>\d{4}|\d{2})",
}
_CLOCK = r"(?P<H>\d{1,2}):(?P<M>\d{2})(:(?P<S>\d{2})([.,](?P<f>\d{1,9}))?)?(\s?(?P<half>[AaPp])\.?[Mm]\.?)?"
_ZONE = r"\s?(?P<zone>[Zz]|UTC|[+-]\d{2}(:?\d{2})?)?"
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
_ESCAPED_NUL = re.compile(r"(?<!\\)(\\\\)*\\u0000")
# What may stand between groups of three digits, beside the mark's counterpart.
_GROUPING = "' \u00a0\u2009\u202f\u2019"


@dataclass(frozen=True)
class Typed:
    """A column's values, NULL where a cell is empty or `bad`: rows whose text is no such value."""

    values: Cells
    bad: np.ndarray[Any, np.dtype[np.int64]]


class Reader:
    """Reads the cells of one column."""

    def __init__(self, column: Column, dialect: Dialect) -> None:
        self._column, self._dialect = column, dialect
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
        kind, said = self._column.type, shown(text)
        if kind == "int" and self._exact(text) is not None:
            return f"{said} has a fraction or is too large for a whole number of 64 bits."
        if kind == "decimal":
            if self._number(text) is not None:
                return f"{said} has more than {DIGITS} digits on one side of its decimal mark."
            return f"{said} is no number; write it like 1234{self._dialect.decimal}50."
        if kind == "json":
            return f"{said} is no JSON: {_why_no_json(text)}."
        day = _DAYS[self._dialect.dates]
        if kind in ("date", "datetime"):
            what, example = ("date", day) if kind == "date" else ("date with a time", f"{day} 13:45:00")
            return f"{said} is no {what}; write it like {example}."
        what, example = _EXAMPLES[kind]
        return f"{said} {what}; write it like {example}."

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
        return _mostly(texts, "^-?[0-9]{1,18}$", pa.int64(), self._whole)

    def _decimal(self, texts: Cells) -> Cells:
        mark = self._dialect.decimal
        if not raw(texts).translate(None, b"0123456789-" + mark.encode()):
            plain = pc.replace_substring(texts, mark, ".") if mark != "." else texts
            longest = pc.max(pc.binary_length(plain)).as_py() or 0
            if longest <= DIGITS and _cast(plain, pa.float64()) is not None and not _bare_points(plain):
                return plain
        found = _mostly(texts, rf"^-?[0-9]{{1,18}}([{mark}][0-9]{{1,18}})?$", pa.string(), self._exact)
        return found if mark == "." else pc.replace_substring(found, mark, ".")

    def _bool(self, texts: Cells) -> Cells:
        return _each(texts, _truth, pa.bool_())

    def _date(self, texts: Cells) -> Cells:
        values = _cast(texts, pa.date32())
        if values is None or not _within_calendar(values):
            return _mostly(texts, f"^{_SURE_DAY}$", pa.date32(), self._day)
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
            return _each(arranged, self._moment, MOMENT)
        return _with_others(values, arranged, matching, self._moment)

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
        return pc.replace_with_mask(values, others, _each(texts.filter(others), self._moment, MOMENT))

    def _uuid(self, texts: Cells) -> Cells:
        return pc.ascii_lower(_mostly(texts, _HYPHENATED, pa.string(), _uuid))

    def _json(self, texts: Cells) -> Cells:
        return _each(texts, lambda text: None if _why_no_json(text) else text, pa.string())

    def _whole(self, text: str) -> int | None:
        exact = self._exact(text)
        value = Decimal(exact) if exact is not None else None
        if value is None or value != value.to_integral_value() or not -(2**63) <= value < 2**63:
            return None
        return int(value)

    def _exact(self, text: str) -> str | None:
        number = self._number(text)
        if number is None or ("e" not in number and len(number) <= DIGITS):
            return number
        digits = format(Decimal(number), "f")
        whole, _, fraction = digits.lstrip("-").partition(".")
        return digits if max(len(whole), len(fraction)) <= DIGITS else None

    def _number(self, text: str) -> str | None:
        """As Python and PostgreSQL write it; None if it is none."""
        found = self._numbers.fullmatch(text.replace("\N{MINUS SIGN}", "-"))
        if not found:
            return None
        whole = re.sub(r"\D", "", found["whole"] or found["groups"] or "0")
        fraction = f".{found['fraction']}" if found["fraction"] else ""
        exponent = f"e{found['exponent']}" if found["exponent"] else ""
        return f"{'-' if found['sign'] == '-' else ''}{whole}{fraction}{exponent}"

    @cached_property
    def _numbers(self) -> re.Pattern[str]:
        mark = re.escape(self._dialect.decimal)
        between = re.escape(("," if self._dialect.decimal == "." else ".") + _GROUPING)
        return re.compile(
            rf"(?P<sign>[-+]?)(?={mark}?[0-9])"
            rf"((?P<groups>[0-9]{{1,3}}(?P<between>[{between}])[0-9]{{3}}((?P=between)[0-9]{{3}})*)"
            rf"|(?P<whole>[0-9]*))({mark}(?P<fraction>[0-9]*))?([eE](?P<exponent>[-+]?[0-9]{{1,3}}))?"
        )

    def _day(self, text: str) -> date | None:
        found = self._parts(text)
        if found is None or found["zone"] or found["half"] or any(int(found[name] or 0) for name in "HMSf"):
            return None
        return _date(found)

    def _moment(self, text: str) -> datetime | None:
        found = self._parts(text)
        day = _date(found) if found else None
        if found is None or day is None:
            return None
        hour, half = int(found["H"] or 0), (found["half"] or "").lower()
        if half:
            if not 1 <= hour <= 12:
                return None
            hour = hour % 12 + 12 * (half == "p")
        fraction = (found["f"] or "").ljust(6, "0")
        if fraction[6:].strip("0"):
            return None
        try:
            clock = datetime(
                *(day.year, day.month, day.day, hour, int(found["M"] or 0), int(found["S"] or 0)),
                int(fraction[:6]),
                tzinfo=self._zone(found["zone"]),
            )
            return clock.astimezone(UTC)
        except (ValueError, OverflowError):
            return None

    def _zone(self, offset: str | None) -> Any:
        if not offset:
            return ZoneInfo(self._dialect.zone)
        return UTC if offset.upper() in ("Z", "UTC") else datetime.strptime(_minutes(offset), "%z").tzinfo

    def _parts(self, text: str) -> re.Match[str] | None:
        found = (pattern.fullmatch(text) for pattern in self._days)
        return next(filter(None, found), None)

    @cached_property
    def _days(self) -> list[re.Pattern[str]]:
        """The dialect's way first; ISO's can't be mistaken for another."""
        days = dict.fromkeys((_DAY[self._dialect.dates], _ISO_DAY))
        return [re.compile(rf"{day}([ T,]\s?{_CLOCK}{_ZONE})?", re.ASCII) for day in days]


def raw(cells: Cells) -> bytes:
    """The bytes of all its texts."""
    data = cells.buffers()[2]
    if data is None or not len(cells):
        return b""
    offsets = np.frombuffer(cells.buffers()[1], np.int32)
    first, last = int(offsets[cells.offset]), int(offsets[cells.offset + len(cells)])
    return bytes(data.slice(first, last - first).to_pybytes())


def shown(text: str) -> str:
    """A cell in a message."""
    short = text if len(text) <= 60 else text[:59] + "…"
    return f"'{short}'" if short.isprintable() else repr(short)


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


def _truth(text: str) -> bool | None:
    word = text.lower()
    return True if word in TRUE else False if word in FALSE else None


def _date(found: re.Match[str]) -> date | None:
    year = int(found["y"])
    if len(found["y"]) == 2:
        year += 1900 if year >= 69 else 2000
    try:
        return date(year, int(found["m"]), int(found["d"]))
    except ValueError:
        return None


def _minutes(offset: str) -> str:
    return offset if len(offset) > 3 else offset + "00"


def _uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _why_no_json(text: str) -> str:
    """ "" if it is."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return f"{error.msg} (character {error.pos + 1:,})"
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    if "\\u" not in text:
        return ""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "it has half a character (a lone surrogate)"
    return "it has a NUL character" if _ESCAPED_NUL.search(text) else ""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
