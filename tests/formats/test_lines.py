"""Lines made column by column are, byte for byte, those made of the same values one by one."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.formats import _batches, _lines, find
from app.sources import Batch, Field, arrow_type

TEXTS = st.text(st.sampled_from(",\"\r\n\\.;'ab=€😀\t "), max_size=6) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=20
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "bool": st.booleans(),
    "whole": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats()
    | st.integers(-(2**70), 2**70).map(float)
    | st.sampled_from([1e15, 1e-4, 9e-5, -0.0]),
    "decimal": st.decimals(
        allow_nan=False, allow_infinity=False, places=12, min_value=-(10**9), max_value=10**9
    ),
    "date": st.dates(),
    "time": st.times(),
    "datetime": st.datetimes(),
    "instant": st.datetimes(timezones=st.just(UTC)),
    "bytes": st.binary(max_size=10),
    "mixed": st.one_of(
        TEXTS, st.integers(), st.floats(allow_nan=False), st.booleans(), st.binary(max_size=4)
    ),
}


@pytest.mark.parametrize("kind", VALUES)
def test_both_ways_agree(kind: str) -> None:
    @settings(max_examples=80, deadline=None)
    @given(st.lists(st.tuples(st.none() | VALUES[kind], st.none() | TEXTS), min_size=1, max_size=30))
    def agree(rows: list[tuple[Any, Any]]) -> None:
        columns = list(zip(*rows, strict=True))
        fields = [_batches.field(name, values) for name, values in zip("ab", columns, strict=True)]
        batch = _batches.batch(fields, columns)
        writing = find("csv")[0].writing("machine")
        by_values = b"".join(writing.rows(["a", "b"], batch.values()))
        assert b"".join(writing.batches(fields, [batch])) == by_values

    agree()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | TEXTS, max_size=8))
@example(["\\."])
@example(["x\\."])
@example([""])
@example([None])
@example([])
def test_one_column(values: list[str | None]) -> None:
    writing = find("csv")[0].writing("machine")
    batch = Batch([pa.array(values, pa.string())], len(values))
    by_values = b"".join(writing.rows(["a"], batch.values()))
    assert b"".join(writing.batches([Field("a")], [batch])) == by_values


def test_a_slice_writes_its_own_rows() -> None:
    batch = Batch([pa.array(["a", 'b"', "c"]), pa.array([1, 2, 3])], 3)
    assert _lines.lines(batch.slice(1, 1)) == b'"b""",2\n'


def test_types_of_postgresql() -> None:
    fields = [Field("a", "int16"), Field("b", "float32"), Field("c", "decimal", 50, 3)]
    columns = [pa.array([None, None], arrow_type(field)) for field in fields]
    assert _lines.lines(Batch(columns, 2)) == b",,\n,,\n"
