"""A real PostgreSQL to write the same rows as Python does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from app.formats import find
from app.sources import Reading, open_source


@pytest.fixture(scope="session")
def reading(services: Any) -> Iterator[Reading]:
    """One open reading for all tests of formats."""
    with open_source("tests", services.postgres.url, timedelta(minutes=5)).reading() as opened:
        yield opened


@pytest.fixture(scope="session")
def copied(reading: Reading) -> Callable[..., bytes]:
    """copied(format, dialect, sql, **values): the file as PostgreSQL writes it."""

    def copy(name: str, dialect: str | None, sql: str, zone: str = "UTC", **values: Any) -> bytes:
        format, dialect = find(name, dialect)
        how = format.writing(dialect, zone).copy(lambda: reading.fields(sql, values))
        assert how is not None
        return how.head + b"".join(reading.copy(sql, values, how))

    return copy
