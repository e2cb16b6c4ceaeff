"""Cells as typed values by the file's dialect, the rules of columns, and the hooks of importers."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.formats import find
from app.importers import Column, Importer, Refused, Registry
from app.imports.file.check import BrokenHook, Checker
from app.imports.file.dialect import Dialect
from app.imports.rows import Checked

NAUGHTY: list[str] = json.loads((Path(__file__).parents[2] / "data" / "blns.json").read_text())
PLAIN = Dialect()
EUROPEAN = Dialect(delimiter=";", decimal=",", dates="dmy", zone="Europe/Berlin")
AMERICAN = Dialect(dates="mdy", zone="America/New_York")


def importer(*columns: Column, key: Sequence[str] = (), of: type[Importer] = Importer) -> Importer:
    made = of()
    made.key, made.columns, made.natural_key = "things", columns, tuple(key)
    return made


def check(
    text: str,
    *columns: Column,
    dialect: Dialect = PLAIN,
    key: Sequence[str] = (),
    of: type[Importer] = Importer,
) -> Checked:
    """The columns stand in the file in their order."""
    places: dict[str, int | None] = {column.name: place for place, column in enumerate(columns)}
    made = importer(*columns, key=key, of=of)
    return Checker(made, dialect, places, len(columns)).check(text.encode(), 2)


def value(text: str, dialect: Dialect = PLAIN, **options: Any) -> Any:
    """What one cell becomes; the reject's message if it is refused."""
    checked = check(quoted(text), Column(name="x", **options), dialect=dialect)
    if checked.rejects:
        assert [(r.line, r.column) for r in checked.rejects] == [(2, "x")]
        return checked.rejects[0].message
    return checked.rows.column("x")[0].as_py()


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"\n'


def faults(checked: Checked) -> list[tuple[int, str | None, str]]:
    return [(reject.line, reject.column, reject.code) for reject in checked.rejects]


TYPED: list[tuple[str, str, Dialect, Any]] = [
    ("int", "42", PLAIN, 42),
    ("int", "-0042", PLAIN, -42),
    ("int", "+7", PLAIN, 7),
    ("int", " 7\t", PLAIN, 7),
    ("int", "1,234,567", PLAIN, 1234567),
    ("int", "1.234.567", EUROPEAN, 1234567),
    ("int", "1 234 567", EUROPEAN, 1234567),
    ("int", "1\u202f234", PLAIN, 1234),
    ("int", "12.00", PLAIN, 12),
    ("int", "1e3", PLAIN, 1000),
    ("int", "\N{MINUS SIGN}5", PLAIN, -5),
    ("int", str(2**63 - 1), PLAIN, 2**63 - 1),
    ("int", str(-(2**63)), PLAIN, -(2**63)),
    ("int", "", PLAIN, None),
    ("decimal", "12.50", PLAIN, "12.50"),
    ("decimal", "12,50", EUROPEAN, "12.50"),
    ("decimal", "1.234,5", EUROPEAN, "1234.5"),
    ("decimal", "1,234.5", PLAIN, "1234.5"),
    ("decimal", "1'234.5", PLAIN, "1234.5"),
    ("decimal", "-.5", PLAIN, "-0.5"),
    ("decimal", "5.", PLAIN, "5"),
    ("decimal", "1.5e-3", PLAIN, "0.0015"),
    ("decimal", "9" * 38 + "." + "9" * 38, PLAIN, "9" * 38 + "." + "9" * 38),
    ("bool", "t", PLAIN, True),
    ("bool", "FALSE", PLAIN, False),
    ("bool", "Yes", PLAIN, True),
    ("bool", "0", PLAIN, False),
    ("date", "2026-01-31", PLAIN, date(2026, 1, 31)),
    ("date", "2026/1/3", PLAIN, date(2026, 1, 3)),
    ("date", "2024-02-29", PLAIN, date(2024, 2, 29)),
    ("date", "0001-01-01", PLAIN, date(1, 1, 1)),
    ("date", "31.1.2026", EUROPEAN, date(2026, 1, 31)),
    ("date", "31/01/26", EUROPEAN, date(2026, 1, 31)),
    ("date", "01-02-1970", EUROPEAN, date(1970, 2, 1)),
    ("date", "1/31/2026", AMERICAN, date(2026, 1, 31)),
    ("date", "2026-01-31", AMERICAN, date(2026, 1, 31)),
    ("date", "31.01.2026 00:00:00", EUROPEAN, date(2026, 1, 31)),
    ("datetime", "2026-01-31 12:30:00+00", PLAIN, datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
    ("datetime", "2026-01-31T12:30:00.25Z", PLAIN, datetime(2026, 1, 31, 12, 30, 0, 250_000, UTC)),
    ("datetime", "2026-01-31 12:30+05:30", PLAIN, datetime(2026, 1, 31, 7, tzinfo=UTC)),
    ("datetime", "2026-01-31 12:30", PLAIN, datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
    ("datetime", "2026-01-31", PLAIN, datetime(2026, 1, 31, tzinfo=UTC)),
    ("datetime", "31.07.2026 12:30", EUROPEAN, datetime(2026, 7, 31, 10, 30, tzinfo=UTC)),
    ("datetime", "31.7.2026, 12:30:15", EUROPEAN, datetime(2026, 7, 31, 10, 30, 15, tzinfo=UTC)),
    ("datetime", "1/31/2026 12:05 AM", AMERICAN, datetime(2026, 1, 31, 5, 5, tzinfo=UTC)),
    ("datetime", "1/31/2026 3:05 p.m.", AMERICAN, datetime(2026, 1, 31, 20, 5, tzinfo=UTC)),
    ("datetime", "25.10.2026 02:30", EUROPEAN, datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
    ("datetime", "29.03.2026 02:30", EUROPEAN, datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
    ("datetime", "31.07.2050 12:30", EUROPEAN, datetime(2050, 7, 31, 10, 30, tzinfo=UTC)),
    ("uuid", "123E4567-E89B-12D3-A456-426614174000", PLAIN, "123e4567-e89b-12d3-a456-426614174000"),
    ("uuid", "{123e4567e89b12d3a456426614174000}", PLAIN, "123e4567-e89b-12d3-a456-426614174000"),
    ("json", '{"a": [1, 2.50]}', PLAIN, '{"a": [1, 2.50]}'),
    ("text", "  both ends ", PLAIN, "  both ends "),
    ("text", "", PLAIN, ""),
]


@pytest.mark.parametrize(("type", "text", "dialect", "expected"), TYPED)
def test_texts_become_values(type, text, dialect, expected):
    assert value(text, dialect, type=type) == expected
    # Beside a cell that is wrong, it is read another way.
    both = check(quoted(text) + quoted("wrong"), Column(name="x", type=type), dialect=dialect)
    assert both.rows.column("x")[0].as_py() == expected


@pytest.mark.parametrize(
    ("type", "text", "message"),
    [
        ("int", "12a", "'12a' is no whole number; write it like 42."),
        ("int", "0x1F", "'0x1F' is no whole number; write it like 42."),
        ("int", "1,23", "'1,23' is no whole number; write it like 42."),
        ("int", "１", "'１' is no whole number; write it like 42."),
        ("int", "1.5", "'1.5' has a fraction or is too large for a whole number of 64 bits."),
        ("int", str(2**63), f"'{2**63}' has a fraction or is too large for a whole number of 64 bits."),
        ("decimal", "abc", "'abc' is no number; write it like 1234.50."),
        ("decimal", "NaN", "'NaN' is no number; write it like 1234.50."),
        ("decimal", "1-2", "'1-2' is no number; write it like 1234.50."),
        ("decimal", "-", "'-' is no number; write it like 1234.50."),
        ("decimal", "1e99", "'1e99' has more than 38 digits on one side of its decimal mark."),
        ("bool", "maybe", "'maybe' is neither true nor false; write one of them."),
        ("date", "31/02/2026", "'31/02/2026' is no date; write it like 2026-01-31."),
        ("date", "2026-02-31", "'2026-02-31' is no date; write it like 2026-01-31."),
        ("date", "0000-01-01", "'0000-01-01' is no date; write it like 2026-01-31."),
        ("date", "infinity", "'infinity' is no date; write it like 2026-01-31."),
        ("date", "2026-01-31 12:30", "'2026-01-31 12:30' is no date; write it like 2026-01-31."),
        ("datetime", "now", "'now' is no date with a time; write it like 2026-01-31 13:45:00."),
        ("datetime", "2026-01-31 25:00", "'2026-01-31 25:00' is no date with a time; write it like"),
        ("uuid", "123", "'123' is no UUID; write it like 123e4567-e89b-12d3-a456-426614174000."),
        ("json", "{a: 1}", "'{a: 1}' is no JSON: "),
        ("json", "NaN", "'NaN' is no JSON: "),
        ("json", '"\\u0000"', "is no JSON: it has a NUL character."),
        ("json", "[" * 100_000, "is nested too deeply"),
    ],
)
def test_what_is_no_such_value_is_refused_in_plain_words(type, text, message):
    assert message in value(text, type=type)


def test_the_example_is_as_the_file_writes_it():
    assert value("x", EUROPEAN, type="date").endswith("write it like 31.01.2026.")
    assert value("x", AMERICAN, type="datetime").endswith("write it like 01/31/2026 13:45:00.")
    assert value("x", EUROPEAN, type="decimal").endswith("write it like 1234,50.")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {"required": True}, "The cell is empty; it must have a value."),
        ("opne", {"choices": ("open", "done")}, "'opne' is none of the choices. Did you mean open?"),
        ("0", {"type": "int", "min": 1}, "'0' is less than 1, the least that is taken."),
        ("6", {"type": "int", "max": 5}, "'6' is more than 5, the most that is taken."),
        ("0.009", {"type": "decimal", "min": "0.01"}, "'0.009' is less than 0.01, the least that is taken."),
        ("1999-12-31", {"type": "date", "min": date(2000, 1, 1)}, "is less than 2000-01-01"),
        ("2026-01-02", {"type": "datetime", "max": "2026-01-01"}, "is more than 2026-01-01 00:00:00+00:00"),
        ("äöüß", {"max_length": 3}, "The text has 4 characters; at most 3 are taken."),
        ("AB1", {"pattern": "[A-Z]+"}, "'AB1' does not look as it must: [A-Z]+"),
        ("AB\n", {"pattern": "[A-Z]+"}, "'AB\\n' does not look as it must: [A-Z]+"),
    ],
)
def test_rules_of_a_column(text, options, message):
    assert message in value(text, **options)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("äöü", {"max_length": 3, "pattern": "[äöü]*", "choices": ("äöü",)}, "äöü"),
        ("1", {"type": "int", "min": 1, "max": 1}, 1),
        ("0.010", {"type": "decimal", "min": "0.01", "max": 1}, "0.010"),
        ("", {"type": "int", "default": 7, "required": True}, 7),
        ("", {"default": "open", "choices": ("open",)}, "open"),
        ("", {"type": "decimal", "default": 1.5}, "1.5"),
        ("", {"type": "date", "default": date(2026, 1, 31)}, date(2026, 1, 31)),
        ("", {"type": "int", "min": 1}, None),
    ],
)
def test_values_that_keep_to_the_rules(text, options, expected):
    assert value(text, **options) == expected


def test_a_column_that_the_file_lacks_has_its_default_or_is_not_written():
    made = importer(Column(name="a"), Column(name="b", default="x"), Column(name="c"))
    checker = Checker(made, PLAIN, {"a": 1, "b": None, "c": None}, 2)
    checked = checker.check(b"1,2\n3,4\n", 5)
    assert checked.rows.to_pylist() == [{"line": 5, "a": "2", "b": "x"}, {"line": 6, "a": "4", "b": "x"}]
    assert [column.name for column in checker.columns] == ["a", "b"]
    assert checker.defaulted == {"b"}
    assert checked.rows.schema == checker.schema


def test_a_refused_row_tells_everything_that_is_wrong_with_it():
    columns = (
        Column(name="id", type="int"),
        Column(name="due_on", type="date"),
        Column(name="n", max_length=1),
    )
    [reject] = check("x,soon,abc\n", *columns).rejects
    assert (reject.line, reject.column, reject.code, reject.record) == (2, "id", "type", b"x,soon,abc")
    assert reject.message == (
        "'x' is no whole number; write it like 42. due_on: 'soon' is no date; write it like 2026-01-31. "
        "n: The text has 3 characters; at most 1 are taken."
    )


def test_good_rows_stay_in_their_order_beside_refused_ones():
    text = '1,a\nx,b\n"3","c\nd"\n4\n5,e\n'
    checked = check(text, Column(name="id", type="int"), Column(name="t"))
    assert checked.rows.to_pylist() == [
        {"line": 2, "id": 1, "t": "a"},
        {"line": 4, "id": 3, "t": "c\nd"},
        {"line": 7, "id": 5, "t": "e"},
    ]
    assert faults(checked) == [(3, "id", "type"), (6, None, "ragged")]
    assert checked.read == 5


class WithRules(Importer):
    def check(self, rows: pa.RecordBatch) -> Iterator[tuple[pa.BooleanArray, str | None, str, str]]:
        assert rows.column("amount").type == pa.decimal256(76, 38)
        yield pc.greater(rows.column("amount"), pa.scalar(5)), "amount", "large", "More than 5."
        yield pc.equal(rows.column("id"), pa.scalar(4)), None, "four", "Not 4."


AMOUNTS = (Column(name="id", type="int", required=True), Column(name="amount", type="decimal"))


def test_rules_across_columns_see_typed_rows_that_are_good_so_far():
    checked = check("1,5.00\n2,5.01\nx,9\n4,\n5,\n", *AMOUNTS, of=WithRules)
    assert faults(checked) == [(3, "amount", "large"), (4, "id", "type"), (5, None, "four")]
    assert [row["id"] for row in checked.rows.to_pylist()] == [1, 5]


class WithRow(Importer):
    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["id"] == 2:
            raise Refused("No 2 today.", column="id", code="no_two")
        assert row["amount"] is None or isinstance(row["amount"], Decimal)
        return {"amount": (row["amount"] or 0) + 1}


def test_each_row_may_be_changed_or_refused():
    checked = check("1,0.50\n2,1\n3,\nx,1\n", *AMOUNTS, of=WithRow)
    assert [(row["id"], row["amount"]) for row in checked.rows.to_pylist()] == [(1, "1.50"), (3, "1")]
    assert faults(checked) == [(3, "id", "no_two"), (5, "id", "type")]
    assert checked.rejects[0].message == "No 2 today."


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "nothing",
            "row() of the importer things must return the row's values by the names id, amount; at line",
        ),
        ({"other": 1}, "must return the row's values by the names id, amount; at line 2"),
        ({"id": "x"}, "row() of the importer things gave a value that its column can't hold"),
        (ZeroDivisionError("oh"), "row() of the importer things failed at line 2: ZeroDivisionError('oh')"),
    ],
)
def test_a_broken_hook_stops_the_import_and_says_where(given, message):
    class Broken(Importer):
        def row(self, row: dict[str, Any]) -> Any:
            if isinstance(given, Exception):
                raise given
            return given

    with pytest.raises(BrokenHook) as caught:
        check("1,2\n", *AMOUNTS, of=Broken)
    assert message in caught.value.message


def test_a_broken_rule_stops_the_import():
    class Broken(Importer):
        def check(self, rows: pa.RecordBatch) -> Any:
            return [rows.column("missing")]

    with pytest.raises(BrokenHook, match="check\\(\\) of the importer things failed: KeyError"):
        check("1,2\n", *AMOUNTS, of=Broken)


def test_of_rows_that_share_what_they_may_not_the_first_stays():
    columns = (Column(name="id", type="int", required=True), Column(name="mail", unique=True))
    checked = check("1,a\n2,b\n3,a\n4,\n5,\n6,a\n", *columns, key=["id"])
    assert faults(checked) == [(4, "mail", "duplicate"), (7, "mail", "duplicate")]
    assert checked.rejects[0].message == "'a' is in line 2 already, and no two rows may share it."


def test_two_lines_of_one_key_are_one_row_and_share_it():
    """The last one is written, by whoever merges: here both stay."""
    columns = (Column(name="id", type="int", required=True), Column(name="mail", unique=True))
    checked = check("1,a\n2,b\n1,a\n", *columns, key=["id"])
    assert checked.rejects == []
    assert len(checked.rows) == 3


def test_nothing_to_check():
    checked = check("", *AMOUNTS)
    assert (len(checked.rows), checked.rejects, checked.read) == (0, [], 0)


# What Waybill wrote comes back.

VALUES: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "t": ("text", st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)),
    "n": ("text", st.sampled_from([text for text in NAUGHTY if "\0" not in text])),
    "i": ("int", st.integers(-(2**63), 2**63 - 1)),
    "d": ("decimal", st.decimals(-(10**20), 10**20, places=5)),
    "b": ("bool", st.booleans()),
    "on": ("date", st.dates()),
    "at": ("datetime", st.datetimes(timezones=st.just(UTC))),
    "u": ("uuid", st.uuids()),
}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | made for name, (_, made) in VALUES.items()}), max_size=6
)
COLUMNS = tuple(Column(name=name, type=type) for name, (type, _) in VALUES.items())  # type: ignore[arg-type]


def back(name: str, zone: str, dialect: Dialect, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows written by one of our dialects and read again."""
    writing = find("csv", name)[0].writing(name, zone)
    text = b"".join(writing.rows(list(VALUES), [[row[name] for name in VALUES] for row in rows]))
    head = text.index(b"\n") + 1
    made = importer(*COLUMNS)
    places: dict[str, int | None] = {column: place for place, column in enumerate(VALUES)}
    checked = Checker(made, dialect, places, len(places)).check(text[head:], 2)
    assert checked.rejects == []
    return [
        {name: _python(VALUES[name][0], value) for name, value in row.items() if name != "line"}
        for row in checked.rows.to_pylist()
    ]


def _python(type: str, value: Any) -> Any:
    if value is None:
        return None
    return Decimal(value) if type == "decimal" else UUID(value) if type == "uuid" else value


@given(ROWS)
def test_files_for_programs_come_back_as_they_were(rows):
    assert back("machine", "UTC", PLAIN, rows) == rows


@given(ROWS, st.sampled_from(["spreadsheet", "spreadsheet-semicolon", "spreadsheet-tab"]))
def test_files_for_spreadsheets_come_back_but_for_fractions_of_a_second(rows, name):
    zone = "Europe/Berlin"
    delimiter = {"spreadsheet": ",", "spreadsheet-semicolon": ";", "spreadsheet-tab": "\t"}[name]
    decimal = "," if name == "spreadsheet-semicolon" else "."
    dialect = Dialect(delimiter=delimiter, decimal=decimal, zone=zone, apostrophes=True)
    for row in rows:
        if row["at"] is not None:
            row["at"] = _clear(row["at"])
    assert back(name, zone, dialect, rows) == rows


def _clear(moment: datetime) -> datetime:
    """A moment that a clock shows once."""
    return moment.replace(microsecond=0, year=min(max(moment.year, 2), 9998), month=6, day=7)


@pytest.mark.parametrize("text", ["=1+1", "'=1+1", "''=1+1", "'0012", "'tis", "-5", "'", "''", "1E5", "\t=x"])
def test_apostrophes_are_taken_away_only_where_they_were_put(text):
    row = dict.fromkeys(VALUES) | {"t": text}
    assert back("spreadsheet", "UTC", Dialect(apostrophes=True), [row]) == [row]


def test_naughty_strings_pass_whole():
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([text] for text in NAUGHTY)
    checked = check(buffer.getvalue(), Column(name="x"))
    assert checked.rows.column("x").to_pylist() == NAUGHTY
    assert checked.rejects == []


@given(
    st.lists(st.sampled_from(NAUGHTY) | st.text(max_size=5), min_size=1, max_size=5), st.sampled_from(COLUMNS)
)
def test_whatever_a_cell_says_it_is_a_value_or_refused(texts, column):
    lines = [text.replace("\0", "") for text in texts]
    for dialect in (PLAIN, EUROPEAN, AMERICAN):
        checked = check("".join(map(quoted, lines)), column, dialect=dialect)
        assert len(checked.rows) + len(checked.rejects) == checked.read == len(lines)


@given(st.decimals(-(10**30), 10**30, places=3), st.integers(-50, 50))
def test_limits_of_decimals_are_exact(number, limit):
    refused = value(f"{number:f}", type="decimal", min=limit) != f"{number:f}"
    assert refused == (number < limit)
    assert math.isfinite(number)


# Waybill's own importers.


def test_an_invoice_is_not_due_before_it_was_issued():
    invoices = Registry.load().get("invoices")
    places: dict[str, int | None] = {"number": 0, "company_id": 1, "issued_on": 2, "due_on": 3, "amount": 4}
    early, right = b"INV-2026-0001,Amber Labs,2026-01-31,2026-01-30", b"INV-2026-0002,A,2026-01-31,2026-03-01"
    text = early + b",12.50\n" + right + b",1\n"
    checked = Checker(invoices, PLAIN, places, 5).check(text, 2)
    assert faults(checked) == [(2, "due_on", "due_before_issued")]
    assert checked.rows.to_pylist()[0]["currency"] == "EUR"
