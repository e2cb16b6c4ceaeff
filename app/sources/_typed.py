"""What a result is made of: its fields, and batches of its rows by column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

# `datetime` has no time zone, `instant` is a moment. `other` is whatever only the source's own text can say:
# arrays, intervals, ranges, enums.
Kind = Literal[
    "bool",
    "int16",
    "int32",
    "int64",
    "float32",
    "float64",
    "decimal",
    "date",
    "time",
    "datetime",
    "instant",
    "bytes",
    "json",
    "uuid",
    "text",
    "other",
]
# The most digits that an Arrow decimal holds.
DECIMAL_DIGITS = 76


@dataclass(frozen=True)
class Field:
    """One column of a result. Precision and scale are a decimal's digits, None if nobody knows them."""

    name: str
    kind: Kind = "text"
    precision: int | None = None
    scale: int | None = None


class Again(Exception):
    """The result holds what could not be foreseen: begin it anew, the source reads it otherwise now.

    Its text is a sentence for the job's log.
    """


@dataclass(frozen=True)
class Batch:
    """Some rows, by column.

    `strays` holds, by column, the values that the column's type can't hold: as text, and null elsewhere.
    In the column itself these are null.
    """

    columns: Sequence[pa.Array[Any]]
    rows: int
    strays: Mapping[int, pa.Array[Any]] = field(default_factory=dict)

    def slice(self, start: int, rows: int) -> Batch:
        """At most so many of its rows, from `start` on; shares their memory."""
        strays = {at: column.slice(start, rows) for at, column in self.strays.items()}
        columns = [column.slice(start, rows) for column in self.columns]
        return Batch(columns, min(rows, self.rows - start), strays)

    def values(self) -> Iterator[tuple[object, ...]]:
        """The rows as Python values."""
        columns = [column.to_pylist() for column in self.columns]
        for at, strays in self.strays.items():
            pairs = zip(columns[at], strays.to_pylist(), strict=True)
            columns[at] = [value if stray is None else stray for value, stray in pairs]
        return zip(*columns, strict=True)


@dataclass(frozen=True)
class Copy:
    """How a database is to write a result by itself; its query goes between `before` and `after`.

    `head` is written before the first row, and is not the database's to write. `line_end` ends a row.
    """

    options: str
    head: bytes = b""
    before: str = ""
    after: str = ""
    line_end: bytes = b"\n"


def arrow_type(field: Field) -> pa.DataType:
    """The Arrow type that holds the field's values without loss; text if there is none."""
    import pyarrow as pa

    if field.kind == "decimal":
        return _decimal(field.precision, field.scale)
    types: dict[Kind, pa.DataType] = {
        "bool": pa.bool_(),
        "int16": pa.int16(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float32": pa.float32(),
        "float64": pa.float64(),
        "date": pa.date32(),
        "time": pa.time64("us"),
        "datetime": pa.timestamp("us"),
        "instant": pa.timestamp("us", tz="UTC"),
        "bytes": pa.binary(),
    }
    return types.get(field.kind, pa.string())


def _decimal(precision: int | None, scale: int | None) -> pa.DataType:
    import pyarrow as pa

    if precision is None or scale is None or not 0 <= scale <= precision <= DECIMAL_DIGITS:
        return pa.string()
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
