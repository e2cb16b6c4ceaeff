"""DuckDB files, read only: `duckdb:////folder/file.duckdb`. Needs the package `duckdb`, which is large."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any

from app.errors import BadSettings, QueryFailed, SourceDown
from app.sources._file import FileSource, path_of
from app.sources._placeholders import rendered
from app.sources._streamed import Limit, Result, Streamed, first_line
from app.sources._typed import Batch, Field, Kind

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

SCHEMES = ("duckdb",)
# Rows that are fetched at a time, and those that are handed on together; fewer if they hold many bytes.
FETCH, ROWS, WIDE = 2048, 16384, 8 * 1024 * 1024
# What it keeps in memory; beyond, it sorts and joins on the disk.
MEMORY = "512MB"
_CASTS = {"text": "VARCHAR", "bigint": "BIGINT", "boolean": "BOOLEAN", "date": "DATE"} | {
    "timestamptz": "TIMESTAMPTZ",
    "double precision": "DOUBLE",
    "text[]": "VARCHAR[]",
    "bigint[]": "BIGINT[]",
}
# Types that Arrow has nothing for, or of which it loses something: a zone, nanoseconds, the highest bit.
_AS_TEXT = frozenset(
    ("UHUGEINT", "BIGNUM", "VARINT", "TIME WITH TIME ZONE", "TIME_NS", "TIMESTAMP_NS", "INTERVAL", "BIT")
)
_KINDS: dict[str, Kind] = {
    "bool": "bool",
    "int8": "int16",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "int16",
    "uint16": "int32",
    "uint32": "int64",
    "float": "float32",
    "double": "float64",
    "date32[day]": "date",
    "time64[us]": "time",
    "timestamp[s]": "datetime",
    "timestamp[ms]": "datetime",
    "timestamp[us]": "datetime",
    "binary": "bytes",
    "string": "text",
}


def open_source(name: str, url: str, timeout: timedelta) -> DuckDb:
    path = path_of(name, url, "duckdb:////folder/file.duckdb")
    if find_spec("duckdb") is None:
        raise BadSettings(
            f"SOURCE_{name.upper()}_URL is a DuckDB file. Install the package `duckdb` to read it."
        )
    return DuckDb(name, path, timeout)


class DuckDb(FileSource):
    @contextmanager
    def reading(self, snapshot: str = "") -> Iterator[DuckDbReading]:
        with tempfile.TemporaryDirectory(prefix="waybill-duckdb-") as spill:
            reading = DuckDbReading(self.name, self._connect(spill), Limit(self.name, self._timeout))
            try:
                yield reading
            finally:
                reading.close()

    def _connect(self, spill: str) -> DuckDBPyConnection:
        import duckdb

        self._check()
        try:
            conn = duckdb.connect(
                str(self._path),
                read_only=True,
                config={"memory_limit": MEMORY, "temp_directory": spill},
            )
            conn.execute("SET TimeZone = 'UTC'")
            conn.execute("BEGIN TRANSACTION READ ONLY")
        except duckdb.Error as error:
            raise SourceDown(f"The source {self.name!r} does not answer ({first_line(error)}).") from error
        return conn


class DuckDbReading(Streamed):
    def __init__(self, source: str, conn: DuckDBPyConnection, limit: Limit) -> None:
        self._source, self._conn, self._limit = source, conn, limit
        self.snapshot_at = datetime.now(UTC)
        self.rows_read = 0

    def break_off(self) -> None:
        self._limit.broken_off = True
        self._conn.interrupt()

    def close(self) -> None:
        self._forget()
        self._conn.close()

    def _open(self, sql: str, values: Mapping[str, Any]) -> Result:
        query, bound = _composed(sql, values)
        self._limit.begin()
        with self._watched():
            # As a relation: only that is streamed.
            return _ArrowResult(self._conn.sql(query, params=bound), self._watched)

    def _watched(self) -> AbstractContextManager[None]:
        return self._limit.watched(self._conn.interrupt)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except OverflowError as error:
            raise QueryFailed(
                f"The source {self._source!r} gave a list, struct or map with a value beyond the calendar "
                f"({error}). Cast it to VARCHAR in the query."
            ) from error
        except (duckdb.Error, OSError) as error:
            if self._limit.over:
                raise self._limit.meaning() from error
            text = first_line(error)
            raise QueryFailed(f"The source {self._source!r} refused the query: {text}") from error


class _ArrowResult(Result):
    def __init__(self, found: DuckDBPyRelation, watched: Any) -> None:
        kinds = list(map(str, found.types))
        self._reader = _written(found, kinds).to_arrow_reader(FETCH)
        self._watched = watched
        self.fields = [_field(*pair) for pair in zip(self._reader.schema, kinds, strict=True)]

    def batches(self, fields: Sequence[Field]) -> Iterator[Batch]:
        from app.sources._typed import arrow_type

        types = [arrow_type(field) for field in fields]
        for batch in self._held():
            columns, strays = [], dict(batch.strays)
            for at, (column, type) in enumerate(zip(batch.columns, types, strict=True)):
                found = _column(column, type)
                columns.append(_together(found, strays.pop(at, None)) if found.type == "string" else found)
            yield Batch(columns, batch.rows, strays)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(batch.values() for batch in self._held())

    def close(self) -> None:
        self._reader.close()

    def _held(self) -> Iterator[Batch]:
        """As DuckDB typed them."""
        from app.sources import _far

        for batch in _joined(self._record_batches()):
            divided = [_far.divided(column) for column in batch.columns]
            strays = {at: odd for at, (_, odd) in enumerate(divided) if odd is not None}
            yield Batch([column for column, _ in divided], batch.num_rows, strays)

    def _record_batches(self) -> Generator[pa.RecordBatch, None, None]:
        while True:
            with self._watched():
                batch = next(self._reader, None)
            if batch is None:
                return
            yield batch


def _written(found: DuckDBPyRelation, kinds: Sequence[str]) -> DuckDBPyRelation:
    """The result with text where Arrow would not do."""
    if _AS_TEXT.isdisjoint(kinds):
        return found
    cells = [f"CAST(#{at} AS VARCHAR)" if kind in _AS_TEXT else f"#{at}" for at, kind in enumerate(kinds, 1)]
    names = ['"' + name.replace('"', '""') + '"' for name in found.columns]
    return found.project(", ".join(f"{cell} AS {name}" for cell, name in zip(cells, names, strict=True)))


def _joined(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    for batch in chain.from_iterable(map(_pieces, batches)):
        held.append(batch)
        if sum(item.num_rows for item in held) >= ROWS or sum(item.nbytes for item in held) >= WIDE:
            yield pa.concat_batches(held)
            held = []
    if held:
        yield pa.concat_batches(held)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Wide rows are worked at a few at a time: what is made of them takes as much again, several times."""
    rows = max(1, batch.num_rows * WIDE // max(batch.nbytes, WIDE))
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def _field(field: pa.Field[Any], kind: str) -> Field:
    import pyarrow as pa

    if kind == "JSON" or pa.types.is_nested(field.type):
        return Field(field.name, "json")
    if pa.types.is_decimal(field.type):
        return Field(field.name, "decimal", field.type.precision, field.type.scale)
    if pa.types.is_timestamp(field.type) and field.type.tz and field.type.unit == "us":
        return Field(field.name, "instant")
    if field.type == pa.uint64():
        return Field(field.name, "decimal", 20, 0)
    return Field(field.name, _KINDS.get(str(field.type), "other"))


def _column(column: pa.Array[Any], type: pa.DataType) -> pa.Array[Any]:
    import pyarrow as pa

    from app.formats._values import as_text
    from app.formats.jsonl import encoded

    if column.type == type:
        return column
    if type != pa.string():
        return column.cast(type)
    if pa.types.is_nested(column.type):
        found = column.to_pylist(maps_as_pydicts="strict")
        return pa.array((None if value is None else encoded(value) for value in found), pa.string())
    # What Arrow has no type for, or would write otherwise than we do.
    values = (None if value is None else as_text(value) for value in column.to_pylist())
    return pa.array(values, pa.string())


def _together(texts: pa.Array[Any], strays: pa.Array[Any] | None) -> pa.Array[Any]:
    import pyarrow.compute as pc

    return texts if strays is None else pc.coalesce(strays, texts)


def _composed(sql: str, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    used: dict[str, Any] = {}

    def write(name: str, type: str) -> str:
        used[name] = values[name]
        place = f"CAST(${name} AS {_CASTS[type]})" if type in _CASTS else f"${name}"
        return f"(SELECT unnest({place}))" if isinstance(values[name], list | tuple) else place

    return rendered(sql, values, write), used
