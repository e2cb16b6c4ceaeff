"""One's own account: API tokens are shown once, kept as a hash, refused once revoked; browsers signed out."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from sqlalchemy import func, select, update

from app.extensions import db
from app.models import ApiToken, User
from app.web.account import TOKENS_LIMIT, browser

JOBS = "/api/v1/jobs"


def make(client: FlaskClient, auth: Any, name: str) -> Any:
    return client.post("/account/tokens", data={"csrf_token": auth.csrf(client), "name": name})


def secret_on(page: str) -> str:
    (secret,) = re.findall(r"wb_[\w-]{43}", page)
    return str(secret)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def secret(app: APIFlask, member: Any) -> str:
    """A token of `member`."""
    with app.app_context():
        user = db.session.get(User, member.id)
        assert user is not None
        _, secret = ApiToken.create(user, "reconciler")
        db.session.commit()
        return secret


def token_of(app: APIFlask) -> ApiToken:
    with app.app_context():
        return db.session.scalars(select(ApiToken)).one()


def expire(app: APIFlask, after: timedelta) -> None:
    with app.app_context():
        db.session.execute(update(ApiToken).values(expires_at=func.now() + after))
        db.session.commit()


def test_a_token_is_shown_once_and_kept_as_a_hash(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any
) -> None:
    auth.sign_in(member)
    answer = make(client, auth, "  nightly\n ledger ")
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    secret = secret_on(answer.text)
    page = client.get("/account").text
    assert "nightly ledger" in page
    assert f"{secret[:7]}…" in page
    assert secret not in page
    kept = token_of(app)
    assert secret not in str(
        {column.name: getattr(kept, column.name) for column in ApiToken.__table__.columns}
    )


def test_a_program_comes_in_with_its_token_alone(app: APIFlask, secret: str) -> None:
    program = app.test_client()
    answer = program.get(JOBS, headers=bearer(secret))
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers


def test_a_program_needs_no_csrf_token(app: APIFlask, secret: str) -> None:
    answer = app.test_client().post("/api/v1/exports", json={"report": "no_such"}, headers=bearer(secret))
    assert answer.get_json()["code"] != "csrf"
    assert answer.status_code in (404, 422)


@pytest.mark.parametrize(
    "wrong", ["", "wb_", "wb_" + "x" * 43, "x" * 5000, "wb_\N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_a_wrong_token_is_refused(app: APIFlask, secret: str, wrong: str) -> None:
    for url in (JOBS, "/api/v1/reports"):
        answer = app.test_client().get(
            url, headers={"Authorization": f"Bearer {wrong}".encode().decode("latin-1")}
        )
        assert answer.status_code == 401
        assert answer.content_type == "application/problem+json"
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="Waybill"')


def test_a_flipped_token_is_refused(app: APIFlask, secret: str) -> None:
    flipped = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    assert app.test_client().get(JOBS, headers=bearer(flipped)).status_code == 401


def test_a_wrong_token_is_not_helped_by_a_session(
    client: FlaskClient, auth: Any, member: Any, secret: str
) -> None:
    auth.sign_in(member)
    assert client.get(JOBS).status_code == 200
    assert client.get(JOBS, headers=bearer("wb_wrong")).status_code == 401
    unsafe = client.post("/account/tokens", data={"name": "x"}, headers=bearer("wb_wrong"))
    assert unsafe.status_code != 201


def test_a_token_goes_before_the_session(
    client: FlaskClient, auth: Any, other: Any, secret: str, app: APIFlask
) -> None:
    """Who sends both means the token; but then the session's pages are closed."""
    auth.sign_in(other)
    assert client.get(JOBS, headers=bearer(secret)).status_code == 200
    assert client.get("/account", headers=bearer(secret)).status_code == 303


def test_no_token_makes_tokens(app: APIFlask, secret: str) -> None:
    answer = app.test_client().post("/account/tokens", data={"name": "child"}, headers=bearer(secret))
    assert answer.status_code == 303
    with app.app_context():
        assert len(db.session.scalars(select(ApiToken)).all()) == 1


@pytest.mark.parametrize("number", ["2147483647", "2147483648", "9" * 30])
def test_a_token_that_is_none_is_not_revoked(
    client: FlaskClient, auth: Any, member: Any, number: str
) -> None:
    auth.sign_in(member)
    answer = client.post(f"/account/tokens/{number}/revocation", data={"csrf_token": auth.csrf()})
    assert answer.status_code == 404


def test_a_revoked_token_is_refused_from_then_on(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, secret: str
) -> None:
    program = app.test_client()
    assert program.get(JOBS, headers=bearer(secret)).status_code == 200
    auth.sign_in(member)
    url = f"/account/tokens/{token_of(app).id}/revocation"
    for _ in range(2):
        assert client.post(url, data={"csrf_token": auth.csrf()}).status_code == 303
    answer = program.get(JOBS, headers=bearer(secret))
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert "revoked" in answer.get_json()["detail"]
    assert "is revoked" in client.get("/account").text
    assert "reconciler" not in client.get("/account").text


@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_an_expired_token_is_refused_and_told_why(app: APIFlask, secret: str, accept: str) -> None:
    program = app.test_client()
    expire(app, timedelta(hours=1))
    assert program.get(JOBS, headers=bearer(secret)).status_code == 200
    expire(app, timedelta(hours=-1))
    answer = program.get(JOBS, headers=bearer(secret) | {"Accept": accept})
    assert answer.status_code == 401
    assert answer.content_type == "application/problem+json"
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    detail = answer.get_json()["detail"]
    assert re.match(r"This API token expired on 20\d\d-\d\d-\d\d at \d\d:\d\d UTC\. Make a new one", detail)
    with app.app_context():
        db.session.execute(update(ApiToken).values(revoked_at=func.now()))
        db.session.commit()
    assert "revoked" in program.get(JOBS, headers=bearer(secret)).get_json()["detail"]


def test_a_token_expires_when_asked_to(app: APIFlask, client: FlaskClient, auth: Any, member: Any) -> None:
    auth.sign_in(member)
    data = {"csrf_token": auth.csrf(client), "name": "for a month", "days": "30"}
    answer = client.post("/account/tokens", data=data)
    assert answer.status_code == 201
    assert "It expires" in answer.text
    kept = token_of(app)
    assert kept.expires_at is not None
    assert kept.expires_at - kept.created_at == timedelta(days=30)
    page = client.get("/account").text
    assert re.search(r"expires\s+<time[^>]*>in \d+ days", page)
    expire(app, timedelta(hours=-1))
    assert re.search(r"expired\s+<time[^>]*>1 hour ago", client.get("/account").text)


def test_a_token_without_an_end_has_none(app: APIFlask, client: FlaskClient, auth: Any, member: Any) -> None:
    auth.sign_in(member)
    assert make(client, auth, "for good").status_code == 201
    assert token_of(app).expires_at is None


@pytest.mark.parametrize("days", ["0", "-1", "3651", "soon", "1.5", "\N{ARABIC-INDIC DIGIT SEVEN}", "9" * 99])
def test_an_end_that_is_none_makes_no_token(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, days: str
) -> None:
    auth.sign_in(member)
    data = {"csrf_token": auth.csrf(client), "name": "ledger", "days": days}
    answer = client.post("/account/tokens", data=data)
    assert answer.status_code == 400
    assert "A token expires after 1 to 3650 days, or never" in answer.text
    with app.app_context():
        assert db.session.scalars(select(ApiToken)).all() == []


def test_a_closed_accounts_token_is_refused(app: APIFlask, member: Any, secret: str) -> None:
    with app.app_context():
        db.session.execute(update(User).where(User.id == member.id).values(active=False))
        db.session.commit()
    assert app.test_client().get(JOBS, headers=bearer(secret)).status_code == 401


def test_nobody_revokes_or_sees_anothers_tokens(
    app: APIFlask, client: FlaskClient, auth: Any, other: Any, secret: str
) -> None:
    auth.sign_in(other)
    url = f"/account/tokens/{token_of(app).id}/revocation"
    assert client.post(url, data={"csrf_token": auth.csrf()}).status_code == 404
    assert token_of(app).revoked_at is None
    assert "reconciler" not in client.get("/account").text


def test_the_last_use_is_noted_at_most_once_a_minute(app: APIFlask, secret: str) -> None:
    program = app.test_client()
    assert token_of(app).last_used_at is None
    program.get(JOBS, headers=bearer(secret))
    first = token_of(app).last_used_at
    assert first is not None
    program.get(JOBS, headers=bearer(secret))
    assert token_of(app).last_used_at == first
    with app.app_context():
        long_ago = datetime.now(UTC) - timedelta(minutes=2)
        db.session.execute(update(ApiToken).values(last_used_at=long_ago))
        db.session.commit()
    program.get(JOBS, headers=bearer(secret))
    again = token_of(app).last_used_at
    assert again is not None
    assert again >= first


@pytest.mark.parametrize("name", ["", "   ", "\0\0", "x" * 101])
def test_a_token_needs_a_name(app: APIFlask, client: FlaskClient, auth: Any, member: Any, name: str) -> None:
    auth.sign_in(member)
    answer = make(client, auth, name)
    assert answer.status_code == 422
    assert "aria-invalid" in answer.text
    with app.app_context():
        assert db.session.scalars(select(ApiToken)).all() == []


def test_names_are_text_not_markup(client: FlaskClient, auth: Any, member: Any) -> None:
    auth.sign_in(member)
    answer = make(client, auth, "<img src=x onerror=alert(1)>")
    assert answer.status_code == 201
    assert "<img" not in answer.text
    assert "<img" not in client.get("/account").text


def test_there_is_an_end_to_the_number_of_tokens(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any
) -> None:
    with app.app_context():
        user = db.session.get(User, member.id)
        assert user is not None
        for number in range(TOKENS_LIMIT):
            ApiToken.create(user, f"token {number}")
        db.session.commit()
    auth.sign_in(member)
    assert make(client, auth, "one more").status_code == 409


def test_all_other_browsers_are_signed_out(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any
) -> None:
    auth.sign_in(member)
    elsewhere = auth.client_of(member)
    assert "Sign out all others" in client.get("/account").text
    assert client.post("/account/sign-outs", data={"csrf_token": auth.csrf()}).status_code == 303
    assert client.get("/account").status_code == 200
    assert elsewhere.get("/account").status_code == 303
    assert "Sign out all others" not in client.get("/account").text


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36", "Chrome on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1",
            "Safari on iPhone",
        ),
        ("curl/8.5.0", "A program"),
        ("", "A program"),
    ],
)
def test_browsers_are_called_what_people_call_them(agent: str, said: str) -> None:
    assert browser(agent) == said
