"""Checked values as a column of the table takes them, and those that it does not take. Pure.

What a column can hold is known from the catalogue; told here, of a whole chunk at once, it costs the database
nothing, and each refused row has its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.imports.table import encode
from app.imports.table.catalogue import Field

Values = Any
# Which encodings take which of an importer's types; others go as texts, and the server casts them.
_TAKEN = {
    "text": ("text",),
    "int": ("int2", "int4", "int8", "numeric", "float4", "float8", "text"),
    "decimal": ("numeric", "float4", "float8", "text"),
    "bool": ("bool", "text"),
    "date": ("date", "timestamp", "timestamptz", "text"),
    "datetime": ("timestamp", "timestamptz", "text"),
    "uuid": ("uuid", "text"),
    "json": ("jsonb", "text"),
}
_INTS = {"int2": 2**15, "int4": 2**31, "int8": 2**63}
_WIDEST = 38


@dataclass(frozen=True)
class Bad:
    """Rows that the column does not take: their places in the chunk, and why."""

    places: Any
    code: str
    message: str


@dataclass(frozen=True)
class Fit:
    """How values of one of the importer's types get into one column. `cast`: as texts, by the server."""

    field: Field
    kind: str

    @property
    def sent(self) -> str:
        return "text" if self.cast else self.field.sent

    @property
    def cast(self) -> bool:
        return self.field.sent not in _TAKEN[self.kind]

    def values(self, given: Values) -> tuple[Values, list[Bad]]:
        """As `encode` wants them; those of bad rows are of no use."""
        bad = list(self._bad(given))
        if bad:
            taken = np.ones(len(given), np.bool_)
            taken[np.concatenate([some.places for some in bad])] = False
            given = pc.if_else(pa.array(taken), given, pa.scalar(None, given.type))
        return self._sent(given), bad

    def _sent(self, given: Values) -> Values:
        if self.sent == "numeric":
            return _decimals(given)
        wanted = encode.ARROW[self.sent]
        if self.sent in ("timestamp", "timestamptz"):
            # Moments are UTC, and so is a day's beginning.
            naive = given.cast(pa.timestamp("us")) if pa.types.is_date(given.type) else given
            return naive.cast(pa.int64()).cast(wanted)
        # A whole number of more digits than a float has is rounded, as the table itself would do.
        return given.cast(wanted, safe=self.kind != "int" or not pa.types.is_floating(wanted))

    def _bad(self, given: Values) -> Iterator[Bad]:
        field = self.field
        if field.required and given.null_count:
            yield self._where(pc.is_null(given), "required", f"{field.name} must have a value.")
        if field.sent in _INTS and self.kind == "int" and field.sent != "int8":
            limit = _INTS[field.sent]
            beyond = pc.or_(pc.greater_equal(given, limit), pc.less(given, -limit))
            yield self._where(beyond, "out_of_range", f"The table takes {-limit:,} to {limit - 1:,} here.")
        if field.precision and self.kind in ("int", "decimal"):
            whole, behind = field.precision[0] - field.precision[1], field.precision[1]
            beyond = _too_large(given, whole, behind)
            if beyond is not None:
                message = f"The table takes {whole} digits before the decimal mark here."
                yield self._where(beyond, "out_of_range", message)
        length = field.length if pa.types.is_string(given.type) else None
        if length is not None and (pc.max(pc.binary_length(given)).as_py() or 0) > length:
            longer = pc.greater(pc.utf8_length(given), length)
            yield self._where(longer, "too_long", f"The table takes at most {length:,} characters here.")
        if field.labels and self.kind == "text":
            unknown = pc.invert(pc.is_in(given, pa.array(field.labels, pa.string())))
            message = f"The table takes only {', '.join(field.labels)} here."
            yield self._where(pc.and_(unknown, pc.is_valid(given)), "choice", message)

    def _where(self, mask: Values, code: str, message: str) -> Bad:
        return Bad(np.flatnonzero(pc.fill_null(mask, False)), code, message)


def _decimals(given: Values) -> Values:
    """decimal128 with just the digits that are needed; texts where it has too few."""
    if pa.types.is_integer(given.type):
        return given.cast(pa.decimal128(19, 0))
    whole, behind = _digits(given)
    if whole + behind > _WIDEST:
        return given
    return given.cast(pa.decimal128(max(1, whole + behind), behind))


def _digits(texts: Values) -> tuple[int, int]:
    """The most characters before the mark, and behind it."""
    marks = pc.find_substring(texts, ".")
    sizes = pc.binary_length(texts)
    none = pc.less(marks, 0)
    whole = pc.max(pc.if_else(none, sizes, marks)).as_py() or 0
    behind = pc.max(pc.if_else(none, 0, pc.subtract(pc.subtract(sizes, marks), 1))).as_py() or 0
    return whole, behind


def _too_large(given: Values, whole: int, behind: int) -> Values | None:
    """Which numbers have more than `whole` digits before the mark once rounded to `behind`; None: none."""
    texts = given.cast(pa.string())
    if _digits(texts)[0] < whole:
        return None
    # Few are so long that rounding could matter.
    marks = pc.find_substring(texts, ".")
    sizes = pc.if_else(pc.less(marks, 0), pc.binary_length(texts), marks)
    places = np.flatnonzero(pc.fill_null(pc.greater_equal(sizes, whole), False))
    unit, limit = Decimal(1).scaleb(-behind), Decimal(1).scaleb(whole)
    mask = np.zeros(len(given), np.bool_)
    with localcontext(prec=4 * _WIDEST, rounding=ROUND_HALF_UP):
        for place in places.tolist():
            mask[place] = abs(Decimal(texts[place].as_py()).quantize(unit)) >= limit
    return pa.array(mask)
