"""API tokens: named, shown once, kept as a hash, revocable."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime

from sqlalchemy import DateTime, ForeignKey, String, func, select
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.extensions import db
from app.models.user import User

PREFIX = "wb_"


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
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    user: Mapped[User] = relationship()

    @classmethod
    def create(cls, user: User, name: str) -> tuple[ApiToken, str]:
        """A new token and its secret, which is known only now. The caller commits."""
        secret = PREFIX + secrets.token_urlsafe(32)
        token = cls(user_id=user.id, name=name, hint=secret[:7], sha256=_digest(secret))
        db.session.add(token)
        return token, secret

    @classmethod
    def find(cls, secret: str) -> ApiToken | None:
        """The live token of this secret. A random 256-bit secret needs no slow hash."""
        found: ApiToken | None = db.session.scalar(
            select(cls).where(cls.sha256 == _digest(secret), cls.revoked_at.is_(None))
        )
        return found


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
