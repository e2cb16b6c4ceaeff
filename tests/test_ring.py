"""Batches that another process puts into shared memory: kept, too large, or more than there are slots."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from app.sources import open_source
from app.sources._ring import SLOT, SLOTS
from app.sources._typed import Batch

# What the other process reads into one batch.
ROWS = 16_384


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.db"


def test_batches_that_are_kept_stay_what_they_were(path: Path) -> None:
    """More than there are slots: those behind come another way, and none is written over."""
    count = ROWS * SLOTS * 3 + 5
    numbers = f"WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
    kept = _batches(path, f"{numbers} SELECT i, 'text ' || i AS t FROM n")
    assert len(kept) > SLOTS * 2
    values = [value for batch in kept for value in batch.columns[0].to_pylist()]
    texts = [text for batch in kept for text in batch.columns[1].to_pylist()]
    assert values == list(range(1, count + 1))
    assert texts == [f"text {value}" for value in values]


def test_slots_are_used_again(path: Path) -> None:
    """Where nobody keeps a batch, all but a few lie in the shared memory."""
    numbers = f"WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS * 40})"
    with open_source("some", _made(path), timedelta(minutes=5)).reading() as reading:
        shared, rows = set(), 0
        for batch in reading.batches(f"{numbers} SELECT i FROM n", {}):
            shared.add(batch.columns[0].buffers()[1].address)
            rows += batch.rows
    assert rows == ROWS * 40
    assert len(shared) < 40


def test_a_batch_larger_than_a_slot(path: Path) -> None:
    numbers = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40000)"
    large = SLOT // ROWS + 100
    kept = _batches(path, f"{numbers} SELECT i, printf('%.*c', {large}, 'x') || i AS t FROM n")
    assert max(sum(column.nbytes for column in batch.columns) for batch in kept) > SLOT
    texts = [text for batch in kept for text in batch.columns[1].to_pylist()]
    assert texts == ["x" * large + str(i) for i in range(1, 40001)]


def _batches(path: Path, query: str) -> list[Batch]:
    with open_source("some", _made(path), timedelta(minutes=5)).reading() as reading:
        return list(reading.batches(query, {}))


def _made(path: Path) -> str:
    sqlite3.connect(path).close()
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE t (i)")
    return f"sqlite:///{path}"
