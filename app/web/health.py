"""For the platform: `/healthz` (this process is alive) and `/readyz` (what it stands on answers, too)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from apiflask import APIBlueprint
from flask import current_app
from redis import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.errors import WaybillError
from app.extensions import db, redis_client
from app.storage import Storage

log = logging.getLogger(__name__)
health = APIBlueprint("health", __name__, enable_openapi=False)


@health.get("/healthz")
def alive() -> dict[str, str]:
    return {"status": "ok"}


@health.get("/readyz")
def ready() -> tuple[dict[str, Any], int]:
    """503 without the database or the storage. Without Redis pages and jobs still work, only slower."""
    checks = {"database": _check(_database), "redis": _check(_redis), "storage": _check(_storage)}
    down = [name for name in ("database", "storage") if not checks[name]["ok"]]
    status = "down" if down else "ok" if checks["redis"]["ok"] else "degraded"
    return {"status": status, **checks}, 503 if down else 200


def _check(probe: Callable[[], None]) -> dict[str, Any]:
    try:
        probe()
    except (SQLAlchemyError, RedisError, WaybillError, OSError) as error:
        log.warning("Not ready: %s", error)
        # The kind of failure only: anybody may ask, and messages name hosts and users.
        return {"ok": False, "why": type(error).__name__}
    return {"ok": True}


def _database() -> None:
    with db.engine.connect() as conn:
        conn.execute(text("SELECT 1"))


def _redis() -> None:
    redis_client().ping()


def _storage() -> None:
    storage: Storage = current_app.extensions["waybill.storage"]
    storage.check()
