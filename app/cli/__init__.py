"""The command line: `flask reports | exports | importers | imports | tokens | ...`. One group a file."""

from __future__ import annotations

from typing import Any

import click
from flask import Flask
from flask.cli import AppGroup
from psycopg.errors import UndefinedColumn, UndefinedTable
from sqlalchemy.exc import OperationalError, ProgrammingError

from app.errors import InvalidParams, WaybillError


class Group(AppGroup):
    """A group whose commands tell what went wrong in a sentence, without a traceback, and exit 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InvalidParams as error:
            lines = [f"  {name}: {text}" for name, text in error.errors.items()]
            raise click.ClickException("\n".join(["Some values are wrong.", *lines])) from error
        except WaybillError as error:
            raise click.ClickException(error.message) from error
        except OperationalError as error:
            raise click.ClickException(f"The database does not answer: {error.orig}") from error
        except ProgrammingError as error:
            if not isinstance(error.orig, UndefinedTable | UndefinedColumn):
                raise
            raise click.ClickException(
                "The database lacks tables of this version of Waybill. Make them with: flask db upgrade"
            ) from error


def init_app(app: Flask) -> None:
    """Make the commands known to `flask`."""
    from app.cli import clock, exports, importers, imports, reports, status, tokens, users

    for command in (
        reports.group,
        exports.group,
        importers.group,
        imports.group,
        tokens.group,
        users.group,
        clock.sweep,
        clock.clock,
        status.status,
    ):
        app.cli.add_command(command)
