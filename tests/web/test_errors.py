"""Every failure is one answer: a problem for programs, a page for people; the database may be down."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from apiflask import APIFlask
from flask import abort
from flask.testing import FlaskClient
from sqlalchemy import func, select, text

from app.dev.child import free_port
from app.errors import Conflict, InvalidParams, QueryFailed, TooMany
from app.extensions import db
from app.models import Role

PROBLEM = "application/problem+json"


def fail(kind: str) -> str:
    """A view of every way to fail."""
    if kind == "half-done":
        db.session.add(Role(name="half done"))
        db.session.flush()
        raise Conflict("It is in use.")
    failures: dict[str, Callable[[], Any]] = {
        "params": lambda: InvalidParams({"since": "Give a date.", "status": "Give one of open, done."}),
        "many": lambda: TooMany("You have 20 jobs under way.", retry_after=30),
        "query": lambda: QueryFailed('The report "a" failed.'),
        "bug": lambda: ZeroDivisionError("1/0 with a secret in it"),
    }
    if kind in failures:
        raise failures[kind]()
    abort(int(kind))


@pytest.fixture
def failing(app_with: Callable[..., APIFlask]) -> FlaskClient:
    """The app with `/fail/<kind>` and `/api/fail/<kind>`; as in production, nothing goes through to us."""
    app = app_with()
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.add_url_rule("/fail/<kind>", "fail", fail)
    app.add_url_rule("/api/fail/<kind>", "api_fail", fail)
    return app.test_client()


def test_programs_get_problem_documents(failing: FlaskClient) -> None:
    answer = failing.get("/api/fail/params")
    assert answer.status_code == 422
    assert answer.content_type == PROBLEM
    assert answer.get_json() == {
        "type": "urn:waybill:problem:invalid_params",
        "title": "Something is not right yet",
        "status": 422,
        "detail": "since: Give a date.; status: Give one of open, done.",
        "code": "invalid_params",
        "errors": {"since": "Give a date.", "status": "Give one of open, done."},
    }


def test_too_many_says_when_to_come_back(failing: FlaskClient) -> None:
    for url in ("/fail/many", "/api/fail/many"):
        answer = failing.get(url)
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "30"
        assert "You have 20 jobs under way." in answer.text


@pytest.mark.parametrize(
    "status", [400, 403, 404, 405, 406, 409, 410, 413, 414, 415, 416, 422, 429, 451, 501, 503]
)
def test_every_status_has_a_page_and_a_problem(failing: FlaskClient, status: int) -> None:
    page = failing.get(f"/fail/{status}")
    assert page.status_code == status
    assert page.mimetype == "text/html"
    assert "<h1>" in page.text
    problem = failing.get(f"/api/fail/{status}")
    assert problem.status_code == problem.get_json()["status"] == status
    assert problem.content_type == PROBLEM
    assert problem.get_json()["title"] in page.text
    assert {"type", "title", "detail", "code"} <= problem.get_json().keys()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("*/*", "text/html"),
        (None, "text/html"),
        ("application/json", PROBLEM),
        ("application/problem+json", PROBLEM),
        ("text/event-stream", PROBLEM),
    ],
)
def test_the_kind_of_answer_is_the_kind_that_was_asked_for(
    failing: FlaskClient, accept: str | None, kind: str
) -> None:
    headers = {"Accept": accept} if accept else {}
    assert failing.get("/no/such/page", headers=headers).mimetype == kind
    assert failing.get("/api/no/such", headers=headers).mimetype == PROBLEM
    assert failing.get("/api", headers=headers).mimetype == PROBLEM


def test_people_are_led_to_the_sign_in_and_programs_are_told(client: FlaskClient) -> None:
    assert client.get("/jobs").location == "/sign-in?next=/jobs"
    assert client.get("/").location == "/sign-in"
    answer = client.get("/jobs", headers={"Accept": "application/json"})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="Waybill"'
    assert client.post("/api/v1/exports", json={}).status_code == 401, "not a word about CSRF tokens"


def test_after_a_sign_out_elsewhere_a_post_leads_back_to_its_page(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any
) -> None:
    auth.sign_in(member)
    token = auth.csrf()
    elsewhere = auth.client_of(member)
    elsewhere.post("/account/sign-outs", data={"csrf_token": auth.csrf(elsewhere)})
    referrer = {"Referer": "http://localhost/reports/all_tasks?job=1"}
    answer = client.post("/exports", data={"csrf_token": token, "report": "all_tasks"}, headers=referrer)
    assert answer.status_code == 303
    assert answer.location == "/sign-in?next=/reports/all_tasks?job%3D1"


@pytest.mark.parametrize(
    "referrer",
    ["http://evil.example/x", "http://localhost//evil.example/x", "x", "http://localhost/\\evil.example"],
)
def test_no_page_leads_elsewhere(client: FlaskClient, auth: Any, referrer: str) -> None:
    form = {"csrf_token": auth.csrf()}
    answer = client.post("/exports", data=form, headers={"Referer": referrer})
    assert answer.status_code == 303
    assert not re.search(r"next=(//|/\\|http)", answer.location)
    assert client.get("//evil.example/x").status_code in (308, 404)


def test_a_bug_shows_a_reference_that_the_log_has_too(
    failing: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        page = failing.get("/fail/bug")
        problem = failing.get("/api/fail/bug")
    assert page.status_code == problem.status_code == 500
    assert "secret" not in page.text + problem.text
    found = re.search(r"<code>([0-9a-f]{8})</code>", page.text)
    assert found
    for reference in (found[1], problem.get_json()["reference"]):
        assert f"[{reference}]" in caplog.text
    assert "Try again" in page.text
    assert "ZeroDivisionError" in caplog.text


def test_a_failure_of_a_source_is_told_in_its_own_words(failing: FlaskClient) -> None:
    answer = failing.get("/api/fail/query")
    assert (answer.status_code, answer.get_json()["code"]) == (500, "query_failed")
    assert answer.get_json()["detail"] == 'The report "a" failed.'


def test_nothing_half_done_is_kept(failing: FlaskClient, app: APIFlask) -> None:
    assert failing.get("/fail/half-done").status_code == 409
    with app.app_context():
        assert db.session.scalar(select(func.count()).select_from(Role).where(Role.name == "half done")) == 0


# --- the database is down ---------------------------------------------------------------------------------


@pytest.fixture
def cut_off(app_with: Callable[..., APIFlask], client: FlaskClient, auth: Any, member: Any) -> FlaskClient:
    """Somebody who signed in before the database went down."""
    auth.sign_in(member)
    cookie = client.get_cookie("waybill")
    assert cookie
    away = app_with(DATABASE_URL=f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    away.config["PROPAGATE_EXCEPTIONS"] = False
    someone = away.test_client()
    someone.set_cookie("waybill", cookie.value)
    return someone


def test_without_the_database_pages_say_so(cut_off: FlaskClient) -> None:
    for url in ("/", "/jobs", "/account"):
        answer = cut_off.get(url)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert "The database does not answer" in answer.text
        assert "Jobs that were asked for are safe" in answer.text
        assert f'href="{url}"' in answer.text, "trying again is one click"


def test_without_the_database_programs_hear_it_too(cut_off: FlaskClient) -> None:
    for headers in ({}, {"Authorization": "Bearer wb_x"}):
        answer = cut_off.get("/api/v1/jobs", headers=headers)
        assert (answer.status_code, answer.get_json()["code"]) == (503, "database_down")


def test_without_the_database_a_post_is_not_lost_silently(cut_off: FlaskClient, auth: Any) -> None:
    answer = cut_off.post("/exports", data={"csrf_token": auth.csrf(cut_off), "report": "all_tasks"})
    assert answer.status_code == 503
    assert "may not have been saved" in answer.text


def test_without_the_database_what_needs_none_works(cut_off: FlaskClient) -> None:
    for url in ("/healthz", "/static/waybill.css", "/bootstrap/static/css/bootstrap.min.css"):
        with cut_off.get(url) as answer:
            assert answer.status_code == 200


def test_killed_connections_do_no_harm(client: FlaskClient, auth: Any, member: Any, app: APIFlask) -> None:
    auth.sign_in(member)
    with app.app_context(), db.engine.connect() as conn:
        conn.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    assert client.get("/account").status_code == 200
