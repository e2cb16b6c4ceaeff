"""What a report is, and how its query becomes a statement."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from app.errors import QueryFailed
from app.params import RESERVED, Params
from app.reports._sql import BadSql, Token, placeholders, render, tokens, unsafe
from app.reports._sql import ordered_by as _ordered_by

NONE = Params()
_AGE = re.compile(r"([0-9]{1,4}) (second|minute|hour|day)s?")


@dataclass(frozen=True)
class Column:
    """One column of the file, and what it means."""

    name: str
    description: str = ""


class Query:
    """Rows that a reading query gives; `:name` in `sql` takes the value given as `name=`."""

    def __init__(self, sql: str, **bound: Any) -> None:
        self.sql, self.bound = sql, bound


@dataclass(frozen=True)
class File:
    """One file of a bundle: a name without extension, and rows as long as `columns`.

    The name is made safe and unlike the others'. The rows of a `Query` have the query's own columns, and the
    database writes them by itself where it can.
    """

    name: str
    rows: Iterable[Sequence[object]] | Query
    columns: Sequence[str] = ()


@dataclass(frozen=True)
class Lookup:
    """Which values of the list `param` are not in the `column` of any row: a file of its own tells."""

    param: str
    column: str


@dataclass(frozen=True)
class Statement:
    """A query for psycopg: `sql` with %(name)s placeholders, each cast to its type, and their values."""

    sql: str
    values: dict[str, Any]


class Person(Protocol):
    """Who runs a report."""

    @property
    def id(self) -> Any: ...

    @property
    def email(self) -> Any: ...


class ReportContext(Protocol):
    """What a Python report may do while it runs."""

    @property
    def user_email(self) -> str: ...

    @property
    def user_id(self) -> str: ...

    def log(self, text: str) -> None:
        """One line in the job's log."""

    def progress(self, done: int, total: int | None = None) -> None:
        """How far it is, in rows or steps; cheap, so call it as often as you like."""

    def check(self) -> None:
        """Raises when the job is cancelled or its worker stops: call it before a pause."""

    def query(self, sql: str, **bound: Any) -> Iterator[tuple[Any, ...]]:
        """Rows of one reading query on the report's source, streamed; `:name` takes `bound["name"]`."""


class Report:
    """A definition: title, params, rows. Subclass it once in a .py file; a .sql file makes a SqlReport.

    docs/author.md tells of every attribute.
    """

    key: str = ""
    title: str = ""
    description: str = ""
    group: str = "Reports"
    source: str = "demo"
    roles: tuple[str, ...] = ("member", "admin")
    params: Params = NONE
    columns: tuple[Column, ...] | None = None
    filename: str = "{key}-{date}"
    link: Literal["signed", "signed-in"] = "signed"
    queue: Literal["default", "low"] = "default"
    partition_by: str | None = None
    consistency: Literal["parts", "snapshot"] = "parts"
    fresh_for: str | None = None
    personal: bool | None = None
    lookup: Lookup | None = None
    sampled: bool = True

    # Where it is defined, and the SHA-256 of that file's text; set by the registry.
    path: Path = Path()
    line: int = 1
    fingerprint: str = ""

    # All that an author may set, in a class body or (but for `key`) in a .sql file's head.
    OPTIONS: ClassVar[tuple[str, ...]] = (
        *("key", "title", "description", "group", "source", "roles", "params", "columns"),
        *("filename", "link", "queue", "partition_by", "consistency", "fresh_for", "personal"),
        *("lookup", "sampled"),
    )

    def rows(self, params: Mapping[str, Any], context: ReportContext) -> Iterator[Sequence[object]]:
        """One sequence of values for each row, as long as `columns`; `params` are typed values."""
        raise NotImplementedError

    def allows(self, roles: Collection[str]) -> bool:
        """Whether somebody with these roles may run it."""
        return not set(self.roles).isdisjoint(roles)

    @property
    def bundled(self) -> bool:
        """Whether it gives several files, in one zip archive."""
        return self.lookup is not None

    @property
    def freshness(self) -> timedelta | None:
        """How old the data may be that somebody is handed who asks the same again."""
        return age(self.fresh_for) if self.fresh_for else None

    @property
    def depends_on_person(self) -> bool:
        """Whether two people may get different rows: then no file is shared between them.

        A report in Python may do anything with who asks, so its author must say that it does nothing.
        """
        return self.personal is not False

    def filename_on(self, day: date) -> str:
        """The file's name without its extension."""
        return self.filename.replace("{key}", self.key).replace("{date}", day.isoformat())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}>"


class Bundle(Report):
    """A report of several files: it has `files` where other reports have `rows` and `columns`."""

    def files(self, params: Mapping[str, Any], context: ReportContext) -> Iterator[File]:
        """The files in their order, each read to its end before the next one is asked for.

        The same params and data must give the same files in the same order.
        """
        raise NotImplementedError

    @property
    def bundled(self) -> bool:
        return True


class SqlReport(Report):
    """A report that is one query. `sql` is the file's query as written; `query` its tokens."""

    sql: str = ""
    query: Sequence[Token] = ()

    @property
    def depends_on_person(self) -> bool:
        """Known from the query, unless the author says so beside."""
        return bool(self.personal) or not placeholders(self.query).keys().isdisjoint(RESERVED)


def age(words: str) -> timedelta:
    """ "10 minutes" as a time span; raises ValueError for anything else."""
    found = _AGE.fullmatch(words)
    if not found or not int(found[1]):
        raise ValueError(f"{words!r} is no time span")
    return timedelta(**{f"{found[2]}s": int(found[1])})


def statement(report: SqlReport, bound: Mapping[str, Any], user: Person) -> Statement:
    """The report's query for `user`; `bound` comes from `report.params.bind(...)`.

    It begins with as many line breaks as the file has before it: the database's "LINE 12" is the file's.
    """
    person = dict(zip(RESERVED, (str(user.email), str(user.id)), strict=True))
    found = _statement(report.query, {**bound, **person}, report.params)
    return Statement("\n" * (report.query[0].line - 1) + found.sql, found.values)


def ordered_by(report: SqlReport) -> str | None:
    """The column that the report's rows ascend by; "" for any other order, None for no order at all."""
    return _ordered_by(report.query)


def compose(sql: str, bound: Mapping[str, Any]) -> Statement:
    """The statement of a Python report's own query: `:name` in `sql` takes `bound["name"]`.

    Each has its value's type. Raises QueryFailed if the query does not only read, or names what is not bound.
    """
    try:
        found = tokens(sql)
        for problem in unsafe(found):
            raise problem
    except BadSql as problem:
        raise QueryFailed(f"A query of this report was refused, line {problem.line}: {problem}.") from None
    if missing := placeholders(found).keys() - bound:
        raise QueryFailed(f"A query of this report names :{min(missing)}, but no such value was given.")
    return _statement(found, bound, NONE)


def _statement(found: Sequence[Token], values: Mapping[str, Any], params: Params) -> Statement:
    declared = {**dict.fromkeys(RESERVED, "text"), **{param.name: param.cast for param in params}}
    casts = {name: declared.get(name) or _pg_type(values[name]) for name in placeholders(found)}
    # A bound null without a type is more than PostgreSQL can guess.
    nulls = {name for name, cast in casts.items() if values[name] is None and not cast}

    def typed(name: str) -> str:
        if name in nulls:
            return "NULL"
        return f"CAST(%({name})s AS {casts[name]})" if casts[name] else f"%({name})s"

    return Statement(render(found, typed), {name: values[name] for name in casts if name not in nulls})


def _pg_type(value: Any) -> str | None:
    """The PostgreSQL type of a value that no param declares; None leaves it to the database."""
    if isinstance(value, list):
        # PostgreSQL compares an empty one with a column of any type, if it is left without.
        if not value:
            return None
        item = _pg_type(next((item for item in value if item is not None), ""))
        return f"{item}[]" if item else None
    return next((name for kind, name in _PG_TYPES if isinstance(value, kind)), None)


# bool is an int and datetime is a date: the narrower first.
_PG_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (int, "bigint"),
    (Decimal, "numeric"),
    (float, "double precision"),
    (datetime, "timestamptz"),
    (date, "date"),
    (str, "text"),
)
