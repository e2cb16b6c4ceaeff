"""The registry: every importer of this folder and of IMPORTERS_PATH, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flask import current_app

from app import definitions
from app.definitions import Broken, Finding, Lines
from app.importers._base import Importer
from app.importers._checks import findings
from app.importers._files import read_python, read_toml


class BrokenImporters(Broken):
    """Some importers cannot be used as they are written."""

    code = "broken_importers"
    head = "These importers must be mended:"


class Registry(definitions.Registry[Importer]):
    word, setting, suffixes = "importer", "IMPORTERS_PATH", (".py", ".toml")
    built_in = Path(__file__).parent
    broken = BrokenImporters

    def read(self, path: Path) -> tuple[Importer, Lines]:
        return read_toml(path) if path.suffix == ".toml" else read_python(path)

    def findings(self, member: Importer) -> Iterable[Finding]:
        return findings(member, self._known)


def registry() -> Registry:
    """The importers of the app at work; in development, read again when a file has changed."""
    found: Registry = current_app.extensions["waybill.importers"]
    return found.at_work()
