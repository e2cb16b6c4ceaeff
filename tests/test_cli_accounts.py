"""The commands that look after accounts and API tokens."""

from __future__ import annotations

import re
import threading
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import func, select, update

from app import closing, jobs, leases, links
from app.errors import Conflict
from app.extensions import db
from app.models import ApiToken, Artifact, Job, SignIn, User
from tests import exporting
from tests.conftest import PASSWORD
from tests.waiting import until

JOBS = "/api/v1/jobs"


@pytest.fixture
def flask(runner):
    """flask("users", "list") -> the result."""

    def run(*words, input=None):
        return runner.invoke(args=[*words], input=input)

    return run


def of(app, email):
    """What is kept of this person's account."""
    with app.app_context():
        return db.session.scalars(select(User).where(User.email == email)).one()


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def post(client, auth, url, **form):
    return client.post(url, data={"csrf_token": auth.csrf(client), **form})


def mailed(client, auth, mailbox, url, email):
    """The path in the mail that this form sends."""
    mailbox.clear()
    post(client, auth, url, email=email)
    (link,) = mailbox.wait(to=email).links
    return link.removeprefix("http://127.0.0.1:8000")


# flask tokens


def test_a_token_with_an_end(flask, app, client, member):
    secret = flask("tokens", "create", "member@example.org", "--days", "7").output.strip()
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.get("/api/v1/jobs", headers=headers).status_code == 200
    with app.app_context():
        token = db.session.scalars(select(ApiToken)).one()
        assert token.expires_at is not None
        assert token.expires_at - token.created_at == timedelta(days=7)
        assert f"  {token.expires_at:%Y-%m-%d}  good\n" in flask("tokens", "list").output
        db.session.execute(update(ApiToken).values(expires_at=func.now()))
        db.session.commit()
    assert flask("tokens", "list").output.endswith("  expired\n")
    assert client.get("/api/v1/jobs", headers=headers).status_code == 401
    for days in ("0", "3651", "soon"):
        assert flask("tokens", "create", "member@example.org", "--days", days).exit_code == 2


# flask users list, flask users role


def test_accounts_are_listed_with_all_but_their_secrets(flask, app, auth, admin, member, person):
    person("gone@example.org")
    flask("users", "close", "gone@example.org")
    auth.sign_in(member)
    with app.app_context():
        jobs.request_export(db.session.merge(member), "all_tasks", {}, fresh=True)
        at = db.session.scalars(select(SignIn.created_at)).one()
    listed = flask("users", "list")
    assert listed.exit_code == 0, listed.output
    head, *rows = [re.split(r"  +", line) for line in listed.output.splitlines()]
    assert head == ["EMAIL", "ROLES", "STATE", "CREATED", "LAST SIGN-IN (UTC)", "JOBS AT WORK"]
    assert [[row[0], row[1], row[2], row[4], row[5]] for row in rows] == [
        ["admin@example.org", "admin", "open", "unknown", "0"],
        ["gone@example.org", "none", "closed", "unknown", "0"],
        ["member@example.org", "member", "open", f"{at:%Y-%m-%d %H:%M}", "1"],
    ]
    kept = of(app, "member@example.org")
    assert kept.password not in listed.output
    assert kept.fs_uniquifier not in listed.output


def test_roles_are_those_named_and_no_others(flask, app, admin, member):
    given = flask("users", "role", "Member@example.org", "admin", "member", "admin")
    assert given.output == "The roles of member@example.org are: admin, member (before: member).\n"
    assert of(app, "member@example.org").role_names == {"admin", "member"}
    assert flask("users", "role", "admin@example.org", "member").exit_code == 0
    assert of(app, "admin@example.org").role_names == {"member"}


def test_there_is_always_an_administrator_who_can_sign_in(flask, app, admin, member, person):
    person("gone@example.org", "admin")
    assert flask("users", "close", "gone@example.org").exit_code == 0
    for words in (["role", "admin@example.org", "member"], ["close", "admin@example.org"]):
        refused = flask("users", *words)
        assert refused.exit_code == 1
        assert refused.stderr == (
            "Error: admin@example.org is the only administrator. Make another one first: "
            "flask users role EMAIL admin\n"
        )
    kept = of(app, "admin@example.org")
    assert kept.active
    assert kept.role_names == {"admin"}
    assert flask("users", "role", "admin@example.org", "member", "admin").exit_code == 0
    assert flask("users", "role", "gone@example.org", "member").exit_code == 0, "closed anyhow"
    assert flask("users", "role", "member@example.org", "admin").exit_code == 0
    assert flask("users", "close", "admin@example.org").exit_code == 0


def test_of_two_administrators_not_each_unseats_the_other(app, environ, admin, person):
    """While somebody takes the role from the second one, closing the first one waits, and is refused."""
    second = person("second@example.org", "admin")
    refused = []

    def close():
        with app.app_context():
            try:
                closing.close(db.session.merge(admin, load=True))
            except Conflict as error:
                refused.append(error.message)

    with (
        psycopg.connect(environ["DATABASE_URL"]) as elsewhere,
        psycopg.connect(environ["DATABASE_URL"], autocommit=True) as looking,
    ):
        elsewhere.execute("SELECT FROM roles WHERE name = 'admin' FOR NO KEY UPDATE")
        elsewhere.execute("DELETE FROM roles_users WHERE user_id = %s", (second.id,))
        waiting = threading.Thread(target=close)
        waiting.start()
        asked = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        try:
            until(lambda: looking.execute(asked).fetchone() is not None)
        finally:
            elsewhere.commit()
            waiting.join()
    assert len(refused) == 1
    assert of(app, "admin@example.org").active


@pytest.mark.parametrize("words", [["role", "member@example.org"], ["role", "member@example.org", "king"]])
def test_roles_that_are_none(flask, app, member, words):
    assert flask("users", *words).exit_code == 2
    assert of(app, "member@example.org").role_names == {"member"}


@pytest.mark.parametrize("words", [["role", "nobody@example.org", "admin"], ["close", "nobody@example.org"]])
def test_an_account_that_is_not_there(flask, app, words):
    refused = flask("users", *words)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: There is no account for nobody@example.org.")


# flask users close, flask users reopen


def test_who_left_does_not_come_in_again(flask, app, auth, member, other, mailbox):
    inside, stranger = auth.client_of(member), app.test_client()
    bystander = auth.client_of(other)
    secret = flask("tokens", "create", "member@example.org").output.strip()
    link = mailed(stranger, auth, mailbox, "/sign-in/link", "member@example.org")
    reset = mailed(stranger, auth, mailbox, "/reset-password", "member@example.org")
    assert inside.get("/account").status_code == 200
    assert app.test_client().get(JOBS, headers=bearer(secret)).status_code == 200

    closed = flask("users", "close", "Member@example.org")
    assert closed.output.splitlines() == [
        "The account of member@example.org is closed.",
        "  Signed-in browsers  1 signed out",
        "  API tokens          1 revoked",
        "  Download links      0 revoked",
        "  Jobs at work        0 cancelled",
        "To let the person in again: flask users reopen member@example.org",
    ]
    let_in = [
        inside,
        *(app.test_client() for _ in range(3)),
    ]
    auth.sign_in(member, client=let_in[1])
    post(let_in[2], auth, link)
    new = "a much better horse, battery and staple"
    post(let_in[3], auth, reset, password=new, password_confirm=new)
    for client in let_in:
        assert client.get("/account").status_code == 303
    assert app.test_client().get(JOBS, headers=bearer(secret)).status_code == 401
    mailbox.clear()
    post(stranger, auth, "/sign-in/link", email="member@example.org")
    post(stranger, auth, "/sign-in/link", email="other@example.org")
    mailbox.wait(to="other@example.org")
    assert [mail.recipients for mail in mailbox.mails()] == [["other@example.org"]]
    assert bystander.get("/account").status_code == 200


def test_what_was_ended_stays_ended_when_an_account_is_opened_again(flask, app, auth, member, mailbox):
    inside = auth.client_of(member)
    secret = flask("tokens", "create", "member@example.org").output.strip()
    link = mailed(app.test_client(), auth, mailbox, "/sign-in/link", "member@example.org")
    reset = mailed(app.test_client(), auth, mailbox, "/reset-password", "member@example.org")
    flask("users", "close", "member@example.org")
    opened = flask("users", "reopen", "member@example.org")
    assert opened.output == (
        "The account of member@example.org is open again (member). Its owner signs in with the password of "
        "before, or by emailed link; API tokens and download links stay revoked.\n"
    )
    assert inside.get("/account").status_code == 303
    assert app.test_client().get(JOBS, headers=bearer(secret)).status_code == 401
    assert post(app.test_client(), auth, link).status_code == 410
    new = "a much better horse, battery and staple"
    post(app.test_client(), auth, reset, password=new, password_confirm=new)
    auth.sign_in(member, new, client=inside)
    assert inside.get("/account").status_code == 303, "the old link changed no password"
    auth.sign_in(member, PASSWORD, client=inside)
    assert inside.get("/account").status_code == 200

    again = flask("users", "reopen", "member@example.org")
    assert again.exit_code == 1
    assert again.stderr == "Error: The account of member@example.org is not closed. Nothing was changed.\n"


def test_links_die_with_the_account_and_others_keep_theirs(flask, app, client, demo, member, other):
    with app.app_context():
        theirs, others = (
            links.url(exporting.artifact(exporting.make(user, "all_tasks"))[0]) + "/receipt"
            for user in (member, other)
        )
    assert client.get(theirs).status_code == 200
    closed = flask("users", "close", "member@example.org").output
    assert "Download links      1 revoked" in closed
    assert "Who needs a file gets a new link from an administrator, on its job's page." in closed
    assert client.get(theirs).status_code == 410
    assert client.get(others).status_code == 200
    with app.app_context():
        assert db.session.scalar(select(func.count()).where(Artifact.removed_at.is_(None))) == 2


def test_jobs_at_work_are_cancelled(flask, app, demo, member, other):
    with app.app_context():
        asked = [
            jobs.request_export(db.session.merge(user), "all_tasks", {}, fresh=True).id
            for user in (member, member, other)
        ]
        assert leases.claim(asked[0]) is not None
    assert "Jobs at work        2 cancelled" in flask("users", "close", "member@example.org").output
    with app.app_context():
        running, queued, others = (db.session.get_one(Job, job_id) for job_id in asked)
        assert running.cancel_requested_at is not None
        assert (queued.status, others.status) == ("cancelled", "queued")


def test_closing_again_ends_what_was_left_over(flask, app, member):
    """An account may have been closed by hand."""
    flask("tokens", "create", "member@example.org")
    with app.app_context():
        db.session.execute(update(User).values(active=False))
        db.session.commit()
    closed = flask("users", "close", "member@example.org")
    assert closed.exit_code == 0
    assert "API tokens          1 revoked" in closed.output
    assert "API tokens          0 revoked" in flask("users", "close", "member@example.org").output
