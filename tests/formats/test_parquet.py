"""Parquet: what only it promises."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from app.errors import IncompleteArtifact
from app.formats import Unfit, find
from app.formats.parquet import CHUNK, GROUP_ROWS, FooterCounter
from app.sources import Batch, Field, Reading

PARQUET = find("parquet")[0]


def made(rows: list[tuple[Any, ...]], texts: tuple[int, ...] = ()) -> Any:
    names = [f"c{at}" for at in range(len(rows[0]))]
    content = b"".join(PARQUET.writing("standard", texts=texts).rows(names, rows))
    return pq.read_table(io.BytesIO(content))


def queried(reading: Reading, sql: str) -> tuple[Any, list[str]]:
    writing = PARQUET.writing("standard")
    fields = writing.typed(reading.fields(sql, {}))
    content = b"".join(writing.batches(fields, reading.batches(sql, {}, fields)))
    return pq.read_table(io.BytesIO(content)), list(writing.notes)


def test_columns_have_the_databases_types(reading: Reading) -> None:
    table, notes = queried(
        reading,
        "SELECT 1::smallint AS a, 1::int AS b, 1::bigint AS c, 1::real AS d, 1::float8 AS e,"
        " 1.5::numeric(40, 2) AS f, true AS g, DATE '2026-01-31' AS h, TIME '12:30' AS i,"
        " TIMESTAMP '2026-01-31 12:30' AS j,"
        " TIMESTAMPTZ '2026-01-31 12:30+02' AS k, '\\x00ff'::bytea AS l, 'x'::text AS m, ARRAY[1] AS n",
    )
    assert [str(type) for type in table.schema.types] == [
        *("int16", "int32", "int64", "float", "double", "decimal256(40, 2)", "bool", "date32[day]"),
        *("time64[us]", "timestamp[us]", "timestamp[us, tz=UTC]", "binary", "string", "string"),
    ]
    assert table["k"].to_pylist() == [datetime(2026, 1, 31, 10, 30, tzinfo=UTC)]
    assert notes == []


def test_numbers_without_limits_keep_their_digits_as_text(reading: Reading) -> None:
    table, notes = queried(reading, "SELECT 0.1::numeric + 1e-30::numeric AS exact")
    assert table["exact"].to_pylist() == ["0.100000000000000000000000000001"]
    assert "exact" in notes[0]
    assert "Cast" in notes[0]


def test_a_decimal_of_many_digits_that_is_no_number(reading: Reading) -> None:
    sql = "SELECT v::numeric(40, 2) AS v FROM unnest(ARRAY['1.5', 'NaN', NULL]) AS t(v)"
    with pytest.raises(Unfit, match="'NaN'"):
        queried(reading, sql)


def test_python_values_have_types(reading: Reading) -> None:
    at = datetime(2026, 1, 31, tzinfo=UTC)
    table = made([(1, 0, Decimal("1.5"), date(2026, 1, 1), at, None), (2, 0.5, 3, None, None, None)])
    assert [str(type) for type in table.schema.types] == [
        *("int64", "double", "decimal128(38, 1)", "date32[day]", "timestamp[us, tz=UTC]", "string")
    ]
    assert table["c1"].to_pylist() == [0.0, 0.5]


def test_a_value_that_comes_too_late_names_its_column_and_fits_as_text() -> None:
    rows = [(i, i) for i in range(CHUNK)] + [(1, "n/a")]
    with pytest.raises(Unfit, match="'c1' holds 'n/a'") as found:
        made(rows)
    assert found.value.position == 1
    table = made(rows, texts=(1,))
    assert table["c0"].type == pa.int64()
    assert table["c1"].to_pylist() == [str(value) for _, value in rows]


def test_a_reading_goes_on_after_a_value_that_does_not_fit(reading: Reading) -> None:
    """The same snapshot, on the same connection, though the first copy was left in the middle."""
    sql = (
        "SELECT i AS id, CASE WHEN i = 5 THEN 'infinity'::date ELSE DATE '2026-01-01' END AS day,"
        " repeat('x', 100) AS text FROM generate_series(1, 200000) AS i"
    )
    with pytest.raises(Unfit, match="'infinity'"):
        queried(reading, sql)
    texts = {1}
    writing = PARQUET.writing("standard", texts=texts)
    fields = writing.typed(reading.fields(sql, {}))
    counter = FooterCounter()
    for block in writing.batches(fields, reading.batches(sql, {}, fields)):
        counter.feed(block)
    assert counter.rows == reading.rows_read == 200_000


def test_rows_come_in_groups_with_statistics() -> None:
    def batches() -> Iterator[Batch]:
        for start in range(0, 150_000, 10_000):
            yield Batch([pa.array(range(start, start + 10_000))], 10_000)

    content = b"".join(PARQUET.writing("standard").batches([Field("id", "int64")], batches()))
    meta = pq.read_metadata(io.BytesIO(content))
    groups = [meta.row_group(at) for at in range(meta.num_row_groups)]
    assert [group.num_rows for group in groups] == [70_000, 70_000, 10_000]
    assert all(group.num_rows < GROUP_ROWS + 10_000 for group in groups)
    assert groups[1].column(0).statistics.min == 70_000
    assert groups[0].column(0).compression == "ZSTD"


def test_a_file_without_its_directory_is_found_out() -> None:
    counter = FooterCounter()
    counter.feed(b"PAR1 and then nothing more")
    with pytest.raises(IncompleteArtifact, match="directory"):
        assert counter.rows
