"""Verbs on accounts, for the command line, the demo data and the web. Nobody registers by themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from flask import current_app
from flask_security.mail_util import EmailValidateException
from flask_security.utils import hash_password
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from app import zones
from app.errors import Conflict, InvalidRequest, NotFound
from app.extensions import db
from app.models.user import ADMIN, MEMBER, Role, User

ROLES = {
    MEMBER: "Asks for the reports that members may run and sees their own jobs.",
    ADMIN: "Asks for every report that admins may run and sees everybody's jobs.",
}


def create_user(
    email: str,
    password: str | None = None,
    roles: Iterable[str] = (MEMBER,),
    time_zone: str | None = None,
) -> User:
    """A new account, committed. Without a password its owner signs in by emailed link.

    Raises InvalidRequest (address, password, role or time zone are no good) and Conflict (there is one
    already).
    """
    address = normal_email(email)
    hashed = _hashed(password) if password is not None else None
    found = _roles(roles)
    user = User(
        email=address,
        password=hashed,
        active=True,
        fs_uniquifier=uuid4().hex,
        roles=found,
        time_zone=None if time_zone is None else zones.check(time_zone),
    )
    db.session.add(user)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        raise Conflict(f"There is an account for {address} already.") from None
    return user


def find_user(email: str) -> User:
    """The account of this address; raises NotFound or InvalidRequest."""
    address = normal_email(email)
    user: User | None = db.session.scalar(select(User).where(User.email == address))
    if user is None:
        raise NotFound(f"There is no account for {address}. Make one with: flask users create {address}")
    return user


def set_roles(user: User, roles: Iterable[str]) -> None:
    """Give this person these roles and no others. Committed; raises InvalidRequest or Conflict."""
    found = _roles(roles)
    if ADMIN not in (role.name for role in found):
        keep_an_administrator(user)
    user.roles = found
    db.session.commit()


def keep_an_administrator(user: User) -> None:
    """Raises Conflict if nobody else is an administrator who may sign in.

    Until the caller commits, others who ask this wait: of two administrators not each unseats the other.
    """
    db.session.execute(select(Role.id).where(Role.name == ADMIN).with_for_update(key_share=True))
    db.session.refresh(user)
    if not (user.active and user.is_admin):
        return
    others = select(User.id).where(User.active, User.id != user.id, User.roles.any(Role.name == ADMIN))
    if db.session.scalar(others.limit(1)) is None:
        db.session.rollback()
        raise Conflict(
            f"{user.email} is the only administrator. Make another one first: flask users role EMAIL admin"
        )


def ensure_roles() -> None:
    """All roles exist afterwards, whoever else makes them at the same time. Committed."""
    values = [{"name": name, "description": text} for name, text in ROLES.items()]
    db.session.execute(insert(Role).values(values).on_conflict_do_nothing(index_elements=["name"]))
    db.session.commit()


def normal_email(email: str) -> str:
    """The one way an address is written here; raises InvalidRequest."""
    try:
        normalized: str = _security().mail_util.normalize(email)
    except EmailValidateException:
        raise InvalidRequest(f"{email!r} is not a mail address.") from None
    return normalized.lower()


def _hashed(password: str) -> str:
    problems, normalized = _security().password_util.validate(password, True)
    if problems:
        raise InvalidRequest(" ".join(str(problem) for problem in problems))
    hashed: str = hash_password(normalized)
    return hashed


def _roles(names: Iterable[str]) -> list[Role]:
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in ROLES:
            raise InvalidRequest(f"There is no role {name!r}. Roles are: {', '.join(ROLES)}.")
    ensure_roles()
    return list(db.session.scalars(select(Role).where(Role.name.in_(wanted)).order_by(Role.name)))


def _security() -> Any:
    return current_app.extensions["security"]
