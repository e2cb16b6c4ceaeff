"""Headers on every answer, CSRF on every unsafe route, the true address behind proxies, the secret key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from apiflask import APIFlask
from flask import request
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from app import create_app
from app.errors import BadSettings
from app.settings import DEFAULT_SECRET_KEY
from app.web.security import UNSAFE

from .routes import address, rules

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": None,
    "Permissions-Policy": None,
    "Cross-Origin-Opener-Policy": "same-origin",
}


def unsafe_rules(app: APIFlask) -> Iterator[tuple[Rule, str]]:
    for rule in rules(app):
        for method in sorted((rule.methods or set()) & UNSAFE):
            yield rule, method


# --- headers ----------------------------------------------------------------------------------------------


def test_every_route_answers_with_the_headers(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any
) -> None:
    auth.sign_in(member)
    signed_out = app.test_client()
    for rule in rules(app):
        for someone in (client, signed_out):
            method = "GET" if "GET" in (rule.methods or set()) else "POST"
            answer = someone.open(address(rule), method=method)
            assert_headers(answer, rule.rule)
            answer.close()


def test_failures_have_the_headers_too(app: APIFlask, client: FlaskClient) -> None:
    for method, url in (
        ("GET", "/no/such/page"),
        ("DELETE", "/sign-in"),
        ("POST", "/sign-in"),
        ("GET", "/jobs"),
    ):
        assert_headers(client.open(url, method=method), url)


def assert_headers(answer: Any, where: str) -> None:
    for name, value in ALWAYS.items():
        assert answer.headers.get(name) == value or (value is None and answer.headers.get(name)), (
            where,
            name,
        )
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy or "sandbox" in policy, where
    assert policy.count("default-src") == 1, where
    assert answer.headers.get("Cache-Control"), where


def test_the_policy_allows_nothing_inline_and_nobody_to_frame_us(client: FlaskClient) -> None:
    policy = client.get("/sign-in").headers["Content-Security-Policy"]
    assert set(policy.split("; ")) == {
        "default-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    }


def test_pages_of_signed_in_people_are_stored_nowhere(client: FlaskClient, auth: Any, member: Any) -> None:
    auth.sign_in(member)
    for url in ("/", "/jobs", "/account", "/api/v1/jobs"):
        assert "no-store" in client.get(url).headers["Cache-Control"]


def test_browsers_are_told_to_stay_with_https(app_with: Callable[..., APIFlask], client: FlaskClient) -> None:
    assert "Strict-Transport-Security" not in client.get("/sign-in").headers
    https = app_with(PUBLIC_URL="https://waybill.example").test_client()
    assert https.get("/sign-in").headers["Strict-Transport-Security"].startswith("max-age=31536000")


# --- CSRF -------------------------------------------------------------------------------------------------


def test_no_unsafe_route_works_without_a_csrf_token(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any
) -> None:
    auth.sign_in(member)
    checked = []
    for rule, method in unsafe_rules(app):
        for token in ({}, {"csrf_token": "forged"}):
            answer = client.open(
                address(rule), method=method, data=token, headers={"Accept": "application/json"}
            )
            assert (answer.status_code, answer.get_json()["code"]) == (400, "csrf"), (rule.rule, method)
            checked.append(rule.rule)
    assert len(checked) >= 20
    assert client.get("/account").status_code == 200, "not even signing out"


def test_anothers_csrf_token_is_refused(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, other: Any
) -> None:
    auth.sign_in(member)
    theirs = auth.csrf(auth.client_of(other))
    assert client.post("/account/tokens", data={"csrf_token": theirs, "name": "x"}).status_code == 400


def test_a_sessions_json_sends_the_token_as_a_header(client: FlaskClient, auth: Any, member: Any) -> None:
    auth.sign_in(member)
    body = {"report": "no_such"}
    refused = client.post("/api/v1/exports", json=body)
    assert (refused.status_code, refused.get_json()["code"]) == (400, "csrf")
    assert "X-CSRFToken" in refused.get_json()["detail"]
    answer = client.post("/api/v1/exports", json=body, headers={"X-CSRFToken": auth.csrf()})
    assert answer.get_json()["code"] != "csrf"


def test_a_token_that_is_none_does_not_get_round_csrf(client: FlaskClient, auth: Any, member: Any) -> None:
    auth.sign_in(member)
    for given in ("Bearer wb_wrong", "Basic YTpi", "Token x", "Bearer"):
        answer = client.post("/account/tokens", data={"name": "x"}, headers={"Authorization": given})
        assert answer.status_code in (303, 400, 401), given


def test_signing_in_needs_a_token_as_well(app: APIFlask, member: Any) -> None:
    """Otherwise a foreign page signs its visitor in as somebody else."""
    answer = app.test_client().post(
        "/sign-in", data={"email": member.email, "password": "correct horse battery staple"}
    )
    assert answer.status_code == 400


def test_a_page_that_was_too_old_gives_back_what_was_typed(
    client: FlaskClient, auth: Any, member: Any
) -> None:
    auth.sign_in(member)
    form = {"report": "all_tasks", "param.since": '2026-01-01"><b>', "csrf_token": "of yesterday"}
    answer = client.post("/exports", data=form, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 400
    assert "This page was too old" in answer.text
    assert 'name="param.since" value="2026-01-01&#34;&gt;&lt;b&gt;"' in answer.text
    assert "of yesterday" not in answer.text
    assert 'action="/exports"' in answer.text


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", ""])
def test_a_foreign_page_gets_nothing_shown_to_be_confirmed(
    client: FlaskClient, auth: Any, member: Any, site: str
) -> None:
    auth.sign_in(member)
    headers = {"Sec-Fetch-Site": site, "Referer": "http://evil.example/trap", "Origin": "http://evil.example"}
    answer = client.post("/exports", data={"report": "planted"}, headers=headers)
    assert answer.status_code == 400
    assert "planted" not in answer.text
    assert "evil" not in answer.text
    assert "Nothing was changed" in answer.text


def test_passwords_are_not_given_back(client: FlaskClient) -> None:
    answer = client.post(
        "/sign-in",
        data={"email": "ann@example.org", "password": "hunter2 hunter2"},
        headers={"Sec-Fetch-Site": "same-origin", "Referer": "http://localhost/sign-in?next=/jobs"},
    )
    assert answer.status_code == 400
    assert "hunter2" not in answer.text
    assert 'href="/sign-in?next=/jobs"' in answer.text


# --- proxies, limits, secrets -----------------------------------------------------------------------------


FORWARDED = {
    "X-Forwarded-For": "203.0.113.7, 198.51.100.2",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "waybill.example",
}


@pytest.mark.parametrize(
    ("proxies", "seen"),
    [("0", "127.0.0.1 http localhost"), ("1", "198.51.100.2 https waybill.example")],
)
def test_only_trusted_proxies_are_believed(
    app_with: Callable[..., APIFlask], proxies: str, seen: str
) -> None:
    app = app_with(TRUSTED_PROXIES=proxies)
    found = []
    app.before_request(lambda: found.append(f"{request.remote_addr} {request.scheme} {request.host}"))
    app.test_client().get("/healthz", headers=FORWARDED)
    assert found == [seen]


def test_api_requests_are_limited_per_caller(
    app_with: Callable[..., APIFlask], auth: Any, member: Any, other: Any
) -> None:
    app = app_with(REQUEST_RATE="3 per minute")
    client, neighbour = app.test_client(), app.test_client()
    auth.sign_in(member, client=client)
    auth.sign_in(other, client=neighbour)
    answers = [client.get("/api/v1/jobs") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    refused = answers[-1]
    assert refused.content_type == "application/problem+json"
    assert refused.get_json()["code"] == "too_many"
    assert 0 < int(refused.headers["Retry-After"]) <= 61
    assert neighbour.get("/api/v1/jobs").status_code == 200
    assert client.get("/account").status_code == 200, "pages are not counted"


@pytest.mark.parametrize("key", [DEFAULT_SECRET_KEY, "short", ""])
def test_outside_development_a_secret_key_of_ones_own_is_needed(environ: dict[str, str], key: str) -> None:
    with pytest.raises(BadSettings, match="SECRET_KEY"):
        create_app(environ | {"ENVIRONMENT": "production", "SECRET_KEY": key})


def test_with_a_key_of_its_own_production_starts(app_with: Callable[..., APIFlask]) -> None:
    app = app_with(ENVIRONMENT="production", SECRET_KEY="k" * 32, PUBLIC_URL="https://waybill.example")
    assert app.test_client().get("/healthz").status_code == 200
