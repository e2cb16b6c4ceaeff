"""API tokens: named, shown once, kept as a hash, revocable; if wanted they expire."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, DateTime, ForeignKey, String, func, or_, select, update
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.extensions import db
from app.models.user import User

PREFIX = "wb_"
# How exact `last_used_at` is: a busy token does not write a row per request.
USE_NOTED_EVERY = timedelta(minutes=1)
# The longest that a token with an end may live, in days.
MOST_DAYS = 3650


class ApiToken(db.Model):  # type: ignore[misc, name-defined]
    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    # The first characters, so that a person can tell one token from another.
    hint: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # None: good until it is revoked.
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    user: Mapped[User] = relationship()

    @classmethod
    def create(cls, user: User, name: str, days: int | None = None) -> tuple[ApiToken, str]:
        """A new token and its secret, which is known only now. The caller commits.

        It is good for `days`, up to MOST_DAYS; None: until it is revoked.
        """
        secret = PREFIX + secrets.token_urlsafe(32)
        token = cls(user_id=user.id, name=name, hint=secret[:7], sha256=_digest(secret))
        if days is not None:
            token.expires_at = func.now() + timedelta(days=days)
        db.session.add(token)
        return token, secret

    @classmethod
    def find(cls, secret: str) -> ApiToken | None:
        """The live token of this secret, its owner active. Finding it is using it."""
        stale = or_(cls.last_used_at.is_(None), cls.last_used_at < func.now() - USE_NOTED_EVERY)
        row = db.session.execute(
            select(cls, stale)
            .join(User, User.id == cls.user_id)
            .where(cls.sha256 == _digest(secret), *cls.good(), User.active)
        ).first()
        if row is None:
            return None
        if row[1]:
            _note_use(row[0].id)
        found: ApiToken = row[0]
        return found

    @classmethod
    def good(cls) -> tuple[ColumnElement[bool], ...]:
        """What is true of a token that lets somebody in, its owner being active."""
        return (cls.revoked_at.is_(None), or_(cls.expires_at.is_(None), cls.expires_at > func.now()))

    @classmethod
    def expiry(cls, secret: str) -> datetime | None:
        """When the token of this secret expired; None: it did not, or there is no such one."""
        found: datetime | None = db.session.scalar(
            select(cls.expires_at)
            .join(User, User.id == cls.user_id)
            .where(
                cls.sha256 == _digest(secret),
                cls.expires_at <= func.now(),
                cls.revoked_at.is_(None),
                User.active,
            )
        )
        return found

    @classmethod
    def of(cls, user: User) -> Sequence[ApiToken]:
        """This person's tokens but the revoked ones, newest first; some may have expired."""
        found: Sequence[ApiToken] = db.session.scalars(
            select(cls).where(cls.user_id == user.id, cls.revoked_at.is_(None)).order_by(cls.id.desc())
        ).all()
        return found

    @classmethod
    def revoke(cls, user: User, token_id: int) -> ApiToken | None:
        """This person's token, dead from now on; None: there is no such one. The caller commits."""
        token: ApiToken | None = db.session.scalar(
            select(cls).where(cls.id == token_id, cls.user_id == user.id).with_for_update()
        )
        if token is not None and token.revoked_at is None:
            token.revoked_at = func.now()
        return token

    @classmethod
    def revoke_all(cls, user: User) -> int:
        """Every token of this person is dead from now on; how many were good. The caller commits."""
        good = func.coalesce(cls.expires_at > func.now(), True)
        alive = update(cls).where(cls.user_id == user.id, cls.revoked_at.is_(None))
        return sum(db.session.scalars(alive.values(revoked_at=func.now()).returning(good)))


def _note_use(token_id: int) -> None:
    """Committed at once: a request that fails later has used the token, too.

    In the request's own connection: were each to take a second one, all could wait for each other.
    """
    db.session.execute(update(ApiToken).where(ApiToken.id == token_id).values(last_used_at=func.now()))
    db.session.commit()


def _digest(secret: str) -> str:
    """A random 256-bit secret needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
