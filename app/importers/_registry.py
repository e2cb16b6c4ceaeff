"""The registry: every importer of this folder and of IMPORTERS_PATH, and what is wrong with the rest."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path

from flask import current_app

from app import definitions
from app.definitions import ROLES, Broken, Finding, Known, Lines
from app.importers._base import Importer
from app.importers._checks import findings
from app.importers._files import read_python, read_toml
from app.settings import current

log = logging.getLogger(__name__)


class BrokenImporters(Broken):
    """Some importers cannot be used as they are written."""

    code = "broken_importers"
    head = "These importers must be mended:"


class Registry(definitions.Registry[Importer]):
    word, setting, suffixes = "importer", "IMPORTERS_PATH", (".py", ".toml")
    built_in = Path(__file__).parent
    broken = BrokenImporters

    @classmethod
    def load(
        cls, importers_path: str = "", *, sources: Collection[str] = ("demo",), roles: Collection[str] = ROLES
    ) -> Registry:
        """Read the built-in importers and those of `importers_path` (folders, joined as in PATH).

        Built-in importers into a source that is not among `sources` are left out.
        """
        registry = cls(importers_path, Known(sources, roles))
        registry.refresh()
        return registry

    def read(self, path: Path) -> tuple[Importer, Lines]:
        return read_toml(path) if path.suffix == ".toml" else read_python(path)

    def findings(self, member: Importer) -> Iterable[Finding]:
        return findings(member, self._known)


def registry() -> Registry:
    """The importers of the app at work; in development, read again when a file has changed."""
    found: Registry = current_app.extensions["waybill.importers"]
    if current().development and found.refresh():
        for problem in found.problems:
            log.warning("%s", problem)
    return found
