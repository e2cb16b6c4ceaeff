"""The target's side of an undo: one chunk after the other, from the ledger back into the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

import psycopg

from app.errors import WaybillError
from app.imports.rows import Counts
from app.imports.table import journal
from app.imports.table.catalogue import quoted
from app.imports.table.connection import BadRows, Target, first_line
from app.imports.table.journal import Shape, matches

# Why a row is left. Of these the last two may be over once other rows were undone.
GONE, EDITED, REFERENCED, REFUSED = "gone", "edited", "referenced", "refused"
READY, DONE = "ready", "done"
# So many rows of a chunk are looked for one by one; if more are refused, so is what stands beside them.
MOST = 1000

_REFERENCES = """
SELECT c.conname, format('%%I.%%I', n.nspname, r.relname), c.conrelid = c.confrelid,
  ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.number ORDER BY k.place),
  ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute AS a ON a.attrelid = c.confrelid AND a.attnum = k.number ORDER BY k.place)
FROM pg_constraint AS c JOIN pg_class AS r ON r.oid = c.conrelid
JOIN pg_namespace AS n ON n.oid = r.relnamespace
WHERE c.contype = 'f' AND c.confrelid = %s::regclass AND c.conparentid = 0
ORDER BY 3, c.conname
"""
_WORDS = {
    (GONE, True): "It is no longer there, so there was nothing to remove.",
    (GONE, False): "It is no longer there, so nothing was put back.",
    (EDITED, True): "Somebody edited it since, so it was not removed.",
    (EDITED, False): "Somebody edited it since, so it was not put back.",
}


class NothingKept(WaybillError):
    """What an undo needs is not there any more, or never was."""

    code = "nothing_kept"


@dataclass(frozen=True)
class Left:
    """A row that is left as it is: its key as texts, the file's line if that is known, and why."""

    key: list[str]
    line: int | None
    what: str


@dataclass(frozen=True)
class _Reference:
    """A foreign key of `table` to ours, by the columns of both; `own`: it is of our table itself."""

    name: str
    table: str
    own: bool
    columns: list[str]
    to: list[str]


def begin(target: Target, import_id: UUID) -> Undoing:
    """Keep everybody else away from the import for good, an undo before this one included.

    Waits for a merge at work. Raises NothingKept.
    """
    there = target.one(
        "SELECT to_regclass('waybill_journal.imports'), to_regclass(%s)", (journal.ledger(import_id),)
    )
    row = None
    if None not in there:
        journal.prepare(target)
        row = target.one(
            "UPDATE waybill_journal.imports SET attempt = attempt + 1, closed = false,"
            " undone_at = coalesce(undone_at, clock_timestamp()) WHERE id = %s RETURNING attempt, shape",
            (import_id,),
        )
    if row is None:
        raise NothingKept(
            "There is nothing to undo: it changed nothing, or what was before is no longer kept."
        )
    return Undoing(target, import_id, row[0], Shape(**row[1]))


@dataclass
class Undoing:
    """One attempt at it. `fence` is this attempt's number at the fence."""

    target: Target
    import_id: UUID
    fence: int
    shape: Shape
    _references: list[_Reference] = field(init=False)
    _sizes: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        target, self._ledger = self.target, journal.ledger(self.import_id)
        self._table = self.shape.table.replace("%", "%%")
        keys = [f"k{place}" for place, _ in enumerate(self.shape.key, start=1)]
        self._key = f"jsonb_build_array({', '.join(f'l.{name}::text' for name in keys)})"
        # Entries lie in the order of their chunks, so that an index of a few pages finds a chunk's.
        target.run(
            f"CREATE INDEX IF NOT EXISTS ledger_{self.import_id.hex}_chunk ON {self._ledger}"
            " USING brin (chunk)"
        )
        target.run(
            "CREATE TEMP TABLE IF NOT EXISTS undoing ON COMMIT DELETE ROWS AS"
            " SELECT l.*, NULL::bigint AS place, NULL::text AS state, NULL::text AS what,"
            " NULL::xid AS version"
            f" FROM {self._ledger} AS l WITH NO DATA"
        )
        rows = target.all(_REFERENCES, (self.shape.table,))
        self._references = [_Reference(*row) for row in rows]
        self._sizes = dict(target.all(f"SELECT chunk, count(*) FROM {self._ledger} GROUP BY chunk"))

    # What there is to do, and what is done.

    def next_chunk(self) -> int | None:
        """The last chunk that is not undone; chunks count from 1."""
        row = self.target.one(
            "SELECT max(number) FROM waybill_journal.chunks WHERE import_id = %s AND undone_at IS NULL",
            (self.import_id,),
        )
        return int(row[0]) if row[0] is not None else None

    def hindered(self) -> list[int]:
        """Chunks with rows that were left for the sake of others, the last one first."""
        rows = self.target.all(
            "SELECT DISTINCT chunk FROM waybill_journal.left_alone WHERE import_id = %s AND code = ANY (%s)"
            " ORDER BY chunk DESC",
            (self.import_id, [REFERENCED, REFUSED]),
        )
        return [chunk for (chunk,) in rows]

    def entries_of(self, chunk: int) -> int:
        return self._sizes.get(chunk, 0)

    def entries(self) -> tuple[int, int]:
        """How many rows of the table are through, and how many there are."""
        done = self.target.all(
            "SELECT number FROM waybill_journal.chunks WHERE import_id = %s AND undone_at IS NOT NULL",
            (self.import_id,),
        )
        return sum(self.entries_of(number) for (number,) in done), sum(self._sizes.values())

    def counts(self) -> Counts:
        """Of all that is through: put back is `updated`, removed is `inserted`, left alone is `skipped`."""
        rows = self.target.all(
            "SELECT undone FROM waybill_journal.chunks WHERE import_id = %s AND undone IS NOT NULL",
            (self.import_id,),
        )
        return sum((Counts.of(row[0]) for row in rows), Counts())

    def left(self, chunk: int) -> int:
        query = "SELECT count(*) FROM waybill_journal.left_alone WHERE import_id = %s AND chunk = %s"
        return int(self.target.one(query, (self.import_id, chunk))[0])

    def all_left(self) -> Iterator[Left]:
        """In the file's order."""
        query = (
            "SELECT key, line, what FROM waybill_journal.left_alone WHERE import_id = %s"
            " ORDER BY chunk, line, key"
        )
        for row in self.target.stream(query, (self.import_id,)):
            yield Left(*row)

    def close(self) -> None:
        """Nobody writes any more."""
        journal.close_fence(self.target, self.import_id, self.fence)

    # One chunk.

    def undo(self, chunk: int, *, again: bool, check: Callable[[], None]) -> None:
        """Undo a chunk in one transaction. `again`: only what was left of it for the sake of others.

        Raises FenceClosed, Again, TargetDown, TargetRefused, and what `check` raises.
        """
        with self.target.transaction():
            journal.hold_fence(self.target, self.import_id, self.fence)
            # Whatever waits for the commit to be checked would break it then, and nobody knew which row.
            self.target.run("SET CONSTRAINTS ALL IMMEDIATE")
            self._plan(wholes=False)
            if again:
                self._gather_left(chunk)
            else:
                self._gather(chunk)
            self._tell_apart(chunk)
            self._leave_referenced()
            rows = self.target.one("SELECT count(*) FROM undoing")[0]
            self._write(1, rows + 1, _Refusals(check))
            self._note(chunk, again)

    def _gather(self, chunk: int) -> None:
        self.target.run(
            "INSERT INTO undoing SELECT l.*, row_number() OVER (), %s"
            f" FROM {self._ledger} AS l WHERE l.chunk = %s",
            (READY, chunk),
        )

    def _gather_left(self, chunk: int) -> None:
        self.target.run(
            "INSERT INTO undoing SELECT l.*, row_number() OVER (), %s"
            f" FROM {self._ledger} AS l WHERE l.chunk = %s AND {self._key} IN (SELECT a.key"
            " FROM waybill_journal.left_alone AS a"
            " WHERE a.import_id = %s AND a.chunk = %s AND a.code = ANY (%s))",
            (READY, chunk, self.import_id, chunk, [REFERENCED, REFUSED]),
        )
        self.target.run(
            "DELETE FROM waybill_journal.left_alone WHERE import_id = %s AND chunk = %s AND code = ANY (%s)",
            (self.import_id, chunk, [REFERENCED, REFUSED]),
        )

    def _tell_apart(self, chunk: int) -> None:
        """Lock the rows, then look whose they are."""
        joined = matches("l", "t", self.shape.key)
        for inserted, lock in ((True, "UPDATE"), (False, "NO KEY UPDATE")):
            self.target.one(
                f"WITH locked AS (SELECT FROM undoing AS l JOIN {self._table} AS t ON {joined}"
                f" WHERE l.inserted = %s FOR {lock} OF t) SELECT count(*) FROM locked",
                (inserted,),
            )
        self._leave(
            GONE, f"l.state = %s AND NOT EXISTS (SELECT FROM {self._table} AS t WHERE {joined})", [READY]
        )
        ours = journal.transactions(self.target, self.import_id)
        others = self.target.run(
            f"UPDATE undoing AS l SET version = t.xmin FROM {self._table} AS t"
            f" WHERE l.state = %s AND {joined} AND t.xmin <> ALL (%s::text[]::xid[])",
            (READY, ours),
        )
        if others:
            self._trace()
        # A row with a later entry that could not be undone was edited between the two.
        self._leave(
            EDITED,
            "l.state = %s AND (l.version <> ALL (%s::text[]::xid[])"
            f" OR {self._key} IN (SELECT a.key FROM waybill_journal.left_alone AS a"
            " WHERE a.import_id = %s AND a.chunk > %s))",
            [READY, ours, self.import_id, chunk],
        )

    def _trace(self) -> None:
        """What undos put back is what was written before: go on from there, as far as it leads."""
        # Whoever forgets one of these imports waits until we are through.
        found = self.target.all(
            "SELECT i.id, i.shape FROM waybill_journal.imports AS i WHERE i.shape ->> 'table' = %s AND EXISTS"
            " (SELECT FROM waybill_journal.restored AS r WHERE r.import_id = i.id) FOR KEY SHARE",
            (self.shape.table,),
        )
        imports = [(import_id, Shape(**shape)) for import_id, shape in found]
        self._plan(wholes=True)
        # Each step leads to an earlier transaction.
        while sum(self._trace_through(import_id, shape) for import_id, shape in imports):
            pass
        self._plan(wholes=False)

    def _trace_through(self, import_id: UUID, shape: Shape) -> int:
        return self.target.run(
            f"UPDATE undoing AS l SET version = o.was FROM {self._table} AS t,"
            f" {journal.ledger(import_id)} AS o, waybill_journal.restored AS r"
            f" WHERE l.state = %s AND {matches('l', 't', self.shape.key)} AND {matches('o', 't', shape.key)}"
            " AND r.import_id = %s AND r.chunk = o.chunk AND r.xid = l.version AND NOT o.inserted",
            (READY, import_id),
        )

    def _leave(self, state: str, condition: str, params: list[object]) -> None:
        self.target.run(
            "UPDATE undoing AS l SET state = %s, what = CASE WHEN l.inserted THEN %s ELSE %s END"
            f" WHERE {condition}",
            (state, _WORDS[state, True], _WORDS[state, False], *params),
        )

    def _leave_referenced(self) -> None:
        """Whatever a reference would do when its row goes, nobody's rows are lost or changed by that."""
        if not self.target.one("SELECT EXISTS (SELECT FROM undoing WHERE inserted AND state = %s)", (READY,))[
            0
        ]:
            return
        self._plan(wholes=True)
        for reference in self._references:
            if not reference.own:
                self._leave_referenced_by(reference)
        own = [reference for reference in self._references if reference.own]
        # A row that stays keeps those that it refers to.
        while sum(map(self._leave_referenced_by, own)):
            pass
        self._plan(wholes=False)

    def _leave_referenced_by(self, reference: _Reference) -> int:
        pairs = zip(reference.columns, reference.to, strict=True)
        refers = " AND ".join(f"r.{quoted(column)} = t.{quoted(to)}" for column, to in pairs)
        if reference.own:
            going = matches("g", "r", self.shape.key)
            refers += (
                f" AND NOT EXISTS (SELECT FROM undoing AS g"
                f" WHERE g.inserted AND g.state = '{READY}' AND {going})"
            )
        other = reference.table.replace("%", "%%")
        return self.target.run(
            f"UPDATE undoing AS l SET state = %s, what = %s FROM {self._table} AS t"
            f" WHERE l.inserted AND l.state = %s AND {matches('l', 't', self.shape.key)}"
            f" AND EXISTS (SELECT FROM {other} AS r WHERE {refers})",
            (
                REFERENCED,
                f"Rows of {reference.table} refer to it ({reference.name}), so it was not removed.",
                READY,
            ),
        )

    def _write(self, first: int, behind: int, refusals: _Refusals) -> None:
        """The rows of these places; by halves where the table refuses some."""
        refusals.check()
        try:
            with self.target.transaction():
                self._remove(first, behind)
                self._put_back(first, behind)
        except BadRows as bad:
            refusals.count += 1
            if behind - first == 1 or refusals.count > MOST:
                self._refuse(first, behind, bad.error)
                return
            middle = (first + behind) // 2
            # What lies behind was written later, so it goes first.
            self._write(middle, behind, refusals)
            self._write(first, middle, refusals)

    def _remove(self, first: int, behind: int) -> None:
        self._done(
            f"DELETE FROM {self._table} AS t USING undoing AS l WHERE l.inserted AND {self._these('l')}"
            " RETURNING l.place",
            first,
            behind,
        )

    def _put_back(self, first: int, behind: int) -> None:
        if self.shape.written:
            before = ", ".join(
                f"{quoted(name)} = l.b{place}" for place, name in enumerate(self.shape.written, start=1)
            )
            self._done(
                f"UPDATE {self._table} AS t SET {before} FROM undoing AS l WHERE NOT l.inserted"
                f" AND {self._these('l')} RETURNING l.place",
                first,
                behind,
            )

    def _these(self, alias: str) -> str:
        key = matches(alias, "t", self.shape.key)
        return f"{alias}.state = '{READY}' AND {alias}.place >= %s AND {alias}.place < %s AND {key}"

    def _done(self, write: str, first: int, behind: int) -> None:
        self.target.run(
            f"WITH written AS ({write}) UPDATE undoing AS u SET state = '{DONE}' FROM written AS w"
            " WHERE w.place = u.place",
            (first, behind),
        )

    def _refuse(self, first: int, behind: int, error: psycopg.Error) -> None:
        detail = error.diag.message_detail
        words = f"The table refused it: {first_line(error)}." + (f" {detail}" if detail else "")
        self.target.run(
            "UPDATE undoing SET state = %s, what = %s WHERE state = %s AND place >= %s AND place < %s",
            (REFUSED, words, READY, first, behind),
        )

    def _note(self, chunk: int, again: bool) -> None:
        """What became of the rows, in the same transaction."""
        # Rows are marked as done in the savepoint in which they are written: both bear its transaction's id.
        self.target.run(
            "INSERT INTO waybill_journal.restored (import_id, chunk, xid)"
            " SELECT DISTINCT %s::uuid, %s::bigint, u.xmin FROM undoing AS u"
            " WHERE u.state = %s AND NOT u.inserted",
            (self.import_id, chunk, DONE),
        )
        kept = "The table kept it as it is without a word: one of its triggers or policies does that."
        self.target.run("UPDATE undoing SET state = %s, what = %s WHERE state = %s", (REFUSED, kept, READY))
        put_back, removed, left = self.target.one(
            "SELECT count(*) FILTER (WHERE state = %s AND NOT inserted),"
            " count(*) FILTER (WHERE state = %s AND inserted), count(*) FILTER (WHERE state <> %s)"
            " FROM undoing",
            (DONE, DONE, DONE),
        )
        counts = Counts(read=put_back + removed + left, updated=put_back, inserted=removed, skipped=left)
        if again:
            before = self.target.one(
                "SELECT undone FROM waybill_journal.chunks WHERE import_id = %s AND number = %s",
                (self.import_id, chunk),
            )
            gained = put_back + removed
            counts = Counts.of(before[0]) + Counts(updated=put_back, inserted=removed, skipped=-gained)
        self.target.run(
            "UPDATE waybill_journal.chunks SET undone_at = clock_timestamp(), undone = %s"
            " WHERE import_id = %s AND number = %s",
            (json.dumps(counts.as_json()), self.import_id, chunk),
        )
        self.target.run(
            "INSERT INTO waybill_journal.left_alone (import_id, chunk, line, key, code, what)"
            f" SELECT %s, %s, l.line, {self._key}, l.state, l.what FROM undoing AS l WHERE l.state <> %s",
            (self.import_id, chunk, DONE),
        )

    def _plan(self, *, wholes: bool) -> None:
        """A chunk's rows find theirs by an index; who refers to them may have none: those are read whole."""
        self.target.run(
            "SELECT set_config('enable_seqscan', %s, true), set_config('enable_mergejoin', 'off', true),"
            " set_config('random_page_cost', '1.1', true), set_config('jit', 'off', true)",
            ("on" if wholes else "off",),
        )


class _Refusals:
    """How many were met in this chunk; `check` is called before each try and may raise."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check, self.count = check, 0
