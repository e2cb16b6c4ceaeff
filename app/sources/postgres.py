"""PostgreSQL, read by COPY: its own bytes go straight through."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import ClientCursor, Connection, errors
from psycopg.sql import SQL, Identifier

from app.errors import QueryFailed, SourceDown, WaybillError
from app.sources import Reading, Source, _postgres_values
from app.sources._typed import Batch, Copy, Field, Kind

if TYPE_CHECKING:
    from app.sources._wire import Wire

log = logging.getLogger(__name__)

SCHEMES = ("postgresql", "postgresql+psycopg", "postgres")
# Rows fetched at a time by a Python report's query.
FETCH = 5000
CONNECT_TIMEOUT = 10
# Values of a list that is worth keeping as a literal.
LONG = 1000
# By the types' numbers, which are the same in every PostgreSQL.
_KINDS: dict[int, Kind] = {
    16: "bool",
    17: "bytes",
    20: "int64",
    21: "int16",
    23: "int32",
    25: "text",
    26: "int64",  # oid
    114: "json",
    700: "float32",
    701: "float64",
    1042: "text",  # char(n)
    1043: "text",  # varchar
    1082: "date",
    1083: "time",
    1114: "datetime",
    1184: "instant",
    1700: "decimal",
    2950: "uuid",
    3802: "json",  # jsonb
}
# How many tables the account may write to, one of them, and whether it may do anything at all.
_WRITABLE = """
SELECT count(*), min(c.oid::regclass::text), (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND has_schema_privilege(n.oid, 'USAGE')
  AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
"""
# SQLSTATEs of a connection that ends: connection exceptions, and the server's shutdowns.
_CUT = ("08", "57P")


def open_source(name: str, url: str, timeout: timedelta) -> Postgres:
    return Postgres(name, url, timeout)


class Postgres(Source):
    def __init__(self, name: str, url: str, timeout: timedelta) -> None:
        self.name = name
        self._url = "postgresql://" + url.partition("://")[2]
        self._timeout = timeout

    @contextmanager
    def reading(self, snapshot: str = "") -> Iterator[PostgresReading]:
        conn = self._connect()
        try:
            yield PostgresReading(self.name, conn, self._timeout, snapshot)
        finally:
            conn.close()

    def warnings(self) -> Sequence[str]:
        with self._connect() as conn, conn.cursor() as cursor:
            cursor.execute(_WRITABLE)
            tables, example, superuser = cursor.fetchone() or (0, None, False)
        account = f"The account of the source {self.name!r}"
        mend = "Reports only read: give it an account with no more than SELECT."
        if superuser:
            return (f"{account} is a superuser. {mend}",)
        return (f"{account} may write to {tables:,} tables ({example}, for one). {mend}",) if tables else ()

    def _connect(self) -> Connection[Any]:
        try:
            conn = psycopg.connect(
                self._url,
                # libpq waits for two seconds at least.
                connect_timeout=min(CONNECT_TIMEOUT, max(2, int(self._timeout.total_seconds()))),
                client_encoding="utf8",
                application_name="waybill",
            )
        except psycopg.Error as error:
            log.warning("Source %s does not answer: %s", self.name, error)
            raise SourceDown(f"The source {self.name!r} does not answer ({_first_line(error)}).") from error
        conn.read_only = True
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        _postgres_values.register(conn)
        return conn


class PostgresReading(Reading):
    copies = True
    wraps = True

    def __init__(self, source: str, conn: Connection[Any], timeout: timedelta, snapshot: str) -> None:
        self._source, self._conn, self._timeout = source, conn, timeout
        # Long lists as PostgreSQL reads them, each with its list, by that list's identity.
        self._arrays: dict[int, tuple[list[Any], str]] = {}
        self.rows_read = 0
        with self._translated(), conn.cursor() as cursor:
            if snapshot:
                cursor.execute(SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
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

    def copy(self, sql: str, values: Mapping[str, Any], copy: Copy) -> Generator[bytes, None, None]:
        self.rows_read = 0
        composed = f"{copy.before}{self._composed(sql, values)}\n{copy.after}"
        query = f"COPY ({composed}) TO STDOUT WITH ({copy.options})"
        with self._translated(), self._abandonable():
            for block in self._wire.copy_out(query.encode(), copy.line_end):
                # Exact at the end; on the way it says how far the copy is.
                self.rows_read = self._wire.rows
                yield block
        self.rows_read = self._wire.rows

    def batches(
        self, sql: str, values: Mapping[str, Any], fields: Sequence[Field] | None = None
    ) -> Generator[Batch, None, None]:
        # Arrow is heavy: a worker that writes only CSV never loads it.
        from app.sources import _delimited

        typed = fields or self.fields(sql, values)
        with closing(self.copy(sql, values, Copy("FORMAT csv, ENCODING 'UTF8'"))) as blocks:
            yield from (_delimited.batch(block, typed) for block in blocks if block)

    def rows(self, sql: str, values: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        self.rows_read = 0
        with self._translated(), self._conn.cursor(name="waybill") as cursor:
            cursor.itersize = FETCH
            cursor.execute(self._composed(sql, values).encode())
            for row in cursor:
                self.rows_read += 1
                yield row

    def fields(self, sql: str, values: Mapping[str, Any]) -> Sequence[Field]:
        with self._translated(), self._conn.cursor() as cursor:
            cursor.execute(f"SELECT * FROM ({self._composed(sql, values)}\n) AS report LIMIT 0".encode())
            return [_field(column) for column in cursor.description or ()]

    def estimate(self, sql: str, values: Mapping[str, Any]) -> int:
        with self._translated(), self._conn.cursor() as cursor:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {self._composed(sql, values)}".encode())
            row = cursor.fetchone()
            assert row is not None
            return int(row[0][0]["Plan"]["Plan Rows"])

    def bounds(self, sql: str, values: Mapping[str, Any], column: str, parts: int) -> Sequence[str]:
        origin = self._origin(sql, values, column)
        if origin is None:
            return ()
        with self._translated(), self._conn.cursor() as cursor:
            cursor.execute(
                "SELECT s.histogram_bounds::text::text[] FROM pg_stats AS s"
                " JOIN pg_namespace AS n ON n.nspname = s.schemaname"
                " JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.tablename"
                " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = s.attname"
                " WHERE c.oid = %s AND a.attnum = %s AND NOT s.inherited",
                origin,
            )
            row = cursor.fetchone()
        known = row[0][1:-1] if row and row[0] else []
        cuts = min(parts - 1, len(known))
        return [known[(number * len(known)) // (cuts + 1)] for number in range(1, cuts + 1)]

    def _origin(self, sql: str, values: Mapping[str, Any], column: str) -> tuple[int, int] | None:
        """The table and the column's number that a column of the result is taken from, unchanged."""
        with self._translated(), self._conn.cursor() as cursor:
            cursor.execute(f"SELECT * FROM ({self._composed(sql, values)}\n) AS report LIMIT 0".encode())
            result = cursor.pgresult
            assert result is not None
            for number in range(result.nfields):
                if result.fname(number) == column.encode() and result.ftable(number):
                    return result.ftable(number), result.ftablecol(number)
        return None

    def within(
        self, sql: str, values: Mapping[str, Any], column: str, lower: str | None, upper: str | None
    ) -> tuple[str, Mapping[str, Any]]:
        key = "part." + Identifier(column).as_string(self._conn).replace("%", "%%")
        conditions = []
        if lower is not None:
            conditions.append(f"{key} >= %(part_lower)s")
        if upper is not None:
            conditions.append(f"{key} < %(part_upper)s")
        elif lower is not None:
            conditions = [f"({conditions[0]} OR {key} IS NULL)"]
        where = " AND ".join(conditions) or "true"
        # Without an order of its own: the query's order goes through, as one filter stands above it.
        wrapped = f"SELECT * FROM ({sql}\n) AS part WHERE {where}"
        return wrapped, {**values, "part_lower": lower, "part_upper": upper}

    def export_snapshot(self) -> str:
        with self._translated(), self._conn.cursor() as cursor:
            cursor.execute("SELECT pg_export_snapshot()")
            row = cursor.fetchone()
            assert row is not None
            return str(row[0])

    def break_off(self) -> None:
        self._conn.cancel_safe(timeout=2)

    @cached_property
    def _wire(self) -> Wire:
        # NumPy comes with it, which is heavy, and which only copies need.
        from app.sources._wire import Wire

        return Wire(self._conn.pgconn)

    def _composed(self, sql: str, values: Mapping[str, Any]) -> str:
        """COPY takes no bound parameters, so psycopg quotes the values as literals."""
        if not values:
            return sql.replace("%%", "%")
        packed = {name: self._packed(value) for name, value in values.items()}
        return ClientCursor(self._conn).mogrify(sql, packed)

    def _packed(self, value: Any) -> Any:
        """A long list is made a literal once: it is in every query that a report needs."""
        if not isinstance(value, list) or len(value) < LONG:
            return value
        known = self._arrays.get(id(value))
        if known is None and set(map(type, value)) <= {str, int}:
            known = self._arrays[id(value)] = (value, _array(value))
        return known[1] if known else value

    @contextmanager
    def _abandonable(self) -> Iterator[None]:
        """A copy that is left before its end costs neither the connection nor the snapshot."""
        self._conn.execute("SAVEPOINT copying")
        try:
            yield
        except GeneratorExit:
            if not self._conn.closed:
                self.break_off()
                self._wire.drain()
                self._conn.execute("ROLLBACK TO SAVEPOINT copying")
            raise
        self._conn.execute("RELEASE SAVEPOINT copying")

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
                    f"The source {self._source!r} stopped the query: {_first_line(error)} "
                    f"(the limit is {limit} s). Ask for less, or ask the operator for a higher limit."
                )
            case _ if self._conn.broken or self._conn.closed or (error.sqlstate or "").startswith(_CUT):
                return SourceDown(
                    f"The connection to the source {self._source!r} was cut ({_first_line(error)})."
                )
            case errors.InvalidParameterValue() if "time zone" in str(error):
                return QueryFailed(
                    f"The source {self._source!r} lacks a time zone: {_first_line(error)}. Choose another "
                    "one of the same clock; its operator may bring its tables of time zones up to date."
                )
            case errors.ReadOnlySqlTransaction():
                return QueryFailed("The report's query tries to write; reports only read.")
            case _:
                return QueryFailed(f"The source {self._source!r} refused the query: {_first_line(error)}")


def _array(values: Sequence[str | int]) -> str:
    """An array as PostgreSQL reads it; every text is quoted, as it may look like NULL or hold a comma."""
    return (
        "{" + ",".join([_quoted(value) if isinstance(value, str) else str(value) for value in values]) + "}"
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _field(column: psycopg.Column) -> Field:
    return Field(column.name, _KINDS.get(column.type_code, "other"), column.precision, column.scale)


def _first_line(error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
