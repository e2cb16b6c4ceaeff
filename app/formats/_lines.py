"""Batches to lines of CSV, column by column: the bytes that `csv` makes of the same values one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.formats._values import as_number, as_text
from app.sources import Batch

# A text with one of these needs quotes, and so do an empty one and the end of data of PostgreSQL's.
_SIGNS, _END = b',"\r\n', b"\\."
# Outside of these Arrow and PostgreSQL do not agree on when to write an exponent.
LARGE, SMALL = 1e10, 1e-4


def lines(batch: Batch) -> bytes:
    """The batch's rows, each ended by a line feed."""
    *columns, last = [_cells(column, batch.strays.get(at)) for at, column in enumerate(batch.columns)]
    return _bytes(_joined([*columns, _joined([last, pa.scalar("")], "\n")], ","))


def _joined(columns: Sequence[Any], separator: str) -> pa.Array[Any]:
    return pc.binary_join_element_wise(*columns, separator, null_handling="replace", null_replacement="")


def _bytes(texts: pa.Array[Any]) -> bytes:
    size = pc.sum(pc.binary_length(texts)).as_py()
    return bytes(texts.buffers()[2].slice(0, size).to_pybytes()) if size else b""


def _cells(column: pa.Array[Any], strays: pa.Array[Any] | None) -> pa.Array[Any]:
    cells = _writer(column.type)(column)
    return pc.coalesce(_quoted(strays), cells) if strays is not None else cells


def _quoted(texts: pa.Array[Any]) -> pa.Array[Any]:
    """Found by looking through all of the column's bytes at once: most columns hold no such text."""
    _, offsets, data = texts.buffers()
    raw = data.to_pybytes() if data is not None else b""
    signs = [sign for sign in _SIGNS if sign in raw]
    found = pc.equal(pc.binary_length(texts), 0)
    if signs:
        octets = np.frombuffer(raw, np.uint8)
        places = np.flatnonzero(reduce(or_, [octets == sign for sign in signs]))
        # How many of them come before each text, and before the end.
        edges = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        before = np.searchsorted(places, edges)
        found = pc.or_(found, pa.array(before[1:] > before[:-1]))
    if _END in raw:
        found = pc.or_(found, pc.equal(texts, _END.decode()))
    if not pc.any(found).as_py():
        return texts
    odd = pc.fill_null(found, False)
    doubled = texts.filter(odd)
    if b'"' in raw:
        doubled = pc.replace_substring(doubled, '"', '""')
    return pc.replace_with_mask(texts, odd, pc.binary_join_element_wise('"', doubled, '"', ""))


def _writer(type: pa.DataType) -> Callable[[pa.Array[Any]], pa.Array[Any]]:
    """How values of this type become cells."""
    if pa.types.is_string(type):
        return _quoted
    if pa.types.is_boolean(type):
        return lambda column: pc.if_else(column, "t", "f")
    if pa.types.is_integer(type) or pa.types.is_date(type):
        return lambda column: pc.cast(column, pa.string())
    if pa.types.is_floating(type):
        return _floats
    if pa.types.is_timestamp(type):
        return _moments if type.tz else _cut
    return _cut if pa.types.is_time(type) else _one_by_one


def _floats(column: pa.Array[Any]) -> pa.Array[Any]:
    size = pc.abs(column)
    usual = pc.and_(pc.less(size, LARGE), pc.or_(pc.greater_equal(size, SMALL), pc.equal(size, 0.0)))
    texts = pc.cast(column, pa.string())
    whole = pc.ends_with(texts, ".0")
    if pc.any(whole).as_py():
        texts = pc.if_else(whole, pc.utf8_slice_codeunits(texts, 0, -2), texts)
    if not pc.all(usual).as_py():
        odd = pc.if_else(usual, None, column)
        written = [None if value is None else as_number(value) for value in odd.to_pylist()]
        texts = pc.coalesce(pa.array(written, pa.string()), texts)
    return texts


def _moments(column: pa.Array[Any]) -> pa.Array[Any]:
    plain = _cut(pc.cast(column, pa.timestamp("us")))
    return pc.binary_join_element_wise(plain, "+00", "")


def _cut(column: pa.Array[Any]) -> pa.Array[Any]:
    """Without the zeros that end a fraction of a second."""
    texts = pc.replace_substring_regex(pc.cast(column, pa.string()), r"\.0+$", "")
    return pc.replace_substring_regex(texts, r"(\.\d*[1-9])0+$", r"\1")


def _one_by_one(column: pa.Array[Any]) -> pa.Array[Any]:
    values = (None if value is None else as_text(value) for value in column.to_pylist())
    return pa.array(values, pa.string())
