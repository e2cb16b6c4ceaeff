"""flask reports: what there is to export, and whether every report's file is in order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import click

from app.cli import Group
from app.cli.tables import table
from app.errors import WaybillError
from app.reports import registry
from app.settings import current
from app.sources import open_source

# How long a source may think about what its account may do.
PATIENCE = timedelta(seconds=30)

group = Group("reports", help="See which reports there are, and check their files.")


@group.command("list")
def list_reports() -> None:
    """List all reports with their keys, titles and roles."""
    rows = [(report.key, report.title, ", ".join(report.roles), report.source) for report in registry()]
    click.echo(table(("KEY", "TITLE", "ROLES", "SOURCE"), rows))


@group.command("check")
def check() -> None:
    """Check every report's file and ask every source; exits 1 if a file must be mended.

    Each problem is told with file and line. A source that is down, or whose account may write, is a warning.
    """
    found = registry()
    for problem in found.problems:
        click.echo(str(problem), err=True)
    for warning in _warnings():
        click.echo(f"Warning: {warning}", err=True)
    if found.problems:
        count = len(found.problems)
        raise click.ClickException(f"{count} {'problem' if count == 1 else 'problems'} in the reports.")
    click.echo(f"All {len(found)} reports are in order.")


def _warnings() -> Iterator[str]:
    """Of the sources that were set up here; the demo's is Waybill's own database, which it writes to."""
    for name, url in sorted(current().sources.items()):
        try:
            yield from open_source(name, url, PATIENCE).warnings()
        except WaybillError as error:
            yield error.message
