"""The registry: every report of the built-in folder and of REPORTS_PATH, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flask import current_app

from app import definitions
from app.definitions import Broken, Finding, Lines
from app.reports._base import Report
from app.reports._checks import findings
from app.reports._files import read_python, read_sql


class BrokenReports(Broken):
    """Some reports cannot be used as they are written."""

    code = "broken_reports"
    head = "These reports must be mended:"


class Registry(definitions.Registry[Report]):
    word, setting, suffixes = "report", "REPORTS_PATH", (".py", ".sql")
    built_in = Path(__file__).parent
    broken = BrokenReports

    def read(self, path: Path) -> tuple[Report, Lines]:
        return read_sql(path) if path.suffix == ".sql" else read_python(path)

    def findings(self, member: Report) -> Iterable[Finding]:
        return findings(member, self._known)


def registry() -> Registry:
    """The reports of the app at work; in development, read again when a file has changed."""
    found: Registry = current_app.extensions["waybill.reports"]
    return found.at_work()
