"""No key that was met is taken for a new one, and few new ones for old ones."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.imports.table.recall import Recall, can_tell

COUNT = 200_000


@pytest.mark.parametrize(
    "column",
    [
        pa.array(range(COUNT)),
        pa.array(range(0, -(1 << 20) * COUNT, -(1 << 20))),
        pa.array([f"person{n}@example.org" for n in range(COUNT)]),
        pa.array([f"{'x' * 50}{n:09}" for n in range(COUNT)]),
    ],
)
def test_new_keys_are_new_and_old_ones_old(column: pa.Array) -> None:
    recall = Recall()
    half = COUNT // 2
    assert recall.meet([column.slice(0, half)]).sum() <= 2
    assert recall.meet([column.slice(half)]).sum() <= 2
    assert recall.meet([column.slice(1000, COUNT - 2000)]).all()


def test_keys_of_several_columns() -> None:
    recall = Recall()
    one, two = pa.array([1, 2, 3]), pa.array(["a", "b", "c"])
    assert not recall.meet([one, two]).any()
    assert recall.meet([one, two]).all()
    assert not recall.meet([one, pa.array(["b", "c", "a"])]).any()
    assert not recall.meet([pa.array([2, 3, 1]), two]).any()


@given(st.lists(st.lists(st.text(max_size=9), min_size=1, max_size=20), max_size=5))
def test_any_texts(chunks: list[list[str]]) -> None:
    recall, known = Recall(), set[str]()
    for texts in chunks:
        # As a slice of something longer: what lies before it must not matter.
        column = pa.array(["before", *texts, "behind"]).slice(1, len(texts))
        met = recall.meet([column])
        assert all(old for text, old in zip(texts, met, strict=True) if text in known)
        known.update(texts)


def test_long_keys() -> None:
    fate = random.Random(1)
    long = [fate.choice("ab") * 100_000 + str(n) for n in range(10)]
    recall = Recall()
    assert not recall.meet([pa.array(long)]).any()
    assert recall.meet([pa.array(long[5:])]).all()


def test_types_whose_equal_values_may_look_unlike() -> None:
    assert can_tell(pa.int64())
    assert can_tell(pa.string())
    assert not can_tell(pa.decimal128(10, 2))
    assert not can_tell(pa.float64())
