"""Finding the rows that a table refuses for reasons that its catalogue does not tell, such as triggers.

By halves, in transactions that are rolled back: a bad row among n costs about two merges of all n.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import psycopg

from app.imports.rows import Reject
from app.imports.table.connection import BadRows, Target, TargetRefused, first_line
from app.imports.table.merge import Merge
from app.imports.table.ready import Ready

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


def without_bad_rows(merge: Merge, target: Target, ready: Ready, check: Callable[[], None]) -> Ready:
    """The same without the rows that the table refuses, each with the database's own words.

    `check` is called before each try and may raise. Raises TargetRefused where there are too many.
    """
    return _Sieve(merge, target, check).sift(ready)


class _Sieve:
    def __init__(self, merge: Merge, target: Target, check: Callable[[], None]) -> None:
        self._merge, self._target, self._check = merge, target, check
        self._rejects: list[Reject] = []

    def sift(self, ready: Ready) -> Ready:
        self._halve(ready)
        left = ready.without(self._rejects)
        if self._refused(left) is None:
            return left
        # Rows that are good alone, but not together: the later one is bad.
        self._rejects = []
        self._add(left, np.empty(0, np.int64), np.arange(len(left)))
        return left.without(self._rejects)

    def _halve(self, ready: Ready) -> None:
        error = self._refused(ready)
        if error is None:
            return
        if len(ready) == 1:
            self._reject(ready, 0, error)
            return
        middle = len(ready) // 2
        self._halve(ready.only(np.arange(middle)))
        self._halve(ready.only(np.arange(middle, len(ready))))

    def _add(self, ready: Ready, good: np.ndarray, more: np.ndarray) -> np.ndarray:
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
        if len(self._rejects) > MOST:
            raise TargetRefused(
                f"The table refuses more than {MOST:,} rows of one chunk; the last one, in line {line:,}, "
                f"for: {message}"
            )
