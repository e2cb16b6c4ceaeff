"""What becomes of rows: those that are good, those that are refused, and how many met which end.

All that reading a file and writing to its target have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Reject:
    """A refused row. `line` counts the file's lines from 1, and is where its record begins.

    `column` is the importer's; None: the row as a whole. `record` is the row as it stands in the file, in
    UTF-8, without its line end.
    """

    line: int
    column: str | None
    code: str
    message: str
    record: bytes


@dataclass(frozen=True)
class Checked:
    """A chunk that was read and checked.

    `rows` has the good ones in the file's order: first `line` (int64), then the importer's columns that are
    written, by their names and typed. `read` counts all records, good, refused or superseded.
    """

    rows: pa.RecordBatch
    rejects: Sequence[Reject]
    read: int


@dataclass(frozen=True)
class Counts:
    """How many rows met which end. `refused_by` counts the refused ones by code."""

    read: int = 0
    inserted: int = 0
    updated: int = 0
    # The target had just these values.
    unchanged: int = 0
    # Left alone by the mode: there already (skip), or not there (update).
    skipped: int = 0
    # A later line of the file has the same key, and won.
    superseded: int = 0
    refused: int = 0
    refused_by: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Counts) -> Counts:
        codes = self.refused_by.keys() | other.refused_by.keys()
        by = {code: self.refused_by.get(code, 0) + other.refused_by.get(code, 0) for code in sorted(codes)}
        sums = {
            name: value + getattr(other, name) for name, value in asdict(self).items() if name != "refused_by"
        }
        return Counts(**sums, refused_by=by)

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Self:
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in raw.items() if name in known})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
