"""Signing in by password and by emailed link, signing out, new passwords; what an attacker gets from each."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from apiflask import APIFlask
from flask.testing import FlaskClient
from sqlalchemy import func, select, update

from app import accounts, create_app, mail
from app.dev.child import free_port
from app.dev.mailbox import Mailbox
from app.errors import BadSettings, Conflict, InvalidRequest, NotFound
from app.extensions import db
from app.models import SignIn, SignInLink, User
from app.web import mails

PASSWORD = "correct horse battery staple"
NEW = "a much better horse, battery and staple"
WRONG = "not the password at all"
INSIDE = "/account"


def signed_in(client: FlaskClient) -> bool:
    return client.get(INSIDE).status_code == 200


def post(client: FlaskClient, auth: Any, url: str, **form: str) -> Any:
    return client.post(url, data={"csrf_token": auth.csrf(client), **form})


def token_on(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found
    return found[1]


def words(html: str) -> str:
    """The page's text, without what differs between any two pages: tokens."""
    return " ".join(re.sub(r'value="[^"]*"|<[^>]+>', " ", html).split())


# --- passwords --------------------------------------------------------------------------------------------


def test_a_person_signs_in_and_lands_where_they_wanted_to_be(
    client: FlaskClient, auth: Any, member: Any
) -> None:
    asked = client.get("/jobs?status=failed")
    assert asked.status_code == 303
    assert asked.location == "/sign-in?next=/jobs?status%3Dfailed"
    page = client.get(asked.location)
    assert 'name="next" value="/jobs?status=failed"' in page.text
    answer = post(client, auth, "/sign-in", email=member.email, password=PASSWORD, next="/jobs?status=failed")
    assert answer.status_code == 302
    assert answer.location == "/jobs?status=failed"
    assert signed_in(client)


def test_the_address_is_taken_in_any_case(client: FlaskClient, auth: Any, member: Any) -> None:
    auth.sign_in(member.email.upper())
    assert signed_in(client)


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "///evil.example", "javascript:alert(1)"],
)
def test_nobody_is_led_elsewhere_after_signing_in(
    client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox, wanted: str
) -> None:
    answer = post(client, auth, "/sign-in", email=member.email, password=PASSWORD, next=wanted)
    assert "evil" not in urlsplit(answer.location or "").netloc
    assert not (answer.location or "/").startswith(("//", "/\\", "javascript"))
    assert answer.location or "You were not signed in" in answer.text
    post(client.application.test_client(), auth, "/sign-in/link", email=member.email, next=wanted)
    post(client.application.test_client(), auth, "/reset-password", email=member.email, next=wanted)


def test_an_unknown_address_and_a_wrong_password_look_the_same(app: APIFlask, auth: Any, member: Any) -> None:
    wrong, unknown = (
        auth.sign_in(email, WRONG, client=app.test_client())
        for email in (member.email, "x" + member.email[1:])
    )
    assert wrong.status_code == unknown.status_code == 200
    assert words(wrong.text) == words(unknown.text)
    assert "The address or the password is wrong." in wrong.text


def test_an_unknown_address_takes_as_long_as_a_wrong_password(app: APIFlask, auth: Any, member: Any) -> None:
    """Measured as our own work, of which hashing is nearly all: what else the machine does is left out."""

    def once(email: str) -> float:
        client = app.test_client()
        token = auth.csrf(client)
        begun = time.thread_time()
        client.post("/sign-in", data={"csrf_token": token, "email": email, "password": WRONG})
        return time.thread_time() - begun

    once("warm@example.org")
    pairs = [(once("nobody@example.org"), once(member.email)) for _ in range(8)]
    unknown, wrong = (min(times) for times in zip(*pairs, strict=True))
    assert 0.5 < unknown / wrong < 2


def test_a_closed_account_does_not_get_in(app: APIFlask, client: FlaskClient, auth: Any, member: Any) -> None:
    inside = auth.client_of(member)
    close(app, member)
    auth.sign_in(member)
    assert not signed_in(client)
    assert not signed_in(inside)


@pytest.mark.parametrize("password", ["", "\0", "\0" + PASSWORD, "x" * 100_000, "\ud7ff\U0001f40e" * 200])
def test_hostile_passwords_are_wrong_passwords(
    client: FlaskClient, auth: Any, member: Any, password: str
) -> None:
    assert auth.sign_in(member, password).status_code == 200
    assert not signed_in(client)


@pytest.mark.parametrize(
    "email", ["", "\0@example.org", "<script>@x", "a" * 100_000, "x' OR 1=1 --", "ä@ö.example"]
)
def test_hostile_addresses_are_unknown_addresses(client: FlaskClient, auth: Any, email: str) -> None:
    for url in ("/sign-in", "/sign-in/link", "/reset-password"):
        answer = post(client, auth, url, email=email, password=PASSWORD)
        assert answer.status_code in (200, 422)
        assert "<script>" not in answer.text


def test_the_hash_is_argon2id_at_owasps_cost_and_does_not_depend_on_the_secret_key(
    app: APIFlask, app_with: Callable[..., APIFlask], member: Any
) -> None:
    with app.app_context():
        user = db.session.get(User, member.id)
        assert user is not None
        assert user.password is not None
        assert user.password.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    rotated = app_with(SECRET_KEY="another key of more than 32 characters")
    client = rotated.test_client()
    page = client.get("/sign-in").text
    client.post("/sign-in", data={"csrf_token": token_on(page), "email": member.email, "password": PASSWORD})
    assert signed_in(client)


def test_nobody_registers_by_themselves(app: APIFlask) -> None:
    addresses = {rule.rule for rule in app.url_map.iter_rules()}
    assert not {address for address in addresses if "register" in address or "confirm" in address}


# --- sessions ---------------------------------------------------------------------------------------------


def test_the_session_is_a_new_one_after_signing_in(app: APIFlask, auth: Any, member: Any) -> None:
    """Fixation: what an attacker planted before is worth nothing afterwards."""
    victim = app.test_client()
    victim.get("/sign-in")
    with victim.session_transaction() as session:
        session["planted"] = "by the attacker"
    planted = victim.get_cookie("waybill")
    assert planted
    before = auth.csrf(victim)
    auth.sign_in(member, client=victim)
    with victim.session_transaction() as session:
        assert "planted" not in session
    attacker = app.test_client()
    attacker.set_cookie("waybill", planted.value)
    assert not signed_in(attacker)
    assert victim.post("/account/tokens", data={"csrf_token": before, "name": "x"}).status_code == 400
    assert signed_in(victim)


def test_a_copied_cookie_is_dead_after_signing_out(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any
) -> None:
    auth.sign_in(member)
    cookie = client.get_cookie("waybill")
    assert cookie
    thief = app.test_client()
    thief.set_cookie("waybill", cookie.value)
    assert signed_in(thief)
    assert auth.sign_out().location == "/sign-in"
    assert not signed_in(client)
    assert not signed_in(thief)


def test_signing_out_leaves_other_browsers_alone(client: FlaskClient, auth: Any, member: Any) -> None:
    elsewhere = auth.client_of(member)
    auth.sign_in(member)
    auth.sign_out()
    assert signed_in(elsewhere)


def test_signing_in_again_ends_the_earlier_sign_in_of_that_browser(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox
) -> None:
    auth.sign_in(member)
    cookie = client.get_cookie("waybill")
    assert cookie
    link = emailed_link(client, auth, member, mailbox)
    client.post(link, data={"csrf_token": auth.csrf()})
    thief = app.test_client()
    thief.set_cookie("waybill", cookie.value)
    assert not signed_in(thief)
    assert signed_in(client)


def test_a_session_ends_by_itself(app: APIFlask, client: FlaskClient, auth: Any, member: Any) -> None:
    auth.sign_in(member)
    with app.app_context():
        db.session.execute(update(SignIn).values(expires_at=func.now()))
        db.session.commit()
    assert not signed_in(client)


def test_only_a_sign_in_of_the_same_person_counts(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, other: Any
) -> None:
    auth.sign_in(member)
    auth.client_of(other)
    with app.app_context():
        theirs = db.session.scalar(select(SignIn.id).where(SignIn.user_id == other.id))
    with client.session_transaction() as session:
        session["sign_in"] = str(theirs)
    assert not signed_in(client)


def test_the_cookie_is_out_of_reach(
    app_with: Callable[..., APIFlask], app: APIFlask, auth: Any, member: Any
) -> None:
    plain = auth.sign_in(member, client=app.test_client()).headers["Set-Cookie"]
    assert "HttpOnly" in plain
    assert "SameSite=Lax" in plain
    assert "Secure" not in plain
    secure = app_with(PUBLIC_URL="https://waybill.example")
    client = secure.test_client()
    cookie = client.get("/sign-in", base_url="https://waybill.example").headers["Set-Cookie"]
    assert cookie.startswith("__Host-waybill=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_no_second_cookie_remembers_anybody(client: FlaskClient, auth: Any, member: Any) -> None:
    answer = post(client, auth, "/sign-in", email=member.email, password=PASSWORD, remember="y")
    assert answer.status_code == 302
    assert client.get_cookie("remember_token") is None


# --- the emailed link -------------------------------------------------------------------------------------


def emailed_link(client: FlaskClient, auth: Any, user: Any, mailbox: Mailbox, **form: str) -> str:
    """Path and query of the link that is mailed to `user`."""
    email = getattr(user, "email", user)
    mailbox.clear()
    assert post(client, auth, "/sign-in/link", email=email, **form).status_code == 200
    (link,) = mailbox.wait(to=email).links
    assert link.startswith("http://127.0.0.1:8000/sign-in/link/")
    return link.removeprefix("http://127.0.0.1:8000")


def test_a_person_signs_in_by_emailed_link(
    client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox
) -> None:
    link = emailed_link(client, auth, member, mailbox, next="/jobs")
    mail = mailbox.wait(to=member.email)
    assert mail.subject == "Sign in to Waybill"
    assert mail.html
    assert link.split("?")[0] in mail.html
    page = client.get(link)
    assert member.email in page.text
    answer = post(client, auth, link)
    assert answer.status_code == 303
    assert answer.location == "/jobs"
    assert signed_in(client)


def test_only_the_button_uses_the_link_up(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox
) -> None:
    """A mail scanner follows every link before the person does."""
    link = emailed_link(client, auth, member, mailbox)
    scanner = app.test_client()
    for _ in range(3):
        assert scanner.get(link).status_code == 200
        assert scanner.head(link).status_code == 200
    assert not signed_in(scanner)
    assert post(client, auth, link).status_code == 303
    assert signed_in(client)


def test_a_link_works_once(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox
) -> None:
    link = emailed_link(client, auth, member, mailbox)
    post(client, auth, link)
    thief = app.test_client()
    assert post(thief, auth, link).status_code == 410
    assert thief.get(link).status_code == 410
    assert not signed_in(thief)


def test_of_two_at_once_only_one_gets_in(app: APIFlask, auth: Any, member: Any, mailbox: Mailbox) -> None:
    clients = [app.test_client() for _ in range(6)]
    link = emailed_link(clients[0], auth, member, mailbox)
    tokens = [auth.csrf(client) for client in clients]
    together = threading.Barrier(len(clients))
    statuses: list[int] = []

    def click(client: FlaskClient, token: str) -> None:
        together.wait()
        statuses.append(client.post(link, data={"csrf_token": token}).status_code)

    threads = [threading.Thread(target=click, args=pair) for pair in zip(clients, tokens, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [303, *[410] * 5]


def test_a_link_grows_old(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox
) -> None:
    link = emailed_link(client, auth, member, mailbox)
    with app.app_context():
        db.session.execute(update(SignInLink).values(expires_at=func.now()))
        db.session.commit()
    assert client.get(link).status_code == 410
    answer = post(client, auth, link)
    assert answer.status_code == 410
    assert "Have a new one sent" in answer.text
    assert not signed_in(client)


def test_a_closed_accounts_link_is_dead(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox
) -> None:
    link = emailed_link(client, auth, member, mailbox)
    close(app, member)
    assert post(client, auth, link).status_code == 410
    assert not signed_in(client)


def test_a_flipped_link_is_dead(client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox) -> None:
    link = emailed_link(client, auth, member, mailbox)
    flipped = link[:-1] + ("A" if link[-1] != "A" else "B")
    assert client.get(flipped).status_code == 410
    assert post(client, auth, flipped).status_code == 410


def test_the_database_does_not_hold_the_link(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox
) -> None:
    link = emailed_link(client, auth, member, mailbox)
    with app.app_context():
        kept = db.session.scalars(select(SignInLink.sha256)).one()
    assert kept not in link
    assert link.rsplit("/", 1)[1] not in kept


@pytest.mark.parametrize("url", ["/sign-in/link", "/reset-password"])
def test_asking_for_a_mail_tells_nothing_about_accounts(
    app: APIFlask, auth: Any, member: Any, mailbox: Mailbox, url: str
) -> None:
    known, unknown = (
        post(app.test_client(), auth, url, email=email) for email in (member.email, "nobody@example.org")
    )
    assert known.status_code == unknown.status_code == 200
    assert words(known.text).replace(member.email, "?") == words(unknown.text).replace(
        "nobody@example.org", "?"
    )
    assert "Look into your mailbox" in known.text
    mailbox.wait(to=member.email)
    assert len(mailbox.mails()) == 1


def test_links_in_mails_do_not_follow_the_host_header(
    client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox
) -> None:
    for url in ("/sign-in/link", "/reset-password"):
        mailbox.clear()
        page = client.get(url, base_url="http://evil.example").text
        form = {"csrf_token": token_on(page), "email": member.email}
        headers = {"X-Forwarded-Host": "evil.example"}
        assert client.post(url, data=form, headers=headers, base_url="http://evil.example").status_code == 200
        mail = mailbox.wait(to=member.email)
        assert "evil" not in (mail.text or "") + (mail.html or "")


# --- new passwords ----------------------------------------------------------------------------------------


def test_a_forgotten_password_is_replaced(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox
) -> None:
    elsewhere = auth.client_of(member)
    sign_in_link = emailed_link(client, auth, member, mailbox)
    reset = reset_link(client, auth, member, mailbox)
    assert "Choose a new password" in client.get(reset).text
    answer = post(client, auth, reset, password=NEW, password_confirm=NEW)
    assert answer.location == "/sign-in"
    assert "The new password is set" in client.get("/sign-in").text
    assert mailbox.wait(to=member.email, subject="Your Waybill password was changed").links
    assert not signed_in(elsewhere), "other browsers are signed out"
    assert post(client, auth, sign_in_link).status_code == 410, "links sent before are dead"
    auth.sign_in(member)
    assert not signed_in(client), "the old password is gone"
    auth.sign_in(member, NEW)
    assert signed_in(client)
    again = app.test_client()
    assert post(again, auth, reset, password=WRONG, password_confirm=WRONG).location == "/reset-password"
    assert again.get(reset).location == "/reset-password", "the link worked once"


def reset_link(client: FlaskClient, auth: Any, user: Any, mailbox: Mailbox) -> str:
    email = getattr(user, "email", user)
    mailbox.clear()
    post(client, auth, "/reset-password", email=email)
    (link,) = mailbox.wait(to=email, subject="Choose a new Waybill password").links
    return link.removeprefix("http://127.0.0.1:8000")


@pytest.mark.parametrize("token", ["x", "x.y.z", "%00", "a" * 5000])
def test_a_forged_reset_link_is_refused(client: FlaskClient, auth: Any, token: str) -> None:
    url = f"/reset-password/{token}"
    assert client.get(url).location == "/reset-password"
    assert post(client, auth, url, password=NEW, password_confirm=NEW).location == "/reset-password"
    assert "used up or damaged" in client.get("/reset-password").text


@pytest.mark.parametrize(
    ("password", "again", "said"),
    [
        ("short", "short", "Take 10 characters or more."),
        (NEW, NEW + "x", "The two are not the same."),
        ("", "", "Type a password."),
        ("x" * 501, "x" * 501, "longer than 500"),
    ],
)
def test_a_bad_new_password_is_explained(
    client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox, password: str, again: str, said: str
) -> None:
    reset = reset_link(client, auth, member, mailbox)
    assert said in post(client, auth, reset, password=password, password_confirm=again).text
    auth.sign_in(member)
    said_here = post(
        client, auth, "/change-password", password=PASSWORD, new_password=password, new_password_confirm=again
    ).text
    assert said in said_here
    auth.sign_out()
    auth.sign_in(member)
    assert signed_in(client), "the old password stays"


def test_a_password_is_changed(
    app: APIFlask, client: FlaskClient, auth: Any, member: Any, mailbox: Mailbox
) -> None:
    elsewhere = auth.client_of(member)
    auth.sign_in(member)
    before = client.get_cookie("waybill")
    assert before
    change = {"new_password": NEW, "new_password_confirm": NEW}
    refused = post(client, auth, "/change-password", password=WRONG, **change)
    assert "That is not your present password." in refused.text
    assert post(client, auth, "/change-password", password=PASSWORD, **change).location == "/account"
    assert mailbox.wait(to=member.email).subject == "Your Waybill password was changed"
    assert signed_in(client), "this browser stays signed in"
    assert not signed_in(elsewhere)
    thief = app.test_client()
    thief.set_cookie("waybill", before.value)
    assert not signed_in(thief), "a cookie copied before is dead"


def test_who_has_no_password_chooses_one_by_mail_only(
    app: APIFlask, client: FlaskClient, auth: Any, mailbox: Mailbox
) -> None:
    user = "linked@example.org"
    with app.app_context():
        accounts.create_user(user)
    auth.sign_in(user, "")
    assert not signed_in(client)
    client.post(emailed_link(client, auth, user, mailbox), data={"csrf_token": auth.csrf()})
    assert signed_in(client)
    assert "has no password yet" in client.get("/change-password").text
    post(client, auth, "/change-password", new_password=NEW, new_password_confirm=NEW)
    auth.sign_out()
    auth.sign_in(user, NEW)
    assert not signed_in(client)
    post(client, auth, reset_link(client, auth, user, mailbox), password=NEW, password_confirm=NEW)
    auth.sign_in(user, NEW)
    assert signed_in(client)


# --- the mail server --------------------------------------------------------------------------------------


@contextmanager
def silent_server() -> Iterator[int]:
    """Takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize("url", ["/sign-in/link", "/reset-password"])
def test_a_dead_mail_server_is_told_of_to_everybody_alike(
    app_with: Callable[..., APIFlask], app: APIFlask, auth: Any, member: Any, url: str
) -> None:
    broken = app_with(MAIL_PORT=str(free_port()))
    answers = [
        post(broken.test_client(), auth, url, email=email) for email in (member.email, "nobody@example.org")
    ]
    assert [answer.status_code for answer in answers] == [503, 503]
    for answer in answers:
        assert "No mail could be sent" in answer.text
        assert "Nothing was changed" in answer.text
    with app.app_context():
        assert db.session.scalar(select(func.count()).select_from(SignInLink)) == 0


def test_a_mail_server_that_hangs_does_not_hold_the_page_for_long(
    app_with: Callable[..., APIFlask], auth: Any, member: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mails.WHOLE <= 5
    monkeypatch.setattr(mails, "ANSWER", mails.ANSWER / 10)
    with silent_server() as port:
        slow = app_with(MAIL_PORT=str(port))
        begun = time.monotonic()
        answer = post(slow.test_client(), auth, "/sign-in/link", email=member.email)
        assert answer.status_code == 503
        assert time.monotonic() - begun < mail.ANSWER  # the limit where nobody waits for a page


def test_a_password_changes_even_if_no_mail_can_tell_of_it(
    app_with: Callable[..., APIFlask], app: APIFlask, auth: Any, member: Any
) -> None:
    broken = app_with(MAIL_PORT=str(free_port()))
    client = broken.test_client()
    auth.sign_in(member, client=client)
    change = {"password": PASSWORD, "new_password": NEW, "new_password_confirm": NEW}
    assert post(client, auth, "/change-password", **change).location == "/account"
    fresh = app.test_client()
    auth.sign_in(member, NEW, client=fresh)
    assert signed_in(fresh)


# --- limits -----------------------------------------------------------------------------------------------


@pytest.fixture
def strict(app_with: Callable[..., APIFlask]) -> Callable[..., APIFlask]:
    return partial(app_with, SIGN_IN_RATE="3 per minute")


def attempts(
    app: APIFlask, auth: Any, email: Any, password: str, number: int, address: str = ""
) -> list[int]:
    statuses = []
    for _ in range(number):
        client = app.test_client()
        if address:
            client.environ_base["REMOTE_ADDR"] = address
        statuses.append(auth.sign_in(email, password, client=client).status_code)
    return statuses


def test_guessing_from_one_address_ends_soon(strict: Callable[..., APIFlask], auth: Any, member: Any) -> None:
    app = strict()
    assert [attempts(app, auth, f"{n}@example.org", WRONG, 1)[0] for n in range(4)] == [200, 200, 200, 429]
    client = app.test_client()
    answer = auth.sign_in(member, client=client)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 61
    assert "Try again in" in answer.text


def test_guessing_one_account_from_many_addresses_ends_soon(
    strict: Callable[..., APIFlask], auth: Any, member: Any, mailbox: Mailbox
) -> None:
    app = strict()
    tried = [attempts(app, auth, member, WRONG, 1, f"10.0.0.{n}")[0] for n in range(1, 5)]
    assert tried == [200, 200, 200, 429]
    assert attempts(app, auth, "other@example.org", WRONG, 1, "10.0.0.9") == [200]
    # The owner is not locked out: a link still gets in.
    client = app.test_client()
    client.environ_base["REMOTE_ADDR"] = "10.0.0.10"
    link = emailed_link(client, auth, member, mailbox)
    assert post(client, auth, link).status_code == 303


def test_an_account_written_in_other_ways_is_the_same_account(
    strict: Callable[..., APIFlask], auth: Any, member: Any
) -> None:
    app = strict()
    ways = ("MEMBER@example.org", "member@ｅxample.org", " member@example．org", "member@ＥXAMPLE.org")
    tried = [attempts(app, auth, way, WRONG, 1, f"10.0.0.{n}")[0] for n, way in enumerate(ways, 1)]
    assert tried == [200, 200, 200, 429]


def test_signing_in_rightly_does_not_use_up_the_account(
    strict: Callable[..., APIFlask], auth: Any, member: Any
) -> None:
    app = strict()
    assert [attempts(app, auth, member, PASSWORD, 1, f"10.0.0.{n}")[0] for n in range(1, 7)] == [302] * 6


def test_all_web_processes_count_together(strict: Callable[..., APIFlask], auth: Any) -> None:
    one, two = strict(), strict()
    assert attempts(one, auth, "a@example.org", WRONG, 2) == [200, 200]
    assert attempts(two, auth, "b@example.org", WRONG, 2) == [200, 429]


def test_nobodys_mailbox_is_flooded(app: APIFlask, auth: Any, member: Any) -> None:
    statuses = [
        post(app.test_client(), auth, url, email=member.email).status_code
        for url in ("/sign-in/link", "/reset-password") * 3
    ]
    assert statuses == [200] * 5 + [429]


def test_without_redis_each_process_counts_for_itself(
    strict: Callable[..., APIFlask], auth: Any, member: Any
) -> None:
    app = strict(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    client = app.test_client()
    auth.sign_in(member, client=client)
    assert signed_in(client)
    assert attempts(app, auth, "a@example.org", WRONG, 3) == [200, 200, 429]


def test_counting_in_redis_goes_on_when_it_is_back(strict: Callable[..., APIFlask], auth: Any) -> None:
    """Redis refuses us for a while: nobody is locked out, and nothing crashes."""
    app = strict()
    limiter = app.extensions["waybill.limiter"]
    good, limiter.storage.storage = (
        limiter.storage.storage,
        redis.Redis.from_url(f"redis://127.0.0.1:{free_port()}"),
    )
    assert attempts(app, auth, "a@example.org", WRONG, 1) == [200]
    limiter.storage.storage = good
    assert attempts(app, auth, "a@example.org", WRONG, 4)[-1] == 429


@pytest.mark.parametrize("name", ["SIGN_IN_RATE", "REQUEST_RATE"])
def test_a_rate_that_is_none_is_refused_at_the_start(environ: dict[str, str], name: str) -> None:
    with pytest.raises(BadSettings, match=name):
        create_app(environ | {name: "often"})


# --- accounts ---------------------------------------------------------------------------------------------


def test_accounts_are_made_once_whatever_the_case(app: APIFlask) -> None:
    with app.app_context():
        made = accounts.create_user("Ann@Example.org", PASSWORD, ["member", "admin"])
        assert made.email == "ann@example.org"
        assert made.is_admin
        with pytest.raises(Conflict, match=r"ann@example\.org"):
            accounts.create_user("ANN@example.org", PASSWORD)
        assert accounts.find_user("ann@EXAMPLE.org").id == made.id


def test_bad_accounts_are_refused_in_words(app: APIFlask) -> None:
    with app.app_context():
        with pytest.raises(InvalidRequest, match="'ann' is not a mail address"):
            accounts.create_user("ann", PASSWORD)
        with pytest.raises(InvalidRequest, match="10 characters or more"):
            accounts.create_user("ann@example.org", "short")
        with pytest.raises(InvalidRequest, match="no role 'king'"):
            accounts.create_user("ann@example.org", PASSWORD, ["king"])
        with pytest.raises(NotFound, match="flask users create"):
            accounts.find_user("ann@example.org")


def close(app: APIFlask, user: Any) -> None:
    with app.app_context():
        db.session.execute(update(User).where(User.id == user.id).values(active=False))
        db.session.commit()
