"""One chunk into the table: staged, compared with what is there, written once. All of it in the caller's
transaction, without savepoints, so that the `xmin` of every row written is the chunk's transaction.

`Merge.stage` and `Merge.compare` touch nothing but temporary tables: they are a dry run's, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import psycopg
import pyarrow as pa

from app.imports.rows import Counts, Reject
from app.imports.table import encode, journal
from app.imports.table.catalogue import Rule, Unique, quoted
from app.imports.table.connection import Target, TargetRefused
from app.imports.table.plan import Plan
from app.imports.table.ready import Ready
from app.models.imports import INSERT, SKIP, UPDATE, UPSERT

EXISTS, NOT_UNIQUE, RULE = "exists", "not_unique", "rule"
# A chunk's rows find theirs by an index, however small the table was when it was looked at last.
_PLANNING = (
    "SELECT set_config('enable_seqscan', 'off', false), set_config('enable_mergejoin', 'off', false),"
    " set_config('random_page_cost', '1.1', false), set_config('jit', 'off', false)"
)


@dataclass(frozen=True)
class Compared:
    """How the staged rows stand to the table, and those that it would refuse.

    `fresh` have no row there. Of the others `ours` were written by an earlier chunk of this import, and of
    the rest `changed` differ and `same` do not. `rewritten` counts the differing ones of both. `skipped` are
    left alone by the mode; `superseded` have a later row of the same key in this chunk.
    """

    fresh: int
    ours: int
    changed: int
    same: int
    rewritten: int
    skipped: int
    superseded: int
    rejects: Sequence[Reject]

    @property
    def counts(self) -> Counts:
        return Counts(
            inserted=self.fresh,
            updated=self.changed,
            unchanged=self.same,
            skipped=self.skipped,
            superseded=self.superseded + self.ours,
        )


@dataclass(frozen=True)
class Packed:
    """New rows as they are sent, and their entries in the ledger."""

    rows: Sequence[bytes]
    entries: Sequence[bytes]
    count: int


class Merge:
    """For one connection: makes its temporary tables `staging` and `found`, emptied by every commit.

    `staging` has `line` and the columns as `c1`, `c2` …; `found` has `line`, `ours`, `changed`, and what
    stands in the table as the ledger's `was`, `k1` … and `b1` ….
    """

    def __init__(self, plan: Plan, target: Target, import_id: UUID) -> None:
        self.plan, self._target, self._import_id = plan, target, import_id
        self._places = {name: place for place, name in enumerate(plan.fits, start=1)}
        self._ledger = journal.ledger(import_id)
        self._lock = " FOR NO KEY UPDATE OF t" if plan.mode in (UPSERT, UPDATE) else ""
        columns = [
            f"c{self._places[name]} {'text' if fit.cast else fit.field.spoken}"
            for name, fit in plan.fits.items()
        ]
        found = ", ".join(["line bigint", "ours boolean", "changed boolean", "was xid", *plan.ledger_columns])
        target.run(_PLANNING)
        for name, definition in (("staging", ", ".join(["line bigint", *columns])), ("found", found)):
            target.run(f"CREATE TEMP TABLE IF NOT EXISTS {name} ({definition}) ON COMMIT DELETE ROWS")

    def transactions(self) -> list[str]:
        """What `compare` takes for `ours`."""
        return journal.transactions(self._target, self._import_id)

    def raced(self, error: psycopg.Error) -> bool:
        """Whether the error says that somebody else wrote a row of the same key meanwhile."""
        return self.plan.index is not None and error.diag.constraint_name == self.plan.index.name

    def stage(self, ready: Ready) -> None:
        columns = [(ready.columns[name], fit.sent) for name, fit in self.plan.fits.items()]
        self._target.copy("pg_temp.staging", [(ready.lines, "int8"), *columns], len(ready))

    def compare(self, ready: Ready, ours: Sequence[str]) -> Compared:
        """What `write` would do with the staged rows; `ours` are this import's transactions.

        Rows that are refused or left alone are no longer staged. Rows to be changed are locked, unless the
        mode leaves rows alone.
        """
        superseded = 0 if ready.distinct else self._drop_superseded()
        known = self._find(ours) if self.plan.key else 0
        rejects: list[Reject] = []
        skipped = 0
        if self.plan.mode == INSERT and known:
            rejects += self._refuse("SELECT line FROM found WHERE NOT ours", EXISTS, _EXISTS, ready)
        elif self.plan.mode == SKIP and known:
            skipped = self._drop("SELECT line FROM found WHERE NOT ours")
        elif self.plan.mode == UPDATE:
            skipped = self._drop("SELECT line FROM staging EXCEPT ALL SELECT line FROM found")
        for rule in self._rules():
            rejects += self._break(rule, ready)
        for unique in self._uniques():
            rejects += self._twins(unique, ready)
        rejects += self._orphans(ready)
        if (rejects or skipped) and known:
            self._run(
                "DELETE FROM found AS f WHERE NOT EXISTS (SELECT FROM staging AS s WHERE s.line = f.line)"
            )
        fresh, mine, changed, same, rewritten = self._target.one(_COUNTS)
        return Compared(fresh, mine, changed, same, rewritten, skipped, superseded, rejects)

    def write(self, chunk: int, compared: Compared) -> None:
        """Write what was compared, and what undoes it."""
        if compared.rewritten:
            self._update(chunk, compared)
        if compared.fresh:
            self._insert(chunk, compared.fresh)

    def pack(self, chunk: int, ready: Ready) -> Packed:
        """For `copy_in`; done before the turn."""
        plan, rows = self.plan, len(ready)
        columns = [(ready.columns[name], fit.sent) for name, fit in plan.fits.items()]
        entries = [
            (pa.repeat(pa.scalar(chunk, pa.int64()), rows), "int8"),
            (pa.repeat(pa.scalar(True), rows), "bool"),
            (ready.lines, "int8"),
            *((ready.columns[name], plan.fits[name].sent) for name in plan.ledger_key),
        ]
        return Packed(list(encode.binary(columns, rows)), list(encode.binary(entries, rows)), rows)

    def copy_in(self, packed: Packed) -> Counts:
        """New rows straight into the table; whether they are new is for its unique index to say."""
        plan, rows = self.plan, packed.count
        names = ", ".join(map(quoted, plan.fits))
        self._expect(self._target.send(f"{plan.table.sql} ({names})", packed.rows), rows)
        keys = ", ".join(f"k{place}" for place, _ in enumerate(plan.ledger_key, start=1))
        self._target.send(f"{self._ledger} (chunk, inserted, line, {keys})", packed.entries)
        return Counts(inserted=rows)

    # Comparing.

    def _drop_superseded(self) -> int:
        keys = ", ".join(self._staged(name) for name in self.plan.key)
        return self._drop(
            "SELECT line FROM (SELECT line, row_number() OVER"
            f" (PARTITION BY {keys} ORDER BY line DESC) AS n FROM staging AS s) AS r WHERE n > 1"
        )

    def _find(self, ours: Sequence[str]) -> int:
        plan = self.plan
        changed = " OR ".join(map(self._differs, plan.values)) or "false"
        joined = " AND ".join(f"t.{quoted(name)} = {self._staged(name)}" for name in plan.key)
        there = ", ".join(f"t.{quoted(name)}" for name in (*plan.ledger_key, *plan.values))
        return self._run(
            f"INSERT INTO found SELECT s.line, t.xmin = ANY (%s::text[]::xid[]), {changed}, t.xmin, {there}"
            f" FROM staging AS s JOIN {plan.table.sql} AS t ON {joined}{self._lock}",
            (list(ours),),
        )

    def _differs(self, name: str) -> str:
        field = self.plan.table.fields[name]
        staged, there = self._staged(name), f"t.{quoted(name)}"
        if not field.comparable:
            staged, there = f"({staged})::text", f"{there}::text"
        return f"{staged} IS DISTINCT FROM {there}"

    def _rules(self) -> list[Rule]:
        return [
            rule for rule in self.plan.table.rules if rule.columns and set(rule.columns) <= set(self._places)
        ]

    def _break(self, rule: Rule, ready: Ready) -> list[Reject]:
        columns = ", ".join(f"{self._staged(name)} AS {quoted(name)}" for name in rule.columns)
        rows = f"SELECT s.line AS waybill_line, {columns} FROM staging AS s"
        broken = f"NOT ({rule.expression.replace('%', '%%')})"
        query = f"SELECT waybill_line FROM ({rows}) AS r WHERE {broken}"
        message = f"The table's rule {rule.name} does not hold: {rule.expression}."
        column = rule.columns[0] if len(rule.columns) == 1 else None
        return self._refuse(query, RULE, message, ready, column)

    def _uniques(self) -> list[Unique]:
        """Those whose values are written, but for the natural key's own."""
        written = set(self._places)
        return [
            unique
            for unique in self.plan.table.uniques
            if unique != self.plan.index and set(unique.columns) <= written
        ]

    def _twins(self, unique: Unique, ready: Ready) -> list[Reject]:
        names = ", ".join(unique.columns)
        column = unique.columns[0] if len(unique.columns) == 1 else None
        values = ", ".join(map(self._staged, unique.columns))
        there = " AND ".join(f"{self._staged(name)} IS NOT NULL" for name in unique.columns)
        twins = (
            f"SELECT line FROM (SELECT line, row_number() OVER (PARTITION BY {values} ORDER BY line) AS n"
            f" FROM staging AS s WHERE {there}) AS r WHERE n > 1"
        )
        earlier = f"An earlier row of the file has the same {names}, and no two rows may share it."
        other = f"Another row of the table has the same {names}, and no two rows may share it."
        return self._refuse(twins, NOT_UNIQUE, earlier, ready, column) + self._refuse(
            self._taken(unique), NOT_UNIQUE, other, ready, column
        )

    def _taken(self, unique: Unique) -> str:
        """A query of the lines whose values another row of the table has."""
        equal = " AND ".join(f"t.{quoted(name)} = {self._staged(name)}" for name in unique.columns)
        same_row = (
            " AND ".join(f"t.{quoted(name)} = {self._staged(name)}" for name in self.plan.key) or "false"
        )
        return (
            f"SELECT s.line FROM staging AS s JOIN {self.plan.table.sql} AS t ON {equal}"
            f" WHERE NOT coalesce({same_row}, false)"
        )

    def _orphans(self, ready: Ready) -> list[Reject]:
        """Rows that refer to nothing; the table tells of them itself when it is written to."""
        return []

    def _refuse(
        self, lines: str, code: str, message: str, ready: Ready, column: str | None = None
    ) -> list[Reject]:
        """Take the rows whose lines the query gives out of the staging."""
        deleted = f"DELETE FROM staging WHERE line IN ({lines}) RETURNING line"
        return [
            Reject(line, column, code, message, ready.record(line))
            for (line,) in sorted(self._target.all(deleted))
        ]

    def _drop(self, lines: str) -> int:
        return self._run(f"DELETE FROM staging WHERE line IN ({lines})")

    # Writing.

    def _update(self, chunk: int, compared: Compared) -> None:
        plan = self.plan
        entry = ["was", *(f"k{place}" for place, _ in enumerate(plan.ledger_key, start=1))]
        entry += [f"b{place}" for place, _ in enumerate(plan.values, start=1)]
        names = ", ".join(entry)
        self._run(
            f"INSERT INTO {self._ledger} (chunk, inserted, line, {names})"
            f" SELECT %s, false, line, {names} FROM found WHERE changed AND NOT ours",
            (chunk,),
        )
        new = ", ".join(f"{quoted(name)} = {self._staged(name)}" for name in plan.values)
        joined = " AND ".join(f"t.{quoted(name)} = {self._staged(name)}" for name in plan.key)
        updated = self._run(
            f"UPDATE {plan.table.sql} AS t SET {new} FROM staging AS s JOIN found AS f ON f.line = s.line"
            f" WHERE f.changed AND {joined}"
        )
        self._expect(updated, compared.rewritten)

    def _insert(self, chunk: int, expected: int) -> None:
        plan = self.plan
        names = ", ".join(map(quoted, plan.fits))
        keys = ", ".join(f"k{place}" for place, _ in enumerate(plan.ledger_key, start=1))
        fresh = "FROM staging AS s WHERE NOT EXISTS (SELECT FROM found AS f WHERE f.line = s.line)"
        values = ", ".join(map(self._staged, plan.fits))
        # As COPY does: a table that numbers its rows itself takes the numbers that the file has.
        insert = f"INSERT INTO {plan.table.sql} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} {fresh}"
        entry = f"INSERT INTO {self._ledger} (chunk, inserted, line, {keys})"
        if plan.key and plan.table.simple:
            inserted = self._run(insert)
            staged = ", ".join(map(self._staged, plan.ledger_key))
            self._run(f"{entry} SELECT %s, true, s.line, {staged} {fresh}", (chunk,))
        else:
            # Only the table knows the keys: it makes them, or has triggers that may.
            made = ", ".join(map(quoted, plan.ledger_key))
            inserted = self._run(
                f"WITH new AS ({insert} RETURNING {made}) {entry} SELECT %s, true, NULL, new.* FROM new",
                (chunk,),
            )
        self._expect(inserted, expected)

    def _expect(self, written: int, expected: int) -> None:
        if written != expected:
            raise TargetRefused(
                f"The table {self.plan.table.name!r} took {written:,} of {expected:,} rows without a word: "
                "one of its triggers or policies leaves rows out. Nothing of this chunk was written."
            )

    def _staged(self, name: str) -> str:
        fit = self.plan.fits[name]
        return f"s.c{self._places[name]}" + (f"::{fit.field.spoken}" if fit.cast else "")

    def _run(self, query: str, params: Sequence[object] = ()) -> int:
        return self._target.run(query, params)


_EXISTS = "The table has a row with this key already. Leave it out, or choose a mode that changes rows."
_COUNTS = """
SELECT count(*) FILTER (WHERE f.line IS NULL), count(*) FILTER (WHERE f.ours),
  count(*) FILTER (WHERE f.changed AND NOT f.ours), count(*) FILTER (WHERE NOT f.changed AND NOT f.ours),
  count(*) FILTER (WHERE f.changed)
FROM staging AS s LEFT JOIN found AS f ON f.line = s.line
"""


def outcome(ready: Ready, compared: Compared) -> tuple[Counts, Ready]:
    """All that is to be said of the chunk: its counts, and its rejects in `ready.rejects`."""
    both = sorted([*ready.rejects, *compared.rejects], key=lambda reject: reject.line)
    whole = replace(ready, rejects=both)
    return whole.counts + compared.counts, whole
