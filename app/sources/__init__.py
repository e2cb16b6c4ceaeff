"""Where reports read from: named databases. One kind a file, chosen by the URL's scheme.

A new kind is one new module here with `SCHEMES` and `open_source(name, url, timeout)` in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from app.errors import BadSettings


class Source(ABC):
    """A named database."""

    name: str

    @abstractmethod
    def reading(self) -> AbstractContextManager[Reading]:
        """One read-only snapshot of the source; raises SourceDown if it does not answer."""


class Reading(ABC):
    """A read-only transaction that sees one state of the source. Errors are SourceDown or QueryFailed."""

    snapshot_at: datetime
    # Rows handed out by the last `copy` or `rows`, as the source counted them.
    rows_read: int

    @abstractmethod
    def copy(self, sql: str, values: Mapping[str, Any], options: str) -> Iterator[bytes]:
        """The query's result as the database itself writes it, in blocks."""

    @abstractmethod
    def rows(self, sql: str, values: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """The query's rows, streamed."""

    @abstractmethod
    def columns(self, sql: str, values: Mapping[str, Any]) -> Sequence[str]:
        """The names of the result's columns, without running the query."""

    @abstractmethod
    def estimate(self, sql: str, values: Mapping[str, Any]) -> int:
        """How many rows the database expects."""

    @abstractmethod
    def break_off(self) -> None:
        """From another thread: make the query at work fail soon."""


@cache
def _modules() -> dict[str, Any]:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {scheme: module for module in modules for scheme in module.SCHEMES}


def open_source(name: str, url: str, timeout: timedelta) -> Source:
    """The source of this URL; nothing is contacted yet. Raises BadSettings for a scheme nobody speaks."""
    scheme = url.partition("://")[0]
    module = _modules().get(scheme)
    if module is None:
        raise BadSettings(
            f"SOURCE_{name.upper()}_URL starts with {scheme}://; use {' or '.join(sorted(_modules()))}."
        )
    opened: Source = module.open_source(name, url, timeout)
    return opened
