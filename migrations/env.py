"""Runs the migrations on the app's own engine, one release at a time."""

from alembic import context
from flask import current_app
from sqlalchemy import text

engine = current_app.extensions["migrate"].db.engine
metadata = current_app.extensions["migrate"].db.metadata


def ours(name: str | None, kind: str, parents: dict[str, str | None]) -> bool:
    """Tables of other people in the same database are none of our business."""
    return kind != "table" or name in metadata.tables


with engine.connect() as connection:
    # Two releases at once: the second waits, and finds nothing left to do.
    connection.execute(text("SELECT pg_advisory_lock(hashtext('waybill migrations'))"))
    connection.commit()
    context.configure(connection=connection, target_metadata=metadata, include_name=ours)
    with context.begin_transaction():
        context.run_migrations()
