"""What an import keeps in the target's own database, so that it is committed with the rows.

It is in a schema of its own, `waybill_journal`. Not `waybill`: accounts bear that name, and theirs is the
schema that `search_path` begins with.

- `imports`: one row an import, the **fence**. Whoever merges a chunk locks it and finds its own
  attempt there, or stops: `raise_fence` returns when nobody else can commit any more.
- `chunks`: what was applied, the **checkpoints**: from which byte to which, the counts, and the
  transaction's id. A row of the target whose `xmin` is one of these was last written by this import.
- `rejects`: the refused rows.
- `left_alone`: rows that an undo left as they were, and why.
- `ledger_<import>`: what an undo needs, an entry for each row of the target that was inserted or
  changed: `chunk`, `inserted`, `line`, `was`, the key as `k1`, `k2` …, and what stood there before as `b1`,
  `b2` …, for the key and columns that `Shape` tells (kept in `imports.shape`); `was` is the `xmin` that a
  changed row had before. A row that the import wrote more than once has one entry, as it was before the first
  time; unless somebody else edited it in between: then it has another one, and only the last one may be
  undone.
- `restored`: by which transactions an undo put back the rows of a chunk. What such a transaction wrote is
  again what the ledger's `was` wrote: so an earlier import knows its rows after a later one was undone.

Nothing here commits by itself but `prepare`, `raise_fence` and `forget`: callers bring their transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from app.errors import WaybillError
from app.imports.rows import Counts, Reject
from app.imports.table.catalogue import quoted
from app.imports.table.connection import Target, TargetRefused

# So that two that begin at once do not make the schema twice.
LOCK = 0x57617963
_TABLES = """
CREATE TABLE IF NOT EXISTS waybill_journal.imports (
    id uuid PRIMARY KEY,
    attempt bigint NOT NULL,
    closed boolean NOT NULL DEFAULT false,
    shape jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    undone_at timestamptz
);
CREATE TABLE IF NOT EXISTS waybill_journal.chunks (
    import_id uuid NOT NULL REFERENCES waybill_journal.imports ON DELETE CASCADE,
    number bigint NOT NULL,
    byte_start bigint NOT NULL,
    byte_end bigint NOT NULL,
    first_line bigint NOT NULL,
    next_line bigint NOT NULL,
    counts jsonb NOT NULL,
    total jsonb NOT NULL,
    xid xid8 NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    undone_at timestamptz,
    undone jsonb,
    PRIMARY KEY (import_id, number)
);
CREATE TABLE IF NOT EXISTS waybill_journal.rejects (
    import_id uuid NOT NULL REFERENCES waybill_journal.imports ON DELETE CASCADE,
    chunk bigint NOT NULL,
    line bigint NOT NULL,
    "column" text,
    code text NOT NULL,
    message text NOT NULL,
    record bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS waybill_journal.left_alone (
    import_id uuid NOT NULL REFERENCES waybill_journal.imports ON DELETE CASCADE,
    chunk bigint NOT NULL,
    line bigint,
    key jsonb NOT NULL,
    code text NOT NULL,
    what text NOT NULL
);
CREATE INDEX IF NOT EXISTS left_alone_place ON waybill_journal.left_alone (import_id, chunk);
CREATE INDEX IF NOT EXISTS rejects_place ON waybill_journal.rejects (import_id, chunk, line);
CREATE TABLE IF NOT EXISTS waybill_journal.restored (
    import_id uuid NOT NULL REFERENCES waybill_journal.imports ON DELETE CASCADE,
    chunk bigint NOT NULL,
    xid xid NOT NULL
);
CREATE INDEX IF NOT EXISTS restored_place ON waybill_journal.restored (import_id, chunk);
"""


class FenceClosed(WaybillError):
    """Another attempt has the import, or it was stopped: nothing may be written any more."""

    code = "fence_closed"


@dataclass(frozen=True)
class Shape:
    """What the ledger of an import is made of, by the table's names: it outlives changes of the importer."""

    table: str
    key: Sequence[str]
    written: Sequence[str]


@dataclass(frozen=True)
class Checkpoint:
    """Where an import is: everything before byte `end` and line `next_line` is in, and nothing behind."""

    number: int = 0
    end: int = 0
    next_line: int = 1
    total: Counts = field(default_factory=Counts)


def ledger(import_id: UUID) -> str:
    return f"waybill_journal.ledger_{import_id.hex}"


def prepare(target: Target) -> None:
    """Make the schema where it lacks; raises TargetRefused that says how an administrator does it."""
    if target.one("SELECT to_regclass('waybill_journal.restored_place')")[0] is not None:
        return
    try:
        with target.transaction():
            target.one("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            # Not IF NOT EXISTS: who may create no schema is refused by that, even if it is there.
            if target.one("SELECT to_regnamespace('waybill_journal')")[0] is None:
                target.conn.execute(b"CREATE SCHEMA waybill_journal")
            target.conn.execute(_TABLES.encode())
    except Exception as error:
        account = target.conn.info.user
        raise TargetRefused(
            "Waybill keeps checkpoints beside the data, in a schema of its own, but could not make it in "
            f"the database of {target.name!r} ({error}). As its administrator, run: "
            f"CREATE SCHEMA waybill_journal AUTHORIZATION {account};"
        ) from error


def raise_fence(target: Target, import_id: UUID, attempt: int, shape: Shape, columns: Sequence[str]) -> None:
    """From now on only `attempt` writes; waits for a merge at work. Makes the ledger the first time.

    `columns` are the ledger's: their definitions behind those that each has. Raises FenceClosed if
    a later attempt was here, or if the import was undone.
    """
    with target.transaction():
        target.run(
            "INSERT INTO waybill_journal.imports (id, attempt, shape) VALUES (%s, 0, %s)"
            " ON CONFLICT (id) DO NOTHING",
            (import_id, json.dumps(asdict(shape))),
        )
        row = target.one(
            "UPDATE waybill_journal.imports SET attempt = %s, closed = false"
            " WHERE id = %s AND attempt < %s AND undone_at IS NULL RETURNING shape",
            (attempt, import_id, attempt),
        )
        if row is None:
            raise FenceClosed("Another attempt has this import, or it was undone. Upload the file once more.")
        if row[0] != json.loads(json.dumps(asdict(shape))):
            raise FenceClosed(
                "The importer's columns changed since this import began, so it can't go on. "
                "Undo it, then upload the file once more."
            )
        definitions = ", ".join(["chunk bigint", "inserted boolean", "line bigint", "was xid", *columns])
        target.run(f"CREATE TABLE IF NOT EXISTS {ledger(import_id)} ({definitions})")
        last = checkpoint(target, import_id).number
        surplus = "DELETE FROM waybill_journal.rejects WHERE import_id = %s AND chunk > %s"
        target.run(surplus, (import_id, last))


def close_fence(target: Target, import_id: UUID, attempt: int) -> None:
    """Nobody writes any more; waits for a merge at work."""
    target.run(
        "UPDATE waybill_journal.imports SET closed = true WHERE id = %s AND attempt = %s",
        (import_id, attempt),
    )


def hold_fence(target: Target, import_id: UUID, attempt: int) -> None:
    """Keep the fence as it is until this transaction ends; raises FenceClosed."""
    row = target.one(
        "SELECT attempt, closed FROM waybill_journal.imports WHERE id = %s FOR NO KEY UPDATE", (import_id,)
    )
    if row is None or row[1] or row[0] != attempt:
        raise FenceClosed("Another attempt has this import, or it was stopped.")


def checkpoint(target: Target, import_id: UUID) -> Checkpoint:
    row = target.one(
        "SELECT number, byte_end, next_line, total FROM waybill_journal.chunks WHERE import_id = %s"
        " ORDER BY number DESC LIMIT 1",
        (import_id,),
    )
    return Checkpoint(row[0], row[1], row[2], Counts.of(row[3])) if row else Checkpoint()


def add_checkpoint(
    target: Target, import_id: UUID, place: tuple[int, int, int, int, int], counts: Counts, total: Counts
) -> None:
    """`place` is number, first byte, byte behind, first line, line behind."""
    target.run(
        "INSERT INTO waybill_journal.chunks (import_id, number, byte_start, byte_end, first_line, next_line,"
        " counts, total, xid) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, pg_current_xact_id())",
        (import_id, *place, json.dumps(counts.as_json()), json.dumps(total.as_json())),
    )


def transactions(target: Target, import_id: UUID) -> list[str]:
    """The ids that this import's rows have as `xmin`."""
    rows = target.all("SELECT xid::xid::text FROM waybill_journal.chunks WHERE import_id = %s", (import_id,))
    return [row[0] for row in rows]


def add_rejects(target: Target, import_id: UUID, chunk: int, rejects: Sequence[Reject]) -> None:
    if rejects:
        rows: Iterable[Sequence[Any]] = (
            (import_id, chunk, r.line, r.column, r.code, r.message.replace("\0", ""), r.record)
            for r in rejects
        )
        target.copy_rows("waybill_journal.rejects", rows)


def drop_rejects(target: Target, import_id: UUID, chunk: int) -> None:
    target.run("DELETE FROM waybill_journal.rejects WHERE import_id = %s AND chunk = %s", (import_id, chunk))


def rejects(target: Target, import_id: UUID) -> Iterator[Reject]:
    """All refused rows in the file's order, streamed."""
    query = (
        'SELECT line, "column", code, message, record FROM waybill_journal.rejects WHERE import_id = %s'
        " ORDER BY chunk, line"
    )
    for row in target.stream(query, (import_id,)):
        yield Reject(*row)


def forget(target: Target, import_id: UUID) -> None:
    """Drop the ledger and all that is known of the import: it can't be undone any more."""
    with target.transaction():
        # A target that was made anew keeps nothing.
        if target.one("SELECT to_regclass('waybill_journal.imports')")[0] is not None:
            target.run("DELETE FROM waybill_journal.imports WHERE id = %s", (import_id,))
            target.run(f"DROP TABLE IF EXISTS {ledger(import_id)}")


def definitions(key: Sequence[tuple[str, str]], written: Sequence[tuple[str, str]]) -> list[str]:
    """The ledger's columns for (name, type) of the key and of what is written."""
    spoken = [f"k{place} {kind}" for place, (_, kind) in enumerate(key, start=1)]
    return spoken + [f"b{place} {kind}" for place, (_, kind) in enumerate(written, start=1)]


def matches(alias: str, row: str, key: Sequence[str]) -> str:
    """The condition that finds the row of the target (`row`) of a ledger's entry (`alias`)."""
    return " AND ".join(f"{row}.{quoted(name)} = {alias}.k{place}" for place, name in enumerate(key, start=1))
