"""The commands that look after accounts and API tokens."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from app.extensions import db
from app.models import ApiToken


@pytest.fixture
def flask(runner):
    """flask("users", "list") -> the result."""

    def run(*words, input=None):
        return runner.invoke(args=[*words], input=input)

    return run


def test_a_token_with_an_end(flask, app, client, member):
    secret = flask("tokens", "create", "member@example.org", "--days", "7").output.strip()
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.get("/api/v1/jobs", headers=headers).status_code == 200
    with app.app_context():
        token = db.session.scalars(select(ApiToken)).one()
        assert token.expires_at - token.created_at == timedelta(days=7)
        assert f"  {token.expires_at:%Y-%m-%d}  good\n" in flask("tokens", "list").output
        db.session.execute(update(ApiToken).values(expires_at=func.now()))
        db.session.commit()
    assert flask("tokens", "list").output.endswith("  expired\n")
    assert client.get("/api/v1/jobs", headers=headers).status_code == 401
    for days in ("0", "3651", "soon"):
        assert flask("tokens", "create", "member@example.org", "--days", days).exit_code == 2
