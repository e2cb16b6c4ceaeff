"""Signed-in browsers and emailed sign-in links. A cookie alone proves nothing: its row must be alive, too."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, DateTime, ForeignKey, String, delete, func, select, update
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.extensions import db
from app.models.user import User

# However busy a browser is, it must sign in again after this.
LONGEST = timedelta(days=14)


class SignIn(db.Model):  # type: ignore[misc, name-defined]
    """One browser that signed in. Asked for by primary key on every request; dead once ended."""

    __tablename__ = "sign_ins"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    # How: password, link, change (of the password).
    via: Mapped[str] = mapped_column(String(20))
    address: Mapped[str] = mapped_column(String(64))
    user_agent: Mapped[str] = mapped_column(String(300))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    user: Mapped[User] = relationship()

    @classmethod
    def begin(cls, user: User, *, via: str, address: str, user_agent: str) -> SignIn:
        """A new sign-in; the person's long dead ones are forgotten. The caller commits."""
        db.session.execute(delete(cls).where(cls.user_id == user.id, cls.expires_at < func.now()))
        made = cls(
            user_id=user.id,
            via=via[:20],
            address=address[:64],
            user_agent=user_agent[:300],
            expires_at=func.now() + LONGEST,
        )
        db.session.add(made)
        db.session.flush()
        return made

    @classmethod
    def user_of(cls, sign_in_id: UUID, uniquifier: str) -> User | None:
        """Whose live sign-in this is, in one query by primary key."""
        found: User | None = db.session.scalar(
            select(User)
            .join(cls, cls.user_id == User.id)
            .where(
                cls.id == sign_in_id,
                cls.ended_at.is_(None),
                cls.expires_at > func.now(),
                User.fs_uniquifier == uniquifier,
                User.active,
            )
        )
        return found

    @classmethod
    def of(cls, user: User) -> Sequence[SignIn]:
        """This person's live sign-ins, newest first."""
        found: Sequence[SignIn] = db.session.scalars(
            select(cls)
            .where(cls.user_id == user.id, cls.ended_at.is_(None), cls.expires_at > func.now())
            .order_by(cls.created_at.desc())
        ).all()
        return found

    @classmethod
    def end(cls, sign_in_id: UUID) -> None:
        db.session.execute(
            update(cls).where(cls.id == sign_in_id, cls.ended_at.is_(None)).values(ended_at=func.now())
        )

    @classmethod
    def end_all(cls, user: User, *, but: UUID | None = None) -> None:
        """End every sign-in of this person, except perhaps the one at hand."""
        db.session.execute(
            update(cls)
            .where(cls.user_id == user.id, cls.ended_at.is_(None), cls.id.is_distinct_from(but))
            .values(ended_at=func.now())
        )


class SignInLink(db.Model):  # type: ignore[misc, name-defined]
    """An emailed link that signs in once. Only its hash is kept."""

    __tablename__ = "sign_in_links"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    user: Mapped[User] = relationship()

    @classmethod
    def create(cls, user: User, valid: timedelta) -> str:
        """The secret of a new link; the person's expired ones are forgotten. The caller commits."""
        db.session.execute(delete(cls).where(cls.user_id == user.id, cls.expires_at < func.now()))
        secret = secrets.token_urlsafe(32)
        db.session.add(cls(user_id=user.id, sha256=_digest(secret), expires_at=func.now() + valid))
        return secret

    @classmethod
    def find(cls, secret: str) -> SignInLink | None:
        """The link of this secret while it is good; looking does not use it up."""
        found: SignInLink | None = db.session.scalar(select(cls).where(*cls._good(secret)))
        return found

    @classmethod
    def use(cls, secret: str) -> User | None:
        """Use the link up and say whose it is; of two at once only one gets a person. The caller commits."""
        user_id = db.session.scalar(
            update(cls).where(*cls._good(secret)).values(used_at=func.now()).returning(cls.user_id)
        )
        return db.session.scalar(select(User).where(User.id == user_id, User.active)) if user_id else None

    @classmethod
    def void_all(cls, user: User) -> None:
        """No link sent so far is good any more."""
        db.session.execute(
            update(cls).where(cls.user_id == user.id, cls.used_at.is_(None)).values(used_at=func.now())
        )

    @classmethod
    def _good(cls, secret: str) -> tuple[ColumnElement[bool], ...]:
        return (cls.sha256 == _digest(secret), cls.used_at.is_(None), cls.expires_at > func.now())


def _digest(secret: str) -> str:
    """A random 256-bit secret needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
