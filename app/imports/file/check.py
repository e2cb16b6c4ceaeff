"""A chunk's text as rows that may be written, and those that may not, each with the reason. Asks no database.

Everything is done for a whole column at once; Python sees only the rows that are refused, and those of an
importer with a hook for single rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.errors import WaybillError
from app.importers import Column, Importer, Refused, value_of
from app.imports.file.dialect import Dialect
from app.imports.file.parse import Parsed, parse
from app.imports.file.single import DIGITS, shown
from app.imports.file.typed import TYPES, Cells, Reader
from app.imports.rows import Checked, Reject
from app.params import did_you_mean

Places = np.ndarray[Any, np.dtype[np.int64]]

EMPTY, WRONG_TYPE, NO_CHOICE = "required", "type", "choice"
TOO_SMALL, TOO_LARGE, TOO_LONG, PATTERN, TWICE = "min", "max", "max_length", "pattern", "duplicate"

# What rules see decimals as.
EXACT = pa.decimal256(2 * DIGITS, DIGITS)


class BrokenHook(WaybillError):
    """The importer's own Python failed, or gave what its columns can't hold."""

    code = "broken_hook"


class Checker:
    """Checks chunk after chunk of one file; `mapping` says where in it each of the importer's columns is, and
    `width` how many columns it has.

    `columns` are those that are written: the file has them, or they have a default. `defaulted` are the names
    of those that the file lacks.
    """

    def __init__(
        self,
        importer: Importer,
        dialect: Dialect,
        mapping: Mapping[str, int | None],
        width: int,
    ) -> None:
        self._importer, self._dialect, self._width = importer, dialect, width
        self._places = {name: place for name, place in mapping.items() if place is not None}
        written = [c for c in importer.columns if c.name in self._places or c.default is not None]
        self.columns = tuple(written)
        self.defaulted = frozenset(column.name for column in written if column.name not in self._places)
        self._wanted = [self._places[c.name] for c in written if c.name in self._places]
        self._rules = [_Rules(column, dialect) for column in written]
        types = [(rules.column.name, rules.type) for rules in self._rules]
        self.schema = pa.schema([("line", pa.int64()), *types])

    def check(self, text: bytes, first_line: int) -> Checked:
        """`text` holds whole records in UTF-8, and begins with the file's line `first_line`.

        Raises BrokenHook.
        """
        parsed = parse(text, self._dialect, first_line, self._width, self._wanted)
        found = _Found(parsed)
        cells = iter(parsed.columns)
        columns = [
            rules.values(None if rules.column.name in self.defaulted else next(cells), found)
            for rules in self._rules
        ]
        rows = pa.RecordBatch.from_arrays([parsed.lines, *columns], schema=self.schema)
        rows = self._after_hooks(found.without_refused(rows), found)
        rows = self._without_twins(rows, found)
        return Checked(rows=rows, rejects=found.rejects(), read=parsed.read)

    def _after_hooks(self, rows: pa.RecordBatch, found: _Found) -> pa.RecordBatch:
        if type(self._importer).check is not Importer.check:
            self._check_rows(rows, found)
            rows = found.without_refused(rows)
        if self._importer.row is not None:
            rows = found.without_refused(self._each_row(rows, found))
        return rows

    def _check_rows(self, rows: pa.RecordBatch, found: _Found) -> None:
        given = self._exact(rows)
        try:
            for broken, column, code, message in self._importer.check(given):
                places = np.flatnonzero(pc.fill_null(broken, False))
                found.add_lines(rows, places, column, code, message)
        except Exception as error:
            raise BrokenHook(f"check() of the importer {self._importer.key} failed: {error!r}") from error

    def _exact(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """With decimals as numbers."""
        columns = [
            pc.cast(rows.column(c.name), EXACT) if c.type == "decimal" else rows.column(c.name)
            for c in self.columns
        ]
        return pa.RecordBatch.from_arrays([rows.column("line"), *columns], names=rows.schema.names)

    def _each_row(self, rows: pa.RecordBatch, found: _Found) -> pa.RecordBatch:
        decimals = [column.name for column in self.columns if column.type == "decimal"]
        taken: list[dict[str, Any]] = []
        for place, row in enumerate(rows.to_pylist()):
            line = row.pop("line")
            for name in decimals:
                row[name] = None if row[name] is None else Decimal(row[name])
            given = self._row(line, row, place, rows, found)
            taken.append({"line": line} | given)
        try:
            for given in taken:
                given.update((rules.column.name, rules.stored(given)) for rules in self._rules)
            return pa.RecordBatch.from_pylist(taken, schema=self.schema)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise BrokenHook(
                f"row() of the importer {self._importer.key} gave a value that its column can't hold: {error}"
            ) from error

    def _row(
        self, line: int, row: dict[str, Any], place: int, rows: pa.RecordBatch, found: _Found
    ) -> dict[str, Any]:
        """What the author's hook makes of one row."""
        try:
            given = self._importer.row(dict(row))
        except Refused as refused:
            found.add_lines(rows, np.array([place]), refused.column, refused.code, str(refused))
            return row
        except Exception as error:
            raise BrokenHook(
                f"row() of the importer {self._importer.key} failed at line {line:,}: {error!r}"
            ) from error
        if not isinstance(given, Mapping) or not given.keys() <= row.keys():
            raise BrokenHook(
                f"row() of the importer {self._importer.key} must return the row's values by the names "
                f"{', '.join(row)}; at line {line:,} it returned {given!r:.200}."
            )
        return {**row, **given}

    def _without_twins(self, rows: pa.RecordBatch, found: _Found) -> pa.RecordBatch:
        """Of rows with equal values where there may be none, the first stays.

        Those with the same natural key are one row, of which the last is written: they are no twins.
        """
        for column in self.columns:
            if column.unique and (column.name,) != self._importer.natural_key:
                for place, line in self._twins(rows, column.name):
                    text = shown(str(rows.column(column.name)[place].as_py()))
                    message = f"{text} is in line {line:,} already, and no two rows may share it."
                    found.add_lines(rows, np.array([place]), column.name, TWICE, message)
                rows = found.without_refused(rows)
        return rows

    def _twins(self, rows: pa.RecordBatch, name: str) -> Iterable[tuple[int, int]]:
        values = rows.column(name)
        coded = pc.dictionary_encode(values)
        if len(coded.dictionary) == len(values) - values.null_count:
            return
        sharing: dict[Any, list[int]] = defaultdict(list)
        counts = pc.value_counts(values.drop_null())
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        for place in np.flatnonzero(pc.is_in(values, twice, skip_nulls=True)).tolist():
            sharing[values[place].as_py()].append(place)
        keys = [rows.column(key) for key in self._importer.natural_key if key in rows.schema.names]
        for places in sharing.values():
            survivors = {tuple(key[at].as_py() for key in keys) or at: at for at in places}
            first, *others = sorted(survivors.values())
            for place in others:
                yield place, rows.column("line")[first].as_py()


class _Found:
    """What is wrong with the rows of a chunk, by line."""

    def __init__(self, parsed: Parsed) -> None:
        self._parsed, self.rows = parsed, len(parsed.lines)
        self._by_place: dict[int, list[tuple[str | None, str, str]]] = defaultdict(list)

    def add(self, places: Places, column: str | None, code: str, message: Callable[[int], str]) -> None:
        """`places` count the parsed rows from 0; `message` is asked for each of them."""
        for place in places.tolist():
            self._by_place[place].append((column, code, message(place)))

    def add_lines(
        self, rows: pa.RecordBatch, places: Places, column: str | None, code: str, message: str
    ) -> None:
        """The same where `places` count what is left of the rows."""
        lines = np.asarray(rows.column("line"))[places]
        self.add(np.searchsorted(np.asarray(self._parsed.lines), lines), column, code, lambda _: message)

    def without_refused(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if not self._by_place:
            return rows
        refused = np.asarray(self._parsed.lines)[np.fromiter(self._by_place, np.int64)]
        return rows.filter(pa.array(~np.isin(np.asarray(rows.column("line")), refused)))

    def rejects(self) -> list[Reject]:
        """One for each refused record; with several faults it has the first one's column and code."""
        found = [self._reject(place, faults) for place, faults in self._by_place.items()]
        return sorted([*self._parsed.rejects, *found], key=lambda reject: reject.line)

    def _reject(self, place: int, faults: list[tuple[str | None, str, str]]) -> Reject:
        (column, code, message), *others = faults
        also = [f"{other}: {text}" if other else text for other, _, text in others]
        line = self._parsed.lines[place].as_py()
        return Reject(line, column, code, " ".join([message, *also]), self._parsed.record(place))


class _Rules:
    """One column's type and rules."""

    def __init__(self, column: Column, dialect: Dialect) -> None:
        self.column, self.type = column, TYPES[column.type]
        self._reader = Reader(column, dialect)

    def values(self, cells: Cells | None, found: _Found) -> Cells:
        """Typed values; None: the file lacks the column. What is wrong goes to `found`."""
        column = self.column
        if cells is None:
            return pa.repeat(self._default, found.rows)
        typed = self._reader.read(cells)
        self._add(found, typed.bad, WRONG_TYPE, lambda at: self._reader.complaint(cells[at].as_py()))
        values = typed.values if column.default is None else pc.fill_null(typed.values, self._default)
        if column.required and values.null_count:
            empty = np.setdiff1d(np.flatnonzero(pc.is_null(values)), typed.bad)
            self._add(found, empty, EMPTY, lambda _: "The cell is empty; it must have a value.")
        for broken, code, message in self._broken(values):
            if broken is not None and pc.any(broken).as_py():
                places = np.flatnonzero(pc.fill_null(broken, False))
                texts = {at: message(cells[at].as_py(), values[at].as_py()) for at in places.tolist()}
                self._add(found, places, code, texts.__getitem__)
        return values

    def stored(self, row: Mapping[str, Any]) -> Any:
        """The column's value in a row of Python's, as it is in `rows`."""
        value = row[self.column.name]
        decimal = self.column.type == "decimal" and value is not None
        return format(value_of("decimal", value), "f") if decimal else value

    def _add(self, found: _Found, places: Places, code: str, message: Callable[[int], str]) -> None:
        found.add(places, self.column.name, code, message)

    def _broken(self, values: Cells) -> Iterable[tuple[Cells | None, str, Callable[[str, Any], str]]]:
        """(which rows break a rule, its code, what to say of the cell's text and value)."""
        column = self.column
        if column.choices:
            taken = pa.array(column.choices, pa.string())
            other = pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, taken)))
            yield other, NO_CHOICE, self._no_choice
        if column.min is not None:
            yield self._beyond(values, self._min, pc.less), TOO_SMALL, self._too_small
        if column.max is not None:
            yield self._beyond(values, self._max, pc.greater), TOO_LARGE, self._too_large
        if column.max_length is not None:
            yield self._longer(values, column.max_length), TOO_LONG, self._too_long
        if column.pattern is not None:
            matching = pc.match_substring_regex(values, rf"\A(?:{column.pattern})\z")
            yield pc.invert(matching), PATTERN, self._no_match

    def _beyond(self, values: Cells, limit: Any, compare: Callable[..., Cells]) -> Cells | None:
        if self.column.type != "decimal":
            return compare(values, pa.scalar(limit, values.type))
        # Floats are quick, and say truly that all values are on the limit's right side.
        reach = pc.min_max(pc.cast(values, pa.float64()))
        nearest = reach["min" if compare is pc.less else "max"].as_py()
        if nearest is None or (nearest > limit if compare is pc.less else nearest < limit):
            return None
        return compare(pc.cast(values, EXACT), pa.scalar(limit).cast(EXACT))

    def _longer(self, values: Cells, limit: int) -> Cells | None:
        if (pc.max(pc.binary_length(values)).as_py() or 0) <= limit:
            return None
        return pc.greater(pc.utf8_length(values), limit)

    def _no_choice(self, text: str, _: Any) -> str:
        return f"{shown(text)} is none of the choices.{did_you_mean(text[:80], self.column.choices)}"

    def _too_small(self, text: str, _: Any) -> str:
        return f"{shown(text)} is less than {self._min}, the least that is taken."

    def _too_large(self, text: str, _: Any) -> str:
        return f"{shown(text)} is more than {self._max}, the most that is taken."

    def _too_long(self, _: str, value: str) -> str:
        return f"The text has {len(value):,} characters; at most {self.column.max_length:,} are taken."

    def _no_match(self, text: str, _: Any) -> str:
        return f"{shown(text)} does not look as it must: {self.column.pattern}"

    @cached_property
    def _min(self) -> Any:
        return value_of(self.column.type, self.column.min)

    @cached_property
    def _max(self) -> Any:
        return value_of(self.column.type, self.column.max)

    @cached_property
    def _default(self) -> pa.Scalar[Any]:
        value = value_of(self.column.type, self.column.default)
        return pa.scalar(self.stored({self.column.name: value}), self.type)
