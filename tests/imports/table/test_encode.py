"""What is encoded here is what PostgreSQL reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.imports.table import encode

TYPES: dict[str, tuple[pa.DataType, Any]] = {
    "int2": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "int4": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "int8": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "float8": (pa.float64(), st.floats(allow_nan=False)),
    "bool": (pa.bool_(), st.booleans()),
    "date": (pa.date32(), st.dates()),
    "timestamp": (pa.timestamp("us"), st.datetimes()),
    "timestamptz": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    "uuid": (pa.string(), st.uuids()),
    "text": (pa.string(), st.text(st.characters(exclude_characters="\0", codec="utf-8"))),
    "jsonb": (pa.string(), st.sampled_from(['{"a": 1}', "[]", '"ü"'])),
}


@pytest.fixture
def conn(session_environ: dict[str, str], session_app: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(session_environ["DATABASE_URL"], autocommit=True) as conn:
        conn.execute("SET timezone TO 'UTC'")
        conn.prepare_threshold = None  # the table is another one each time
        yield conn


def there_and_back(
    conn: psycopg.Connection[Any], columns: list[tuple[Any, str]], types: list[str]
) -> list[Any]:
    conn.execute("DROP TABLE IF EXISTS pg_temp.encoded")
    spoken = ", ".join(f"c{n} {name}" for n, name in enumerate(types))
    conn.execute(f"CREATE TEMP TABLE encoded (n serial, {spoken})".encode())
    names = ", ".join(f"c{n}" for n in range(len(types)))
    with conn.cursor() as cursor:
        with cursor.copy(f"COPY encoded ({names}) FROM STDIN (FORMAT binary)".encode()) as copy:
            for block in encode.binary(columns, len(columns[0][0])):
                copy.write(block)
        return cursor.execute(f"SELECT {names} FROM encoded ORDER BY n".encode()).fetchall()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_values_of_all_types_and_nulls(conn: psycopg.Connection[Any], data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=5))
    rows = data.draw(st.integers(0, 6))
    columns, sent = [], []
    for name in names:
        arrow, values = TYPES[name]
        drawn = data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        sent.append(drawn)
        columns.append((pa.array([str(v) if isinstance(v, UUID) else v for v in drawn], arrow), name))
    found = there_and_back(conn, columns, names)
    told = [[_json(v) if n == "jsonb" else v for v in column] for n, column in zip(names, sent, strict=True)]
    assert found == list(zip(*told, strict=True))


def _json(value: str | None) -> Any:
    import json

    return None if value is None else json.loads(value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), precision=st.integers(1, 38))
def test_decimals(conn: psycopg.Connection[Any], data: st.DataObject, precision: int) -> None:
    scale = data.draw(st.integers(0, precision))
    whole = st.integers(-(10**precision) + 1, 10**precision - 1)
    drawn = data.draw(st.lists(st.none() | whole, min_size=1, max_size=5))
    values = [None if v is None else Decimal((v < 0, tuple(map(int, str(abs(v)))), -scale)) for v in drawn]
    column = pa.array(values, pa.decimal128(precision, scale))
    assert there_and_back(conn, [(column, "numeric")], ["numeric"]) == [(v,) for v in values]


def test_decimals_that_only_texts_hold(conn: psycopg.Connection[Any]) -> None:
    texts = ["-1" + "0" * 40 + "." + "7" * 33, None, "0", "0.00012", "-12345"]
    found = there_and_back(conn, [(pa.array(texts), "numeric")], ["numeric"])
    assert found == [(None if text is None else Decimal(text),) for text in texts]


def test_slices_of_arrays(conn: psycopg.Connection[Any]) -> None:
    columns = [
        (pa.array([1, 2, None, 4])[1:3], "int8"),
        (pa.array(["a", "bb", None, "dd"])[1:3], "text"),
        (pa.array([date(2026, 1, 1)] * 4)[1:3], "date"),
        (pa.array([Decimal("1.50"), Decimal("2.25"), None, None], pa.decimal128(10, 2))[1:3], "numeric"),
        (pa.array([True, False, None, True])[1:3], "bool"),
        (pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * 4, pa.timestamp("us", "UTC"))[1:3], "timestamptz"),
    ]
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert there_and_back(conn, columns, ["int8", "text", "date", "numeric", "bool", "timestamptz"]) == [
        (2, "bb", date(2026, 1, 1), Decimal("2.25"), False, moment),
        (None, None, date(2026, 1, 1), None, None, moment),
    ]
