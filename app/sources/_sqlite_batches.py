"""What SQLite's other process gives, as batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from app.formats._values import as_text
from app.sources._typed import Batch


def batch(found: pa.RecordBatch, kinds: Sequence[str]) -> Batch:
    """The columns without what the process added: `kinds` and the last column are explained there."""
    columns = [_column(found.column(at), kind) for at, kind in enumerate(kinds)]
    last = found.column(len(kinds))
    strays = _strays(last, kinds) if last.type == pa.string() else {}
    for at in [at for at in strays if columns[at].type == pa.string()]:
        columns[at] = pc.coalesce(strays.pop(at), columns[at])
    return Batch(columns, found.num_rows, strays)


def _column(column: pa.Array[Any], kind: str) -> pa.Array[Any]:
    if kind == "any":
        return pa.array(map(_decoded, _readable(column).to_pylist()), pa.string())
    if kind == "null":
        return pa.nulls(len(column), pa.string())
    if column.type == pa.string():
        return _readable(column)
    return column


def _readable(column: pa.Array[Any]) -> pa.Array[Any]:
    """Bytes that are no UTF-8 as \\xff, like everywhere."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        raw = column.cast(pa.binary(), safe=False).to_pylist()
        return pa.array((cell and cell.decode(errors="backslashreplace") for cell in raw), pa.string())
    return column


def _strays(last: pa.Array[Any], kinds: Sequence[str]) -> dict[int, pa.Array[Any]]:
    """By column the values, as text, that are not of its kind."""
    if not pc.any(pc.not_equal(last, "")).as_py():
        return {}
    found: dict[int, list[str | None]] = {}
    # Bytes that are no UTF-8 are no escapes of JSON's either: they are shown once it is read.
    for row, raw in enumerate(last.cast(pa.binary(), safe=False).to_pylist()):
        told = raw.decode(errors="surrogateescape")
        for at, (kind, value) in enumerate(zip(kinds, json.loads(told) if told else (), strict=False)):
            if value is not None and _stray(kind, value):
                found.setdefault(at, [None] * len(last))[row] = _decoded(value)
    return {at: pa.array(values, pa.string()) for at, values in found.items()}


def _stray(kind: str, value: str) -> bool:
    match kind:
        case "any":
            return False
        case "real":
            return value[0] != "n" or (value[1:].lstrip("-").isdigit() and abs(int(value[1:])) > 2**53)
        case "integer":
            return value[0] != "n" or not value[1:].lstrip("-").isdigit()
        case "text":
            return value[0] != "t"
        case _:
            return value[0] != "x"


def _decoded(value: str | None) -> str | None:
    match value and value[0]:
        case None:
            return None
        case "t":
            return (value or "")[1:].encode(errors="surrogateescape").decode(errors="backslashreplace")
        case "x":
            return "\\x" + (value or "")[1:].lower()
        case _:
            number = (value or "")[1:]
            return number if number.lstrip("-").isdigit() else as_text(float(number))
