"""What tests of the web share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from apiflask import APIFlask
from sqlalchemy import event

from app import create_app
from app.extensions import db


@pytest.fixture
def app_with(app: APIFlask, environ: dict[str, str]) -> Iterator[Callable[..., APIFlask]]:
    """app_with(PUBLIC_URL="https://…"): another app on the same database, with these settings."""
    made: list[APIFlask] = []

    def make(**changed: str) -> APIFlask:
        made.append(create_app(environ | changed))
        return made[-1]

    yield make
    for one in made:
        with one.app_context():
            db.session.remove()
            db.engine.dispose()


@pytest.fixture
def statements(app: APIFlask) -> Iterator[list[str]]:
    """What the database is asked, by anybody; `clear()` it where it matters from."""
    asked: list[str] = []

    def note(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", note)
    yield asked
    event.remove(engine, "before_cursor_execute", note)
