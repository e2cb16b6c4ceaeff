"""Batches as the rows of a sheet's XML: a column at a time, by Arrow's own kernels.

Every cell is typed by its value: what no number, date or truth value of a sheet can hold is text.
Texts stand in the row itself (no table of shared texts, which would have to be held) and are never formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from app.formats import _zones
from app.formats._spreadsheet import LARGEST
from app.formats._values import as_text
from app.sources import Batch, Field
from app.sources._typed import Kind

# A cell holds so many UTF-16 units of text; what is longer ends with the mark.
TEXT_LIMIT = 32_767
CUT_MARK = "… (cut)"
# Styles of the workbook, by their number; decimals with 1 to 15 digits behind the mark come after these.
PLAIN, HEADER, WHOLE, DATE, DATETIME, TIME = range(6)
SCALES = range(1, 16)
# Days between 1970-01-01 and the sheet's day 0, and the range that a sheet knows: 1900 to 9999.
_EPOCH, _FIRST, _LAST = 25_569, -25_567, 2_932_896
# Before this day a sheet counts one less: it believes in a 29 February 1900.
_MARCH_1900 = -25_508
_DAY = 86_400_000_000  # microseconds
_STYLES: dict[Kind, int] = {
    "int16": WHOLE,
    "int32": WHOLE,
    "int64": WHOLE,
    "date": DATE,
    "datetime": DATETIME,
    "instant": DATETIME,
    "time": TIME,
}
# A decimal of no more digits before its mark than a sheet keeps.
_NUMBER = r"^-?\d{1,15}(\.\d+)?(E-\d+)?$"
# What XML or OOXML's own escape needs a second look at.
_ODD = bytes([*range(9), *range(11, 32), *b"&<>_", 0xEF])
_USUAL = bytes(set(range(256)) - set(_ODD))
_TEXT = '" t="inlineStr"><is><t xml:space="preserve">'
_ENTITIES = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}
_LOOKS_ESCAPED = r"_(x[0-9A-Fa-f]{4})"

Array: TypeAlias = "pa.Array[Any]"


class Sheet:
    """Makes rows of cells. `cut` counts the texts that were longer than a cell."""

    def __init__(self, zone: str) -> None:
        self._zone = zone
        self.cut = 0

    def rows(self, fields: Sequence[Field], batch: Batch, first: int) -> memoryview:
        """The batch's rows as XML, the first one numbered `first`."""
        numbers = pc.cast(pa.array(range(first, first + batch.rows), pa.int32()), pa.string())
        cells = [
            self._cells(field, column, batch.strays.get(at), letters(at), numbers)
            for at, (field, column) in enumerate(zip(fields, batch.columns, strict=True))
        ]
        return _bytes(
            pc.binary_join_element_wise(
                *('<row r="', numbers, '">', *cells, "</row>", ""), null_handling="replace"
            )
        )

    def header(self, names: Sequence[str]) -> bytes:
        texts = self._escaped(pa.array(names, pa.string())).to_pylist()
        cells = (
            f'<c r="{letters(at)}1" s="{HEADER}{_TEXT}{text}</t></is></c>' for at, text in enumerate(texts)
        )
        return f'<row r="1">{"".join(cells)}</row>'.encode()

    def _cells(self, field: Field, column: Array, strays: Array | None, letter: str, numbers: Array) -> Array:
        """One column's cells, null where there is no value."""
        values, texts = self._split(field, column)
        style = f' s="{style_of(field)}"' if style_of(field) else ""
        kind = ' t="b"' if field.kind == "bool" else ""
        start = f'<c r="{letter}'
        found: list[Array] = []
        if values is not None:
            found.append(_joined(start, numbers, f'"{style}{kind}><v>', values, "</v></c>"))
        found += [
            _joined(start, numbers, _TEXT, self._escaped(text), "</t></is></c>")
            for text in (texts, strays)
            if text is not None
        ]
        return found[0] if len(found) == 1 else pc.coalesce(*found)

    def _split(self, field: Field, column: Array) -> tuple[Array | None, Array | None]:
        """What goes into a column's number cells and what into its text cells, null where it doesn't."""
        match field.kind:
            case "bool":
                return pc.if_else(column, "1", "0"), None
            case "int16" | "int32" | "int64":
                texts = pc.cast(column, pa.string())
                return _divided(_between(column, -LARGEST, LARGEST), texts, lambda: texts)
            case "float32" | "float64":
                texts = pc.cast(column, pa.string())
                return _divided(_all(pc.is_finite(column)), texts, lambda: _without_number(column))
            case "decimal":
                texts = pc.cast(column, pa.string())
                return _divided(_all(pc.match_substring_regex(texts, _NUMBER)), texts, lambda: texts)
            case "date":
                days = pc.cast(column, pa.int32())
                fits = _between(days, _FIRST, _LAST)
                return _divided(
                    fits, pc.cast(_serial(days, 1), pa.string()), lambda: pc.cast(column, pa.string())
                )
            case "datetime" | "instant":
                local = column if column.type.tz is None else _zones.local(column, self._zone)
                ticks = pc.cast(local, pa.int64())
                fits = _between(ticks, _FIRST * _DAY, (_LAST + 1) * _DAY - 1)
                # A sheet knows milliseconds; rounded up, the last of 9999 would be no day at all.
                ticks = pc.subtract(ticks, _remainder(ticks, 1_000))
                days = pc.divide(pc.cast(_serial(ticks, _DAY), pa.float64(), safe=False), float(_DAY))
                return _divided(fits, pc.cast(days, pa.string()), lambda: _plain(local))
            case "time":
                ticks = pc.cast(pc.cast(column, pa.int64()), pa.float64())
                return pc.cast(pc.divide(ticks, float(_DAY)), pa.string()), None
            case "bytes":
                texts = (None if value is None else as_text(value) for value in column.to_pylist())
                return None, pa.array(texts, pa.string())
            case _:
                return None, column

    def _escaped(self, texts: Array) -> Array:
        """Fit for a cell of XML: cut to what a cell holds, and every character one that XML knows."""
        if (pc.max(pc.binary_length(texts)).as_py() or 0) > TEXT_LIMIT:
            texts = pa.array(map(self._shortened, texts.to_pylist()), pa.string())
        data = bytes(_bytes(texts))
        odd = data.translate(None, _USUAL)
        if not odd:
            return texts
        if b"_x" in data:
            texts = pc.replace_substring_regex(texts, _LOOKS_ESCAPED, r"_x005F_\1")
        for byte in sorted(set(odd) - {0xEF, ord("_")}):
            texts = pc.replace_substring(texts, chr(byte), _ENTITIES.get(byte, f"_x{byte:04X}_"))
        for none in "\ufffe\uffff" if 0xEF in odd else "":
            texts = pc.replace_substring(texts, none, f"_x{ord(none):04X}_")
        return texts

    def _shortened(self, text: str | None) -> str | None:
        units = (text or "").encode("utf-16-le")
        if len(units) <= 2 * TEXT_LIMIT:
            return text
        self.cut += 1
        return units[: 2 * (TEXT_LIMIT - len(CUT_MARK))].decode("utf-16-le", errors="ignore") + CUT_MARK


def letters(at: int) -> str:
    """The name of a column: A, B, … Z, AA …; `at` from 0."""
    return (letters(at // 26 - 1) if at >= 26 else "") + chr(ord("A") + at % 26)


def style_of(field: Field) -> int:
    # Python's decimals have 38 digits, and as many behind the mark as the longest: nobody chose these.
    if field.kind == "decimal" and field.precision not in (None, 38) and field.scale in SCALES:
        assert field.scale is not None
        return TIME + field.scale
    return _STYLES.get(field.kind, PLAIN)


def _divided(fits: Array | None, numbers: Array, texts: Callable[[], Array]) -> tuple[Array, Array | None]:
    """Numbers where they fit, texts elsewhere; `fits` is None if all do."""
    if fits is None:
        return numbers, None
    return pc.if_else(fits, numbers, None), pc.if_else(fits, None, texts())


def _between(column: Array, least: int, most: int) -> Array | None:
    """Which values lie there; None if all do."""
    found = pc.min_max(column).as_py()
    if found["min"] is None or (least <= found["min"] and found["max"] <= most):
        return None
    return pc.and_(pc.greater_equal(column, least), pc.less_equal(column, most))


def _all(fits: Array) -> Array | None:
    return None if pc.all(fits, min_count=0).as_py() else fits


def _serial(column: Array, day: int) -> Array:
    """A sheet's day numbers in `day`-ths; the column counts in these from 1970. Wraps where none fits."""
    early = pc.cast(pc.less(column, _MARCH_1900 * day), column.type)
    shift = pa.scalar(day, column.type)
    return pc.subtract(pc.add(column, pc.multiply(shift, _EPOCH)), pc.multiply(early, shift))


def _remainder(column: Array, divisor: int) -> Array:
    return pc.subtract(column, pc.multiply(pc.divide(column, divisor), divisor))


def _plain(column: Array) -> Array:
    """Dates and times as text, whole seconds without their zeros."""
    return pc.replace_substring_regex(pc.cast(column, pa.string()), r"\.0+$", "")


def _without_number(column: Array) -> Array:
    return pc.if_else(pc.is_nan(column), "NaN", pc.if_else(pc.greater(column, 0), "Infinity", "-Infinity"))


def _joined(*parts: Array | str) -> Array:
    return pc.binary_join_element_wise(*parts, "")


def _bytes(texts: Array) -> memoryview:
    """The texts one behind the other, without a copy."""
    _, offsets, data = texts.buffers()
    ends = memoryview(offsets).cast("i")
    return memoryview(data)[ends[texts.offset] : ends[texts.offset + len(texts)]]
