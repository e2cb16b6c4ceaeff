"""JSON Lines: one object a row, lossless. PostgreSQL writes it itself.

Numbers keep all their digits, NULL is null, moments are RFC 3339 in UTC, bytes are \\x and hexadecimal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from math import isfinite

from app.formats import BLOCK, Counter, Format, Writing
from app.formats._values import as_number, as_text, distinct
from app.sources import Batch, Copy, Field

# Line breaks stand between the tokens of JSON, where they mean nothing.
_ONE_LINE = str.maketrans("\n\r", "  ")


class Jsonl(Format):
    name = "jsonl"
    title = "JSON Lines"
    extension = "jsonl"
    content_type = "application/jsonl"

    def writing(self, dialect: str, zone: str = "UTC", texts: Collection[int] = ()) -> Writing:
        return _Lines()

    def counter(self) -> LineCounter:
        return LineCounter()


FORMAT = Jsonl()


class _Lines(Writing):
    def copy(self, fields: Callable[[], Sequence[Field]]) -> Copy:
        found = fields()
        names = list(map(_quoted, distinct([field.name for field in found])))
        values = ", ".join(map(_value, found, names))
        # Arrays and composites may hold JSON that was written by hand.
        line = _flat("row_to_json(line)") if any(f.kind == "other" for f in found) else "row_to_json(line)"
        return Copy(
            # No JSON holds these two characters, nor a line break: CSV of one column, never quoted.
            r"FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02', ENCODING 'UTF8'",
            before=f"SELECT {line} FROM (SELECT {values} FROM (",
            after=f") AS report({', '.join(names)})) AS line",
        )

    def batches(self, fields: Sequence[Field], batches: Iterable[Batch]) -> Iterator[bytes]:
        written = [at for at, field in enumerate(fields) if field.kind == "json"]
        rows = (row for batch in batches for row in batch.values())
        return self.rows([field.name for field in fields], _marked(rows, written) if written else rows)

    def rows(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
        keys = [json.dumps(name, ensure_ascii=False) + ":" for name in distinct(columns)]
        block, size = [], 0
        for row in rows:
            pairs = [key + encoded(value) for key, value in zip(keys, row, strict=True)]
            line = "{" + ",".join(pairs) + "}\n"
            block.append(line)
            size += len(line)
            if size >= BLOCK:
                yield _bytes(block)
                block, size = [], 0
        yield _bytes(block)


class _Written(str):
    """JSON as a source gave it."""


def _marked(rows: Iterable[Sequence[object]], places: Sequence[int]) -> Iterator[list[object]]:
    """The rows, with the JSON in these places told from texts, and on one line."""
    for row in rows:
        marked = list(row)
        for at in places:
            if isinstance(text := row[at], str):
                marked[at] = _Written(text.translate(_ONE_LINE))
        yield marked


def encoded(value: object) -> str:
    """The value as JSON, as PostgreSQL's row_to_json has it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return as_number(value) if isfinite(value) else f'"{as_number(value)}"'
        case Decimal():
            return as_text(value) if value.is_finite() else f'"{as_text(value)}"'
        case _Written():
            return value
        case datetime():
            return f'"{_moment(value)}"'
        case Mapping():
            return "{" + ",".join(f"{_text(str(key))}:{encoded(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(encoded, value)) + "]"
        case _:
            return _text(as_text(value))


class LineCounter(Counter):
    """Counts line ends: there are none inside JSON."""

    def __init__(self) -> None:
        self._rows = 0

    def feed(self, block: bytes) -> None:
        self._rows += block.count(b"\n")

    @property
    def rows(self) -> int:
        return self._rows


def _value(field: Field, name: str) -> str:
    return f"{_flat(name)}::json AS {name}" if field.kind == "json" else name


def _flat(json: str) -> str:
    """Text typed as JSON may have line breaks between its tokens, where they mean nothing."""
    return f"translate({json}::text, E'\\n\\r', '  ')"


def _moment(at: datetime) -> str:
    moment = at.astimezone(UTC) if at.tzinfo else at
    text = moment.isoformat()
    if not moment.microsecond:
        return text
    head, zone = (text[:-6], text[-6:]) if at.tzinfo else (text, "")
    return head.rstrip("0") + zone


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _bytes(lines: Iterable[str]) -> bytes:
    # A lone half of a surrogate pair is no character: JSON can say it, UTF-8 can't.
    return "".join(lines).encode(errors="backslashreplace")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
