"""Blocks of CSV as a database wrote them, to Arrow columns.

Parsing PostgreSQL's own CSV takes two thirds of the CPU time of its Arrow driver (1,000,000 x 8: 0.6 s
and 0.9 s), and stays in the one connection that has the snapshot, the time limit and the cancel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from app.errors import QueryFailed
from app.sources._typed import Batch, Field, Kind, arrow_type

# Arrow's own allocator keeps what is freed: 25 MB more a worker, and no faster for blocks as small as ours.
pa.set_memory_pool(pa.system_memory_pool())

# What a kind's ordinary values look like; `infinity`, `44-03-15 BC`, `NaN` and `24:00:00` are not.
_ORDINARY: dict[Kind, str] = {
    "date": r"^\d{4}-\d\d-\d\d$",
    "time": r"^([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?$",
    "datetime": r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?$",
    "instant": r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?[+]00$",
    "decimal": r"^-?[0-9.]+$",
}


def batch(block: bytes, fields: Sequence[Field]) -> Batch:
    """The rows of `block`: whole records, no header, NULL as nothing and an empty text as `""`.

    Values are as PostgreSQL writes them. Raises QueryFailed for text that is not UTF-8.
    """
    types = {at: _parsed_type(field) for at, field in enumerate(fields)}
    strays: dict[int, pa.Array[Any]] = {}
    try:
        columns = _parsed(block, types)
    except pa.ArrowInvalid:
        texts = _texts(block, types)
        strays = {
            at: found for at, field in enumerate(fields) if (found := _strays(texts[at], field, types[at]))
        }
        ordinary = [at for at in types if at not in strays]
        columns = _parsed(block, types, ordinary) if ordinary else {}
        for at, found in strays.items():
            columns |= _parsed(block, types, [at], found.unique().drop_null().to_pylist())
    for at, field in enumerate(fields):
        if field.kind == "bytes":
            columns[at] = _unhexed(columns[at])
        elif pa.types.is_decimal256(arrow_type(field)):
            held = columns[at]
            found = _strays(held, field, arrow_type(field))
            if found is not None:
                strays[at] = found
                held = pc.if_else(pc.is_valid(found), None, held)
            columns[at] = pc.cast(held, arrow_type(field))
    done = [columns[at] for at in range(len(fields))]
    return Batch(done, len(done[0]) if done else 0, strays)


def _parsed_type(field: Field) -> pa.DataType:
    """What Arrow's reader makes of the field's text: it knows neither bytes nor the widest decimals."""
    type = arrow_type(field)
    return pa.string() if field.kind == "bytes" or pa.types.is_decimal256(type) else type


def _parsed(
    block: bytes,
    types: Mapping[int, pa.DataType],
    which: Sequence[int] | None = None,
    nulls: Iterable[str] = (),
) -> dict[int, pa.Array[Any]]:
    """The columns `which` (all of them if None) by their place; texts in `nulls` are null, too."""
    table = csv.read_csv(
        pa.BufferReader(block),
        # One block: rows of any length, and no threads that would race for the little there is.
        read_options=csv.ReadOptions(
            column_names=list(map(str, types)), block_size=len(block) + 1, use_threads=False
        ),
        parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types={str(at): type for at, type in types.items()},
            include_columns=list(map(str, types if which is None else which)),
            null_values=["", *nulls],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )
    return {int(name): _whole(table[name]) for name in table.column_names}


def _texts(block: bytes, types: Iterable[int]) -> dict[int, pa.Array[Any]]:
    try:
        return _parsed(block, dict.fromkeys(types, pa.string()))
    except pa.ArrowInvalid as error:
        raise QueryFailed(
            f"The result holds text that is not UTF-8 ({error}). Convert it in the query, or export as CSV."
        ) from error


def _strays(texts: pa.Array[Any], field: Field, type: pa.DataType) -> pa.Array[Any] | None:
    """The values that the field's type can't hold, null elsewhere; None if it holds them all."""
    if type == pa.string() or field.kind not in _ORDINARY:
        return None
    strays = pc.if_else(pc.match_substring_regex(texts, _ORDINARY[field.kind]), None, texts)
    return strays if strays.null_count < len(strays) else None


def _unhexed(texts: pa.Array[Any]) -> pa.Array[Any]:
    """PostgreSQL writes bytes as \\x and their hexadecimal digits."""
    values = (None if text is None else bytes.fromhex(text[2:]) for text in texts.to_pylist())
    return pa.array(values, pa.binary())


def _whole(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
