"""Moments as the clock on somebody's wall shows them.

By Python's own table of zones on all ways but PostgreSQL's: Arrow's knows no summer time after 2037.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    import pyarrow as pa

    Array: TypeAlias = "pa.Array[Any]"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The calendar repeats itself after so many years, days of the week included.
_CYCLE, _CYCLE_DAYS = 400, 146_097
_SECOND = 1_000_000


def clock(at: datetime, zone: str) -> str:
    """The moment to the second: `2026-07-01 14:00:00`, as PostgreSQL writes it for this zone."""
    try:
        return str(at.astimezone(_zone(zone)).replace(tzinfo=None, microsecond=0))
    except OverflowError:
        # The last hours of 9999 are of the year 10000 elsewhere, and the first of year 1 are BC.
        cycles = 1 if at.year == 1 else -1
        near = at.replace(tzinfo=UTC) - (at.utcoffset() or timedelta()) + cycles * timedelta(_CYCLE_DAYS)
        local = near.astimezone(_zone(zone))
        year = local.year - cycles * _CYCLE
        return f"{year if year > 0 else 1 - year:04}{local:-%m-%d %H:%M:%S}{' BC' if year < 1 else ''}"


def local(column: Array, zone: str) -> Array:
    """A column of moments as one of timestamps without a zone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = pc.cast(column, pa.timestamp("us"))
    if zone == "UTC":
        return plain
    limits = pc.min_max(pc.cast(plain, pa.int64())).as_py()
    if limits["min"] is None:
        return plain
    ticks = pc.cast(plain, pa.int64())
    years = sorted(pc.unique(pc.year(plain)).drop_null().to_pylist())
    changes = [change for year in years for change in _year(zone, year)]
    # From the last change before the first value on; where nothing changes, that is one offset for all.
    first = max(0, bisect_right(changes, (limits["min"] // _SECOND, _FOREVER)) - 1)
    offsets: Any = changes[first][1]
    for (_, before), (since, after) in pairwise(changes[first:]):
        if since * _SECOND <= limits["max"] and before != after:
            offsets = pc.if_else(pc.greater_equal(ticks, since * _SECOND), after, offsets)
    return pc.cast(pc.add(ticks, pc.multiply(offsets, _SECOND)), pa.timestamp("us"))


_FOREVER = 1 << 62


@lru_cache(maxsize=10_000)
def _year(zone: str, year: int) -> tuple[tuple[int, int], ...]:
    """(since when, seconds ahead of UTC) for each stretch of a year, in seconds from 1970; ascending."""
    # Python's calendar ends with 9999, and its first and last days are no days elsewhere.
    cycles = 0 if 1 < year < 9999 else 1 - year // _CYCLE if year <= 1 else (9599 - year) // _CYCLE
    shift = cycles * _CYCLE_DAYS * 86_400
    return tuple((since - shift, ahead) for since, ahead in _stretches(_zone(zone), year + cycles * _CYCLE))


def _stretches(zone: tzinfo, year: int) -> Iterator[tuple[int, int]]:
    """Looked for day by day, then to the second: no zone goes forth and back within a day."""

    def ahead(second: int) -> int:
        offset = (_EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset()
        assert offset is not None
        return int(offset.total_seconds())

    begin, end = (int((datetime(at, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) for at in (year, year + 1))
    yield begin, ahead(begin)
    for low, high in pairwise([*range(begin, end, 86_400), end]):
        before, after = ahead(low), ahead(high)
        if before != after:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if ahead(middle) == before else (low, middle)
            yield high, after


def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)
