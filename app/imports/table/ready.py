"""A checked chunk made ready for the table: references looked up, values fitted, equal keys told apart.

All that needs no turn: it is done while earlier chunks are merged. Also the first half of a dry run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.importers import Reference
from app.imports.rows import Checked, Counts, Reject
from app.imports.table.catalogue import quoted
from app.imports.table.connection import Target
from app.imports.table.fit import Bad
from app.imports.table.plan import Plan

UNKNOWN, AMBIGUOUS = "unknown_reference", "ambiguous_reference"
# Of keys that are looked for in the table before anything is tried.
SAMPLE = 500


@dataclass(frozen=True)
class Ready:
    """`lines` (int64) and `columns`, by name and as `encode` wants them, have the rows that are left.

    `record` gives the record of a line, as it stands in the file. `superseded` rows were left out for a later
    one of the same key; `distinct` says that no two of those left have the same.
    """

    lines: Any
    columns: dict[str, Any]
    rejects: Sequence[Reject]
    read: int
    superseded: int
    distinct: bool
    record: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def counts(self) -> Counts:
        """What is known before the table has been asked."""
        return refused(self.rejects) + Counts(read=self.read, superseded=self.superseded)

    def only(self, kept: Any) -> Ready:
        """With those rows alone whose places `kept` (booleans, or places) tells; rejects stay."""
        kept = pa.array(
            np.flatnonzero(kept) if getattr(kept, "dtype", None) == np.bool_ else kept, pa.int64()
        )
        columns = {name: column.take(kept) for name, column in self.columns.items()}
        return replace(self, lines=self.lines.take(kept), columns=columns)

    def without(self, rejects: Sequence[Reject]) -> Ready:
        """The same without the rows that were refused since."""
        if not rejects:
            return self
        refused_lines = pa.array([reject.line for reject in rejects], pa.int64())
        kept = pc.invert(pc.is_in(self.lines, refused_lines)).to_numpy(zero_copy_only=False)
        both = sorted([*self.rejects, *rejects], key=lambda reject: reject.line)
        return replace(self.only(kept), rejects=both)


def refused(rejects: Sequence[Reject]) -> Counts:
    codes: dict[str, int] = {}
    for reject in rejects:
        codes[reject.code] = codes.get(reject.code, 0) + 1
    return Counts(refused=len(rejects), refused_by=codes)


def make_ready(plan: Plan, target: Target, checked: Checked, record: Callable[[int], bytes]) -> Ready:
    rows = checked.rows
    bad: dict[int, tuple[str, Bad]] = {}
    columns = {}
    for name, fit in plan.fits.items():
        given = rows.column(name)
        if name in plan.references:
            given, unresolved = _resolve(target, *plan.references[name], given, fit.kind)
            _note(bad, name, unresolved)
        if name in plan.key and given.null_count:
            places = np.flatnonzero(pc.is_null(given))
            _note(bad, name, [Bad(places, "required", "Rows are found by this value, so it must be there.")])
        columns[name], unfit = fit.values(given)
        _note(bad, name, unfit)
    lines = rows.column("line")
    rejects = [_reject(lines[place].as_py(), *found, record) for place, found in sorted(bad.items())]
    ready = Ready(lines, columns, [], checked.read, 0, True, record)
    ready = replace(ready.without(rejects), rejects=_sorted([*checked.rejects, *rejects]))
    return _last_wins(plan, ready)


def any_known(plan: Plan, target: Target, ready: Ready) -> bool:
    """Whether the table has one of a sample of the keys: then many of them, probably."""
    step = max(1, len(ready) // SAMPLE)
    sample = ready.only(np.arange(0, len(ready), step))
    keys = [pc.cast(sample.columns[name], pa.string()).to_pylist() for name in plan.key]
    names = [f"c{place}" for place in range(len(keys))]
    joined = " AND ".join(
        f"t.{quoted(name)} = s.{alias}::{plan.table.fields[name].spoken}"
        for name, alias in zip(plan.key, names, strict=True)
    )
    given = ", ".join(["%s::text[]"] * len(keys))
    rows = f"unnest({given}) AS s ({', '.join(names)}) JOIN {plan.table.sql} AS t ON {joined}"
    return target.one(f"SELECT FROM {rows} LIMIT 1", keys) is not None


def _last_wins(plan: Plan, ready: Ready) -> Ready:
    """Without rows whose key comes again later in the chunk."""
    if not plan.key or not len(ready):
        return ready
    keys = [f"k{place}" for place, _ in enumerate(plan.key)]
    rows = pa.table([ready.columns[name] for name in plan.key], names=keys)
    rows = rows.append_column("place", pa.array(np.arange(len(ready))))
    last = rows.group_by(keys, use_threads=False).aggregate([("place", "max")])["place_max"]
    exact = all(plan.table.fields[name].exact for name in plan.key)
    if len(last) == len(ready):
        return replace(ready, distinct=exact)
    superseded = ready.superseded + len(ready) - len(last)
    kept = np.sort(last.to_numpy())
    return replace(ready.only(kept), superseded=superseded, distinct=exact)


def _resolve(
    target: Target, reference: Reference, key_type: str, given: Any, kind: str
) -> tuple[Any, list[Bad]]:
    """What the natural keys stand for, as an array of `kind`; and those that stand for nothing or several."""
    coded = pc.dictionary_encode(given)
    keys = pc.cast(coded.dictionary, pa.string()).to_pylist()
    values: list[str | None] = [None] * len(keys)
    several = set()
    found = target.all(
        f"SELECT k.place, r.{quoted(reference.value)}::text"
        f" FROM unnest(%s::text[]) WITH ORDINALITY AS k (key, place)"
        f" JOIN {_table(reference.table)} AS r ON r.{quoted(reference.key)} = k.key::{key_type}",
        (keys,),
    )
    for place, value in found:
        if values[place - 1] is not None:
            several.add(place - 1)
        values[place - 1] = value
    typed = pa.array(values, pa.string())
    typed = typed.cast(pa.int64()) if kind == "int" else typed
    bad = [
        Bad(_where(coded, {n for n, value in enumerate(values) if value is None}), UNKNOWN, _NOBODY),
        Bad(_where(coded, several), AMBIGUOUS, _SEVERAL),
    ]
    return typed.take(coded.indices), [
        replace(some, message=some.message.format(table=reference.table, key=reference.key)) for some in bad
    ]


_NOBODY = "There is no row of {table} with this {key}."
_SEVERAL = "Several rows of {table} have this {key}, so it is not clear which one is meant."


def _where(coded: Any, codes: set[int]) -> Any:
    if not codes:
        return np.empty(0, np.int64)
    return np.flatnonzero(pc.fill_null(pc.is_in(coded.indices, pa.array(list(codes), pa.int32())), False))


def _table(name: str) -> str:
    return ".".join(quoted(part) for part in name.split("."))


def _note(bad: dict[int, tuple[str, Bad]], column: str, found: Sequence[Bad]) -> None:
    """A row has one reason: its first."""
    for some in found:
        for place in some.places.tolist():
            bad.setdefault(place, (column, some))


def _reject(line: int, column: str, bad: Bad, record: Callable[[int], bytes]) -> Reject:
    return Reject(line, column, bad.code, bad.message, record(line))


def _sorted(rejects: Sequence[Reject]) -> list[Reject]:
    return sorted(rejects, key=lambda reject: reject.line)
