"""Finding the rows that a table refuses for reasons that its catalogue does not tell, such as triggers.

By halves, in transactions that are rolled back: a bad row among n costs about two merges of all n.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from app.imports.rows import Reject
from app.imports.table.connection import BadRows, Target, TargetRefused, first_line
from app.imports.table.merge import Merge
from app.imports.table.ready import Ready

Places = np.ndarray[Any, np.dtype[np.int64]]

# The most bad rows that are looked for in one chunk.
MOST = 1000
# What a row was refused for, by SQLSTATE; see PostgreSQL's list.
CODES = {
    "23502": "required",
    "23503": "unknown_reference",
    "23505": "not_unique",
    "23514": "rule",
    "23P01": "conflict",
    "22001": "too_long",
    "22003": "out_of_range",
    "P0001": "refused_by_trigger",
}
OTHER = "refused_by_database"
_OWN_REFERENCES = """
SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = confrelid AND conrelid = %s::regclass
"""


def without_bad_rows(merge: Merge, target: Target, ready: Ready, check: Callable[[], None]) -> Ready:
    """The same without the rows that the table refuses, each with the database's own words.

    `check` is called before each try and may raise. Raises TargetRefused where there are too many.
    """
    return _Sieve(merge, target, check).sift(ready)


class _Sieve:
    def __init__(self, merge: Merge, target: Target, check: Callable[[], None]) -> None:
        self._merge, self._target, self._check = merge, target, check
        self._rejects: list[Reject] = []
        # The places of those of them that refer to a row of their own table which is not there.
        self._orphans: list[int] = []

    def sift(self, ready: Ready) -> Ready:
        self._halve(ready, np.arange(len(ready)))
        good = self._good(ready)
        if self._refused(ready.only(good)) is not None:
            # Rows that are good alone, but not together: the later one is bad.
            good = self._add(ready, np.empty(0, np.int64), good)
        self._take_back_orphans(ready, good)
        return ready.without(self._rejects)

    def _halve(self, ready: Ready, places: Places) -> None:
        error = self._refused(ready.only(places))
        if error is None:
            return
        if len(places) == 1:
            self._reject(ready, int(places[0]), error)
            return
        middle = len(places) // 2
        self._halve(ready, places[:middle])
        self._halve(ready, places[middle:])

    def _take_back_orphans(self, ready: Ready, good: Places) -> None:
        """What they refer to may be among the good ones, or among those that are taken back before them."""
        missing = len(ready)
        while self._orphans and len(self._orphans) < missing:
            orphans, self._orphans = np.sort(np.array(self._orphans, np.int64)), []
            missing = len(orphans)
            lines = set(ready.lines.take(pa.array(orphans)).to_pylist())
            self._rejects = [reject for reject in self._rejects if reject.line not in lines]
            good = self._add(ready, good, orphans)

    def _good(self, ready: Ready) -> Places:
        refused = pa.array([reject.line for reject in self._rejects], pa.int64())
        return np.flatnonzero(~np.asarray(pc.is_in(ready.lines, refused)))

    def _add(self, ready: Ready, good: Places, more: Places) -> Places:
        """The places of those of `more` that are good together with the good ones, and these."""
        both = np.concatenate((good, more))
        error = self._refused(ready.only(both))
        if error is None:
            return both
        if len(more) == 1:
            self._reject(ready, int(more[0]), error)
            return good
        middle = len(more) // 2
        return self._add(ready, self._add(ready, good, more[:middle]), more[middle:])

    def _refused(self, ready: Ready) -> psycopg.Error | None:
        """Merge and take it back."""
        self._check()
        try:
            with self._target.rolled_back():
                self._merge.stage(ready)
                self._merge.write(0, self._merge.compare(ready, self._merge.transactions()))
                # What waits for the commit to be checked, too.
                self._target.run("SET CONSTRAINTS ALL IMMEDIATE")
        except BadRows as bad:
            return bad.error
        return None

    def _reject(self, ready: Ready, place: int, error: psycopg.Error) -> None:
        line = ready.lines[place].as_py()
        detail = error.diag.message_detail
        message = first_line(error) + (f". {detail}" if detail else ".")
        code = CODES.get(error.sqlstate or "", OTHER)
        column = error.diag.column_name if error.diag.column_name in ready.columns else None
        self._rejects.append(Reject(line, column, code, message, ready.record(line)))
        if error.diag.constraint_name in self._own_references:
            self._orphans.append(place)
        if len(self._rejects) > MOST:
            raise TargetRefused(
                f"The table refuses more than {MOST:,} rows of one chunk; the last one, in line {line:,}, "
                f"for: {message}"
            )

    @cached_property
    def _own_references(self) -> set[str]:
        """The names of the table's foreign keys to itself."""
        table = self._merge.plan.table.sql.replace("%%", "%")
        return {name for (name,) in self._target.all(_OWN_REFERENCES, (table,))}
