"""SQLite files, read only: `sqlite:////folder/file.db` (an absolute path) or `sqlite:///file.db`.

SQLite types its values, not its columns. The first rows of a result tell what its columns hold; whatever is
otherwise further down comes as a stray. Results of many rows are read by another process; `_sqlite_child`
says why.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from app.errors import QueryFailed, SourceDown
from app.sources._file import FileSource, path_of
from app.sources._placeholders import is_list, rendered
from app.sources._streamed import FETCH, Limit, Result, Rows, RowsResult, Streamed, fetched
from app.sources._typed import Again, Batch, Field

if TYPE_CHECKING:
    import pyarrow as pa

    from app.sources._ring import Ring

SCHEMES = ("sqlite",)
CHILD = Path(__file__).with_name("_sqlite_child.py")
# Only in a process of one thread SQLite's locks cost nothing: half of its time. numpy would start more.
ALONE = {"OPENBLAS_NUM_THREADS": "1"}
# Steps of SQLite's machine between two looks at the clock.
STEPS = 100_000
# A query whose first rows took longer, in seconds, is not asked a second time by the other process.
PATIENCE = 1.0
# How long to wait for a writer's lock, in seconds.
LOCK_TIMEOUT = 10
_KINDS = {"int64": "integer", "float64": "real", "text": "text", "bytes": "blob"}
_HOLDS: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "real": (float, int),
    "text": (str,),
    "blob": (bytes,),
    "null": (),
    "any": (int, float, str, bytes),
}


def open_source(name: str, url: str, timeout: timedelta) -> Sqlite:
    return Sqlite(name, path_of(name, url, "sqlite:////folder/file.db"), timeout)


class Sqlite(FileSource):
    @contextmanager
    def reading(self, snapshot: str = "") -> Iterator[SqliteReading]:
        uri = f"file:///{quote(str(self._path.absolute()).lstrip('/'))}?mode=ro"
        conn = self._connect(uri)
        reading = SqliteReading(self.name, conn, uri, Limit(self.name, self._timeout))
        try:
            yield reading
        finally:
            reading.close()

    def _connect(self, uri: str) -> sqlite3.Connection:
        self._check()
        try:
            conn = sqlite3.connect(
                uri, uri=True, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            conn.text_factory = _text
            conn.execute("PRAGMA query_only = true")
            conn.execute("BEGIN")
            # Takes the snapshot, and finds out whether it is a database.
            conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error as error:
            raise SourceDown(f"The source {self.name!r} does not answer ({error}).") from error
        return conn


class SqliteReading(Streamed):
    wraps = True

    def __init__(self, source: str, conn: sqlite3.Connection, uri: str, limit: Limit) -> None:
        self._source, self._conn, self._uri, self._limit = source, conn, uri, limit
        self._child: subprocess.Popen[bytes] | None = None
        self.snapshot_at = datetime.now(UTC)
        self.rows_read = 0
        # Queries that turned out to hold what their first rows did not show.
        self.strange: set[str] = set()
        conn.set_progress_handler(lambda: self._limit.over, STEPS)

    def quoted(self, name: str) -> str:
        # SQLite takes a name in double quotes for a text if there is no such column.
        return "`" + name.replace("`", "``") + "`"

    def break_off(self) -> None:
        self._limit.broken_off = True
        self._conn.interrupt()
        if (child := self._child) is not None:
            child.kill()

    def close(self) -> None:
        self._forget()
        self._conn.close()

    def _open(self, sql: str, values: Mapping[str, Any]) -> Result:
        query, bound = _composed(sql, values)
        self._limit.begin()
        began = time.monotonic()
        cursor = self._conn.execute(query, bound)
        names = [column[0] for column in cursor.description]
        blocks = _blocks(cursor)
        first = next(blocks, [])
        # The other process counts the rows that it holds, not their bytes: wide ones stay here.
        quick = len(first) == FETCH and time.monotonic() - began < PATIENCE
        result = RowsResult(names, _from(first, blocks))
        return _Apart(self, query, bound, first, result) if quick else result

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._meaning(error) from error

    def _meaning(self, error: sqlite3.Error) -> QueryFailed:
        if self._limit.over:
            return self._limit.meaning()
        if error.sqlite_errorname == "SQLITE_READONLY" if hasattr(error, "sqlite_errorname") else False:
            return QueryFailed("The report's query tries to write; reports only read.")
        return QueryFailed(f"The source {self._source!r} refused the query: {error}")

    def read_apart(
        self, query: str, bound: Sequence[Any], kinds: Sequence[str], exact: bool
    ) -> Generator[pa.RecordBatch, None, None]:
        """Record batches from another process; with `exact` one column more, of strays."""
        from app.sources._ring import Ring

        with Ring() as ring, self._spawned(ring, query, bound, kinds, exact) as child:
            yield from ring.batches(child)
            told = _told(child)
        if self._limit.over:
            raise self._limit.meaning()
        match told.get("end"):
            case "whole":
                self.snapshot_at = datetime.fromtimestamp(told["at"], UTC)
            case "stray":
                self.strange.add(query)
                raise Again("A column holds other types of values than its first rows did.")
            case "failed":
                raise QueryFailed(f"The source {self._source!r} refused the query: {told['message']}")
            case _:
                raise SourceDown(f"The process that read the source {self._source!r} was ended.")

    @contextmanager
    def _spawned(
        self, ring: Ring, query: str, bound: Sequence[Any], kinds: Sequence[str], exact: bool
    ) -> Iterator[subprocess.Popen[bytes]]:
        asked = {
            "uri": self._uri,
            "sql": query,
            "values": list(bound),
            "kinds": list(kinds),
            "exact": exact,
            "seconds": max(1, int(self._limit.left) + 1),
            "ring": ring.described,
        }
        child = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[ring.descriptor],
            env=os.environ | ALONE,
        )
        self._child = child
        try:
            assert child.stdin is not None
            with self._limit.watched(child.kill):
                with suppress(BrokenPipeError):
                    child.stdin.write(json.dumps(asked).encode() + b"\n")
                    child.stdin.flush()
                yield child
        finally:
            self._child = None
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout, child.stderr):
                with suppress(BrokenPipeError):  # it ended before it had read its question
                    if pipe is not None:
                        pipe.close()


class _Apart(Result):
    """A result of many rows: its first ones are known, and another process reads them all."""

    def __init__(
        self, reading: SqliteReading, query: str, bound: Sequence[Any], first: Rows, near: RowsResult
    ) -> None:
        self._reading, self._query, self._bound, self._near = reading, query, bound, near
        self._columns = list(zip(*first, strict=True))
        self.fields = near.fields

    def batches(self, fields: Sequence[Field]) -> Iterator[Batch]:
        pairs = list(zip(fields, self.fields, self._columns, strict=True))
        kinds = [_kind(wanted, found, values) for wanted, found, values in pairs]
        exact = self._query in self._reading.strange or any(map(_surprising, kinds, self._columns))
        if exact:
            kinds = ["any" if kind == "null" else kind for kind in kinds]
        self._columns.clear()
        self._near.close()
        from app.sources import _sqlite_batches

        for batch in self._reading.read_apart(self._query, self._bound, kinds, exact):
            yield _sqlite_batches.batch(batch, kinds)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        return self._near.rows()

    def close(self) -> None:
        self._near.close()


def _kind(wanted: Field, found: Field, values: Sequence[object]) -> str:
    """How the other process is to read a column; see there."""
    if wanted.kind != found.kind:
        return "any"
    return "null" if all(value is None for value in values) else _KINDS[found.kind]


def _surprising(kind: str, values: Sequence[object]) -> bool:
    return not {type(value) for value in values if value is not None}.issubset(_HOLDS[kind])


def _told(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """A process's last words."""
    assert child.stderr is not None
    lines = child.stderr.read().decode(errors="replace").splitlines()
    with suppress(ValueError, IndexError):
        told: dict[str, Any] = json.loads(lines[-1])
        return told
    return {}


def _blocks(cursor: sqlite3.Cursor) -> Generator[Rows, None, None]:
    with closing(cursor):
        yield from fetched(cursor.fetchmany)


def _from(first: Rows, blocks: Generator[Rows, None, None]) -> Generator[Rows, None, None]:
    with closing(blocks):
        yield first
        yield from blocks


def _composed(sql: str, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The query with ?1, ?2 … and what they stand for."""
    places: dict[str, int] = {}

    def write(name: str, type: str) -> str:
        if values[name] is None and is_list(None, type):
            return "(NULL)"
        place = f"?{places.setdefault(name, len(places) + 1)}"
        if is_list(values[name], type):
            return f"(SELECT value FROM json_each({place}))"
        return f"CAST({place} AS NUMERIC)" if type == "numeric" else place

    query = rendered(sql, values, write)
    return query, [_bound(values[name]) for name in places]


def _bound(value: object) -> object:
    """As SQLite's own functions write such values."""
    match value:
        case bool():
            return int(value)
        case datetime():
            moment = value.astimezone(UTC) if value.tzinfo else value
            return moment.replace(tzinfo=None).isoformat(sep=" ")
        case date():
            return value.isoformat()
        case Decimal():
            return format(value, "f")
        case list() | tuple():
            return json.dumps(list(map(_bound, value)))
        case _:
            return value


def _text(raw: bytes) -> str:
    """Bytes that are no UTF-8 are shown as \\xff: nothing is lost, and nothing fails."""
    return raw.decode(errors="backslashreplace")
