"""Rows of PostgreSQL's as Python values: what Python's calendar does not know comes as PostgreSQL's text.

`infinity`, years before 1 or after 9999, `24:00:00`; and all intervals, since a timedelta has no months.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import Connection
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.types.string import TextLoader

_TYPES = ("date", "time", "timetz", "timestamp", "timestamptz")


def register(conn: Connection[Any]) -> None:
    """For this connection alone, whose DateStyle is ISO when it reads rows."""
    for name in _TYPES:
        conn.adapters.register_loader(name, _lenient(name))
    conn.adapters.register_loader("interval", TextLoader)


def _lenient(name: str) -> type[Loader]:
    """psycopg's own loader, asked first."""
    own = psycopg.adapters.get_loader(psycopg.adapters.types[name].oid, Format.TEXT)
    assert own is not None
    strict = own

    class Lenient(Loader):
        # Not a subclass of psycopg's own: of these the compiled ones call no method of ours.
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            self._load = strict(oid, context).load

        def load(self, data: Buffer) -> Any:
            try:
                return self._load(data)
            except psycopg.DataError:
                return bytes(data).decode()

    return Lenient
