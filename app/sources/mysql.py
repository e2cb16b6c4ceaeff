"""MySQL and MariaDB, streamed row by row: `mysql://user:password@host:3306/database`."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pymysql.constants import FIELD_TYPE, FLAG
from pymysql.converters import conversions, convert_datetime
from pymysql.cursors import SSCursor

from app.errors import BadSettings, QueryFailed, SourceDown, WaybillError
from app.sources import Source
from app.sources._placeholders import is_list, rendered
from app.sources._streamed import Limit, Result, Rows, RowsResult, Streamed, fetched, first_line
from app.sources._typed import Field, Kind

log = logging.getLogger(__name__)

SCHEMES = ("mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql")
CONNECT_TIMEOUT = 10
# How long the server waits for us while a storage is slow, in seconds.
WRITE_TIMEOUT = 600
_KINDS: dict[int, Kind] = {
    FIELD_TYPE.TINY: "int16",
    FIELD_TYPE.SHORT: "int32",
    FIELD_TYPE.INT24: "int32",
    FIELD_TYPE.LONG: "int64",
    FIELD_TYPE.LONGLONG: "int64",
    FIELD_TYPE.YEAR: "int16",
    FIELD_TYPE.BIT: "int64",
    FIELD_TYPE.FLOAT: "float64",
    FIELD_TYPE.DOUBLE: "float64",
    FIELD_TYPE.DECIMAL: "decimal",
    FIELD_TYPE.NEWDECIMAL: "decimal",
    FIELD_TYPE.DATE: "date",
    FIELD_TYPE.DATETIME: "datetime",
    FIELD_TYPE.TIMESTAMP: "instant",
    FIELD_TYPE.JSON: "json",
    FIELD_TYPE.GEOMETRY: "bytes",
}
# The number of the character set that means bytes.
_BINARY = 63
_WRITES = ("ALL PRIVILEGES", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "FILE", "SUPER")


def open_source(name: str, url: str, timeout: timedelta) -> MySql:
    try:
        return MySql(name, Address.of(url), timeout)
    except ValueError as error:
        raise BadSettings(
            f"SOURCE_{name.upper()}_URL is no good ({error}); write mysql://user:password@host:3306/database."
        ) from None


@dataclass(frozen=True)
class Address:
    """What the URL says; `options` are `ssl_ca`, `unix_socket` and the like, as PyMySQL names them."""

    host: str
    port: int
    user: str
    password: str
    database: str
    options: Mapping[str, str]

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises ValueError."""
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        options.pop("charset", None)
        unknown = options.keys() - {"ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_identity", "unix_socket"}
        if unknown:
            raise ValueError(f"it says {min(unknown)}, which has no meaning here")
        return cls(
            parts.hostname or "localhost",
            parts.port or 3306,
            unquote(parts.username or ""),
            unquote(parts.password or ""),
            unquote(parts.path.removeprefix("/")),
            options,
        )


class MySql(Source):
    def __init__(self, name: str, address: Address, timeout: timedelta) -> None:
        self.name = name
        self._address, self._timeout = address, timeout

    @contextmanager
    def reading(self, snapshot: str = "") -> Iterator[MySqlReading]:
        conn = self._connect()
        try:
            yield MySqlReading(self.name, conn, self._connect, self._timeout)
        finally:
            # Without a farewell: the server may still be sending.
            conn._force_close()

    def warnings(self) -> Sequence[str]:
        with self.reading() as reading:
            grants = [str(row[0]).upper() for row in reading.rows("SHOW GRANTS", {})]
        writing = [word for word in _WRITES if any(word in _privileges(grant) for grant in grants)]
        if not writing:
            return ()
        return (
            f"The account of the source {self.name!r} may write ({', '.join(writing)}). "
            "Reports only read: give it an account with no more than SELECT.",
        )

    def _connect(self) -> Any:
        address = self._address
        options: dict[str, Any] = dict(address.options)
        try:
            return pymysql.connect(
                host=address.host,
                port=address.port,
                user=address.user,
                password=address.password,
                database=address.database or None,
                charset="utf8mb4",
                connect_timeout=CONNECT_TIMEOUT,
                read_timeout=int(self._timeout.total_seconds()) + 60,
                cursorclass=SSCursor,
                conv=_CONVERTERS,
                program_name="waybill",
                **options,
            )
        except (pymysql.Error, OSError) as error:
            log.warning("Source %s does not answer: %s", self.name, error)
            raise SourceDown(f"The source {self.name!r} does not answer ({_words(error)}).") from error


class MySqlReading(Streamed):
    def __init__(self, source: str, conn: Any, connect: Any, timeout: timedelta) -> None:
        self._source, self._conn, self._connect = source, conn, connect
        self._limit = Limit(source, timeout)
        self.rows_read = 0
        with self._translated():
            self._prepare(timeout)
            at = self._value("SELECT UTC_TIMESTAMP(6)")
            self.snapshot_at = at.replace(tzinfo=UTC)

    def break_off(self) -> None:
        self._limit.broken_off = True
        self._kill()

    def _prepare(self, timeout: timedelta) -> None:
        seconds = timeout.total_seconds()
        maria = "MariaDB" in self._conn.server_version
        # In seconds here, in milliseconds there.
        limit = f"max_statement_time = {seconds}" if maria else f"max_execution_time = {int(seconds * 1000)}"
        for statement in (
            f"SET SESSION time_zone = '+00:00', net_write_timeout = {WRITE_TIMEOUT}, {limit}",
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        ):
            self._value(statement)

    def _value(self, statement: str) -> Any:
        with self._conn.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone()
            return row[0] if row else None

    def _kill(self) -> None:
        """A second connection stops the query of the first; that is the protocol's only way."""
        with suppress(pymysql.Error, OSError, SourceDown):
            killer = self._connect()
            with killer, killer.cursor() as cursor:
                cursor.execute(f"KILL QUERY {self._conn.thread_id()}")

    def _open(self, sql: str, values: Mapping[str, Any]) -> Result:
        query = rendered(sql, values, partial(self._literal, values))
        self._limit.begin()
        cursor = self._conn.cursor()
        cursor.execute(query)
        columns = cursor._result.fields if cursor.description else []
        fields = [_field(column) for column in columns]
        return RowsResult([field.name for field in fields], self._blocks(cursor), fields)

    def _blocks(self, cursor: SSCursor) -> Generator[Rows, None, None]:
        whole = False
        try:
            yield from fetched(cursor.fetchmany)
            whole = True
        finally:
            if not whole:
                # Else closing reads all that is left.
                self._kill()
            with suppress(pymysql.Error):
                cursor.close()

    def _literal(self, values: Mapping[str, Any], name: str, type: str) -> str:
        """Values are quoted here: the protocol binds none in a plain query."""
        value = values[name]
        if not is_list(value, type):
            return self._quoted(value)
        # Nothing is in no list, so everything is outside: (NULL) is for a list that nobody gave.
        items = [None] if value is None else value
        return f"({', '.join(map(self._quoted, items)) or 'SELECT NULL FROM DUAL WHERE FALSE'})"

    def _quoted(self, value: object) -> str:
        if isinstance(value, datetime) and value.tzinfo:
            value = value.astimezone(UTC).replace(tzinfo=None)
        if isinstance(value, Decimal):
            return format(value, "f")
        return str(self._conn.escape(value))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (pymysql.Error, OSError) as error:
            raise self._meaning(error) from error

    def _meaning(self, error: Exception) -> WaybillError:
        code = error.args[0] if error.args else 0
        if self._limit.over or code in (1317, 1969, 3024):
            return self._limit.meaning()
        if isinstance(error, OSError) or code in (0, 1053, 1927, 2006, 2013, 2055):
            return SourceDown(f"The connection to the source {self._source!r} was cut ({_words(error)}).")
        if code == 1792:
            return QueryFailed("The report's query tries to write; reports only read.")
        return QueryFailed(f"The source {self._source!r} refused the query: {_words(error)}")


def _field(column: Any) -> Field:
    name, type = column.name, column.type_code
    if type in (FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL):
        signs = (not column.flags & FLAG.UNSIGNED) + bool(column.scale)
        return Field(name, "decimal", column.length - signs, column.scale)
    if (type == FIELD_TYPE.LONGLONG and column.flags & FLAG.UNSIGNED) or (
        type == FIELD_TYPE.BIT and column.length > 63
    ):
        return Field(name, "decimal", 20, 0)
    if type in _KINDS:
        return Field(name, _KINDS[type])
    if column.charsetnr == _BINARY and type not in (FIELD_TYPE.TIME, FIELD_TYPE.NULL):
        return Field(name, "bytes")
    return Field(name, "text")


def _moment(text: str) -> Any:
    """A TIMESTAMP is a moment, and the session's clock is UTC; `0000-00-00` stays text."""
    found = convert_datetime(text)
    return found.replace(tzinfo=UTC) if isinstance(found, datetime) else text


def _bits(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


# Text for a TIME, which may be more than a day.
_CONVERTERS = conversions | {
    FIELD_TYPE.TIMESTAMP: _moment,
    FIELD_TYPE.TIME: str,
    FIELD_TYPE.BIT: _bits,
}


def _privileges(grant: str) -> str:
    """What `GRANT … ON` names."""
    return grant.partition(" ON ")[0]


def _words(error: Exception) -> str:
    return first_line(error, str(error.args[1] if len(error.args) > 1 else error))
