"""What merging a chunk would do, told without writing to the table: what earlier chunks would have changed is
remembered in a temporary table of this connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from app.imports.rows import Reject
from app.imports.table.catalogue import Unique, quoted
from app.imports.table.connection import Target
from app.imports.table.merge import Compared, Merge
from app.imports.table.plan import Plan
from app.imports.table.ready import UNKNOWN, Ready, any_known
from app.imports.table.recall import Recall, can_tell

# Characters of a value that an example shows.
SHOWN = 200
# So often keys are looked up without an index; so many rows are named when only they are looked up.
UNINDEXED, FEW = 3, 1000

_FOREIGN = """
SELECT format('%%I.%%I', n.nspname, r.relname), c.conrelid = c.confrelid,
  ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.number ORDER BY k.place),
  ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute AS a ON a.attrelid = c.confrelid AND a.attnum = k.number ORDER BY k.place)
FROM pg_constraint AS c JOIN pg_class AS r ON r.oid = c.confrelid
JOIN pg_namespace AS n ON n.oid = r.relnamespace
WHERE c.contype = 'f' AND c.conrelid = %s::regclass ORDER BY c.conname
"""


@dataclass(frozen=True)
class _Foreign:
    """A foreign key of the table to `table`, by the columns of both; `own`: to the table itself."""

    table: str
    own: bool
    columns: list[str]
    to: list[str]


class Known(Exception):
    """The table has rows of keys that it seemed to know nothing of: the chunk is needed whole."""


class Foresight(Merge):
    """A merge that writes nothing: `write` only remembers the rows that would be written.

    Its temporary table `seen` has, of each, the natural key and what no two rows may share, named as in
    `staging`. What only the table can tell as it is written to is not foreseen: triggers, exclusion
    constraints, unique indexes over expressions or some of the rows, partitions that are not there.
    """

    def __init__(self, plan: Plan, target: Target, import_id: UUID) -> None:
        super().__init__(plan, target, import_id)
        # Nothing is to be changed, so nobody need wait for us.
        self._lock = ""
        unique = [name for index in self._uniques() for name in index.columns]
        self._remembered = list(dict.fromkeys([*plan.key, *unique]))
        self._foreign = self._foreign_keys()
        self._needed = self._needed_columns()
        # Whether anything was remembered, how often keys were looked up there, and by an index.
        self._any_seen, self._looked_up, self._indexed = False, 0, False
        self._recall = Recall()
        # Of the chunk at hand: whether no row of the table has its keys, as far as a sample tells; and the
        # lines whose keys may have been seen, None being any.
        self._new = False
        self._perhaps: list[int] | None = None
        if self._remembered:
            columns = ", ".join(f"t.{quoted(name)} AS c{self._places[name]}" for name in self._remembered)
            target.run(f"CREATE TEMP TABLE seen AS SELECT {columns} FROM {plan.table.sql} AS t WITH NO DATA")
            for index in self._uniques():
                self._index(index.columns)

    def expect(self, ready: Ready) -> None:
        """Look at a chunk before its transaction: what is sure beforehand need not be compared."""
        if self.plan.key and len(ready):
            self._new = not any_known(self.plan, self._target, ready)
            self._perhaps = self._recalled(ready)
            self._looked_up += self._perhaps != []
            if self._looked_up > UNINDEXED and not self._indexed:
                self._indexed = True
                self._index(self.plan.key)

    def expect_known(self) -> None:
        """The chunk at hand has rows that the table knows."""
        self._new = False

    def transactions(self) -> list[str]:
        return []

    def stage(self, ready: Ready) -> None:
        """Of rows that are new nothing is needed but what may be refused."""
        if not self._new:
            super().stage(ready)
            return
        columns = [(ready.columns[name], self.plan.fits[name].sent) for name in self._needed]
        names = ", ".join(["line", *(f"c{self._places[name]}" for name in self._needed)])
        self._target.copy(f"pg_temp.staging ({names})", [(ready.lines, "int8"), *columns], len(ready))

    def write(self, chunk: int, compared: Compared) -> None:
        self._try_casts()
        if not (self._remembered and compared.fresh + compared.rewritten):
            return
        others = [name for name in self._remembered if name not in self.plan.key]
        if others and compared.ours:
            new = ", ".join(f"c{self._places[name]} = {self._staged(name)}" for name in others)
            self._run(
                f"UPDATE seen AS e SET {new} FROM staging AS s JOIN found AS f ON f.line = s.line"
                f" WHERE f.ours AND {self._same('e', self.plan.key)}"
            )
        names = ", ".join(f"c{self._places[name]}" for name in self._remembered)
        values = ", ".join(map(self._staged, self._remembered))
        joined = " LEFT JOIN found AS f ON f.line = s.line WHERE f.line IS NULL OR f.changed AND NOT f.ours"
        some_found = compared.ours + compared.changed + compared.same
        self._run(
            f"INSERT INTO seen ({names}) SELECT {values} FROM staging AS s{joined if some_found else ''}"
        )
        self._any_seen = True

    def examples(self, most: int) -> list[dict[str, Any]]:
        """Staged rows that would be changed: {line, key: {column: text}, changes: {column: [old, new]}}."""
        plan = self.plan
        if not plan.values:
            return []
        key = ", ".join(f"{self._staged(name)}::text" for name in plan.key)
        there = {name: f"f.b{place}" for place, name in enumerate(plan.values, start=1)}
        changes = ", ".join(
            f"{self._unlike(name, there[name])}, {there[name]}::text, {self._staged(name)}::text"
            for name in plan.values
        )
        rows = self._target.all(
            f"SELECT s.line, {key}, {changes} FROM staging AS s JOIN found AS f ON f.line = s.line"
            " WHERE s.line IN (SELECT line FROM found WHERE changed AND NOT ours ORDER BY line LIMIT %s)"
            " ORDER BY s.line",
            (most,),
        )
        return [self._example(row) for row in rows]

    def _example(self, row: Sequence[Any]) -> dict[str, Any]:
        line, *rest = row
        keys = dict(zip(self.plan.key, map(_short, rest[: len(self.plan.key)]), strict=True))
        changes = {}
        for place, name in enumerate(self.plan.values):
            differs, old, new = rest[len(keys) + 3 * place : len(keys) + 3 * place + 3]
            if differs:
                changes[name] = [_short(old), _short(new)]
        return {"line": line, "key": keys, "changes": changes}

    # Comparing, with what was seen.

    def _find(self, ours: Sequence[str]) -> int:
        known = super()._find(ours)
        if known and self._new:
            raise Known
        if self._perhaps == [] or not self._any_seen:
            return known
        joined = self._same("e", self.plan.key)
        if self._perhaps is not None:
            joined += f" AND s.line = ANY ('{{{', '.join(map(str, self._perhaps))}}}')"
        again = self._run(
            "UPDATE found AS f SET ours = true, changed = true FROM staging AS s"
            f" JOIN seen AS e ON {joined} WHERE s.line = f.line"
        )
        fresh = self._run(
            f"INSERT INTO found (line, ours, changed) SELECT s.line, true, true FROM staging AS s"
            f" JOIN seen AS e ON {joined}"
            + (" WHERE NOT EXISTS (SELECT FROM found AS f WHERE f.line = s.line)" if again else "")
        )
        return known + fresh

    def _taken(self, unique: Unique) -> str:
        taken = super()._taken(unique)
        if not self._any_seen:
            return taken
        same_row = self._same("e", self.plan.key) or "false"
        seen = (
            f"SELECT s.line FROM staging AS s JOIN seen AS e ON {self._same('e', unique.columns)}"
            f" WHERE NOT coalesce({same_row}, false)"
        )
        if self.plan.key:
            # What the table has of those is no longer so.
            rewritten = " AND ".join(f"e.c{self._places[name]} = t.{quoted(name)}" for name in self.plan.key)
            taken += f" AND NOT EXISTS (SELECT FROM seen AS e WHERE {rewritten})"
        return f"{taken} UNION ALL {seen}"

    def _orphans(self, ready: Ready) -> list[Reject]:
        found: list[Reject] = []
        more = [reject for foreign in self._foreign for reject in self._refuse_orphans(foreign, ready)]
        while more:
            found += more
            # Rows of the file may refer to those just refused.
            own = [foreign for foreign in self._foreign if foreign.own]
            more = [reject for foreign in own for reject in self._refuse_orphans(foreign, ready)]
        return found

    def _refuse_orphans(self, foreign: _Foreign, ready: Ready) -> list[Reject]:
        pairs = list(zip(foreign.columns, foreign.to, strict=True))
        given = " AND ".join(f"{self._staged(name)} IS NOT NULL" for name in foreign.columns)
        there = " AND ".join(f"o.{quoted(to)} = {self._staged(name)}" for name, to in pairs)
        known = [f"EXISTS (SELECT FROM {foreign.table.replace('%', '%%')} AS o WHERE {there})"]
        if foreign.own:
            for table in ("seen", "staging"):
                same = " AND ".join(f"o.c{self._places[to]} = {self._staged(name)}" for name, to in pairs)
                known.append(f"EXISTS (SELECT FROM {table} AS o WHERE {same})")
        lines = f"SELECT s.line FROM staging AS s WHERE {given} AND NOT ({' OR '.join(known)})"
        names = ", ".join(foreign.columns)
        message = f"{names}: there is no row of {foreign.table} with this {', '.join(foreign.to)}."
        return self._refuse(lines, UNKNOWN, message, ready)

    def _foreign_keys(self) -> list[_Foreign]:
        """Those that are written, but for what was looked up already."""
        written = set(self._places)
        rows = self._target.all(_FOREIGN, (self.plan.table.sql.replace("%%", "%"),))
        found = [_Foreign(*row) for row in rows]
        return [
            foreign
            for foreign in found
            if set(foreign.columns) <= written - set(self.plan.references)
            and not (foreign.own and not set(foreign.to) <= set(self._remembered))
        ]

    def _needed_columns(self) -> list[str]:
        """What is looked at even of a row that is new."""
        looked_at = set(self._remembered)
        looked_at.update(name for rule in self._rules() for name in rule.columns)
        looked_at.update(name for foreign in self._foreign for name in foreign.columns)
        return [name for name, fit in self.plan.fits.items() if name in looked_at or fit.cast]

    def _try_casts(self) -> None:
        """Texts that the server would refuse as values."""
        casts = [f"count({self._staged(name)})" for name, fit in self.plan.fits.items() if fit.cast]
        if casts:
            self._target.one(f"SELECT {', '.join(casts)} FROM staging AS s")

    def _recalled(self, ready: Ready) -> list[int] | None:
        """The lines whose keys an earlier chunk may have had; None: any may."""
        columns = [ready.columns[name] for name in self.plan.key]
        fits = [self.plan.fits[name] for name in self.plan.key]
        exact = all(fit.field.exact and not fit.cast for fit in fits)
        if not exact or not all(can_tell(column.type) for column in columns):
            return None
        places = np.flatnonzero(self._recall.meet(columns))
        return None if len(places) > FEW else ready.lines.take(pa.array(places)).to_pylist()

    def _index(self, names: Sequence[str]) -> None:
        columns = ", ".join(f"c{self._places[name]}" for name in names)
        self._target.run(f"CREATE INDEX ON seen ({columns})")

    def _same(self, seen: str, names: Sequence[str]) -> str:
        return " AND ".join(f"{seen}.c{self._places[name]} = {self._staged(name)}" for name in names)

    def _unlike(self, name: str, there: str) -> str:
        staged = self._staged(name)
        if not self.plan.table.fields[name].comparable:
            staged, there = f"({staged})::text", f"{there}::text"
        return f"{staged} IS DISTINCT FROM {there}"


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= SHOWN else text[: SHOWN - 1] + "…"
