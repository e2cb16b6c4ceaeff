"""What Arrow's columns hold, and neither Python's calendar nor a decimal of 38 digits does: strays, as text.

The texts are as PostgreSQL writes them: `infinity`, `290000-01-01`, `0044-03-15 BC`, `24:00:00`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

Array: TypeAlias = "pa.Array[Any]"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS = range((date.min - _EPOCH.date()).days, (date.max - _EPOCH.date()).days + 1)
# The calendar repeats itself after so many years.
_CYCLE, _CYCLE_DAYS = 400, 146_097
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}
_DAY_SECONDS = 86_400
# The ends of time, by how many bits they are counted in.
_FOREVER = {32: 2**31 - 1, 64: 2**63 - 1}
_MOST = 10**38 - 1


def divided(column: Array) -> tuple[Array, Array | None]:
    """The column, null where a value is a stray, and the strays, null elsewhere; None if there are none."""
    type = column.type
    if pa.types.is_date32(type):
        return _split(column, pa.int32(), _DAYS.start, _DAYS.stop - 1, _day)
    if pa.types.is_timestamp(type) and type.unit in _UNITS:
        a_day = _DAY_SECONDS * _UNITS[type.unit]
        zone = "+00" if type.tz else ""
        return _split(
            *(column, pa.int64(), _DAYS.start * a_day, _DAYS.stop * a_day - 1),
            lambda ticks: _moment(ticks, a_day, zone),
        )
    if pa.types.is_time64(type):
        return _split(column, pa.int64(), 0, _DAY_SECONDS * 1_000_000 - 1, lambda _: "24:00:00")
    if type == pa.decimal128(38, 0):
        return _split(column, type, Decimal(-_MOST), Decimal(_MOST), str)
    return column, None


def _split(
    column: Array, counted: pa.DataType, least: Any, most: Any, text: Callable[[Any], str]
) -> tuple[Array, Array | None]:
    counts = column.cast(counted)
    limits = pc.min_max(counts).as_py()
    if limits["min"] is None or (least <= limits["min"] and limits["max"] <= most):
        return column, None
    values = counts.to_pylist()
    odd = [value is not None and not least <= value <= most for value in values]
    strays = [text(value) if far else None for value, far in zip(values, odd, strict=True)]
    held = pc.if_else(pa.array(odd), pa.nulls(len(column), column.type), column)
    return held, pa.array(strays, pa.string())


def _day(days: int) -> str:
    return _infinite(days, 32) or _dated(days, "")


def _moment(ticks: int, a_day: int, zone: str) -> str:
    days, rest = divmod(ticks, a_day)
    clock = (_EPOCH + timedelta(microseconds=rest * (_DAY_SECONDS * 1_000_000 // a_day))).time().isoformat()
    return _infinite(ticks, 64) or _dated(days, f" {clock.rstrip('0') if '.' in clock else clock}{zone}")


def _infinite(count: int, bits: int) -> str:
    return {_FOREVER[bits]: "infinity", -_FOREVER[bits]: "-infinity"}.get(count, "")


def _dated(days: int, rest: str) -> str:
    cycles, day = divmod(days, _CYCLE_DAYS)
    near = _EPOCH.date() + timedelta(days=day)
    year = near.year + cycles * _CYCLE
    return f"{year if year > 0 else 1 - year:04}{near:-%m-%d}{rest}{' BC' if year < 1 else ''}"
