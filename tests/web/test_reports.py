"""The catalogue, a report's form, and asking for an export on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient

from app.extensions import db
from app.models import Job
from app.reports import Param, Params, Registry, Report
from app.web.reports import Field, Form, history, searched

EVERY_TYPE = """
/*
title = "Every <type>"
description = "One param of each type"
group = "Tests"

[columns]
id = "Number & name"

[params.note]
type = "text"
help = "Anything <b>at all</b>"
max_length = 20

[params.count]
type = "int"
required = true
min = 1
max = 5000

[params.price]
type = "decimal"
default = "9.50"
min = "0"

[params.paid]
type = "bool"
label = "Only paid ones"
default = true

[params.late]
type = "bool"

[params.since]
type = "date"
default = "last month"
max = "today"

[params.seen]
type = "datetime"

[params.status]
type = "enum"
choices = [{ value = "o", label = "Open" }, { value = "d", label = "Done" }]

[params.ids]
type = "list"
items = "int"
max = 3
*/
SELECT 1 AS id WHERE :note IS NULL OR :count > 1 OR :price > 1 OR :paid OR :late OR :since < :seen
OR :status = '' OR 1 = ANY(:ids)
"""


@pytest.fixture
def reports(app: APIFlask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
    """reports(name=text, …): the app's reports and these."""

    def add(**texts: str) -> Registry:
        for name, text in texts.items():
            (tmp_path / f"{name}.sql").write_text(dedent(text).lstrip())
        registry = Registry.load(str(tmp_path), sources=("demo",))
        monkeypatch.setitem(app.extensions, "waybill.reports", registry)
        return registry

    return add


@pytest.fixture
def every_type(reports: Callable[..., Registry]) -> None:
    reports(every_type=EVERY_TYPE).check()


@pytest.fixture
def signed_in(client: FlaskClient, auth: Any, member: Any) -> FlaskClient:
    auth.sign_in(member)
    return client


@pytest.fixture
def ask(app: APIFlask, auth: Any) -> Callable[..., Any]:
    """ask(client, "key", **fields): post a report's form."""

    def post(client: FlaskClient, key: str, **fields: Any) -> Any:
        fields = {name.replace("__", "."): value for name, value in fields.items()}
        return client.post("/exports", data={"report": key, "csrf_token": auth.csrf(client), **fields})

    return post


@pytest.fixture
def context(app: APIFlask) -> Iterator[None]:
    with app.app_context():
        yield
        db.session.remove()


def finished(owner: Any, key: str, seconds: float, ago: timedelta, status: str = "succeeded") -> None:
    at = datetime.now(UTC) - ago
    db.session.add(
        Job(
            kind="export",
            definition=key,
            title=key,
            owner_id=owner.id,
            status=status,
            created_at=at,
            started_at=at,
            finished_at=at + timedelta(seconds=seconds),
        )
    )
    db.session.commit()


def jobs_in(app: APIFlask) -> list[Job]:
    with app.app_context():
        return list(db.session.scalars(sa.select(Job).order_by(Job.created_at)))


def tag(page: str, name: str) -> str:
    """The first tag that holds this name attribute and is no hidden input."""
    found = re.search(rf'<(?!input type="hidden")[^>]*\bname="{re.escape(name)}"[^>]*>', page)
    assert found, f"{name} is not on the page"
    return found[0]


# --- the catalogue ----------------------------------------------------------------------------------------


def test_the_catalogue_asks_for_a_sign_in(client: FlaskClient) -> None:
    answer = client.get("/", headers={"Accept": "text/html"})
    assert answer.status_code in (302, 303)
    assert answer.location.endswith("/sign-in")


def test_the_catalogue_shows_reports_by_group(signed_in: FlaskClient) -> None:
    page = signed_in.get("/").text
    assert "All tasks" in page
    assert 'href="/reports/all_tasks"' in page
    assert page.index(">Money<") < page.index(">Work<")
    assert "not run yet" in page


def test_a_report_of_another_role_is_not_there(signed_in: FlaskClient, reports: Any) -> None:
    reports(secret='/*\ntitle = "Wages"\ndescription = "x"\nroles = ["admin"]\n*/\nSELECT 1 AS id\n')
    assert "Wages" not in signed_in.get("/").text
    assert signed_in.get("/reports/secret").status_code == 404
    assert signed_in.get("/reports/nothing").status_code == 404


def test_the_search_works_without_scripts(signed_in: FlaskClient) -> None:
    page = signed_in.get("/?q=LATE++invoices").text
    rows = {
        match[1]: "hidden" in match[0]
        for match in re.finditer(r'<li class="row-link" data-text="([^"]+)"[^>]*>', page)
    }
    shown = [text for text, hidden in rows.items() if not hidden]
    assert len(rows) > 1
    assert len(shown) == 1
    assert "late invoices" in shown[0]
    assert 'value="LATE invoices"' in page


def test_a_search_that_finds_nothing_offers_all_again(signed_in: FlaskClient) -> None:
    assert 'id="nothing" >' in signed_in.get("/?q=zeppelin").text
    assert 'id="nothing" hidden>' in signed_in.get("/").text


@pytest.mark.parametrize(
    ("query", "found"), [("", True), ("tasks every", True), ("ALL", True), ("work", True), ("invoice", False)]
)
def test_every_word_must_stand_in_the_row(query: str, found: bool) -> None:
    class Tasks(Report):
        key, title, description, group = "all_tasks", "All tasks", "Every task", "Work"

    assert searched(Tasks(), query) is found


def test_how_long_a_report_takes_is_the_median_of_its_latest_successes(member: Any, context: None) -> None:
    for day, seconds in enumerate([1, 2, 30]):
        finished(member, "all_tasks", seconds, timedelta(days=day))
    finished(member, "all_tasks", 500, timedelta(hours=1), status="failed")
    for day in range(25):
        finished(member, "members", 900 if day > 19 else 3, timedelta(days=day))
    told = history(["all_tasks", "members", "my_tasks"])
    assert told.keys() == {"all_tasks", "members"}
    assert told["all_tasks"].takes == timedelta(seconds=2)
    assert datetime.now(UTC) - told["all_tasks"].last < timedelta(minutes=1)
    assert told["members"].takes == timedelta(seconds=3)


def test_broken_reports_are_shown_to_those_who_can_mend_them(
    client: FlaskClient, auth: Any, admin: Any, signed_in: FlaskClient, reports: Any
) -> None:
    reports(broken='/*\ntitle = "Broken"\n*/\nDELETE FROM tasks\n')
    assert "broken.sql" not in signed_in.get("/").text
    page = auth.client_of(admin).get("/").text
    assert "to mend in the reports" in page
    assert "broken.sql:" in page


# --- the form ---------------------------------------------------------------------------------------------


def test_the_form_has_a_field_for_each_type(signed_in: FlaskClient, every_type: None) -> None:
    page = signed_in.get("/reports/every_type").text
    assert "Every &lt;type&gt;" in page
    assert "Anything &lt;b&gt;at all&lt;/b&gt;" in page
    assert 'maxlength="20"' in tag(page, "param.note")
    count = tag(page, "param.count")
    assert 'type="number"' in count
    assert 'min="1"' in count
    assert 'max="5000"' in count
    assert " required" in count
    assert 'value="9.50"' in tag(page, "param.price")
    assert " checked" in tag(page, "param.paid")
    assert tag(page, "param.late").startswith("<select")
    assert 'value="last month"' in tag(page, "param.since")
    assert '<option value="last quarter">' in page
    assert '<option value="now">' in page
    assert '<option value="o" >Open</option>' in page
    assert tag(page, "param.ids").startswith("<textarea")
    assert "From 1 to 5,000." in page
    assert "Number &amp; name" in page


def test_every_field_has_a_label_and_tells_of_its_help(signed_in: FlaskClient, every_type: None) -> None:
    page = signed_in.get("/reports/every_type").text
    for name in ("note", "count", "price", "paid", "late", "since", "seen", "status", "ids"):
        assert f'for="param-{name}"' in page
    for described in re.findall(r'aria-describedby="([^"]+)"', page):
        for id in described.split():
            assert f'id="{id}"' in page


def test_asking_makes_a_job_and_goes_to_its_page(
    app: APIFlask, signed_in: FlaskClient, every_type: None, ask: Any
) -> None:
    answer = ask(
        signed_in,
        "every_type",
        param__note="",
        param__count="12",
        param__price="1.10",
        param__paid=["false", "true"],
        param__late="false",
        param__since="2026-01-31",
        param__status="o",
        param__ids="3\n4,5",
        format="csv",
        compression="gzip",
    )
    assert answer.status_code == 303
    (job,) = jobs_in(app)
    assert answer.location == f"/jobs/{job.id}"
    assert job.params["count"] == 12
    assert job.params["price"] == "1.1"
    assert job.params["paid"] is True
    assert job.params["late"] is False
    assert job.params["since"] == "2026-01-31"
    assert job.params["note"] is None
    assert job.params["ids"] == [3, 4, 5]
    assert (job.format, job.compression) == ("csv", "gzip")


def test_an_unticked_box_is_a_no_although_its_default_is_yes(
    app: APIFlask, signed_in: FlaskClient, every_type: None, ask: Any
) -> None:
    ask(signed_in, "every_type", param__count="1", param__paid="false")
    assert jobs_in(app)[0].params["paid"] is False


def test_bad_values_come_back_beside_their_fields_with_what_was_typed(
    app: APIFlask, signed_in: FlaskClient, every_type: None, ask: Any
) -> None:
    answer = ask(
        signed_in,
        "every_type",
        param__note='<script>"x"</script>' * 2,
        param__count="0",
        param__price="cheap",
        param__paid="false",
        param__since="someday",
        param__ids="1\n2\nthree",
        compression="gzip",
    )
    assert answer.status_code == 422
    assert jobs_in(app) == []
    page = answer.text
    assert "5 values need another look. Nothing was started." in page
    assert "<script>&#34;" not in page
    assert "<title>Check the form: " in page
    for name, typed in (("count", "0"), ("price", "cheap"), ("since", "someday")):
        field = tag(page, f"param.{name}")
        assert f'value="{typed}"' in field
        assert 'aria-invalid="true"' in field
        assert f'aria-describedby="param-{name}-error' in field
        assert f'id="param-{name}-error"' in page
    assert "&lt;script&gt;" in tag(page, "param.note")
    assert "1\n2\nthree</textarea>" in page
    assert "Value 3: Enter a whole number" in page
    assert " checked" not in tag(page, "param.paid")
    assert 'name="compression" value="gzip" checked' in page


def test_params_that_nobody_asked_for_are_refused(signed_in: FlaskClient, every_type: None, ask: Any) -> None:
    answer = ask(signed_in, "every_type", param__count="1", param__user_id="7")
    assert answer.status_code == 422
    assert "user_id: There is no such parameter." in answer.text


def test_a_double_click_makes_one_job(
    app: APIFlask, signed_in: FlaskClient, every_type: None, ask: Any
) -> None:
    form = {"param__count": "5", "nonce": "one-form"}
    first, second = ask(signed_in, "every_type", **form), ask(signed_in, "every_type", **form)
    assert first.location == second.location
    changed = ask(signed_in, "every_type", **form | {"param__count": "6"})
    another = ask(signed_in, "every_type", **form | {"nonce": "another-form"})
    assert len({first.location, changed.location, another.location}) == 3
    assert len(jobs_in(app)) == 3


def test_each_rendered_form_has_its_own_nonce(signed_in: FlaskClient) -> None:
    nonces = {
        re.search(r'name="nonce" value="([^"]+)"', signed_in.get("/reports/all_tasks").text) for _ in "ab"
    }
    assert len({nonce[1] for nonce in nonces if nonce}) == 2


def test_too_many_unfinished_jobs_are_told_on_the_form(app_with: Any, auth: Any, member: Any) -> None:
    app = app_with(USER_RUNNING_LIMIT="1")
    client = app.test_client()
    auth.sign_in(member, client=client)
    form = {"report": "my_tasks", "csrf_token": auth.csrf(client)}
    assert client.post("/exports", data=form | {"nonce": "1"}).status_code == 303
    answer = client.post("/exports", data=form | {"nonce": "2"})
    assert answer.status_code == 429
    assert "1 are allowed at a time" in answer.text
    assert ">Export " in answer.text


def test_an_earlier_job_fills_the_form(
    app: APIFlask, signed_in: FlaskClient, every_type: None, ask: Any, auth: Any, other: Any
) -> None:
    ask(
        signed_in,
        "every_type",
        param__count="77",
        param__since="2026-02-01",
        param__ids="8,9",
        compression="gzip",
    )
    (job,) = jobs_in(app)
    page = signed_in.get(f"/reports/every_type?job={job.id}").text
    assert 'value="77"' in tag(page, "param.count")
    assert 'value="2026-02-01"' in tag(page, "param.since")
    assert "8\n9</textarea>" in page
    assert 'name="compression" value="gzip" checked' in page
    assert signed_in.get(f"/reports/all_tasks?job={job.id}").status_code == 404
    assert signed_in.get("/reports/every_type?job=nonsense").status_code == 404
    assert auth.client_of(other).get(f"/reports/every_type?job={job.id}").status_code == 404


def test_a_post_without_a_token_changes_nothing(app: APIFlask, signed_in: FlaskClient) -> None:
    assert signed_in.post("/exports", data={"report": "my_tasks"}).status_code == 400
    assert jobs_in(app) == []


@pytest.mark.parametrize(
    ("param", "words"),
    [
        (Param("n", "int", min=1000), "1,000 or more."),
        (Param("n", "decimal", max="2500.5"), "2,500.5 or less."),
        (Param("n", "date", min="last year", max="today"), "From last year to today."),
        (Param("n", "datetime", max="now"), "Not after now."),
        (Param("n", "list", max=1000), "At most 1,000 values."),
        (Param("n", "text", help="Hm."), "Hm."),
    ],
)
def test_limits_are_told_in_words(param: Param, words: str) -> None:
    assert Field(param, "", None).help == words


def test_a_form_tells_what_stands_in_each_field() -> None:
    class Some(Report):
        key = "some"
        params = Params([Param("a", default="x"), Param("b", "list", default=["1", "2"])])

    assert [field.value for field in Form(Some()).fields] == ["x", "1\n2"]
