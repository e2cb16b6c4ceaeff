from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from app.dev import demo
from app.reports import compose


class Reading:
    """A demo database to read from, as a report's context and as psycopg's own two ways of binding."""

    user_email = "member@demo.waybill.test"
    user_id = "1"

    def __init__(self, conn: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.conn = conn
        self.lines: list[str] = []
        self.ticks: list[tuple[int, int | None]] = []
        self.checks = 0

    def log(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, done: int, total: int | None = None) -> None:
        self.ticks.append((done, total))

    def check(self) -> None:
        self.checks += 1

    def query(self, sql: str, **bound: Any) -> Iterator[tuple[Any, ...]]:
        statement = compose(sql, bound)
        yield from self.in_client(statement.sql, statement.values)

    def in_client(self, sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """With the values as literals, as in COPY."""
        return psycopg.ClientCursor(self.conn).execute(sql.encode(), values).fetchall()

    def in_server(self, sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        return self.conn.execute(sql.encode(), values).fetchall()


@pytest.fixture(scope="session")
def demo_url(services) -> str:
    url: str = services.database("reports")
    assert demo.load(url, tasks=2000)
    return url


@pytest.fixture
def reading(demo_url) -> Iterator[Reading]:
    url = "postgresql://" + demo_url.partition("://")[2]
    with psycopg.connect(url, options="-c search_path=demo -c timezone=UTC") as conn:
        conn.read_only = True
        yield Reading(conn)
