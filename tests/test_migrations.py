"""The migrations make the very tables that the models describe, and take all of them away again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from apiflask import APIFlask
from flask_migrate import downgrade

from app import create_app
from app.extensions import db

# What Alembic looks at only in part: conditions of indexes, what happens on deleting.
DEFINED = """
SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
WHERE relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
UNION ALL
SELECT relname || ' ' || conname || ' ' || pg_get_constraintdef(pg_constraint.oid)
FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
WHERE relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
"""


@pytest.fixture
def migrated_app(
    services: Any, environ: dict[str, str], migrated: str, request: pytest.FixtureRequest
) -> Iterator[APIFlask]:
    """An app in its context, with a migrated database of its own."""
    app = create_app(environ | {"DATABASE_URL": services.database(request.node.name, template=migrated)})
    with app.app_context():
        yield app
        db.engine.dispose()


def test_the_migrations_say_what_the_models_say(migrated_app: APIFlask) -> None:
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, db.metadata) == []
        migrated = sorted(connection.scalars(sa.text(DEFINED)))
    db.drop_all()
    db.create_all()
    with db.engine.connect() as connection:
        assert sorted(connection.scalars(sa.text(DEFINED))) == migrated


def test_the_migrations_can_be_taken_back(migrated_app: APIFlask) -> None:
    downgrade(revision="base")
    assert sa.inspect(db.engine).get_table_names() == ["alembic_version"]
