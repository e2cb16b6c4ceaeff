"""Whatever else SQLAlchemy speaks, `dialect+driver://…`: the last resort, by rows.

There is no one way to make any database read only or to stop its query. So nothing is ever committed here,
and a query is stopped as its driver can, or else when its next rows come.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Boolean,
    Connection,
    CursorResult,
    Date,
    DateTime,
    Double,
    Engine,
    NullPool,
    Numeric,
    Row,
    String,
    TextClause,
    bindparam,
    create_engine,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.types import BigInteger, TypeEngine

from app.errors import BadSettings, QueryFailed, SourceDown, WaybillError
from app.sources import LAST_RESORT, Source
from app.sources._placeholders import is_list, rendered
from app.sources._streamed import FETCH, Limit, Result, Rows, RowsResult, Streamed, fetched, first_line

log = logging.getLogger(__name__)

SCHEMES = (LAST_RESORT,)
# Steady ones first.
_ISOLATION = ("SNAPSHOT", "REPEATABLE READ", "SERIALIZABLE")
_TYPES: dict[str, TypeEngine[Any]] = {
    "text": String(),
    "bigint": BigInteger(),
    "numeric": Numeric(),
    "boolean": Boolean(),
    "date": Date(),
    "timestamptz": DateTime(timezone=True),
    "double precision": Double(),
}


def open_source(name: str, url: str, timeout: timedelta) -> Other:
    variable = f"SOURCE_{name.upper()}_URL"
    try:
        engine = create_engine(make_url(url), poolclass=NullPool)
    except NoSuchModuleError:
        scheme = url.partition("://")[0]
        raise BadSettings(
            f"{variable} starts with {scheme}://, which nothing installed here speaks; use postgresql://, "
            "mysql://, sqlite:///, duckdb:///, or install the SQLAlchemy dialect of your database."
        ) from None
    except ImportError as error:
        raise BadSettings(f"{variable} needs a driver that is not installed: {error}.") from None
    except (ArgumentError, ValueError):
        raise BadSettings(f"{variable} is no URL; write dialect+driver://user@host/database.") from None
    return Other(name, engine, timeout)


class Other(Source):
    def __init__(self, name: str, engine: Engine, timeout: timedelta) -> None:
        self.name = name
        self._engine, self._timeout = engine, timeout

    @contextmanager
    def reading(self, snapshot: str = "") -> Iterator[OtherReading]:
        conn = self._connect()
        reading = OtherReading(self.name, conn, Limit(self.name, self._timeout))
        try:
            yield reading
        finally:
            reading.close()

    def warnings(self) -> Sequence[str]:
        self._connect().close()
        return (
            f"Whether the account of the source {self.name!r} may write can't be told for "
            f"{self._engine.dialect.name}; see to it that it can only read.",
        )

    def _connect(self) -> Connection:
        try:
            conn = self._engine.connect()
            levels = _levels(conn)
            if level := next((level for level in _ISOLATION if level in levels), None):
                conn = conn.execution_options(isolation_level=level)
        except SQLAlchemyError as error:
            log.warning("Source %s does not answer: %s", self.name, error)
            raise SourceDown(f"The source {self.name!r} does not answer ({_line(error)}).") from error
        return conn


class OtherReading(Streamed):
    def __init__(self, source: str, conn: Connection, limit: Limit) -> None:
        self._source, self._conn, self._limit = source, conn, limit
        self.snapshot_at = datetime.now(UTC)
        self.rows_read = 0

    def break_off(self) -> None:
        self._limit.broken_off = True
        self._stop()

    def nothing(self, sql: str) -> str:
        # Not every database takes a query with an order, or AS, in there: its first rows are read instead.
        return sql

    def close(self) -> None:
        self._forget()
        self._conn.close()

    def _stop(self) -> None:
        """As the driver can: psycopg, cx_Oracle and others cancel; SQLite and DuckDB interrupt."""
        raw = self._conn.connection.dbapi_connection
        for name in ("cancel", "interrupt"):
            if (stop := getattr(raw, name, None)) is not None:
                with suppress(Exception):
                    stop()
                return

    def _open(self, sql: str, values: Mapping[str, Any]) -> Result:
        self._limit.begin()
        with self._watched():
            found = self._conn.execution_options(stream_results=True, max_row_buffer=FETCH).execute(
                _composed(sql, values)
            )
            return RowsResult(list(found.keys()), self._blocks(found))

    def _blocks(self, found: CursorResult[Any]) -> Generator[Rows, None, None]:
        def fetch(count: int) -> Sequence[Row[Any]]:
            with self._watched():
                return found.fetchmany(count)

        try:
            yield from fetched(fetch)
        finally:
            found.close()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Stopped when its time is over."""
        with self._limit.watched(self._stop):
            yield
        if self._limit.over:
            raise self._limit.meaning()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise self._meaning(error) from error

    def _meaning(self, error: SQLAlchemyError) -> WaybillError:
        if self._limit.over:
            return self._limit.meaning()
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return SourceDown(f"The connection to the source {self._source!r} was cut ({_line(error)}).")
        return QueryFailed(f"The source {self._source!r} refused the query: {_line(error)}")


def _levels(conn: Connection) -> Sequence[str]:
    with suppress(NotImplementedError):
        raw = conn.connection.dbapi_connection
        return list(conn.dialect.get_isolation_level_values(raw)) if raw is not None else []
    return []


def _composed(sql: str, values: Mapping[str, Any]) -> TextClause:
    """With SQLAlchemy's own placeholders; a list stands for its values in parentheses."""
    types: dict[str, str] = {}

    def write(name: str, type: str) -> str:
        if values[name] is None and is_list(None, type):
            return "(NULL)"
        types[name] = type
        return f"\0{name}\0"

    query = rendered(sql, values, write).replace(":", r"\:")
    for name in types:
        query = query.replace(f"\0{name}\0", f":{name}")
    binds = [
        bindparam(
            name,
            values[name],
            type_=_TYPES.get(type.removesuffix("[]")),
            expanding=isinstance(values[name], list | tuple),
        )
        for name, type in types.items()
    ]
    return text(query).bindparams(*binds)


def _line(error: SQLAlchemyError) -> str:
    """What the driver said, without SQLAlchemy's own words."""
    return first_line(error, str(getattr(error, "orig", None) or error))
