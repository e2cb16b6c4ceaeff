"""The target of imports: a database that a test has for itself, copied for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from tests.importing import Landing, landed

NUMBERS = count(1)


@pytest.fixture
def database(services: Any) -> Callable[[], str]:
    return lambda: services.database(f"landing_{next(NUMBERS)}")


@pytest.fixture
def landing(app: Any, database: Callable[[], str], member: Any) -> Iterator[Landing]:
    """Files of few rows make several chunks."""
    with landed(app, database, member, chunk_bytes=4096) as landing:
        yield landing
