"""How a file of rows is spoken: what was detected, or what a person corrected."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """Everything that is needed to read the file's rows, and nothing about where they go."""

    # What is around the rows: none, gzip or zip; and what is in it: text or xlsx.
    container: str = "none"
    content: str = "text"
    # The name of the file in a zip, or of the workbook's sheet.
    member: str | None = None
    # A Python codec's name: "utf-8", "utf-16", "cp1252".
    encoding: str = "utf-8"
    delimiter: str = ","
    # None: quotes are text like any other.
    quote: str | None = '"'
    # What stands before a quote inside of quotes where it is not doubled; None: it is doubled.
    escape: str | None = None
    # Lines before the header, or before the first row where there is none, that are no rows: a title, a date.
    skip: int = 0
    # Whether the first record names the columns.
    header: bool = True
    # Between the whole number and its fraction; the other one of "." and "," may group thousands.
    decimal: str = "."
    # How days are written: "iso" (2026-01-31), "dmy" (31.1.2026) or "mdy" (1/31/2026).
    dates: str = "iso"
    # Texts that mean NULL when they stand without quotes, beside the empty one.
    nulls: tuple[str, ...] = ()
    # Where clocks showed the moments that are written without an offset: an IANA name.
    zone: str = "UTC"
    # Whether an apostrophe is no part of the text where it keeps a spreadsheet from guessing, as in '0012.
    # Waybill's own `spreadsheet` files have such.
    apostrophes: bool = False

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Self:
        """From `as_json`'s; names that are not ours are left out."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in raw.items() if name in known}
        return cls(**values | {"nulls": tuple(values.get("nulls", ()))})

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"nulls": list(self.nulls)}
