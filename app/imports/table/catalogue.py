"""What the target's catalogue knows of a table: columns, keys, rules. Read once by whoever applies chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from app.errors import WaybillError
from app.imports.table import encode

# How values of these types are sent, where it is not by their own name; see encode.ENCODERS.
_SENT = {"varchar": "text", "bpchar": "text", "name": "text", "json": "text", "citext": "text"}
# Types whose equal values look the same: whether two of them are equal can be told here.
_EXACT = {"int2", "int4", "int8", "bool", "date", "timestamp", "timestamptz", "uuid", "text", "varchar"}
# Types without an equality: they are compared as texts.
_INCOMPARABLE = {"json", "xml", "point", "polygon", "box", "circle", "line", "lseg", "path"}
# Behind a type's modifier, where it has one, there are four bytes that don't count.
_VARHDRSZ = 4

_TABLE = """
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relhasrules OR c.relrowsecurity AS odd,
  EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
          AND t.tgtype & 1 = 1 AND t.tgtype & 2 = 2) AS triggers
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)
"""
_FIELDS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS spoken, a.atttypmod AS modifier,
  t.typname AS type, coalesce(b.typname, t.typname) AS base, t.typtype AS kind, n.nspname AS namespace,
  a.attnotnull AS required, a.atthasdef OR a.attidentity <> '' AS filled, a.attgenerated <> '' AS generated,
  coalesce(l.collisdeterministic, true) AS exact,
  ARRAY(SELECT e.enumlabel::text FROM pg_enum AS e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
    AS labels
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
JOIN pg_namespace AS n ON n.oid = t.typnamespace LEFT JOIN pg_type AS b ON b.oid = t.typbasetype
LEFT JOIN pg_collation AS l ON l.oid = a.attcollation
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_UNIQUES = """
SELECT c.relname AS name, i.indisprimary AS primary,
  ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number ORDER BY k.place) AS columns
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC, c.relname
"""
_RULES = """
SELECT c.conname AS name, pg_get_expr(c.conbin, c.conrelid) AS expression,
  ARRAY(SELECT a.attname::text FROM pg_attribute AS a
        WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)) AS columns
FROM pg_constraint AS c WHERE c.conrelid = %s AND c.contype = 'c' ORDER BY c.conname
"""


class TableUnfit(WaybillError):
    """The importer's table is not there, or not as the importer needs it. For the operator or the author."""

    code = "table_unfit"


@dataclass(frozen=True)
class Field:
    """A column of the table. `sent` is how its values are encoded; "" if only the server knows how."""

    name: str
    # The type with its modifier, as DDL wants it, its bare name, and that of what it is made of, if a domain.
    spoken: str
    type: str
    base: str
    sent: str
    required: bool
    # A default, an identity or an expression fills it where nothing is written.
    filled: bool
    writable: bool
    # Whether values can be compared at all, and whether equal ones are the same.
    comparable: bool
    exact: bool
    labels: Sequence[str]
    # Of texts the most characters; of numbers all digits and those behind the point; None: no limit.
    length: int | None = None
    precision: tuple[int, int] | None = None


@dataclass(frozen=True)
class Unique:
    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """A CHECK constraint; `expression` speaks of the columns by their bare names."""

    name: str
    expression: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    schema: str
    name: str
    fields: Mapping[str, Field]
    primary: tuple[str, ...]
    uniques: Sequence[Unique]
    rules: Sequence[Rule]
    # Whether rows can be copied into it as they are: no trigger, rule or policy has a say before.
    simple: bool

    @property
    def sql(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def unique_over(self, columns: Sequence[str]) -> Unique | None:
        return next((unique for unique in self.uniques if set(unique.columns) == set(columns)), None)


def read(conn: psycopg.Connection[Any], name: str) -> Table:
    """The table `name` ("table" or "schema.table"); raises TableUnfit if there is none."""
    cursor: Any = conn.cursor(row_factory=namedtuple_row)
    with cursor:
        regclass = ".".join(quoted(part).replace("%%", "%") for part in name.split("."))
        found = cursor.execute(_TABLE, (regclass,)).fetchone()
        if found is None or found.relkind not in ("r", "p"):
            what = "no table" if found is None else "a view or a foreign table, not a table,"
            raise TableUnfit(f"There is {what} {name!r} in the database that this importer writes to.")
        fields = [_field(row) for row in cursor.execute(_FIELDS, (found.oid,))]
        uniques = cursor.execute(_UNIQUES, (found.oid,)).fetchall()
        rules = cursor.execute(_RULES, (found.oid,)).fetchall()
    return Table(
        found.nspname,
        found.relname,
        {field.name: field for field in fields},
        next((tuple(row.columns) for row in uniques if row.primary), ()),
        [Unique(row.name, tuple(row.columns)) for row in uniques],
        [Rule(row.name, row.expression, tuple(row.columns)) for row in rules],
        not (found.triggers or found.odd),
    )


def quoted(name: str) -> str:
    """An identifier for a query that also has placeholders."""
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def _comparable(row: Any) -> bool:
    """Of a domain's own type nothing is known here; an array's elements are compared one by one."""
    return row.kind != "d" and row.type.removeprefix("_") not in _INCOMPARABLE


def _field(row: Any) -> Field:
    ours = row.namespace == "pg_catalog" or row.type == "citext"
    sent = "text" if row.kind == "e" else _SENT.get(row.type, row.type) if ours else ""
    modifier = row.modifier - _VARHDRSZ if row.modifier >= 0 else None
    length = modifier if row.type in ("varchar", "bpchar") else None
    precision = None
    if row.type == "numeric" and modifier is not None:
        # Eleven bits, the last one of them the sign.
        scale = ((modifier & 0x7FF) ^ 1024) - 1024
        precision = ((modifier >> 16) & 0xFFFF, scale)
    return Field(
        *(row.name, row.spoken, row.type, row.base, sent if sent in encode.ENCODERS else ""),
        *(row.required, row.filled, not row.generated, _comparable(row)),
        exact=row.exact and row.type in _EXACT,
        labels=row.labels,
        length=length,
        precision=precision,
    )
