"""What an importer is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from uuid import UUID

from app.models.imports import INSERT, SKIP, UPDATE, UPSERT

if TYPE_CHECKING:
    import pyarrow as pa

Type = Literal["text", "int", "decimal", "bool", "date", "datetime", "uuid", "json"]


@dataclass(frozen=True)
class Reference:
    """A foreign key given by a natural key: the file says the company's name, the table holds its id."""

    table: str
    # The column that is looked up, and the one whose value is written.
    key: str
    value: str = "id"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the target, and what it takes."""

    name: str
    type: Type = "text"
    label: str = ""
    description: str = ""
    # Other names under which files have it.
    aliases: tuple[str, ...] = ()
    required: bool = False
    # Stands in for an empty cell, and for a column that the file lacks.
    default: Any = None
    choices: tuple[str, ...] = ()
    min: Any = None
    max: Any = None
    max_length: int | None = None
    # A regular expression that the whole text must match.
    pattern: str | None = None
    # No two rows of the table may share its value.
    unique: bool = False
    references: Reference | None = None


class Importer:
    """A definition: a target table and its columns. Subclass it once in a .py file, or write a .toml file.

    docs/author.md tells of every attribute.
    """

    key: str = ""
    title: str = ""
    description: str = ""
    group: str = "Imports"
    source: str = "demo"
    roles: tuple[str, ...] = ("member", "admin")
    # In the source: "table" or "schema.table".
    table: str = ""
    columns: tuple[Column, ...] = ()
    # The columns by which a row of the file finds its row of the table; () where rows are only inserted.
    natural_key: tuple[str, ...] = ()
    # What a person may choose from; the first one is offered.
    modes: tuple[str, ...] = (UPSERT, INSERT, UPDATE, SKIP)

    # Where it is defined, and the SHA-256 of that file's text; set by the registry.
    path: Path = Path()
    line: int = 1
    fingerprint: str = ""

    # All that an author may set, in a class body or (but for `key`) in a .toml file.
    OPTIONS: ClassVar[tuple[str, ...]] = (
        *("key", "title", "description", "group", "source", "roles", "table", "columns"),
        *("natural_key", "modes"),
    )

    def check(self, rows: pa.RecordBatch) -> Iterable[tuple[pa.BooleanArray, str | None, str, str]]:
        """Rules across columns, over all rows of a chunk at once.

        Yields (which rows break it, column or None, code, message). The hook of an author; does nothing here.
        """
        return ()

    # A row by itself, where a rule can't be put in columns: the hook of an author. It takes the row's typed
    # values, and returns those to write or raises Refused. None: there is no such hook.
    row: ClassVar[Any] = None

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def allows(self, roles: Collection[str]) -> bool:
        """Whether somebody with these roles may use it."""
        return not set(self.roles).isdisjoint(roles)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}>"


def value_of(type: Type, raw: Any) -> Any:
    """What an author wrote for a value of this type, as Python has it; raises ValueError.

    decimal is a Decimal, datetime knows its zone (UTC if none is given), uuid and json are texts.
    """
    match type, raw:
        case ("bool", bool()) | ("text" | "json", str()):
            return raw
        case "int", int() if not isinstance(raw, bool):
            return raw
        case "decimal", int() | float() | str() | Decimal() if not isinstance(raw, bool):
            return _finite(raw)
        case "datetime", datetime() | str():
            moment = raw if isinstance(raw, datetime) else datetime.fromisoformat(raw)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        case "date", date() | str() if not isinstance(raw, datetime):
            return raw if isinstance(raw, date) else date.fromisoformat(raw)
        case "uuid", UUID() | str():
            return str(UUID(str(raw)))
        case _:
            raise ValueError(f"{raw!r} is no value of the type {type}")


def _finite(raw: int | float | str | Decimal) -> Decimal:
    try:
        value = Decimal(str(raw))
    except ArithmeticError:
        raise ValueError(f"{raw!r} is no number") from None
    if not value.is_finite():
        raise ValueError(f"{raw!r} is no number")
    return value


class Refused(ValueError):
    """A row that an importer does not take; the message is for the person who sent it."""

    def __init__(self, message: str, *, column: str | None = None, code: str = "refused") -> None:
        super().__init__(message)
        self.column, self.code = column, code
