"""Parquet: typed columns for DuckDB, Spark, pandas and their kin, a row group at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from app.errors import IncompleteArtifact
from app.formats import Counter, Format, Unfit, Writing
from app.formats._values import distinct
from app.sources import Batch, Field

if TYPE_CHECKING:
    import pyarrow as pa

# A row group ends with whichever comes first; it is what is held at a time.
GROUP_ROWS, GROUP_BYTES = 65_536, 32 * 1024 * 1024
# Rows of Python values that tell their columns' types.
CHUNK = 20_000
# The file's directory is at its end: 100,000,000 rows of 100 columns need about 10 MiB.
TAIL = 32 * 1024 * 1024
MAGIC = b"PAR1"


class Parquet(Format):
    name = "parquet"
    title = "Parquet"
    extension = "parquet"
    content_type = "application/vnd.apache.parquet"
    compressions = ("none",)

    def writing(self, dialect: str, zone: str = "UTC", texts: Collection[int] = ()) -> Writing:
        return _Groups(texts)

    def counter(self) -> FooterCounter:
        return FooterCounter()


FORMAT = Parquet()


class _Groups(Writing):
    def __init__(self, texts: Collection[int]) -> None:
        self._texts = texts
        self._notes: list[str] = []

    @property
    def notes(self) -> Sequence[str]:
        return self._notes

    def batches(self, fields: Sequence[Field], batches: Iterable[Batch]) -> Iterator[bytes]:
        unknown = [field.name for field in fields if field.kind == "decimal" and field.precision is None]
        if unknown:
            self._notes.append(
                f"Text holds the exact numbers of {', '.join(unknown)}, as their digits are not limited. "
                "Cast to numeric(18, 2), for one, in the query to get decimals."
            )
        return self._written(fields, batches)

    def rows(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
        from app.formats import _batches

        chunks = _batches.chunks(rows, CHUNK)
        first = next(chunks, [() for _ in columns])
        fields = self.typed([_batches.field(*pair) for pair in zip(columns, first, strict=True)])
        batches = (_batches.batch(fields, chunk) for chunk in chain([first], chunks))
        return self._written(fields, batches)

    def typed(self, fields: Sequence[Field]) -> list[Field]:
        return [
            replace(field, kind="text") if at in self._texts else field for at, field in enumerate(fields)
        ]

    def _written(self, fields: Sequence[Field], batches: Iterable[Batch]) -> Iterator[bytes]:
        import pyarrow as pa
        from pyarrow import parquet as pq

        from app.sources import arrow_type

        names = distinct([field.name for field in fields])
        schema = pa.schema([(name, arrow_type(field)) for name, field in zip(names, fields, strict=True)])
        sink = _Sink()
        with pq.ParquetWriter(sink, schema, compression="zstd", compression_level=1) as writer:
            for group in _groups(fields, batches, schema):
                writer.write_table(group, row_group_size=group.num_rows)
                yield sink.taken()
        yield sink.taken()


def _groups(fields: Sequence[Field], batches: Iterable[Batch], schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        for at in batch.strays:
            raise Unfit(at, _unfit(fields[at], batch, at))
        held.append(pa.record_batch(list(batch.columns), schema=schema))
        rows += batch.rows
        size += held[-1].nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size = [], 0, 0
    if rows:
        yield pa.Table.from_batches(held)


def _unfit(field: Field, batch: Batch, at: int) -> str:
    stray = next(text for text in batch.strays[at].to_pylist() if text is not None)
    shown = stray if len(stray) <= 40 else stray[:40] + "…"
    return f"The column {field.name!r} holds {shown!r}, which no {field.kind} column of Parquet can."


class _Sink:
    """What Arrow writes, until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    def write(self, block: bytes) -> int:
        self._blocks.append(bytes(block))
        return len(block)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        self.closed = True

    def taken(self) -> bytes:
        blocks, self._blocks = self._blocks, []
        return b"".join(blocks)


class FooterCounter(Counter):
    """Keeps the file's end, and reads there how many rows each group of the written file holds."""

    def __init__(self) -> None:
        self._tail: deque[bytes] = deque()
        self._size = 0

    def feed(self, block: bytes) -> None:
        self._tail.append(block)
        self._size += len(block)
        while self._size - len(self._tail[0]) >= TAIL:
            self._size -= len(self._tail.popleft())

    @property
    def rows(self) -> int:
        import pyarrow as pa
        from pyarrow import parquet as pq

        try:
            footer = pq.read_metadata(pa.BufferReader(b"".join(self._tail)))
        except (pa.ArrowInvalid, OSError) as error:
            raise IncompleteArtifact(
                f"The Parquet file's directory cannot be read ({error}). Nothing was published."
            ) from error
        return sum(footer.row_group(at).num_rows for at in range(footer.num_row_groups))
