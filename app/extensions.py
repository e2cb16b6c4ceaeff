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
from sqlalchemy import MetaData
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


db = SQLAlchemy(model_class=Base)
migrate = Migrate()
mail = Mail()
csrf = CSRFProtect()
bootstrap = Bootstrap5()


def redis_client() -> redis.Redis:
    """The app's Redis client. Short timeouts: Redis is a hint, nobody waits for it."""
    return cast(redis.Redis, current_app.extensions["waybill.redis"])
