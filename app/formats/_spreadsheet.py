"""What a spreadsheet makes of a text file's cells when it opens one by double click, and how to stop it.

One place has the rules; each is said once for rows in Python and once for PostgreSQL, which then writes the
file itself. `tests/formats/test_spreadsheet.py` holds the two against each other on a real server.

Quotes don't help: a spreadsheet takes them away before it guesses. Only the text itself can say that it is
text, and a leading apostrophe is what OWASP recommends and every spreadsheet takes as one. The other known
way, ="0012", is a formula: what this dialect promises never to write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import cached_property
from math import isfinite

from app.formats._values import as_number, as_text
from app.formats._zones import clock
from app.sources import Field
from app.sources._typed import Kind

# Spreadsheets keep this many digits of a number.
DIGITS = 15
LARGEST = 10**DIGITS - 1
# NUL can't be in a cell; its picture can.
NUL, NUL_PICTURE = "\0", "\N{SYMBOL FOR NULL}"

# What may stand before a formula's first sign unseen: spaces, control characters, marks without width.
_BLANK = r"[\u0001-\u0020\u007F-\u00A0\u1680\u180E\u2000-\u200F\u2028-\u202F\u205F-\u2064\u3000\uFEFF]*"
_PLAIN = r"(0|[1-9][0-9]{0,14})"


@dataclass(frozen=True)
class Rules:
    """How cells are written for a spreadsheet with this decimal mark, for a person in this time zone."""

    decimal: str = "."
    zone: str = "UTC"

    def sql(self, field: Field, ref: str) -> str:
        """The cell as a PostgreSQL expression; `ref` is the field's column."""
        number = (
            f"{ref}::text" if self.decimal == "." else f"replace({ref}::text, '.', {_quoted(self.decimal)})"
        )
        return _SQL.get(field.kind, _SQL_TEXT).format(
            c=ref, limit=LARGEST, number=number, guessed=self._literal, zone=_quoted(self.zone)
        )

    def cell(self, value: object) -> str:
        """The same of a Python value that is not None."""
        match value:
            case bool():
                return "TRUE" if value else "FALSE"
            case int():
                return _number(str(value), -LARGEST <= value <= LARGEST)
            case float():
                return _number(as_number(value).replace(".", self.decimal), isfinite(value))
            case Decimal():
                exact = value.is_finite() and -LARGEST - 1 < value < LARGEST + 1
                return _number(as_text(value).replace(".", self.decimal), exact)
            case datetime():
                # A cell has no time zone.
                return clock(value, self.zone) if value.tzinfo else as_text(value.replace(microsecond=0))
            case date():
                return value.isoformat()
            case time():
                return value.isoformat()[:8]
            case _:
                return self.text(as_text(value))

    def text(self, text: str) -> str:
        """Text that stays text, a header's too."""
        marked = "'" + text if NUL in text[:1] or self._guessed.search(text) else text
        return marked.replace(NUL, NUL_PICTURE)

    def unmarked(self, text: str) -> str:
        """The text that `text` made this of."""
        return text[1:] if text.startswith("'") and self._guessed.search(text[1:]) else text

    @cached_property
    def _guessed(self) -> re.Pattern[str]:
        return re.compile(self._pattern)

    @cached_property
    def _literal(self) -> str:
        return _quoted(self._pattern)

    @cached_property
    def _pattern(self) -> str:
        """Texts that a spreadsheet would take for something else; Python and PostgreSQL read it alike."""
        mark = re.escape(self.decimal)
        guesses = (
            # A formula's lead, and what makes spreadsheets look past it. A plain negative number is none.
            r"[\t\r\n]",
            _BLANK + r"[=+@＝＋－＠]",
            _BLANK + rf"-(?!{_PLAIN}({mark}[0-9]+)?\Z)",
            # Digits that would be lost: leading zeros, and those after the fifteenth.
            _BLANK + rf"0[0-9]+({mark}[0-9]*)?[ ]*\Z",
            _BLANK + rf"[0-9]{{16,}}({mark}[0-9]*)?[ ]*\Z",
            # 1E5 is not 100000, nor is 1-2 the second of January.
            _BLANK + r"[0-9]+([.,][0-9]*)?[eE][+-]?[0-9]+[ ]*\Z",
            _BLANK + r"([0-9]{1,2}[-/][0-9]{1,4}|[0-9]{4}[-/][0-9]{1,2})[ ]*\Z",
        )
        # A text with such an apostrophe of its own gets one more, so that it can be told from ours.
        return rf"\A'*({'|'.join(guesses)})"


# `{c}` is the column. NULL stays NULL: whatever is joined to it is NULL.
_FLOAT = "CASE WHEN {c} IN ('NaN', 'Infinity', '-Infinity') THEN '''' ELSE '' END || {number}"
_DATE = "CASE WHEN isfinite({c}) THEN '' ELSE '''' END || "
_SQL: dict[Kind, str] = {
    "bool": "upper({c}::text)",
    "int16": "{c}::text",
    "int32": "{c}::text",
    # An oid, too, which compares with nothing below zero.
    "int64": "CASE WHEN {c}::bigint BETWEEN -{limit} AND {limit} THEN {c}::text ELSE '''' || {c}::text END",
    "float32": _FLOAT,
    "float64": _FLOAT,
    "decimal": "CASE WHEN {c} > -{limit} - 1 AND {c} < {limit} + 1 THEN {number} ELSE '''' || {number} END",
    "date": _DATE + "{c}::text",
    "time": "left({c}::text, 8)",
    "datetime": _DATE + "date_trunc('second', {c})::text",
    "instant": _DATE + "date_trunc('second', timezone({zone}, {c}))::text",
    "bytes": "{c}::text",
    "uuid": "{c}::text",
}
# Most texts begin with a letter, which is quicker to see than what a pattern finds.
_SQL_TEXT = (
    "CASE WHEN ascii({c}::text) BETWEEN 65 AND 122 THEN {c}::text"
    " WHEN {c}::text ~ {guessed} THEN '''' || {c}::text ELSE {c}::text END"
)


def _number(text: str, exact: bool) -> str:
    return text if exact else "'" + text


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
