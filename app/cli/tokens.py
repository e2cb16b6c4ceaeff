"""flask tokens: API tokens for programs."""

from __future__ import annotations

from datetime import datetime

import click
from sqlalchemy import func, select

from app import accounts
from app.cli import Group
from app.cli.people import person
from app.cli.tables import table
from app.errors import NotFound
from app.extensions import db
from app.models.token import MOST_DAYS, ApiToken

group = Group("tokens", help="Make, list and revoke API tokens.")


@group.command("create")
@click.argument("email")
@click.option("--name", default="command line", show_default=True, help="What the token is for.")
@click.option(
    "--days", type=click.IntRange(1, MOST_DAYS), help="How long it is good; until revoked if left out."
)
def create(email: str, name: str, days: int | None) -> None:
    """Make an API token for EMAIL and print it.

    Nothing else is printed, and the token is not shown again.
    """
    _, secret = ApiToken.create(person(email), name.strip()[:100] or "command line", days)
    db.session.commit()
    click.echo(secret)


@group.command("list")
@click.argument("email", required=False)
def list_tokens(email: str | None) -> None:
    """List all tokens, or those of EMAIL."""
    query = select(ApiToken).order_by(ApiToken.id)
    if email:
        query = query.where(ApiToken.user_id == accounts.find_user(email).id)
    now = db.session.scalars(select(func.now())).one()
    rows = [
        (
            str(token.id),
            f"{token.hint}…",
            token.user.email,
            token.name,
            _day(token.created_at),
            _day(token.last_used_at) or "never",
            _day(token.expires_at) or "never",
            _state(token, now),
        )
        for token in db.session.scalars(query)
    ]
    click.echo(table(("ID", "TOKEN", "USER", "NAME", "CREATED", "USED", "EXPIRES", "STATE"), rows))


@group.command("revoke")
@click.argument("id", type=click.IntRange(1, 2**31 - 1))
def revoke(id: int) -> None:
    """Revoke the token with this ID (see flask tokens list); it is refused from now on."""
    token = db.session.get(ApiToken, id)
    if token is None:
        raise NotFound(f"There is no token {id}. See: flask tokens list")
    ApiToken.revoke(token.user, id)
    db.session.commit()
    click.echo(f"Token {id} ({token.hint}…) is revoked.")


def _state(token: ApiToken, now: datetime) -> str:
    if token.revoked_at:
        return f"revoked {_day(token.revoked_at)}"
    return "expired" if token.expires_at and token.expires_at <= now else "good"


def _day(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d}" if at else ""
