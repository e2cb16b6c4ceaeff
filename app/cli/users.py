"""flask users: accounts."""

from __future__ import annotations

import sys

import click
from sqlalchemy import select

from app import accounts, zones
from app.cli import Group
from app.cli.tables import table
from app.extensions import db
from app.models.user import ADMIN, MEMBER, User

group = Group("users", help="Make, list and close accounts.")


@group.command("create")
@click.argument("email")
@click.option(
    "--role",
    "roles",
    type=click.Choice([MEMBER, ADMIN]),
    multiple=True,
    default=[MEMBER],
    show_default=True,
    help="What the person may do; may be given twice.",
)
@click.option("--time-zone", metavar="NAME", help="Such as Europe/Berlin; the installation's if left out.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--no-password", is_flag=True, help="No password: sign in by emailed link only.")
def create(
    email: str, roles: tuple[str, ...], time_zone: str | None, password_stdin: bool, no_password: bool
) -> None:
    """Make an account for EMAIL; asks for the password unless told otherwise."""
    if password_stdin and no_password:
        raise click.UsageError("Use --password-stdin or --no-password, not both.")
    if time_zone is not None:
        zones.check(time_zone)
    password = None if no_password else _password(password_stdin)
    user = accounts.create_user(email, password, roles, time_zone)
    click.echo(f"Made an account for {user.email} ({', '.join(sorted(user.role_names))}).")


@group.command("list")
def list_users() -> None:
    """List all accounts."""
    rows = [
        (
            user.email,
            ", ".join(sorted(user.role_names)),
            f"{user.created_at:%Y-%m-%d}",
            "open" if user.active else "closed",
        )
        for user in db.session.scalars(select(User).order_by(User.email))
    ]
    click.echo(table(("EMAIL", "ROLES", "CREATED", "STATE"), rows))


@group.command("close")
@click.argument("email")
def close(email: str) -> None:
    """Close the account of EMAIL: it lets nobody in, by password, session or token, and gets no mails.

    Jobs and files stay. Download links that were mailed stay good until they expire.
    """
    user = accounts.find_user(email)
    accounts.close(user)
    click.echo(f"The account of {user.email} is closed. To open it again: flask users open {user.email}")


@group.command("open")
@click.argument("email")
def open_(email: str) -> None:
    """Open a closed account of EMAIL again; its API tokens are good again, too."""
    user = accounts.find_user(email)
    accounts.reopen(user)
    click.echo(f"The account of {user.email} is open.")


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    typed: str = click.prompt("Password", hide_input=True, confirmation_prompt="The same again")
    return typed
