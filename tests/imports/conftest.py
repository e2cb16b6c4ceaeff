"""The target of imports: a database that a test has for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.importing import Landing, landed


@pytest.fixture(scope="session")
def session_database(services: Any) -> str:
    return str(services.database("landing"))


@pytest.fixture
def database(session_database: str) -> Callable[[], str]:
    """Its URL; what an earlier test left in it is gone."""

    def empty() -> str:
        with psycopg.connect(session_database, autocommit=True) as conn:
            conn.execute("DROP SCHEMA IF EXISTS landing, waybill_journal CASCADE")
        return session_database

    return empty


@pytest.fixture
def landing(app: Any, database: Callable[[], str], member: Any) -> Iterator[Landing]:
    """Files of few rows make several chunks."""
    with landed(app, database, member, chunk_bytes=4096) as landing:
        yield landing
