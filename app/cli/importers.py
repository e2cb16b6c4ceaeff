"""flask importers: where files can be imported to, and whether every importer fits its table."""

from __future__ import annotations

from itertools import groupby

import click

from app.cli import Group
from app.cli.tables import table
from app.errors import WaybillError
from app.importers import Importer, registry

group = Group("importers", help="See which importers there are, and check their files and tables.")


@group.command("list")
def list_importers() -> None:
    """List all importers with their keys, titles, roles and tables."""
    rows = [
        (importer.key, importer.title, ", ".join(importer.roles), importer.source, importer.table)
        for importer in registry()
    ]
    click.echo(table(("KEY", "TITLE", "ROLES", "SOURCE", "TABLE"), rows))


@group.command("check")
def check() -> None:
    """Check every importer's file, and ask every target for its table; exits 1 if something must be mended.

    Each problem is told with file and line. A target that does not answer is a warning.
    """
    found = registry()
    problems = [str(problem) for problem in found.problems]
    by_source = sorted(found, key=lambda importer: importer.source)
    for source, importers in groupby(by_source, key=lambda importer: importer.source):
        problems += _asked(source, list(importers))
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        count = len(problems)
        raise click.ClickException(f"{count} {'problem' if count == 1 else 'problems'} in the importers.")
    click.echo(f"All {len(found)} importers are in order.")


def _asked(source: str, importers: list[Importer]) -> list[str]:
    # They load Arrow, which every process that has these commands would pay for.
    from app.imports.table.connection import connect
    from app.imports.table.inspection import problems

    try:
        with connect(source, "waybill importers check") as found:
            return [str(problem) for importer in importers for problem in problems(importer, found.conn)]
    except WaybillError as error:
        click.echo(f"Warning: {error.message}", err=True)
        return []
