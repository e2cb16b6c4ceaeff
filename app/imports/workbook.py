"""Workbooks (.xlsx): a sheet as a stream of CSV."""

from __future__ import annotations

from collections.abc import Iterator
from zipfile import ZipInfo

from app.errors import BadFile
from app.imports.packed import Opener


def sheets(name: str, opener: Opener, found: list[ZipInfo]) -> tuple[str, ...]:
    raise BadFile("Workbooks are not read yet. Save it as CSV.")


def rows(name: str, opener: Opener, size: int, sheet: str | None) -> Iterator[bytes]:
    raise BadFile("Workbooks are not read yet. Save it as CSV.")
