"""Flask extensions, unbound; `create_app` binds them."""

from __future__ import annotations

from typing import cast

import redis
from flask import current_app
from flask_bootstrap import Bootstrap5
from flask_mail import Mail
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from sqlalchemy import MetaData, make_url
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    # Named constraints, so that a migration can speak of each.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


# In seconds, but `keepalives_count` probes and `tcp_user_timeout` in milliseconds: half a minute in all.
PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

db = SQLAlchemy(model_class=Base)
migrate = Migrate()
mail = Mail()
csrf = CSRFProtect()
bootstrap = Bootstrap5()


def patience(database_url: str) -> dict[str, int]:
    """How long libpq waits for a PostgreSQL that is gone without a word; what the URL says itself goes first.

    A machine that lost its power closes no connection: without these a thread would wait for its answer for
    hours. A server that is only slow is waited for, since its system still answers.
    """
    told = make_url(database_url).query
    return {name: value for name, value in PATIENCE.items() if name not in told}


def redis_client() -> redis.Redis:
    """The app's Redis client. Short timeouts: Redis is a hint, nobody waits for it."""
    return cast(redis.Redis, current_app.extensions["waybill.redis"])
