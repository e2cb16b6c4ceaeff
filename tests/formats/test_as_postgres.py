"""What we write of Python values is, byte for byte, what PostgreSQL writes of the same values."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.formats import find
from app.formats.jsonl import encoded

WAYS = [
    ("csv", "machine"),
    ("csv", "spreadsheet"),
    ("csv", "spreadsheet-semicolon"),
    ("csv", "spreadsheet-tab"),
    ("jsonl", "standard"),
]
# Characters that formats and spreadsheets stumble over, and harmless ones between.
ODD = "=+-@＝＋－＠'\",;\t\r\n\\ .\u00a0\u200b\ufeff\u202e0123456789eE/x_&<>{}aZ€😀\x01\x0b\x7f"
TEXTS = st.one_of(
    st.text(st.sampled_from(ODD), max_size=12),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    st.from_regex(r"\A[ \t]?[-+]?[0-9]{0,18}([.,/-][0-9]{0,5})?(e[0-9]{1,3})?\Z"),
)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "boolean": st.booleans(),
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "numeric": st.decimals(allow_infinity=False, min_value=-(10**25), max_value=10**25, places=9)
    | st.integers(-(10**30), 10**30).map(Decimal)
    | st.sampled_from(list(map(Decimal, ("NaN", "Infinity", "-Infinity", "0.000000000001")))),
    "double precision": st.floats() | st.integers(2**53, 2**70).map(float),
    "date": st.dates(),
    "time": st.times(),
    "timestamp": st.datetimes(),
    "timestamptz": st.datetimes(timezones=st.just(UTC)),
    "bytea": st.binary(max_size=20),
    "uuid": st.uuids(),
}


@pytest.mark.parametrize(("name", "dialect"), WAYS)
@pytest.mark.parametrize("type", KINDS)
def test_both_ways_agree(copied: Callable[..., bytes], type: str, name: str, dialect: str) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.none() | KINDS[type], min_size=1, max_size=40))
    def agree(values: list[Any]) -> None:
        ours = b"".join(find(name)[0].writing(dialect).rows(["v", "1"], [(value, 1) for value in values]))
        sql = f'SELECT v, 1 AS "1" FROM unnest(CAST(%(v)s AS {type}[])) AS t(v)'
        assert ours == copied(name, dialect, sql, v=_literal(values))

    agree()


@settings(max_examples=100, deadline=None)
@given(st.floats(allow_nan=False))
@example(1e15)
@example(123456789012345680.0)
@example(-0.0)
@example(5e-324)
def test_json_numbers_come_back(value: float) -> None:
    import json

    text = encoded(value)
    assert math.isinf(value) or json.loads(text) == value


def test_the_requesters_clock(copied: Callable[..., bytes]) -> None:
    at = datetime(2026, 7, 1, 12, 0, 0, 999_999, UTC)
    ours = b"".join(find("csv")[0].writing("spreadsheet", "Europe/Berlin").rows(["at"], [(at,)]))
    theirs = copied(
        "csv", "spreadsheet", "SELECT CAST(%(at)s AS timestamptz) AS at", zone="Europe/Berlin", at=at
    )
    assert ours == theirs == "\ufeffat\r\n2026-07-01 14:00:00\r\n".encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(days=1, hours=2, milliseconds=1500), "P1DT2H1.5S"),
        (timedelta(), "PT0S"),
        (timedelta(days=-1), "P-1D"),
        (timedelta(seconds=-61), "PT-1M-1S"),
        ([1, None, "a b", 'q"', [2]], '{1,NULL,"a b","q\\"",{2}}'),
        ({"a": [1, 2.5], "b": None}, '{"a": [1, 2.5], "b": null}'),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2026-01-01 00:00:00+05:30"),
        (time(1, 2, 3, 40_000), "01:02:03.04"),
        (date(1, 1, 1), "0001-01-01"),
        (Decimal("1E+3"), "1000"),
    ],
)
def test_other_values(value: object, text: str) -> None:
    from app.formats._values import as_text

    assert as_text(value) == text


def _literal(values: list[Any]) -> list[Any]:
    """psycopg reads a list's type from its values: as text they all have one."""
    from app.formats._values import as_text

    return [None if value is None else as_text(value) for value in values]
