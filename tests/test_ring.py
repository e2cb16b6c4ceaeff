"""Batches that another process puts into shared memory: kept, too large, or more than there are slots."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from app.sources import open_source
from app.sources._ring import HEAD, SLOT, SLOTS, Ring
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


def test_a_process_that_dies_within_a_batch() -> None:
    """What it had finished is there, and nothing else; the caller asks for its last words."""
    batch = pa.record_batch([pa.array(range(1000))], names=["i"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    whole = sink.getvalue().to_pybytes()
    said = HEAD.pack(-1, len(whole)) + whole
    for cut in (0, 7, HEAD.size, HEAD.size + 3, HEAD.size + len(whole) // 2, len(said) - 1):
        code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
        pipe = subprocess.PIPE
        with Ring() as ring, subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
            assert child.stdin is not None
            child.stdin.write(said + said[:cut])
            child.stdin.close()
            # No batch lay in a slot, so none is handed back.
            assert [found.num_rows for found in ring.batches(child)] == [1000]


def _batches(path: Path, query: str) -> list[Batch]:
    with open_source("some", _made(path), timedelta(minutes=5)).reading() as reading:
        return list(reading.batches(query, {}))


def _made(path: Path) -> str:
    sqlite3.connect(path).close()
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE t (i)")
    return f"sqlite:///{path}"
