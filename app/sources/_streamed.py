"""What sources have in common whose drivers hand out rows: the first ones tell the fields, and are kept."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from itertools import chain
from threading import Timer
from typing import Any

from app.errors import QueryFailed
from app.sources import Copy, Reading
from app.sources._typed import Batch, Field

# Rows fetched at a time, and looked at to tell the fields.
FETCH = 5000
# What the texts of so many rows may hold, in bytes or characters: of wide rows there are fewer at a time.
WIDE = 8 * 1024 * 1024
# Rows fetched to see how wide they are.
STEP = 64

Rows = list[tuple[Any, ...]]


class Result:
    """A query at work. `blocks` gives its rows; `close` ends it, whatever is left."""

    fields: Sequence[Field]

    def batches(self, fields: Sequence[Field]) -> Iterator[Batch]:
        """The rows not yet handed out, typed as `fields` says."""
        raise NotImplementedError

    def rows(self) -> Iterator[tuple[Any, ...]]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class RowsResult(Result):
    """A result whose driver gives Python values. Without `fields`, the first rows tell them."""

    def __init__(
        self, names: Sequence[str], blocks: Generator[Rows, None, None], fields: Sequence[Field] = ()
    ) -> None:
        self._blocks = blocks
        first = next(blocks, [])
        self._rest = chain([first], blocks)
        self.fields = fields or _fields(names, first)

    def batches(self, fields: Sequence[Field]) -> Iterator[Batch]:
        from app.formats import _batches

        for rows in self._rest:
            if rows:
                yield _batches.batch(fields, list(zip(*rows, strict=True)))

    def rows(self) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(self._rest)

    def close(self) -> None:
        self._blocks.close()


class Chosen(str):
    """A query of whose columns only some are wanted: picked here, as they come."""

    columns: Sequence[str]

    @classmethod
    def of(cls, sql: str, columns: Sequence[str]) -> Chosen:
        chosen = cls(sql)
        chosen.columns = tuple(columns)
        return chosen


class _Picked(Result):
    """Some columns of another result. Raises QueryFailed if one is not there."""

    def __init__(self, whole: Result, columns: Sequence[str]) -> None:
        self._whole = whole
        places = {field.name: at for at, field in enumerate(whole.fields)}
        missing = next((name for name in columns if name not in places), None)
        if missing is not None:
            whole.close()
            raise QueryFailed(f"The result has no column {missing!r} any more. Choose the columns anew.")
        self._places = [places[name] for name in columns]
        self.fields = [whole.fields[place] for place in self._places]

    def batches(self, fields: Sequence[Field]) -> Iterator[Batch]:
        typed = list(self._whole.fields)
        for place, field in zip(self._places, fields, strict=True):
            typed[place] = field
        for batch in self._whole.batches(typed):
            columns = [batch.columns[place] for place in self._places]
            strays = {
                at: batch.strays[place] for at, place in enumerate(self._places) if place in batch.strays
            }
            yield Batch(columns, batch.rows, strays)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        return (tuple(row[place] for place in self._places) for row in self._whole.rows())

    def close(self) -> None:
        self._whole.close()


class Streamed(Reading):
    """A reading that has at most one query at work."""

    _asked: tuple[str, Sequence[str], Mapping[str, Any]] | None = None
    _result: Result | None = None

    @abstractmethod
    def _open(self, sql: str, values: Mapping[str, Any]) -> Result:
        """The query, sent. Raises what `_translated` knows, as the result's methods do."""

    @abstractmethod
    def _translated(self) -> AbstractContextManager[None]:
        """Turns the driver's errors into SourceDown and QueryFailed."""

    def copy(self, sql: str, values: Mapping[str, Any], copy: Copy) -> Generator[bytes, None, None]:
        raise NotImplementedError

    def batches(
        self, sql: str, values: Mapping[str, Any], fields: Sequence[Field] | None = None
    ) -> Generator[Batch, None, None]:
        self.rows_read = 0
        with self._translated():
            result = self._taken(sql, values)
            try:
                for batch in result.batches(fields or result.fields):
                    self.rows_read += batch.rows
                    yield batch
            finally:
                result.close()

    def rows(self, sql: str, values: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        self.rows_read = 0
        with self._translated():
            result = self._taken(sql, values)
            try:
                for row in result.rows():
                    self.rows_read += 1
                    yield row
            finally:
                result.close()

    def fields(self, sql: str, values: Mapping[str, Any]) -> Sequence[Field]:
        with self._translated():
            result = self._taken(sql, values)
            self._asked, self._result = (sql, _columns(sql), values), result
            return result.fields

    def estimate(self, sql: str, values: Mapping[str, Any]) -> int | None:
        return None

    def only(self, sql: str, columns: Sequence[str]) -> str:
        return super().only(sql, columns) if self.wraps else Chosen.of(sql, columns)

    def _taken(self, sql: str, values: Mapping[str, Any]) -> Result:
        """The result that was begun for this query, or a new one; it is the caller's to close."""
        asked, result = self._asked, self._result
        self._asked = self._result = None
        if result is not None:
            if asked == (sql, _columns(sql), values):
                return result
            result.close()
        whole = self._open(sql, values)
        return _Picked(whole, sql.columns) if isinstance(sql, Chosen) else whole

    def _forget(self) -> None:
        """Close what was begun and never taken."""
        if self._result is not None:
            self._result.close()
        self._asked = self._result = None


class Limit:
    """How long a query may take; a watch that its driver asks now and then."""

    def __init__(self, source: str, limit: timedelta) -> None:
        self._source, self._limit = source, limit
        self._ends = time.monotonic()
        self.broken_off = False

    def begin(self) -> None:
        self._ends = time.monotonic() + self._limit.total_seconds()

    @property
    def left(self) -> float:
        """In seconds."""
        return self._ends - time.monotonic()

    @property
    def over(self) -> bool:
        return self.broken_off or self.left <= 0

    @contextmanager
    def watched(self, stop: Callable[[], object]) -> Iterator[None]:
        """`stop` is called from another thread when the time is over before this is."""
        timer = Timer(max(0.0, self.left), stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def meaning(self) -> QueryFailed:
        """Why the query was stopped."""
        if self.broken_off:
            return QueryFailed(f"The query on the source {self._source!r} was broken off.")
        return QueryFailed(
            f"The source {self._source!r} was too slow: the limit is {self._limit.total_seconds():.0f} s. "
            "Ask for less, or ask the operator for a higher limit."
        )


def fetched(fetch: Callable[[int], Sequence[Sequence[Any]]]) -> Generator[Rows, None, None]:
    """All rows that `fetch(how many)` gives, in blocks that bound what is held."""
    held: Rows = []
    size, step = 0, STEP
    while rows := fetch(min(step, FETCH - len(held))):
        held.extend(map(tuple, rows))
        width = sum(len(value) for row in rows for value in row if isinstance(value, str | bytes))
        size += width
        # As many more like these as there is room for; but the next ones may be wider.
        step = max(1, min(2 * step, (WIDE - size) * len(rows) // (width or 1)))
        if len(held) == FETCH or size >= WIDE:
            yield held
            held, size = [], 0
    if held:
        yield held


def first_line(error: Exception, text: str | None = None) -> str:
    """The first line of `text`, or of what the driver said; the error's name if that is nothing."""
    lines = (str(error) if text is None else text).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _columns(sql: str) -> Sequence[str]:
    return sql.columns if isinstance(sql, Chosen) else ()


def _fields(names: Sequence[str], rows: Rows) -> Sequence[Field]:
    from app.formats import _batches

    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return [_batches.field(name, values) for name, values in zip(names, columns, strict=True)]
