"""flask reports: what there is to export, and whether every report's file is in order."""

from __future__ import annotations

import click

from app.cli import Group
from app.cli.tables import table
from app.reports import registry

group = Group("reports", help="See which reports there are, and check their files.")


@group.command("list")
def list_reports() -> None:
    """List all reports with their keys, titles and roles."""
    rows = [(report.key, report.title, ", ".join(report.roles), report.source) for report in registry()]
    click.echo(table(("KEY", "TITLE", "ROLES", "SOURCE"), rows))


@group.command("check")
def check() -> None:
    """Check every report's file; exits 1 if one must be mended.

    Each problem is told with file and line.
    """
    found = registry()
    for problem in found.problems:
        click.echo(str(problem), err=True)
    if found.problems:
        count = len(found.problems)
        raise click.ClickException(f"{count} {'problem' if count == 1 else 'problems'} in the reports.")
    click.echo(f"All {len(found)} reports are in order.")
