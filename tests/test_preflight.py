"""What is told of an export beforehand, and the columns that are chosen for it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from app import columns, exports, jobs, leases, preflight, sampling
from app.errors import InvalidParams
from app.extensions import db
from app.models import ColumnChoice, Job, User
from app.reports import Registry

ROWS = "SELECT i AS id, 'n' || i AS name, NULL AS nothing FROM generate_series(1, 2000) AS i"


@pytest.fixture(autouse=True)
def context(
    app: Any, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Reports of our own; inside the app, unless the test comes from outside."""

    def write(name: str, text: str) -> None:
        (tmp_path / name).write_text(dedent(text).lstrip())

    write(
        "rows.sql", f'/*\ntitle = "Rows"\n[columns]\nname = "What it is called"\n*/\n{ROWS} ORDER BY id DESC'
    )
    write("slow.sql", '/*\ntitle = "Slow"\n*/\nSELECT pg_sleep(30)')
    write("wrong.sql", '/*\ntitle = "Wrong"\n*/\nSELECT 1 / (i - i) AS none FROM generate_series(1, 3) AS i')
    write("twins.sql", '/*\ntitle = "Twins"\n*/\nSELECT 1 AS a, 2 AS a')
    write("quoted.sql", '/*\ntitle = "Quoted"\n*/\nSELECT 1 AS "100 %", 2 AS "say ""hi"""')
    write("most.sql", '/*\ntitle = "Most"\n*/\nSELECT i FROM generate_series(1, 3000000) AS i')
    write(
        "made.py",
        """
        from app.reports import Column, Report
        class Made(Report):
            title = "Made"
            columns = (Column("a"), Column("b"), Column("c"))
            def rows(self, params, context):
                yield 1, 2, 3
        """,
    )
    registry = Registry.load(str(tmp_path), sources=("demo",))
    registry.check()
    monkeypatch.setitem(app.extensions, "waybill.reports", registry)
    if "signed_in" in request.fixturenames:
        yield
        return
    with app.app_context():
        yield
        db.session.remove()


@pytest.fixture
def made(member: User) -> Callable[..., Job]:
    """made("rows", columns=[…]): an export that succeeded."""

    def made(key: str, **options: Any) -> Job:
        user = db.session.merge(member)
        job_id = jobs.request_export(user, key, {}, fresh=True, **options).id
        db.session.remove()
        lease = leases.claim(job_id)
        assert lease is not None
        exports.run(lease)
        db.session.remove()
        return db.session.get_one(Job, job_id)

    return made


@pytest.fixture
def think(member: User) -> Callable[..., preflight.Request]:
    def think(key: str, **options: Any) -> preflight.Request:
        return jobs.think_of(db.session.merge(member), key, {}, **options)

    return think


def content(job: Job) -> str:
    from flask import current_app

    found = jobs.artifact_of(job)
    assert found is not None, job.error_message
    return b"".join(current_app.extensions["waybill.storage"].open(found.key)).decode()


# --- the forecast -----------------------------------------------------------------------------------------


def test_rows_come_from_the_planner_and_the_rest_from_earlier_exports(
    think: Callable[..., preflight.Request], made: Callable[..., Job]
) -> None:
    before = preflight.forecast(think("rows"))
    assert (before.rows, before.bytes, before.seconds) == (2000, None, None)
    size = len(content(made("rows")))
    after = preflight.forecast(think("rows"))
    assert after.rows == 2000
    assert after.bytes == size
    assert after.seconds is not None
    assert after.seconds > 0
    assert preflight.forecast(think("rows", compression="gzip")).bytes is None


def test_other_columns_weigh_otherwise(
    think: Callable[..., preflight.Request], made: Callable[..., Job]
) -> None:
    made("rows")
    assert preflight.forecast(think("rows", columns=["id"])).bytes is None
    size = len(content(made("rows", columns=["id"])))
    assert preflight.forecast(think("rows", columns=["id"])).bytes == size


def test_advice(think: Callable[..., preflight.Request], made: Callable[..., Job]) -> None:
    assert preflight.forecast(think("most", format="xlsx")).advice == [
        "Over 1,048,576 rows: the workbook gets about 3 sheets."
    ]
    made("rows")
    made("rows", compression="gzip")
    advice = preflight.forecast(think("rows")).advice
    assert len(advice) == 1
    assert "CSV with gzip would be about" in advice[0]
    assert preflight.forecast(think("rows", compression="gzip")).advice == []


def test_what_nobody_can_tell_is_said_to_be_unknown(think: Callable[..., preflight.Request]) -> None:
    program = preflight.forecast(think("made"))
    assert program.rows is None
    assert "when it has run" in program.unknown


def test_a_source_that_is_down_says_so(
    app: Any, think: Callable[..., preflight.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = think("rows")
    monkeypatch.setenv("SOURCE_DEMO_URL", "")
    config = app.config["WAYBILL"]
    monkeypatch.setattr(
        type(config), "source_urls", property(lambda self: {"demo": "postgresql://nobody@127.0.0.1:9/none"})
    )
    told = preflight.forecast(asked)
    assert told.rows is None
    assert "does not answer" in told.unknown
    assert "does not answer" in sampling.sample(asked).trouble
    assert preflight.size(asked.report, asked.query) == "large"


# --- the first rows ---------------------------------------------------------------------------------------


def test_the_first_rows_come_in_the_reports_order(think: Callable[..., preflight.Request]) -> None:
    found = sampling.sample(think("rows"))
    assert found.columns == ["id", "name", "nothing"]
    assert len(found.rows) == 50
    assert found.rows[0] == ["2000", "n2000", None]
    assert sampling.sample(think("rows", columns=["name", "id"])).rows[1] == ["n1999", "1999"]


def test_first_rows_that_do_not_come(
    think: Callable[..., preflight.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    monkeypatch.setattr(sampling, "LIMIT", timedelta(seconds=0.5))
    assert "did not come within 0.5 s" in sampling.sample(think("slow")).trouble
    assert "division by zero" in sampling.sample(think("wrong")).trouble


# --- columns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_chosen_columns_make_the_file(format: str, made: Callable[..., Job]) -> None:
    job = made("rows", columns=["name", "id"], format=format)
    text = content(job)
    first = next(csv.reader(io.StringIO(text))) if format == "csv" else list(json.loads(text.splitlines()[0]))
    assert first == ["name", "id"]
    assert (
        text.splitlines()[1 if format == "csv" else 0]
        .replace('"', "")
        .startswith(("n2000,2000", "{name:n2000"))
    )
    found = jobs.artifact_of(job)
    assert found is not None
    assert found.receipt["columns"] == ["name", "id"]
    assert jobs.as_json(job)["columns"] == ["name", "id"]


@pytest.mark.parametrize(("chosen", "parts"), [(["title", "id"], 4), (["title"], 0)])
def test_parts_have_the_chosen_columns(
    chosen: list[str],
    parts: int,
    app: Any,
    demo: None,
    made: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the column that it is cut by, a file is made in one stream."""
    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], part_rows=500))
    whole = [row[name] for row in _read(content(made("all_tasks"))) for name in chosen]
    job = made("all_tasks", columns=chosen)
    assert [value for row in _read(content(job)) for value in row.values()] == whole
    found = jobs.artifact_of(job)
    assert found is not None
    assert len(found.receipt.get("parts") or ()) == parts


def _read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_columns_of_a_program_and_columns_with_strange_names(made: Callable[..., Job]) -> None:
    assert content(made("made", columns=["c", "a"])) == "c,a\n3,1\n"
    assert content(made("quoted", columns=['say "hi"', "100 %"])) == '"say ""hi""",100 %\n2,1\n'


def test_all_columns_in_their_order_are_no_choice(member: User) -> None:
    job = jobs.request_export(db.session.merge(member), "rows", {}, columns=["id", "name", "nothing"])
    assert job.columns is None
    other = jobs.request_export(db.session.merge(member), "rows", {}, columns=["name", "id", "nothing"])
    assert other.columns == ["name", "id", "nothing"]
    assert other.follows_id is None


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (["nmae"], "Did you mean name?"),
        ([], "one column"),
        (["id", "id"], "once"),
        (["id; DROP"], "no column"),
    ],
)
def test_wrong_columns_are_refused(chosen: list[str], said: str, member: User) -> None:
    with pytest.raises(InvalidParams, match=said.replace("?", r"\?")):
        jobs.request_export(db.session.merge(member), "rows", {}, columns=chosen)
    assert db.session.scalar(select(Job)) is None


def test_columns_that_are_alike_cannot_be_chosen(app: Any, member: User) -> None:
    report = jobs.registry().get("twins")
    assert columns.of(report) == ()
    with pytest.raises(InvalidParams):
        columns.choose(report, ["a"])


def test_running_again_keeps_the_columns(made: Callable[..., Job]) -> None:
    job = made("rows", columns=["name"])
    assert jobs.again(job.owner, job).columns == ["name"]


# --- the form and the API ---------------------------------------------------------------------------------


@pytest.fixture
def signed_in(client: FlaskClient, auth: Any, member: User) -> FlaskClient:
    auth.sign_in(member)
    return client


@pytest.fixture
def post(signed_in: FlaskClient, auth: Any) -> Callable[..., Any]:
    def post(url: str, headers: dict[str, str] | None = None, **form: Any) -> Any:
        given = {"csrf_token": auth.csrf(), "report": "rows", "format": "csv", **form}
        return signed_in.post(url, data=given, headers=headers or {})

    return post


def test_the_form_without_scripts_shows_the_forecast_and_keeps_what_was_typed(
    post: Callable[..., Any],
) -> None:
    page = post("/reports/rows/preflight", sample="1", compression="gzip")
    assert page.status_code == 200
    assert "about 2,000" in page.text
    assert "n2000" in page.text
    assert 'value="gzip" checked' in page.text


def test_scripts_get_the_forecast_alone(post: Callable[..., Any]) -> None:
    fragment = post("/reports/rows/preflight", {"X-Fragment": "preflight"}).text
    assert "about 2,000" in fragment
    assert "<html" not in fragment
    assert "n2000" not in fragment
    typed = post("/reports/all_tasks/preflight", {"X-Fragment": "preflight"}, **{"param.since": "long ago"})
    assert (typed.status_code, "Created since: Enter a date" in typed.text) == (422, True)
    wrong = post("/reports/rows/preflight", {"X-Fragment": "preflight"}, format="doc")
    assert wrong.status_code == 400
    assert "There is no format" in wrong.text


def test_the_form_remembers_the_columns(app: Any, post: Callable[..., Any], signed_in: FlaskClient) -> None:
    boxes = {"columns-shown": "true", "column": ["id", "name"], "place.id": "2", "place.name": "1"}
    assert post("/exports", **boxes).status_code == 303
    with app.app_context():
        assert db.session.scalars(select(ColumnChoice.columns)).one() == ["name", "id"]
        assert db.session.scalars(select(Job)).one().columns == ["name", "id"]
    page = signed_in.get("/reports/rows").text
    places = [page.index(f'name="column" value="{name}"') for name in ("name", "id", "nothing")]
    assert places == sorted(places)
    assert "2 of 3" in page
    boxes = {"columns-shown": "true", "column": ["id", "name", "nothing"]}
    boxes |= {"place.id": "1", "place.name": "2", "place.nothing": "3"}
    assert post("/exports", **boxes).status_code == 303
    with app.app_context():
        assert db.session.scalars(select(ColumnChoice)).first() is None


def test_a_form_without_a_tick_is_asked_again(post: Callable[..., Any]) -> None:
    page = post("/exports", **{"columns-shown": "true"})
    assert page.status_code == 422
    assert "Choose one column or more" in page.text


def test_the_api_forecasts(app: Any, signed_in: FlaskClient, auth: Any) -> None:
    headers = {"X-CSRFToken": auth.csrf()}
    body = {"columns": ["name"], "sample": True}
    answer = signed_in.post("/api/v1/reports/rows/preflight", json=body, headers=headers)
    assert answer.status_code == 200
    told = answer.get_json()
    assert (told["rows"], told["bytes"], told["seconds"]) == (2000, None, None)
    assert told["sample"]["rows"][0] == ["n2000"]
    wrong = signed_in.post("/api/v1/reports/rows/preflight", json={"columns": ["x"]}, headers=headers)
    assert (wrong.status_code, list(wrong.get_json()["errors"])) == (422, ["columns"])
    with app.app_context():
        assert db.session.scalar(select(Job)) is None
