"""The requester's clock, by every way a file is made: where clocks are changed, and in any year."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from python_calamine import CalamineWorkbook

from app.formats import find, formats
from app.formats._zones import clock, local
from app.sources import Batch, Field

# Summer times of an hour and of half an hour, north and south, odd offsets, a day that was left out.
ZONES = [
    *("UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kolkata"),
    *("Asia/Kathmandu", "Pacific/Apia", "Africa/Casablanca", "America/Santiago"),
]
# Clocks are put forward and back, Apia leaves a day out, and tables list no year after 2037.
DAYS = ("2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2011-12-30", "2026-04-04", "2050-07-01")
MOMENTS = [
    datetime.fromisoformat(f"{day}T{hour:02}:{minute}:59.999999+00:00")
    for day in (
        "2026-03-29",
        "2026-10-25",
        "2026-03-08",
        "2026-11-01",
        "2011-12-30",
        "2026-04-04",
        "2050-07-01",
    )
    for hour in range(24)
    for minute in ("29", "59")
]
WAYS = [(name, dialect) for name in sorted(formats()) for dialect in formats()[name].dialects]


def on_the_wall(at: datetime, zone: str) -> datetime:
    return at.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def by_columns(name: str, dialect: str, zone: str, moments: list[datetime]) -> bytes:
    """As of a source that gives columns."""
    writing = find(name)[0].writing(dialect, zone)
    batch = Batch([pa.array(moments, pa.timestamp("us", tz="UTC"))], len(moments))
    return b"".join(writing.batches(writing.typed([Field("at", "instant")]), [batch]))


def by_rows(name: str, dialect: str, zone: str, moments: list[datetime]) -> bytes:
    return b"".join(find(name)[0].writing(dialect, zone).rows(["at"], [(at,) for at in moments]))


@pytest.mark.parametrize("zone", ZONES)
def test_all_ways_give_the_same_bytes(copied: Callable[..., bytes], zone: str) -> None:
    rows = "".join(f"{on_the_wall(at, zone).replace(microsecond=0)}\r\n" for at in MOMENTS)
    wanted = f"\ufeffat\r\n{rows}".encode()
    sql = "SELECT at FROM unnest(CAST(%(moments)s AS timestamptz[])) AS t(at)"
    assert copied("csv", "spreadsheet", sql, zone=zone, moments=MOMENTS) == wanted
    assert by_columns("csv", "spreadsheet", zone, MOMENTS) == wanted
    assert by_rows("csv", "spreadsheet", zone, MOMENTS) == wanted


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("make", [by_columns, by_rows])
def test_a_workbook_shows_the_same_clock(make: Callable[..., bytes], zone: str) -> None:
    book = CalamineWorkbook.from_filelike(io.BytesIO(make("xlsx", "standard", zone, MOMENTS)))
    found: list[Any] = [row[0] for row in book.get_sheet_by_index(0).to_python()[1:]]
    wanted = [on_the_wall(at, zone).replace(microsecond=999_000) for at in MOMENTS]
    assert len(found) == len(wanted)
    assert all(abs(a - b) <= timedelta(milliseconds=1) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize(("name", "dialect"), WAYS)
def test_only_what_is_for_spreadsheets_depends_on_the_zone(name: str, dialect: str) -> None:
    files = {by_columns(name, dialect, zone, MOMENTS) for zone in ("UTC", "America/New_York")}
    assert len(files) == (2 if dialect in find(name)[0].local_dialects else 1)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.datetimes(timezones=st.just(UTC)), min_size=1, max_size=20),
    st.sampled_from(ZONES),
)
@example([datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)], "Asia/Kathmandu")
def test_columns_and_values_agree_in_any_year(moments: list[datetime], zone: str) -> None:
    texts = local(pa.array(moments, pa.timestamp("us", tz="UTC")), zone).cast(pa.string()).to_pylist()
    for at, text in zip(moments, texts, strict=True):
        shown = clock(at, zone)
        assert text.partition(".")[0] == (f"0000{shown[4:-3]}" if shown.endswith(" BC") else shown)


@pytest.mark.parametrize(
    ("at", "zone", "shown"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), "America/New_York", "0001-12-31 19:03:58 BC"),
        (datetime(9999, 12, 31, 23, 30, tzinfo=UTC), "Europe/Berlin", "10000-01-01 00:30:00"),
    ],
)
def test_beyond_the_calendar_is_what_postgres_says(
    copied: Callable[..., bytes], at: datetime, zone: str, shown: str
) -> None:
    theirs = copied("csv", "spreadsheet", "SELECT CAST(%(at)s AS timestamptz) AS at", zone=zone, at=at)
    assert theirs.decode().splitlines()[1] == shown == clock(at, zone)


def test_no_moments_at_all() -> None:
    nothing: Any = pa.array([None], pa.timestamp("us", tz="UTC"))
    assert local(nothing, "Europe/Berlin").to_pylist() == [None]
