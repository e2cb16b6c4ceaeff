from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import WaybillError
from app.params import KINDS, Choice, InvalidParams, Param, Params, json_schema
from app.params.kinds import LIST_ITEMS, Moment
from app.params.spans import EXAMPLES, span

# A Thursday, late in the evening in UTC: already the first of May in Berlin.
NOW = datetime(2026, 4, 30, 22, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def validate(param: Param, raw: object, tz=UTC):
    return Params([param]).validate({param.name: raw}, now=NOW, tz=tz)[param.name]


def refusal(param: Param, raw: object) -> str:
    with pytest.raises(InvalidParams) as caught:
        validate(param, raw)
    return caught.value.errors[param.name]


def of(type: str, **options: object) -> Param:
    if type == "enum":
        options = {"choices": ("open", ("done", "Finished")), **options}
    return Param("it", type, **options)  # type: ignore[arg-type]


GOOD = [
    ("text", "  Acme, Inc. ", "Acme, Inc."),
    ("text", 'Zoë\'s "best"\n価格 ✓', 'Zoë\'s "best"\n価格 ✓'),
    ("text", "'; DROP TABLE jobs; --", "'; DROP TABLE jobs; --"),
    ("text", "<script>alert(1)</script>", "<script>alert(1)</script>"),
    ("int", "42", 42),
    ("int", " -7 ", -7),
    ("int", "+0009", 9),
    ("int", 42, 42),
    ("int", 42.0, 42),
    ("int", "9223372036854775807", 2**63 - 1),
    ("int", "-9223372036854775808", -(2**63)),
    ("decimal", "12.50", "12.5"),
    ("decimal", ".5", "0.5"),
    ("decimal", "-0.00", "0"),
    ("decimal", "100", "100"),
    ("decimal", 0.1, "0.1"),
    ("decimal", 3, "3"),
    ("decimal", "1e3", "1000"),
    ("decimal", "0.1234567890123456789012345678901234567890", "0.123456789012345678901234567890123456789"),
    ("bool", True, True),
    ("bool", "on", True),
    ("bool", "No", False),
    ("bool", 0, False),
    ("bool", "1", True),
    ("date", "2024-02-29", "2024-02-29"),
    ("date", date(2024, 2, 29), "2024-02-29"),
    ("date", "0001-01-01", "0001-01-01"),
    ("date", "  Yesterday ", "2026-04-29"),
    ("datetime", "2026-01-31T13:45", "2026-01-31T13:45:00Z"),
    ("datetime", "2026-01-31 13:45:59.25+02:00", "2026-01-31T11:45:59.250000Z"),
    ("datetime", "2026-01-31T13:45z", "2026-01-31T13:45:00Z"),
    ("datetime", "2026-01-31", "2026-01-31T00:00:00Z"),
    ("datetime", "now", "2026-04-30T22:30:00Z"),
    ("enum", "done", "done"),
    ("list", "a\r\n b \n\n,c,\td", ["a", "b", "c", "d"]),
    ("list", ["a, b", 7, "c"], ["a, b", "7", "c"]),
    ("list", [], []),
]

BAD = [
    ("text", 5),
    ("text", ["a"]),
    ("text", "a\0b"),
    ("text", "half \ud800 character"),
    ("text", "x" * 1001),
    ("int", "4.2"),
    ("int", "4,200"),
    ("int", "٣"),
    ("int", "1e3"),
    ("int", True),
    ("int", float("inf")),
    ("int", 2**63),
    ("int", "9223372036854775808"),
    ("int", "9" * 10_000_000),
    ("int", {"a": 1}),
    ("decimal", "12,50"),
    ("decimal", "NaN"),
    ("decimal", "Infinity"),
    ("decimal", float("nan")),
    ("decimal", "1e999"),
    ("decimal", "1e-999"),
    ("decimal", 10**5000),
    ("decimal", "1" * 10_000_000),
    ("decimal", False),
    ("bool", "maybe"),
    ("bool", 2),
    ("bool", ["true"]),
    ("date", "2026-02-30"),
    ("date", "31.12.2025"),
    ("date", "20251231"),
    ("date", "2026-W01-1"),
    ("date", "soon"),
    ("date", "9999 years ago"),
    ("date", "x" * 10_000_000),
    ("date", 20251231),
    ("date", datetime(2026, 1, 1, tzinfo=UTC)),
    ("datetime", "2026-01-31T25:00"),
    ("datetime", "2026-01-31T13:45+99:00"),
    ("datetime", "0001-01-01T00:00+14:00"),
    ("datetime", "9999-12-31T23:59-12:00"),
    ("enum", "Finished"),
    ("enum", "OPEN"),
    ("enum", 1),
    ("list", 5),
    ("list", [["a"]]),
    ("list", [None]),
    ("list", ["a\0"]),
    ("list", {"a": "b"}),
    ("list", ["x" * 1001]),
]


@pytest.mark.parametrize(("type", "raw", "frozen"), GOOD)
def test_a_good_value_is_frozen_to_json(type, raw, frozen):
    found = validate(of(type), raw)
    assert found == frozen
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(("type", "raw"), BAD, ids=[f"{type}-{i}" for i, (type, _) in enumerate(BAD)])
def test_a_bad_value_is_refused_in_a_short_sentence(type, raw):
    message = refusal(of(type), raw)
    assert message.endswith(".")
    assert len(message) < 200


@pytest.mark.parametrize("type", KINDS)
@pytest.mark.parametrize("nothing", ["", "   ", None])
def test_an_empty_value_is_null_whatever_the_default(type, nothing):
    assert validate(of(type), nothing) is None


@pytest.mark.parametrize("type", KINDS)
def test_an_absent_value_is_the_default(type):
    default = {"int": 5, "decimal": "1.5", "bool": "yes", "enum": "open", "list": ["a"]}.get(type, "today")
    param = of(type, default=default)
    found = Params([param]).validate({}, now=NOW, tz=UTC)["it"]
    assert found == validate(param, default)
    assert Params([param]).defaults(now=NOW, tz=UTC) == {"it": found}


@pytest.mark.parametrize("type", KINDS)
def test_a_required_value_must_be_there(type):
    assert "required" in refusal(of(type, required=True), "")


def test_an_empty_list_does_not_fill_a_required_one():
    assert refusal(of("list", required=True), []) == "Enter 1 or more values."


def test_all_errors_come_at_once_and_unknown_names_too():
    params = Params([of("int"), Param("since", "date"), Param("fine")])
    with pytest.raises(InvalidParams) as caught:
        params.validate({"it": "x", "since": "x", "fine": "x", "sinc": "x"}, now=NOW, tz=UTC)
    assert list(caught.value.errors) == ["sinc", "it", "since"]
    assert caught.value.errors["sinc"] == "There is no such parameter. Did you mean since?"
    assert isinstance(caught.value, WaybillError)
    assert caught.value.code == "invalid_params"


def test_hostile_names_are_told_back_short_and_few():
    raw = {f"<b>{number}\n\0" + "x" * 100_000: 1 for number in range(1000)}
    with pytest.raises(InvalidParams) as caught:
        Params([of("int")]).validate(raw, now=NOW, tz=UTC)
    assert len(str(caught.value)) < 5000
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize(
    ("type", "options", "raw", "message"),
    [
        ("int", {"min": 1, "max": 10}, 0, "Enter 1 or more."),
        ("int", {"min": 1, "max": 10}, "11", "Enter 10 or less."),
        ("decimal", {"min": "0.01"}, "0.001", "Enter 0.01 or more."),
        ("date", {"min": "2020-01-01"}, "2019-12-31", "Enter 2020-01-01 or later."),
        ("date", {"max": "this month"}, "2026-05-01", "Enter 2026-04-30 or earlier."),
        ("datetime", {"max": "today"}, "2026-05-01T00:00", "Enter 2026-04-30T23:59:59.999999Z or earlier."),
        ("list", {"min": 2}, "a", "Enter 2 or more values."),
        ("list", {"max": 2}, "a,b,c", "Enter 2 or fewer values; these are 3."),
        ("list", {"items": "int"}, "1\n2\nx", "Value 3: Enter a whole number, such as 42."),
        ("list", {"max_length": 3}, "abcd", "Value 1: Use at most 3 characters; these are 4."),
        ("text", {"max_length": 3}, "abcd", "Use at most 3 characters; these are 4."),
        ("enum", {}, "opne", "Choose one of: open, done."),
        ("list", {}, ["a"] * (LIST_ITEMS + 1), "Enter at most 1,000,000 values; these are 1,000,001."),
    ],
)
def test_a_bound_is_told(type, options, raw, message):
    assert refusal(of(type, **options), raw) == message


def test_lists_of_a_million_values_are_taken():
    assert validate(of("list", items="int"), "\n".join(map(str, range(LIST_ITEMS)))) == list(
        range(LIST_ITEMS)
    )


SPANS = {
    "today": ("2026-04-30", "2026-04-30"),
    "yesterday": ("2026-04-29", "2026-04-29"),
    "tomorrow": ("2026-05-01", "2026-05-01"),
    "7 days ago": ("2026-04-23", "2026-04-23"),
    "1 day ago": ("2026-04-29", "2026-04-29"),
    "2 weeks ago": ("2026-04-16", "2026-04-16"),
    "2 months ago": ("2026-02-28", "2026-02-28"),
    "3 months ago": ("2026-01-30", "2026-01-30"),
    "1 quarter ago": ("2026-01-30", "2026-01-30"),
    "2 years ago": ("2024-04-30", "2024-04-30"),
    "this week": ("2026-04-27", "2026-05-03"),
    "last week": ("2026-04-20", "2026-04-26"),
    "this month": ("2026-04-01", "2026-04-30"),
    "last month": ("2026-03-01", "2026-03-31"),
    "next month": ("2026-05-01", "2026-05-31"),
    "this quarter": ("2026-04-01", "2026-06-30"),
    "last quarter": ("2026-01-01", "2026-03-31"),
    "this year": ("2026-01-01", "2026-12-31"),
    "last year": ("2025-01-01", "2025-12-31"),
}


@pytest.mark.parametrize("words", SPANS)
def test_relative_dates(words):
    first, last = SPANS[words]
    assert validate(of("date"), words) == first
    assert validate(of("date", edge="end"), words.upper()) == last
    assert validate(of("datetime"), words) == f"{first}T00:00:00Z"
    assert validate(of("datetime", edge="end"), words) == f"{last}T23:59:59.999999Z"


def test_today_is_the_day_where_the_person_is():
    assert validate(of("date"), "today", tz=BERLIN) == "2026-05-01"
    assert validate(of("date"), "last month", tz=BERLIN) == "2026-04-01"
    assert validate(of("datetime"), "today", tz=BERLIN) == "2026-04-30T22:00:00Z"
    assert validate(of("datetime"), "2026-07-01T12:00", tz=BERLIN) == "2026-07-01T10:00:00Z"


def test_a_time_that_the_clocks_skip_is_still_a_time():
    assert validate(of("datetime"), "2026-03-29T02:30", tz=BERLIN) == "2026-03-29T01:30:00Z"


@given(st.dates(), st.sampled_from(["week", "month", "quarter", "year"]))
def test_spans_follow_each_other_without_gap_or_overlap(today, unit):
    try:
        last, this = span(f"last {unit}", today), span(f"this {unit}", today)
    except OverflowError:
        assert today.year in (1, 9999)
        return
    assert last
    assert this
    assert last[0] <= last[1]
    assert last[1] + timedelta(days=1) == this[0]
    assert this[0] <= today <= this[1]


@given(st.dates(min_value=date(1000, 1, 1)), st.integers(0, 9999))
def test_months_ago_is_as_many_months_back(today, count):
    found = span(f"{count} months ago", today)
    assert found
    assert found[0] == found[1]
    months = (today.year - found[0].year) * 12 + today.month - found[0].month
    assert months == count
    assert found[0].day <= today.day


def test_the_examples_shown_to_people_work():
    assert all(span(words, date(2026, 4, 30)) for words in EXAMPLES)


ANY_PARAMS = Params([Param(name, name, choices=("a", "b") if name == "enum" else ()) for name in KINDS])
RAW = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from([*SPANS, "now", "a", "1.50", "true", "2026-01-31", "2026-01-31T10:00+01:00"]),
    st.dates().map(str),
    st.datetimes(timezones=st.just(timezone(timedelta(hours=9)))).map(str),
    st.decimals().map(str),
    st.lists(st.one_of(st.text(), st.integers())),
    st.dictionaries(st.text(), st.text(), max_size=1),
)


def without_refused(raw):
    try:
        ANY_PARAMS.validate(raw, now=NOW, tz=BERLIN)
    except InvalidParams as invalid:
        refused = invalid.errors
        return {name: value for name, value in raw.items() if name not in refused}
    return raw


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(KINDS, RAW)))
def test_whatever_comes_in_is_frozen_or_refused(raw):
    frozen = ANY_PARAMS.validate(without_refused(raw), now=NOW, tz=BERLIN)
    stored = json.loads(json.dumps(frozen))
    assert stored == frozen
    assert list(frozen) == ANY_PARAMS.names
    later = ANY_PARAMS.validate(stored, now=NOW + timedelta(days=400), tz=UTC)
    assert later == frozen
    assert ANY_PARAMS.bind(stored).keys() == frozen.keys()


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**80), max_value=10**80))
def test_decimals_are_exact(value):
    if abs(value.adjusted()) >= 100:
        return
    frozen = Params([of("decimal")]).validate({"it": value}, now=NOW, tz=UTC)
    assert Params([of("decimal")]).bind(frozen)["it"] == value
    assert "E" not in str(frozen["it"]).upper()


def test_bound_values_have_the_types_of_the_query():
    frozen = {
        "text": "x",
        "int": 1,
        "decimal": "1.50",
        "bool": False,
        "date": "2026-01-31",
        "datetime": "2026-01-31T10:00:00Z",
        "enum": "a",
        "list": ["a"],
    }
    assert ANY_PARAMS.bind(frozen) == {
        "text": "x",
        "int": 1,
        "decimal": Decimal("1.50"),
        "bool": False,
        "date": date(2026, 1, 31),
        "datetime": datetime(2026, 1, 31, 10, tzinfo=UTC),
        "enum": "a",
        "list": ["a"],
    }


def test_binding_stands_a_report_that_has_changed_since():
    assert Params([of("int")]).bind({"gone": 1}) == {"it": None}
    with pytest.raises(InvalidParams) as caught:
        Params([of("int")]).bind({"it": "2026-01-31"})
    assert caught.value.errors == {"it": "Enter a whole number, such as 42."}
    with pytest.raises(InvalidParams):
        Params([of("date")]).bind({"it": "today"})


def test_labels_and_choices_may_be_left_to_waybill():
    param = Param("created_since", choices=("a", ("b", "B!"), {"value": "c"}, {"value": "d", "label": "D!"}))
    assert param.label == "Created since"
    assert param.choices == (Choice("a", "a"), Choice("b", "B!"), Choice("c", "c"), Choice("d", "D!"))


@pytest.mark.parametrize(
    ("param", "problem"),
    [
        (Param("Since"), "param 'Since': use lower-case letters"),
        (Param("current_user_id"), "param 'current_user_id': use lower-case letters"),
        (Param("it", "dat"), "param it: there is no type 'dat'. Did you mean date?"),
        (Param("it", "enum"), "param it: an enum needs choices"),
        (Param("it", "enum", choices=("a", "a")), "param it: choices must be different"),
        (Param("it", "int", default="x"), "param it: the default 'x' is wrong: Enter a whole number"),
        (Param("it", "int", default=5, max=3), "param it: the default 5 is wrong: Enter 3 or less."),
        (Param("it", "int", min="x"), "param it: min or max is wrong: Enter a whole number"),
        (Param("it", "int", min=3, max=1), "param it: min 3 is more than max 1"),
        (Param("it", "text", min=3), "param it: 'min' has no meaning for text, only for int"),
        (
            Param("it", "text", edge="end"),
            "param it: 'edge' has no meaning for text, only for date, datetime",
        ),
        (Param("it", "date", edge="middle"), "param it: edge is 'middle'; use 'start' or 'end'"),  # type: ignore[arg-type]
        (Param("it", "list", items="date"), "param it: items is 'date'; use 'text' or 'int'"),  # type: ignore[arg-type]
        (Param("it", "text", max_length=0), "param it: max_length must be 1 or more"),
        (
            Param("it", "date", default="last mont"),
            "param it: the default 'last mont' is wrong: Enter a date",
        ),
    ],
)
def test_a_wrong_definition_is_told_to_its_author(param, problem):
    assert next(iter(param.problems(Moment.at(NOW, UTC)))).startswith(problem)


@pytest.mark.parametrize("type", KINDS)
def test_a_plain_definition_has_no_problems(type):
    assert list(of(type).problems(Moment.at(NOW, UTC))) == []


def test_json_schema_says_what_the_api_takes():
    schema = json_schema(
        Params(
            [
                Param("limit", "int", required=True, min=1, max="10", help="How many."),
                Param("since", "date", default="last month"),
                Param("status", "enum", choices=("open", "done")),
                Param("ids", "list", items="int", max=5),
                Param("amount", "decimal", min="0.5", default="1.50", required=True),
                Param("text", max_length=9),
            ]
        )
    )
    properties = schema["properties"]
    assert schema["required"] == ["limit"]
    assert schema["additionalProperties"] is False
    assert properties["limit"] == {
        "title": "Limit",
        "type": "integer",
        "minimum": 1,
        "maximum": 10,
        "description": "How many.",
    }
    assert properties["since"]["type"] == ["string", "null"]
    assert properties["since"]["default"] == "last month"
    assert "last quarter" in properties["since"]["description"]
    assert properties["status"]["enum"] == ["open", "done", None]
    assert properties["ids"]["items"] == {"type": "integer"}
    assert properties["ids"]["maxItems"] == 5
    assert properties["amount"]["minimum"] == 0.5
    assert properties["amount"]["default"] == "1.50"
    assert properties["text"] == {"title": "Text", "type": ["string", "null"], "maxLength": 9}
    json.dumps(schema)
