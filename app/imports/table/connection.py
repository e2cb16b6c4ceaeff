"""A connection to the database that an import writes to, and what its errors mean.

`connect` is for whoever works on a target: chunks, the conductor, a dry run, an undo. Errors leave as ours:
TargetDown (try again later), Again (try this transaction again), TargetRefused (give up), BadRows (some row
is bad).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors

from app import settings
from app.errors import NotFound, WaybillError
from app.imports.table import encode

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10
# How long a transaction waits for somebody else's lock before it is begun anew, in seconds.
LOCK_TIMEOUT = 20
SCHEMES = ("postgresql", "postgresql+psycopg", "postgres")
# SQLSTATEs, by their beginnings: connections that end, and places that are full.
_CUT = ("08", "57P", "25P03")
_BUSY = ("53", "58")
# Others were at the same rows; the next try sees what they did.
_AGAIN = ("40", "55P03")
# What a row's own values bring about; others are the account's or the importer's fault.
_ROW = ("22", "23", "44", "P0001")

Params = Sequence[Any] | Mapping[str, Any]


class TargetDown(WaybillError):
    """The target does not answer, cut the connection, or has no room."""

    code = "target_down"
    retryable = True
    status = 503


class TargetRefused(WaybillError):
    """The target refused what has nothing to do with a row: a missing right, for one."""

    code = "target_refused"


class Again(WaybillError):
    """Others were at the same rows; the transaction is tried again."""

    code = "target_busy"
    retryable = True


class BadRows(Exception):
    """The target refused some row; which one is not told. `error` is the database's."""

    def __init__(self, error: psycopg.Error) -> None:
        super().__init__(str(error))
        self.error = error


class Target:
    """A connection in autocommit; `transaction` for what belongs together."""

    def __init__(self, name: str, conn: psycopg.Connection[Any]) -> None:
        self.name, self.conn = name, conn

    def all(self, query: str, params: Params = ()) -> list[Any]:
        with self._translated():
            return self.conn.execute(query.encode(), params).fetchall()

    def one(self, query: str, params: Params = ()) -> Any:
        """The first row; None if there is none."""
        with self._translated():
            return self.conn.execute(query.encode(), params).fetchone()

    def run(self, query: str, params: Params = ()) -> int:
        """The number of rows that were written."""
        with self._translated():
            return self.conn.execute(query.encode(), params).rowcount

    def stream(self, query: str, params: Params = ()) -> Iterator[Any]:
        """Rows a few thousand at a time, from one snapshot."""
        with self._translated(), self.conn.transaction(), self.conn.cursor(name="waybill") as cursor:
            cursor.itersize = 5000
            cursor.execute(query.encode(), params)
            yield from cursor

    def copy(self, into: str, columns: Sequence[tuple[Any, str]], rows: int) -> int:
        """COPY Arrow columns, each with its encoding, into a table with its columns; rows that went in."""
        return self.send(into, encode.binary(columns, rows))

    def send(self, into: str, blocks: Iterable[bytes]) -> int:
        """COPY what `encode.binary` made."""
        with self._translated(), self.conn.cursor() as cursor:
            # No placeholders here: what was doubled for them is single again.
            statement = f"COPY {into} FROM STDIN (FORMAT binary)".replace("%%", "%")
            with cursor.copy(statement.encode()) as copy:
                for block in blocks:
                    copy.write(block)
            return cursor.rowcount

    def copy_rows(self, into: str, rows: Iterable[Sequence[Any]]) -> None:
        with (
            self._translated(),
            self.conn.cursor() as cursor,
            cursor.copy(f"COPY {into} FROM STDIN".encode()) as copy,
        ):
            for row in rows:
                copy.write_row(row)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._translated(), self.conn.transaction():
            yield

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        """A transaction of which nothing stays."""
        with self._translated(), self.conn.transaction(force_rollback=True):
            yield

    @contextmanager
    def patience(self, milliseconds: int) -> Iterator[None]:
        """While inside, locks of others are waited for so long."""
        setting = "SELECT set_config('lock_timeout', %s, false)"
        self.one(setting, (f"{milliseconds}ms",))
        yield
        self.one(setting, (f"{LOCK_TIMEOUT}s",))

    def break_off(self) -> None:
        """From another thread: make the statement at work fail soon."""
        self.conn.cancel_safe(timeout=5)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise _translated(self.name, error) from error


@contextmanager
def connect(source: str, purpose: str, patience: int = CONNECT_TIMEOUT) -> Iterator[Target]:
    """A target by its source's name; `purpose` is how the database's own lists call the connection.

    `patience` is how long it may take to answer, in seconds.

    Raises NotFound, TargetRefused (no PostgreSQL) or TargetDown.
    """
    url = settings.current().target_urls.get(source)
    if url is None:
        raise NotFound(f"The source {source!r} is not set up. Set SOURCE_{source.upper()}_URL.")
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise TargetRefused(f"Imports write to PostgreSQL only; the source {source!r} is {scheme}.")
    conn = _connect(source, "postgresql://" + rest, purpose, patience)
    try:
        yield Target(source, conn)
    finally:
        conn.close()


def _connect(source: str, url: str, purpose: str, patience: int) -> psycopg.Connection[Any]:
    try:
        conn = psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=patience,
            client_encoding="utf8",
            application_name=purpose,
        )
        # Plans are made for the values at hand: what is cheap for one chunk is not for another.
        conn.prepare_threshold = None
        timeout = settings.current().statement_timeout_seconds
        conn.execute(
            "SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),"
            " set_config('timezone', 'UTC', false), set_config('datestyle', 'ISO, YMD', false),"
            " set_config('temp_buffers', '48MB', false), set_config('work_mem', '32MB', false)",
            (f"{timeout}s", f"{LOCK_TIMEOUT}s"),
        )
    except psycopg.Error as error:
        log.warning("The target %s does not answer: %s", source, error)
        raise TargetDown(
            f"The database of the source {source!r} does not answer ({first_line(error)})."
        ) from error
    return conn


def _translated(source: str, error: psycopg.Error) -> Exception:
    state = error.sqlstate or ""
    if state.startswith(_AGAIN):
        return Again(f"Others write to the same rows in {source!r} ({first_line(error)}).")
    if not state or state.startswith(_CUT):
        return TargetDown(
            f"The database of the source {source!r} broke off the connection ({first_line(error)})."
        )
    if state.startswith(_BUSY):
        return TargetDown(
            f"The database of the source {source!r} has no room or memory left ({first_line(error)})."
        )
    if state.startswith(_ROW):
        return BadRows(error)
    if isinstance(error, errors.InsufficientPrivilege):
        return TargetRefused(
            f"The account of the source {source!r} may not do this: {first_line(error)}. Give it the right, "
            f"or name an account that may write in SOURCE_{source.upper()}_WRITE_URL."
        )
    return TargetRefused(f"The database of the source {source!r} refused: {first_line(error)}.")


def first_line(error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error) or type(error).__name__
    return text.strip().splitlines()[0].rstrip(".")
