"""flask users: who has an account, with which roles, and until when."""

from __future__ import annotations

import sys
from datetime import UTC

import click
from sqlalchemy import func, select

from app import accounts, closing, zones
from app.cli import Group
from app.cli.tables import table
from app.extensions import db
from app.models.job import FINAL, Job
from app.models.session import SignIn
from app.models.user import ADMIN, MEMBER, User

group = Group("users", help="Make, list, change and close accounts.")


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
    """List all accounts: roles, last sign-in, jobs at work."""
    signed_in = select(func.max(SignIn.created_at)).where(SignIn.user_id == User.id)
    at_work = select(func.count()).where(Job.owner_id == User.id, Job.status.not_in(FINAL))
    found = select(User, signed_in.scalar_subquery(), at_work.scalar_subquery()).order_by(User.email)
    rows = [
        (
            user.email,
            _roles(user),
            "open" if user.active else "closed",
            f"{user.created_at:%Y-%m-%d}",
            # The sweep forgets sign-ins that are long over.
            f"{at.astimezone(UTC):%Y-%m-%d %H:%M}" if at else "unknown",
            f"{jobs:,}",
        )
        for user, at, jobs in db.session.execute(found)
    ]
    click.echo(table(("EMAIL", "ROLES", "STATE", "CREATED", "LAST SIGN-IN (UTC)", "JOBS AT WORK"), rows))


@group.command("role")
@click.argument("email")
@click.argument("role", type=click.Choice([MEMBER, ADMIN]), nargs=-1, required=True)
def role(email: str, role: tuple[str, ...]) -> None:
    """Give EMAIL each ROLE that is named, and take away all others.

    It holds from the person's next click on. The last administrator stays one.
    """
    user = accounts.find_user(email)
    before = _roles(user)
    accounts.set_roles(user, role)
    click.echo(f"The roles of {user.email} are: {_roles(user)} (before: {before}).")


@group.command("close")
@click.argument("email")
def close(email: str) -> None:
    """Close the account of EMAIL: it lets nobody in any more, and gets no mails.

    Signs out everywhere, revokes API tokens and download links, cancels jobs at work. Finished jobs and
    their files stay. The last administrator's account stays open.
    """
    user = accounts.find_user(email)
    closed = closing.close(user)
    click.echo(f"The account of {user.email} is closed.")
    for what, count, word in (
        ("Signed-in browsers", closed.sign_ins, "signed out"),
        ("API tokens", closed.tokens, "revoked"),
        ("Download links", closed.links, "revoked"),
        ("Jobs at work", closed.jobs, "cancelled"),
    ):
        click.echo(f"  {what:<20}{count:,} {word}")
    if closed.links:
        click.echo("Who needs a file gets a new link from an administrator, on its job's page.")
    click.echo(f"To let the person in again: flask users reopen {user.email}")


@group.command("reopen")
@click.argument("email")
def reopen(email: str) -> None:
    """Open the closed account of EMAIL again. API tokens and download links stay revoked."""
    user = accounts.find_user(email)
    closing.reopen(user)
    how = "with the password of before, or by emailed link" if user.password else "by emailed link"
    click.echo(
        f"The account of {user.email} is open again ({_roles(user)}). Its owner signs in {how}; API tokens "
        "and download links stay revoked."
    )


def _roles(user: User) -> str:
    return ", ".join(sorted(user.role_names)) or "none"


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    typed: str = click.prompt("Password", hide_input=True, confirmation_prompt="The same again")
    return typed
