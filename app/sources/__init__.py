"""Where reports read from: named databases. One kind a file, chosen by the URL's scheme.

A new kind is one new module here with `SCHEMES` and `open_source(name, url, timeout)` in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar

from app.sources._typed import Again, Batch, Copy, Field, arrow_type

__all__ = ["Again", "Batch", "Copy", "Field", "Reading", "Source", "arrow_type", "open_source"]

# The scheme of the module that tries its hand at all that no other one speaks.
LAST_RESORT = "*"


class Source(ABC):
    """A named database."""

    name: str

    @abstractmethod
    def reading(self, snapshot: str = "") -> AbstractContextManager[Reading]:
        """A read-only snapshot of the source: a new one, or the one that another reading exported.

        Raises SourceDown if it does not answer, QueryFailed if that other reading has ended.
        """

    @abstractmethod
    def warnings(self) -> Sequence[str]:
        """What the operator had better change, found by asking the database; raises SourceDown.

        Above all: that the URL's account may write.
        """


class Reading(ABC):
    """A read-only transaction that sees one state of the source. Errors are SourceDown or QueryFailed.

    Queries come as psycopg takes them: `%(name)s` or `CAST(%(name)s AS type)` stands where a value goes,
    `%%` for a percent sign. Sources that want it otherwise have `_placeholders.rendered`.
    """

    # Whether `copy` works: the database itself can write a result as COPY does.
    copies: ClassVar[bool] = False
    # Whether a query in parentheses keeps the order of its rows, as MariaDB's does not.
    wraps: ClassVar[bool] = False
    snapshot_at: datetime
    # Rows handed out by the last `copy`, `batches` or `rows`, as the source counted them.
    rows_read: int

    @abstractmethod
    def copy(self, sql: str, values: Mapping[str, Any], copy: Copy) -> Generator[bytes, None, None]:
        """The query's result as the database itself writes it, in blocks of whole rows, without the head.

        Close it to leave it early: the next query sees the same snapshot.
        """

    @abstractmethod
    def batches(
        self, sql: str, values: Mapping[str, Any], fields: Sequence[Field] | None = None
    ) -> Generator[Batch, None, None]:
        """The query's result by column, in batches of a few thousand rows.

        Typed as `fields` says: those that the method of this name gives, or these with some made `text`.
        Close it to leave it early: the next query sees the same snapshot. Raises Again.
        """

    @abstractmethod
    def rows(self, sql: str, values: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """The query's rows, streamed."""

    @abstractmethod
    def fields(self, sql: str, values: Mapping[str, Any]) -> Sequence[Field]:
        """The result's columns, without reading more than the first rows."""

    @abstractmethod
    def estimate(self, sql: str, values: Mapping[str, Any]) -> int | None:
        """How many rows the database expects; None if it can't tell."""

    def bounds(self, sql: str, values: Mapping[str, Any], column: str, parts: int) -> Sequence[str]:
        """Keys that cut the result into about `parts` ranges of about equal size, from statistics alone.

        Ascending, as the source writes them; none where this can't be told.
        """
        return ()

    def within(
        self, sql: str, values: Mapping[str, Any], column: str, lower: str | None, upper: str | None
    ) -> tuple[str, Mapping[str, Any]]:
        """The query for the keys from `lower` (included) up to `upper`; rows without a key come last."""
        raise NotImplementedError

    def export_snapshot(self) -> str:
        """A name by which others read the same state, for as long as this reading is open."""
        raise NotImplementedError

    def only(self, sql: str, columns: Sequence[str]) -> str:
        """The query with these of its columns, in this order."""
        names = ", ".join(self.quoted(name).replace("%", "%%") for name in columns)
        return f"SELECT {names} FROM ({sql}\n) AS report"

    def nothing(self, sql: str) -> str:
        """The query without its rows: whoever asks for its fields waits for none."""
        return f"SELECT * FROM ({sql}\n) AS report WHERE 1 = 0"

    def first(self, sql: str, count: int) -> str:
        """The query, telling the database if it can be told that only so many rows are wanted."""
        return f"SELECT * FROM ({sql}\n) AS first LIMIT {count}" if self.wraps else sql

    def quoted(self, name: str) -> str:
        """A column's name as this database wants it in a query."""
        return '"' + name.replace('"', '""') + '"'

    @abstractmethod
    def break_off(self) -> None:
        """From another thread: make the query at work fail soon."""


@cache
def _modules() -> dict[str, Any]:
    names = (module.name for module in iter_modules(__path__) if not module.name.startswith("_"))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    return {scheme: module for module in modules for scheme in module.SCHEMES}


def open_source(name: str, url: str, timeout: timedelta) -> Source:
    """The source of this URL; nothing is contacted yet. Raises BadSettings for a scheme nobody speaks."""
    scheme = url.partition("://")[0]
    modules = _modules()
    opened: Source = modules.get(scheme, modules[LAST_RESORT]).open_source(name, url, timeout)
    return opened
