"""Rows of Python values to batches by column, for formats that write typed columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice

import pyarrow as pa

from app.formats._values import as_text
from app.sources import Batch, Field
from app.sources._typed import Kind, arrow_type

# A float has every whole number up to here.
EXACT = 2**53
INT64 = range(-(2**63), 2**63)
WHOLE: dict[Kind, range] = {
    "int16": range(-(2**15), 2**15),
    "int32": range(-(2**31), 2**31),
    "int64": INT64,
}


def batches(
    columns: Sequence[str], rows: Iterable[Sequence[object]], size: int
) -> Iterator[tuple[list[Field], Batch]]:
    """Batches of `size` rows, each with its own fields: the next one may see other values."""
    for chunk in chunks(rows, size):
        fields = [field(name, values) for name, values in zip(columns, chunk, strict=True)]
        yield fields, batch(fields, chunk)


def chunks(rows: Iterable[Sequence[object]], size: int) -> Iterator[list[tuple[object, ...]]]:
    """The rows' columns, `size` rows at a time."""
    left = iter(rows)
    while chunk := list(islice(left, size)):
        yield list(zip(*chunk, strict=True))


def field(name: str, values: Iterable[object]) -> Field:
    """The kind that holds the values; where they disagree, the one that holds most of them."""
    kinds: Counter[Kind | None] = Counter(map(_kind, values))
    kinds.pop(None, None)
    if not kinds:
        return Field(name, "text")
    # Whole numbers among others are of their kind.
    for other in ("float64", "decimal"):
        if other in kinds:
            kinds[other] += kinds.pop("int64", 0)
    kind = kinds.most_common(1)[0][0]
    assert kind is not None
    return _decimal(name, values) if kind == "decimal" else Field(name, kind)


def batch(fields: Sequence[Field], columns: Sequence[Sequence[object]]) -> Batch:
    """The columns typed as their fields say; what a type can't hold is a stray."""
    arrays, strays = [], {}
    for at, (field, values) in enumerate(zip(fields, columns, strict=True)):
        type = arrow_type(field)
        if type == pa.string():
            arrays.append(pa.array(map(_clean, values), type))
            continue
        fits = [_fits(field, value) for value in values]
        held = [value if fit else None for value, fit in zip(values, fits, strict=True)]
        arrays.append(pa.array(held, type))
        if not all(fits):
            odd = [None if fit else value for value, fit in zip(values, fits, strict=True)]
            strays[at] = pa.array(map(_clean, odd), pa.string())
    return Batch(arrays, len(columns[0]) if columns else 0, strays)


def _clean(value: object) -> str | None:
    """As text. Halves of surrogate pairs are no characters, and Arrow holds none: they become `?`."""
    return None if value is None else as_text(value).encode(errors="replace").decode()


def _fits(field: Field, value: object) -> bool:
    match value:
        case None:
            return True
        case int() if field.kind in WHOLE and not isinstance(value, bool):
            return value in WHOLE[field.kind]
        case int() if field.kind == "float64" and not isinstance(value, bool):
            return -EXACT <= value <= EXACT
        case int() if field.kind == "decimal" and not isinstance(value, bool):
            return _digits_fit(field, Decimal(value))
        case Decimal() if field.kind == "decimal":
            return _digits_fit(field, value)
        case _:
            return _kind(value) == field.kind


def _digits_fit(field: Field, value: Decimal) -> bool:
    assert field.precision is not None
    assert field.scale is not None
    if not value.is_finite():
        return False
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    return -exponent <= field.scale and len(digits) + exponent <= field.precision - field.scale


def _decimal(name: str, values: Iterable[object]) -> Field:
    """As many digits behind the mark as these values have, and all there is room for before it."""
    exponents = [value.as_tuple().exponent for value in values if isinstance(value, Decimal)]
    scale = max((-exponent for exponent in exponents if isinstance(exponent, int)), default=0)
    return Field(name, "decimal", 38, scale) if 0 <= scale <= 19 else Field(name, "decimal")


def _kind(value: object) -> Kind | None:
    match value:
        case None:
            return None
        case bool():
            return "bool"
        case int():
            return "int64" if value in INT64 else "text"
        case float():
            return "float64"
        case Decimal():
            return "decimal"
        case datetime():
            return "instant" if value.tzinfo else "datetime"
        case date():
            return "date"
        case time():
            return "text" if value.tzinfo else "time"
        case bytes() | bytearray() | memoryview():
            return "bytes"
        case _:
            return "text"
