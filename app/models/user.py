"""People and what they may do. The columns are those Flask-Security asks for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from flask_security.core import RoleMixin, UserMixin
from sqlalchemy import Column, DateTime, ForeignKey, String, Table, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app import settings
from app.extensions import db

MEMBER, ADMIN = "member", "admin"

roles_users = Table(
    "roles_users",
    db.metadata,
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("role_id", ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)


class Role(db.Model, RoleMixin):  # type: ignore[misc, name-defined]
    __tablename__ = "roles"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    description: Mapped[str | None] = mapped_column(String(255))


class User(db.Model, UserMixin):  # type: ignore[misc, name-defined]
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    # Lower case always, so that nobody has two accounts.
    email: Mapped[str] = mapped_column(String(255), unique=True)
    # None: signs in by emailed link only.
    password: Mapped[str | None] = mapped_column(String(255))
    active: Mapped[bool] = mapped_column(default=True, server_default="true")
    # In every session; a new one ends them all.
    fs_uniquifier: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    # An IANA name. None: never chosen, so it is the installation's.
    time_zone: Mapped[str | None] = mapped_column(String(64))

    roles: Mapped[list[Role]] = relationship(  # type: ignore[assignment]  # the base names its own mixin
        secondary=roles_users, lazy="selectin"
    )

    @property
    def zone(self) -> str:
        """The name of the time zone that this person's days and clock are of."""
        return self.time_zone or settings.current().time_zone

    @property
    def role_names(self) -> frozenset[str]:
        return frozenset(role.name for role in self.roles)

    @property
    def is_admin(self) -> bool:
        return ADMIN in self.role_names

    def may(self, roles: Iterable[str]) -> bool:
        """Whether one of `roles` is this person's."""
        return not self.role_names.isdisjoint(roles)
