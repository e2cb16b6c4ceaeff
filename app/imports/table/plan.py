"""How rows of one importer get into its table: worked out once from the catalogue, before the first row.

`Plan.of` is for everybody who meets the target: an apply, a dry run, an undo's look at what was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.importers import Importer, Reference
from app.imports.table import catalogue, journal
from app.imports.table.catalogue import Table, TableUnfit, Unique
from app.imports.table.connection import Target
from app.imports.table.fit import Fit
from app.imports.table.journal import Shape
from app.models.imports import INSERT, UPDATE


@dataclass(frozen=True)
class Plan:
    """`fits` has the columns that are written, in the importer's order."""

    mode: str
    table: Table
    fits: Mapping[str, Fit]
    # By column: where a natural key is looked up, and the type of what is looked up.
    references: Mapping[str, tuple[Reference, str]]
    # The natural key, and the index that keeps it; () and None where rows are only inserted.
    key: tuple[str, ...]
    index: Unique | None
    # What the ledger knows a row by.
    ledger_key: tuple[str, ...]

    @classmethod
    def of(cls, target: Target, importer: Importer, mode: str, written: Sequence[str]) -> Plan:
        """`written` are the importer's columns that the file or a default fills; raises TableUnfit."""
        found = catalogue.read(target.conn, importer.table)
        fits, references = {}, {}
        for name in written:
            field = found.fields.get(name)
            if field is None or not field.writable:
                raise TableUnfit(f"The table {importer.table!r} has no column {name!r} that can be written.")
            column = importer.column(name)
            if column.references:
                references[name] = (column.references, _key_type(target, column.references))
                fits[name] = Fit(field, _resolved_kind(field.sent))
            else:
                fits[name] = Fit(field, column.type)
        key = importer.natural_key
        index = found.unique_over(key) if key else None
        plan = cls(mode, found, fits, references, key, index, key or found.primary)
        plan._check(importer)
        return plan

    def _check(self, importer: Importer) -> None:
        missing = [name for name in self.key if name not in self.fits]
        if missing:
            raise TableUnfit(
                f"Rows are found by {', '.join(self.key)}, but the file has no {', '.join(missing)}. "
                "Say which of its columns that is."
            )
        if self.key and self.index is None:
            raise TableUnfit(
                f"Rows of {importer.table!r} are found by {', '.join(self.key)}, but no unique index of the "
                "table is over just these columns. Make one, or name another natural key."
            )
        if not self.key and self.mode != INSERT:
            raise TableUnfit(
                f"Without a natural key rows can only be inserted, so {self.mode} can't be done."
            )
        if not self.ledger_key:
            raise TableUnfit(
                f"The table {importer.table!r} has no primary key, and the importer no natural key: "
                "what is written could never be told from the rest."
            )
        empty = [
            field.name
            for field in self.table.fields.values()
            if field.required and not field.filled and field.name not in self.fits
        ]
        if empty and self.mode != UPDATE:
            raise TableUnfit(
                f"The table {importer.table!r} needs a value in {', '.join(empty)}, which neither the file "
                "nor a default gives."
            )

    @property
    def values(self) -> list[str]:
        """The columns that an update may change."""
        return [name for name in self.fits if name not in self.key]

    @property
    def shape(self) -> Shape:
        return Shape(self.table.sql.replace("%%", "%"), list(self.ledger_key), self.values)

    @property
    def ledger_columns(self) -> list[str]:
        fields = self.table.fields
        return journal.definitions(
            [(name, fields[name].spoken) for name in self.ledger_key],
            [(name, fields[name].spoken) for name in self.values],
        )

    @property
    def direct(self) -> bool:
        """Whether new rows can be copied into the table itself."""
        exact = all(self.table.fields[name].exact for name in self.key)
        copied = self.table.simple and not any(fit.cast for fit in self.fits.values())
        return bool(self.key) and exact and copied and self.mode != UPDATE


def _resolved_kind(sent: str) -> str:
    """What is looked up comes as texts: of whole numbers, UUIDs, or as they are."""
    if sent in ("int2", "int4", "int8"):
        return "int"
    return "uuid" if sent == "uuid" else "text"


def _key_type(target: Target, reference: Reference) -> str:
    found = catalogue.read(target.conn, reference.table)
    for name in (reference.key, reference.value):
        if name not in found.fields:
            raise TableUnfit(f"The table {reference.table!r} has no column {name!r} to refer to.")
    return found.fields[reference.key].spoken
