"""A process of its own that reads SQLite and hands out Arrow; see `sqlite`.

Apart, because SQLite's Arrow driver can't be interrupted, and because this process reads while the other one
writes the file. It needs nothing of the app, so it starts quickly.

Standard input begins with a line of JSON: `{"uri", "sql", "values", "kinds", "exact", "seconds", "ring"}`,
with `?1` where the first value goes. Kinds say what the columns held at first: `integer`, `real`, `text`,
`blob`, `null`, or `any`, which is encoded as `encoded` says. Batches, each an Arrow stream, go to the slots
of the `ring` (`_ring`): standard output tells which one and how many bytes, or holds a batch itself; standard
input tells which slots are free again, a byte each. Standard error ends with one line of JSON:
`{"at": when it began, "end": END, "message": SQLite's own words}`. The ends:

    whole   all rows were read
    stray   a value came that is not of its column's kind, and `exact` was false: all is to be read anew
    failed  SQLite refused

If `exact`, a last column tells of such values: a JSON list of the row's values, encoded; "" for most rows.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from struct import Struct
from typing import Any

# Where they are installed pyarrow loads them, which takes longer than all else; nothing here needs them.
sys.modules |= dict.fromkeys(("numpy", "pandas"))  # type: ignore[arg-type]

import adbc_driver_sqlite  # noqa: E402
import pyarrow as pa  # noqa: E402
from adbc_driver_manager import AdbcConnection, AdbcStatement, Error  # noqa: E402

ROWS = 16384
HEAD = Struct("<qq")
# A double has every whole number up to here.
EXACT = 2**53
TYPES = {
    "integer": pa.int64(),
    "real": pa.float64(),
    "text": pa.string(),
    "blob": pa.binary(),
    "null": pa.int64(),
    "any": pa.string(),
}
# A row of these goes first, since the driver takes its types from what it sees first.
EXAMPLES = {"integer": "0", "real": "0.5", "text": "''", "blob": "x''", "any": "''"}
# True where a value is neither null nor of the kind.
_SORTS_ELSEWHERE = {
    "text": "{0} COLLATE BINARY NOT BETWEEN '' AND x''",
    "blob": "{0} COLLATE BINARY < x''",
}


class Stray(Exception):
    """A value is not of its column's kind."""


def main() -> None:
    # By default an alarm ends the process, wherever it is.
    asked = json.loads(sys.stdin.buffer.readline())
    signal.alarm(asked["seconds"])
    told = {"at": time.time(), "end": "whole", "message": ""}
    try:
        _stream(**asked)
    except Stray:
        told["end"] = "stray"
    except (Error, pa.ArrowException, OSError) as error:
        # Types that the driver can't reconcile are told as errors; read exactly, they are none.
        told |= {"end": "failed" if asked["exact"] else "stray", "message": str(error)}
    print(json.dumps(told), file=sys.stderr)


def _stream(
    uri: str,
    sql: str,
    values: list[Any],
    kinds: list[str],
    exact: bool,
    seconds: int,
    ring: dict[str, int],
) -> None:
    # Not by the driver's DB-API, whose import alone takes half a second.
    with (
        adbc_driver_sqlite.connect(uri) as database,
        AdbcConnection(database) as conn,
        AdbcStatement(conn) as statement,
    ):
        statement.set_options(**{adbc_driver_sqlite.StatementOptions.BATCH_ROWS.value: str(ROWS)})
        statement.set_sql_query(_exact(sql, kinds) if exact else _quick(sql, kinds))
        if values:
            columns = [pa.array([value]) for value in values]
            statement.bind(pa.record_batch(columns, names=[f"v{at}" for at in range(len(values))]))
        found, _ = statement.execute_query()
        batches = pa.RecordBatchReader._import_from_c(found.address)
        hand_out = Ring(**ring).put
        if exact:
            skip = 1  # the row of examples
            for batch in batches:
                hand_out(batch.slice(skip))
                skip = 0
        else:
            _check_types(batches.schema, kinds)
            for batch in batches:
                hand_out(_checked(batch, kinds))
        batches.close()


class Ring:
    """This process's side of `_ring`, which it can't import: that would load numpy."""

    def __init__(self, descriptor: int, slots: int, slot: int) -> None:
        shared = memoryview(mmap.mmap(descriptor, slots * slot))
        self._slots = [shared[at : at + slot] for at in range(0, slots * slot, slot)]
        self._free = list(range(slots))

    def put(self, batch: Any) -> None:
        if select.select([sys.stdin], [], [], 0)[0]:
            self._free.extend(os.read(sys.stdin.fileno(), len(self._slots)))
        size = _laid_out(pa.MockOutputStream(), batch)
        if self._free and size <= len(self._slots[0]):
            slot = self._free.pop()
            _laid_out(pa.FixedSizeBufferWriter(pa.py_buffer(self._slots[slot])), batch)
            _say(slot, size)
        else:
            sink = pa.BufferOutputStream()
            _say(-1, _laid_out(sink, batch))
            sys.stdout.buffer.write(sink.getvalue())
        sys.stdout.flush()


def _say(slot: int, size: int) -> None:
    sys.stdout.buffer.write(HEAD.pack(slot, size))


def _laid_out(sink: Any, batch: Any) -> int:
    """The batch as a stream of its own; its size in bytes."""
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return int(sink.tell())


def _quick(sql: str, kinds: Sequence[str]) -> str:
    """Only what the driver would change without a word is looked at; the rest it refuses itself.

    Numbers sort before texts, texts before blobs: comparing takes a fifth of the time of `typeof`.
    """
    cells = [encoded(f"c{at}") if kind == "any" else f"c{at}" for at, kind in enumerate(kinds)]
    odd = [
        _SORTS_ELSEWHERE[kind].format(f"c{at}") for at, kind in enumerate(kinds) if kind in _SORTS_ELSEWHERE
    ]
    cells.append(f"CASE WHEN {' OR '.join(odd) or '0'} THEN 1 END")
    return f"{_with(sql, kinds)} SELECT {', '.join(cells)} FROM report"


def _exact(sql: str, kinds: Sequence[str]) -> str:
    cells = [_cell(f"c{at}", kind) for at, kind in enumerate(kinds)]
    odd = " OR ".join(_odd(f"c{at}", kind) for at, kind in enumerate(kinds))
    row = ", ".join(encoded(f"c{at}") for at in range(len(kinds)))
    cells.append(f"CASE WHEN {odd} THEN json_array({row}) ELSE '' END")
    examples = ", ".join([*(EXAMPLES[kind] for kind in kinds), "''"])
    return f"{_with(sql, kinds)} SELECT {examples} UNION ALL SELECT {', '.join(cells)} FROM report"


def _with(sql: str, kinds: Sequence[str]) -> str:
    """Columns by their place: names may be there twice."""
    return f"WITH report({', '.join(f'c{at}' for at in range(len(kinds)))}) AS ({sql}\n)"


def encoded(cell: str) -> str:
    """Any value as text: t and the text, x and the bytes in hexadecimal, n and an exact number."""
    return (
        f"CASE typeof({cell}) WHEN 'text' THEN 't' || {cell} WHEN 'blob' THEN 'x' || hex({cell})"
        f" WHEN 'null' THEN NULL ELSE 'n' || quote({cell}) END"
    )


def _cell(cell: str, kind: str) -> str:
    if kind == "any":
        return encoded(cell)
    if kind == "real":
        whole = f"CASE WHEN {cell} BETWEEN -{EXACT} AND {EXACT} THEN {cell} END"
        return f"CASE typeof({cell}) WHEN 'real' THEN {cell} WHEN 'integer' THEN {whole} END"
    return f"CASE typeof({cell}) WHEN '{kind}' THEN {cell} END"


def _odd(cell: str, kind: str) -> str:
    if kind == "any":
        return "0"
    if kind == "real":
        whole = f"typeof({cell}) = 'integer' AND {cell} BETWEEN -{EXACT} AND {EXACT}"
        return f"(typeof({cell}) NOT IN ('real', 'null') AND NOT ({whole}))"
    return f"({cell} IS NOT NULL AND typeof({cell}) <> '{kind}')"


def _check_types(schema: Any, kinds: Sequence[str]) -> None:
    for found, kind in zip(schema, kinds, strict=False):
        # A column that begins with nothing but nulls is taken for whole numbers.
        if found.type != TYPES[kind]:
            raise Stray


def _checked(batch: Any, kinds: Sequence[str]) -> Any:
    """The batch; its last column tells of rows with strays among texts and blobs."""
    columns = batch.columns
    for column, kind in zip(columns, [*kinds, "null"], strict=True):
        if (kind == "real" and not _small(column)) or (kind == "null" and column.null_count < len(column)):
            raise Stray
    return batch


def _small(column: Any) -> bool:
    """Whole numbers came as doubles: beyond some size they may have been others."""
    from pyarrow import compute  # takes as long as pyarrow itself

    limits = compute.min_max(column).as_py()
    return limits["min"] is None or (limits["min"] > -EXACT and limits["max"] < EXACT)


if __name__ == "__main__":
    main()
