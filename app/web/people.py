"""Who is asking."""

from __future__ import annotations

from typing import cast

from flask_security import current_user

from app.models.user import User


def me() -> User:
    """The signed-in person; only for views that ask for a sign-in."""
    return cast(User, current_user)
