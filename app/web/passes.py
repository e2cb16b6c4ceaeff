"""What lets somebody look on: asked for at the door, and again and again while the stream lives."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple
from uuid import UUID

from flask import g, session
from flask_security.utils import get_request_attr
from sqlalchemy import ARRAY, ColumnElement, Connection, Integer, Uuid, any_, func, literal, select

from app.extensions import db
from app.models.session import SignIn
from app.models.token import ApiToken
from app.models.user import ADMIN, Role, User, roles_users
from app.web.people import me


class Pass(NamedTuple):
    """A person, the sign-in or token that speaks for them, and whose jobs they look at (None: everybody's).

    `uniquifier` belongs to a sign-in: the person's secret of that time.
    """

    user_id: int
    owner_id: int | None
    sign_in_id: UUID | None
    uniquifier: str | None
    token_id: int | None


def of_request(*, everyone: bool) -> Pass:
    """The pass of whoever asks, who must be signed in; `everyone` is for administrators."""
    user = me()
    owner_id = None if everyone else user.id
    if get_request_attr("fs_authn_via") == "token":
        return Pass(user.id, owner_id, None, None, g.api_token_id)
    return Pass(user.id, owner_id, UUID(session["sign_in"]), user.fs_uniquifier, None)


def still_good(passes: Collection[Pass]) -> frozenset[Pass]:
    """Those whose person is active and may see the jobs, and whose sign-in or token is alive.

    At most four small queries, however many passes there are.
    """
    curious = {one.user_id for one in passes if one.owner_id != one.user_id}
    with db.engine.connect() as conn:
        people = _people(conn, {one.user_id for one in passes})
        admins = _admins(conn, curious)
        sign_ins = _sign_ins(conn, {one.sign_in_id for one in passes if one.sign_in_id is not None})
        tokens = _tokens(conn, {one.token_id for one in passes if one.token_id is not None})
    return frozenset(
        one
        for one in passes
        if one.user_id in people
        and (one.owner_id == one.user_id or one.user_id in admins)
        and (
            one.token_id in tokens
            if one.sign_in_id is None
            else one.sign_in_id in sign_ins and one.uniquifier == people[one.user_id]
        )
    )


def _people(conn: Connection, ids: set[int]) -> dict[int, str]:
    """The uniquifier of each active one."""
    statement = select(User.id, User.fs_uniquifier).where(_among(User.id, ids, Integer()), User.active)
    return {row.id: row.fs_uniquifier for row in conn.execute(statement)} if ids else {}


def _admins(conn: Connection, ids: set[int]) -> set[int]:
    statement = (
        select(roles_users.c.user_id)
        .join(Role, Role.id == roles_users.c.role_id)
        .where(_among(roles_users.c.user_id, ids, Integer()), Role.name == ADMIN)
    )
    return set(conn.scalars(statement)) if ids else set()


def _sign_ins(conn: Connection, ids: set[UUID]) -> set[UUID]:
    statement = select(SignIn.id).where(
        _among(SignIn.id, ids, Uuid()), SignIn.ended_at.is_(None), SignIn.expires_at > func.now()
    )
    return set(conn.scalars(statement)) if ids else set()


def _tokens(conn: Connection, ids: set[int]) -> set[int]:
    statement = select(ApiToken.id).where(_among(ApiToken.id, ids, Integer()), *ApiToken.good())
    return set(conn.scalars(statement)) if ids else set()


def _among(column: Any, values: set[Any], kind: Any) -> ColumnElement[bool]:
    """One bound parameter, however many values there are."""
    found: ColumnElement[bool] = column == any_(literal(list(values), ARRAY(kind)))
    return found
