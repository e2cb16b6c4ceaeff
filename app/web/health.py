"""For the platform: `/healthz` (this process is alive), `/readyz` (what it stands on answers), `/metrics`."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from typing import Any

from apiflask import APIBlueprint
from flask import Response, abort, current_app, request
from flask_security import current_user
from redis import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app import monitoring, settings
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


@health.get("/metrics")
def metrics() -> Response:
    """For Prometheus; who may not see them is told that there is nothing. 503 without the database."""
    if not (_has_token() or (current_user.is_authenticated and current_user.is_admin)):
        abort(404)
    # Here, so that only who is asked for them carries it.
    from app.web.metrics import CONTENT_TYPE, exposition

    return Response(exposition(monitoring.look()), content_type=CONTENT_TYPE)


def _has_token() -> bool:
    """Without asking the database, and in the same time for every wrong token."""
    wanted, given = settings.current().metrics_token, request.authorization
    if not wanted or given is None or given.type != "bearer":
        return False
    return hmac.compare_digest((given.token or "").encode(), wanted.encode())


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
