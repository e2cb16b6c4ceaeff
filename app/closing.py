"""What becomes of an account when its person leaves, and when they come back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import func, select, update

from app import accounts
from app.errors import Conflict
from app.extensions import db
from app.imports import requests
from app.models.artifact import Artifact
from app.models.job import FINAL, Job
from app.models.session import SignIn, SignInLink
from app.models.token import ApiToken
from app.models.user import User


@dataclass(frozen=True)
class Closed:
    """What was ended with an account: how many of each."""

    sign_ins: int
    tokens: int
    links: int
    jobs: int


def close(user: User) -> Closed:
    """Let this person in no more and end what speaks for them. Committed; raises Conflict.

    Files, receipts and what imports wrote stay. Whoever is closed already may be closed again: what has been
    left over is ended.
    """
    accounts.keep_an_administrator(user)
    user.active = False
    # In every session and mailed link for a new password: none comes back with the account.
    user.fs_uniquifier = uuid4().hex
    sign_ins = len(SignIn.of(user))
    SignIn.end_all(user)
    SignInLink.void_all(user)
    tokens, links = ApiToken.revoke_all(user), _revoke_links(user)
    db.session.commit()
    return Closed(sign_ins, tokens, links, _cancel_jobs(user))


def reopen(user: User) -> None:
    """Let this person sign in again; what was ended stays ended. Committed; raises Conflict."""
    if user.active:
        raise Conflict(f"The account of {user.email} is not closed. Nothing was changed.")
    user.active = True
    db.session.commit()


def _revoke_links(user: User) -> int:
    """Whoever holds a link may be the one who left. Files that others were given have links of their own."""
    theirs = select(Job.id).where(Job.owner_id == user.id)
    live = update(Artifact).where(
        Artifact.job_id.in_(theirs),
        Artifact.link_revoked_at.is_(None),
        Artifact.removed_at.is_(None),
        Artifact.expires_at > func.clock_timestamp(),
    )
    revoked = live.values(link_revoked_at=func.clock_timestamp()).returning(Artifact.id)
    return len(db.session.scalars(revoked.execution_options(synchronize_session=False)).all())


def _cancel_jobs(user: User) -> int:
    """How many were cancelled or told to stop. One that ends by itself meanwhile is none of them."""
    cancelled = 0
    unfinished = select(Job).where(Job.owner_id == user.id, Job.status.not_in(FINAL)).order_by(Job.created_at)
    for job in db.session.scalars(unfinished).all():
        with suppress(Conflict):
            requests.cancel(job)
            cancelled += 1
    return cancelled
