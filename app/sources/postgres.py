"""PostgreSQL, read by COPY: its own bytes go straight through."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import ClientCursor, Connection, errors

from app.errors import QueryFailed, SourceDown, WaybillError
from app.sources import Reading, Source

log = logging.getLogger(__name__)

SCHEMES = ("postgresql", "postgresql+psycopg", "postgres")
# Copied rows are joined to blocks of this size, in bytes.
BLOCK = 1024 * 1024
# Rows fetched at a time by a Python report's query.
FETCH = 5000
CONNECT_TIMEOUT = 10


def open_source(name: str, url: str, timeout: timedelta) -> Postgres:
    return Postgres(name, url, timeout)


class Postgres(Source):
    def __init__(self, name: str, url: str, timeout: timedelta) -> None:
        self.name = name
        self._url = "postgresql://" + url.partition("://")[2]
        self._timeout = timeout

    @contextmanager
    def reading(self) -> Iterator[PostgresReading]:
        conn = self._connect()
        try:
            yield PostgresReading(self.name, conn, self._timeout)
        finally:
            conn.close()

    def _connect(self) -> Connection[Any]:
        try:
            conn = psycopg.connect(
                self._url, connect_timeout=CONNECT_TIMEOUT, client_encoding="utf8", application_name="waybill"
            )
        except psycopg.Error as error:
            log.warning("Source %s does not answer: %s", self.name, error)
            raise SourceDown(f"The source {self.name!r} does not answer ({_first_line(error)}).") from error
        conn.read_only = True
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return conn


class PostgresReading(Reading):
    def __init__(self, source: str, conn: Connection[Any], timeout: timedelta) -> None:
        self._source, self._conn, self._timeout = source, conn, timeout
        self.rows_read = 0
        with self._translated(), conn.cursor() as cursor:
            # In the transaction, not the connection's options: a pooler in between refuses those.
            cursor.execute(
                "SELECT set_config('statement_timeout', %s, true), set_config('timezone', 'UTC', true),"
                " set_config('datestyle', 'ISO, YMD', true), set_config('intervalstyle', 'iso_8601', true),"
                " set_config('extra_float_digits', '1', true), set_config('bytea_output', 'hex', true)",
                (str(int(timeout.total_seconds() * 1000)),),
            )
            cursor.execute("SELECT transaction_timestamp()")
            row = cursor.fetchone()
            assert row is not None
            self.snapshot_at: datetime = row[0]

    def copy(self, sql: str, values: Mapping[str, Any], options: str) -> Iterator[bytes]:
        self.rows_read = 0
        query = f"COPY ({self._composed(sql, values)}\n) TO STDOUT WITH ({options})"
        with self._translated(), self._conn.cursor() as cursor:
            with cursor.copy(query.encode()) as copying:
                # psycopg hands out one row at a time; joined here, the rest of the way costs next to nothing.
                block: list[bytes | memoryview] = []
                size = 0
                for row in copying:
                    block.append(row)
                    size += len(row)
                    if size >= BLOCK:
                        # Exact at the end; on the way it says how far the copy is (the header counts as one).
                        self.rows_read += len(block)
                        yield b"".join(block)
                        block, size = [], 0
                yield b"".join(block)
            self.rows_read = cursor.rowcount

    def rows(self, sql: str, values: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        self.rows_read = 0
        with self._translated(), self._conn.cursor(name="waybill") as cursor:
            cursor.itersize = FETCH
            cursor.execute(self._composed(sql, values).encode())
            for row in cursor:
                self.rows_read += 1
                yield row

    def columns(self, sql: str, values: Mapping[str, Any]) -> Sequence[str]:
        with self._translated(), self._conn.cursor() as cursor:
            cursor.execute(f"SELECT * FROM ({self._composed(sql, values)}\n) AS report LIMIT 0".encode())
            return [column.name for column in cursor.description or ()]

    def estimate(self, sql: str, values: Mapping[str, Any]) -> int:
        with self._translated(), self._conn.cursor() as cursor:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {self._composed(sql, values)}".encode())
            row = cursor.fetchone()
            assert row is not None
            return int(row[0][0]["Plan"]["Plan Rows"])

    def break_off(self) -> None:
        self._conn.cancel_safe(timeout=2)

    def _composed(self, sql: str, values: Mapping[str, Any]) -> str:
        """COPY takes no bound parameters: psycopg quotes the values as literals, in the connection's encoding."""
        return ClientCursor(self._conn).mogrify(sql, values) if values else sql.replace("%%", "%")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._meaning(error) from error

    def _meaning(self, error: psycopg.Error) -> WaybillError:
        match error:
            case errors.QueryCanceled():
                limit = int(self._timeout.total_seconds())
                return QueryFailed(
                    f"The source {self._source!r} stopped the query: {_first_line(error)} (the limit is {limit} s). "
                    "Ask for less, or ask the operator for a higher limit."
                )
            case psycopg.OperationalError() | psycopg.InterfaceError() if (
                self._conn.broken or self._conn.closed
            ):
                return SourceDown(
                    f"The connection to the source {self._source!r} was cut ({_first_line(error)})."
                )
            case errors.ReadOnlySqlTransaction():
                return QueryFailed("The report's query tries to write; reports only read.")
            case _:
                return QueryFailed(f"The source {self._source!r} refused the query: {_first_line(error)}")


def _first_line(error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
