"""Whether an importer fits its table: `flask importers check` asks, before somebody's file does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.errors import InsufficientPrivilege

from app.definitions import Finding, Problem
from app.definitions.files import text_of, toml_lines
from app.importers import Column, Importer
from app.imports.table import catalogue
from app.imports.table.catalogue import Field, Table, TableUnfit
from app.imports.table.connection import first_line
from app.models.imports import INSERT, SKIP

# Types of PostgreSQL that take an importer's values; "e" is any enum.
TAKES = {
    "text": {"text", "varchar", "bpchar", "citext", "name"},
    "int": {"int2", "int4", "int8", "numeric", "float4", "float8"},
    "decimal": {"numeric", "float4", "float8"},
    "bool": {"bool"},
    "date": {"date", "timestamp", "timestamptz"},
    "datetime": {"timestamptz", "timestamp"},
    "uuid": {"uuid", "text", "varchar"},
    "json": {"json", "jsonb", "text"},
}
# The schema in which an import keeps its own account of what it did.
SCHEMA = "waybill_journal"


def problems(importer: Importer, conn: psycopg.Connection[Any]) -> Iterator[Problem]:
    """What keeps the importer from writing to its table, each with the line of its file it is about."""
    for finding in findings(importer, conn):
        yield Problem(importer.path, _line(importer, finding), finding.message)


def findings(importer: Importer, conn: psycopg.Connection[Any]) -> Iterator[Finding]:
    try:
        found = catalogue.read(conn, importer.table)
    except TableUnfit as error:
        yield Finding(error.message, "table")
        return
    except InsufficientPrivilege as error:
        words = f"this source's account may not look at the table {importer.table}"
        yield Finding(f"{words} ({first_line(error)}); grant it USAGE on the schema", "table")
        return
    for column in importer.columns:
        yield from _column(column, found, importer.table)
        yield from _reference(column, conn)
    yield from _left_out(importer, found)
    if importer.natural_key and not found.unique_over(importer.natural_key):
        names = ", ".join(importer.natural_key)
        words = f"no unique index of the table {importer.table} is over just {names}; create one"
        yield Finding(words, "natural_key")
    yield from _rights(importer, found, conn)


def _column(column: Column, found: Table, name: str) -> Iterator[Finding]:
    field = found.fields.get(column.name)
    if field is None:
        yield Finding(f"the table {name} has no column {column.name}", "columns", column.name)
    elif not field.writable:
        yield Finding(f"{column.name} is a generated column: nothing can be written", "columns", column.name)
    elif not column.references and not _takes(column, field):
        words = f"column {column.name} is {field.spoken} in the table, which takes no {column.type}"
        yield Finding(words, "type", column.name)


def _reference(column: Column, conn: psycopg.Connection[Any]) -> Iterator[Finding]:
    reference = column.references
    if reference is None:
        return
    try:
        other = catalogue.read(conn, reference.table)
    except TableUnfit as error:
        yield Finding(f"column {column.name}: {error.message}", "references", column.name)
        return
    except InsufficientPrivilege as error:
        words = f"this source's account may not look at the table {reference.table}"
        yield Finding(f"column {column.name}: {words} ({first_line(error)})", "references", column.name)
        return
    missing = [name for name in (reference.key, reference.value) if name not in other.fields]
    for name in missing:
        words = f"column {column.name}: the table {reference.table} has no column {name}"
        yield Finding(words, "references", column.name)
    if missing:
        return
    if not other.unique_over([reference.key]):
        words = f"no unique index of the table {reference.table} is over just {reference.key}"
        yield Finding(f"column {column.name}: {words}", "references", column.name)
    if not _takes(column, other.fields[reference.key]):
        words = f"{reference.table}.{reference.key} is {other.fields[reference.key].spoken}"
        yield Finding(f"column {column.name} is {column.type}, but {words}", "references", column.name)
    if not all(_asked(conn, _MAY_READ, _bare(other), name) for name in (reference.key, reference.value)):
        words = f"this source's account lacks the right SELECT on the table {reference.table}"
        yield Finding(f"column {column.name}: {words}, where values are looked up", "references", column.name)


def _left_out(importer: Importer, found: Table) -> Iterator[Finding]:
    """Columns that a new row needs and the importer doesn't write."""
    if not {"insert", "upsert", "skip"} & set(importer.modes):
        return
    written = {column.name for column in importer.columns}
    for field in found.fields.values():
        if field.required and not field.filled and field.name not in written:
            words = f"the table {importer.table} has a column {field.name} that must have a value, but the"
            yield Finding(f"{words} importer does not write it", "columns")


def _rights(importer: Importer, found: Table, conn: psycopg.Connection[Any]) -> Iterator[Finding]:
    needed = ["SELECT"]
    if set(importer.modes) != {"update"}:
        needed.append("INSERT")
    if not set(importer.modes) <= {INSERT, SKIP}:
        needed.append("UPDATE")
    for right in needed:
        if not _asked(conn, _MAY, _bare(found), right):
            words = f"this source's account lacks the right {right} on the table {importer.table}"
            yield Finding(words, "source")
    if "INSERT" in needed:
        yield from _numbering(importer, found, conn)
        yield from _undoing(importer, found, conn)
    if not _asked(conn, _MAY_KEEP_ACCOUNT, SCHEMA, SCHEMA):
        words = f"this source's account may not create tables in a schema {SCHEMA}; let it, or create that"
        yield Finding(words, "source")


def _numbering(importer: Importer, found: Table, conn: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Sequences that number rows by themselves; an identity column's need no right."""
    written = {column.name for column in importer.columns if column.required}
    for column, sequence in conn.execute(_SEQUENCES.encode(), (_bare(found),)):
        if column not in written:
            words = f"this source's account lacks the right USAGE on the sequence {sequence}"
            yield Finding(f"{words}, which fills the column {column}", "source")


def _undoing(importer: Importer, found: Table, conn: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Rows that were inserted are deleted, unless others refer to them."""
    if not _asked(conn, _MAY, _bare(found), "DELETE"):
        words = f"this source's account lacks the right DELETE on the table {importer.table}"
        yield Finding(f"{words}, which undoing an import needs", "source")
    for (other,) in conn.execute(_REFERRERS.encode(), (_bare(found),)):
        words = f"this source's account lacks the right SELECT on the table {other}, which refers to"
        yield Finding(f"{words} {importer.table}: undoing an import needs it", "source")


_MAY = "SELECT has_table_privilege(to_regclass(%s), %s)"
_MAY_READ = "SELECT has_column_privilege(to_regclass(%s), %s, 'SELECT')"
_SEQUENCES = """
SELECT DISTINCT a.attname, s.oid::regclass::text
FROM pg_attrdef AS d JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
JOIN pg_depend AS p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid
  AND p.refclassid = 'pg_class'::regclass
JOIN pg_class AS s ON s.oid = p.refobjid
WHERE d.adrelid = to_regclass(%s)
  AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE') ELSE false END
ORDER BY 1, 2
"""
_REFERRERS = """
SELECT DISTINCT c.conrelid::regclass::text FROM pg_constraint AS c JOIN pg_class AS r ON r.oid = c.conrelid
WHERE c.contype = 'f' AND c.conparentid = 0 AND c.confrelid = to_regclass(%s) AND c.conrelid <> c.confrelid
  AND NOT (has_schema_privilege(r.relnamespace, 'USAGE')
    AND (SELECT bool_and(has_column_privilege(c.conrelid, k, 'SELECT')) FROM unnest(c.conkey) AS k))
ORDER BY 1
"""
_MAY_KEEP_ACCOUNT = """
SELECT CASE WHEN to_regnamespace(%s) IS NULL THEN has_database_privilege(current_database(), 'CREATE')
       ELSE has_schema_privilege(%s, 'CREATE') END
"""


def _asked(conn: psycopg.Connection[Any], query: str, *params: str) -> bool:
    row = conn.execute(query.encode(), params).fetchone()
    return bool(row and row[0])


def _bare(table: Table) -> str:
    """Its name where no placeholders are."""
    return table.sql.replace("%%", "%")


def _takes(column: Column, field: Field) -> bool:
    return field.base in TAKES[column.type] or (column.type == "text" and bool(field.labels))


def _line(importer: Importer, finding: Finding) -> int:
    if importer.path.suffix != ".toml":
        return importer.line
    return toml_lines(text_of(importer.path), 1, "columns")(finding)
