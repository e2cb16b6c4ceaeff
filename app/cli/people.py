"""In whose name a command works."""

from __future__ import annotations

from sqlalchemy import select

from app import accounts
from app.errors import NotAllowed, NotFound
from app.extensions import db
from app.models.user import ADMIN, Role, User


def person(email: str | None) -> User:
    """The person with this address, or the first administrator; raises NotFound or NotAllowed."""
    user = accounts.find_user(email) if email else _first_admin()
    if not user.active:
        raise NotAllowed(f"The account of {user.email} is closed.")
    return user


def _first_admin() -> User:
    query = select(User).where(User.active, User.roles.any(Role.name == ADMIN)).order_by(User.id).limit(1)
    user: User | None = db.session.scalar(query)
    if user is None:
        raise NotFound(
            "There is no administrator yet. Say --user EMAIL, or: flask users create EMAIL --role admin"
        )
    return user
