"""What tests of the web share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from apiflask import APIFlask

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
