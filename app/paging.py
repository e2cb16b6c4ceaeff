"""Lists in pages, the newest first, each found by where the page before it ended."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, tuple_

from app import events
from app.errors import InvalidRequest
from app.extensions import db

# Rows of a page.
PAGE = 50


def page(query: Select[Any], model: Any, before: str | None, limit: int) -> tuple[list[Any], str | None]:
    """The `limit` rows that follow the cursor `before`, and the next page's cursor (None: this was the last).

    `model`, which the query selects, has `created_at` and `id`. Raises InvalidRequest for a wrong cursor.
    """
    query = query.order_by(model.created_at.desc(), model.id.desc()).limit(limit + 1)
    if before:
        query = query.where(tuple_(model.created_at, model.id) < _read(before))
    found = list(db.session.scalars(query))
    return found[:limit], _cursor(found[limit - 1]) if len(found) > limit else None


def _cursor(row: Any) -> str:
    place = f"{events.rfc3339(row.created_at)} {row.id}"
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[datetime, UUID]:
    try:
        at, _, id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(" ")
        return (datetime.fromisoformat(at), UUID(id))
    except ValueError:
        raise InvalidRequest(
            "The page's cursor is not one that Waybill gave out. Start from the first page."
        ) from None
