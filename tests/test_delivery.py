"""One mail an ending, whatever the mail server and the storage do meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from apiflask import APIFlask

from app import delivery, events, leases, links, mail
from app.dev.child import free_port
from app.dev.mailbox import Mailbox
from app.extensions import db
from app.models import Artifact, Delivery, Job
from app.models.job import reopen
from app.storage import artifact_key

NOW = sa.func.clock_timestamp()
CONTENT = b"id,title\r\n1,one\r\n2,two\r\n"


@pytest.fixture(autouse=True)
def context(app: APIFlask) -> Iterator[None]:
    with app.app_context():
        yield


@pytest.fixture
def tune(app: APIFlask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """tune(mail_port=1): other settings for this test."""

    def tune(**values: Any) -> None:
        monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], **values))

    return tune


def ended(
    app: APIFlask, owner: Any, name: str = "ready", *, rows: int = 2, stored: bool = True, **job: Any
) -> int:
    """A job that ended just now, its file and the mail to be sent; returns the delivery's id."""
    job_id = uuid4()
    status = {"ready": "succeeded", "failed": "failed"}[name]
    values = {
        "kind": "export",
        "definition": "all_tasks",
        "title": "All tasks",
        "params": {},
        "attempt": 1,
    } | job
    db.session.add(Job(id=job_id, owner_id=owner.id, status=status, finished_at=NOW, **values))
    db.session.flush()
    if name == "ready":
        publish(app, job_id, rows, stored)
    leases.announce(db.session.connection(), job_id, 1, name)
    db.session.commit()
    return db.session.scalars(sa.select(Delivery.id).where(Delivery.job_id == job_id)).one()


def publish(app: APIFlask, job_id: UUID, rows: int, stored: bool) -> None:
    key = artifact_key(job_id, 1, "csv")
    if stored:
        with app.extensions["waybill.storage"].writer(
            key, content_type="text/csv", filename="x.csv"
        ) as writer:
            writer.write(CONTENT)
            writer.commit()
    db.session.add(
        Artifact(
            job_id=job_id,
            key=key,
            filename="all_tasks-2026-01-31.csv",
            content_type="text/csv",
            bytes=len(CONTENT),
            rows=rows,
            sha256="0" * 64,
            receipt={},
            expires_at=NOW + timedelta(hours=24),
        )
    )


def row(delivery_id: int) -> Delivery:
    db.session.rollback()
    return db.session.get_one(Delivery, delivery_id, populate_existing=True)


def make_due(delivery_id: int, **values: Any) -> None:
    db.session.execute(
        sa.update(Delivery).where(Delivery.id == delivery_id).values(next_attempt_at=NOW, **values)
    )
    db.session.commit()


def change(model: Any, job_id: UUID, **values: Any) -> None:
    column = model.id if model is Job else model.job_id
    db.session.execute(sa.update(model).where(column == job_id).values(**values))
    db.session.commit()


def lines(delivery_id: int) -> list[str]:
    return [line.text for line in events.after(row(delivery_id).job_id, 0)]


# --- what is sent -----------------------------------------------------------------------------------------


def test_ready_mail_says_all_in_both_parts(app: APIFlask, member: Any, mailbox: Mailbox) -> None:
    id = ended(app, member, rows=1_234_567, params={"since": "2026-01-01", "open": True, "none": None})
    delivery.deliver(id)

    caught = mailbox.wait(to=member.email, subject="Ready: All tasks", seconds=1)
    url = links.url(db.session.scalars(sa.select(Artifact)).one())
    for part in (caught.text, caught.html):
        assert part is not None
        for words in ("1,234,567", "24 bytes", "all_tasks-2026-01-31.csv", "2026-01-01", "yes", " UTC", url):
            assert words in part
        assert f"/jobs/{row(id).job_id}" in part
    assert caught.links[0] == url
    assert row(id).sent_at is not None
    assert lines(id) == [f"Mail sent to {member.email}."]


def test_params_in_words_and_in_the_order_of_asking(app: APIFlask, member: Any, mailbox: Mailbox) -> None:
    params = {"gone": 7, "status": "open", "since": "2026-01-01"}
    delivery.deliver(ended(app, member, params=params))
    text = (mailbox.wait(seconds=1).text or "").splitlines()
    first = text.index("Created since: 2026-01-01")
    assert text[first + 1 : first + 3] == ["Status: Open", "gone: 7"]


def test_headers_let_machines_know(
    app: APIFlask, member: Any, mailbox: Mailbox, tune: Callable[..., None]
) -> None:
    tune(mail_default_sender="Waybill <reports@waybill.example>")
    id = ended(app, member)
    delivery.deliver(id)

    message = mailbox.wait(seconds=1).message
    assert message["Message-ID"] == f"<{row(id).job_id}.1.ready@waybill.example>" == row(id).message_id
    assert message["From"] == "Waybill <reports@waybill.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Waybill-Job"] == str(row(id).job_id)
    assert message["Date"].datetime is not None


def test_empty_result_is_said(app: APIFlask, member: Any, mailbox: Mailbox) -> None:
    delivery.deliver(ended(app, member, rows=0))
    caught = mailbox.wait(subject="empty", seconds=1)
    assert "no rows matched" in (caught.text or "")
    assert "no rows matched" in (caught.html or "")


def test_failed_mail_says_why_and_what_next(app: APIFlask, member: Any, mailbox: Mailbox) -> None:
    reason = "The source 'shop' does not answer. Line 3: <b>& so on</b>"
    id = ended(app, member, "failed", error_code="source_down", error_message=reason, attempt=1)
    delivery.deliver(id)

    caught = mailbox.wait(subject="Failed: All tasks", seconds=1)
    assert reason in (caught.text or "").replace("\n", " ")
    assert "&lt;b&gt;&amp; so on" in (caught.html or "")
    for part in (caught.text or "", caught.html or ""):
        assert "Nothing was published" in part
        assert "Try again" in part
        assert f"http://127.0.0.1:8000/jobs/{row(id).job_id}" in part


@pytest.mark.parametrize(
    "title",
    [
        "Sales\r\nBcc: everybody@example.org\r\n\r\nhello",
        "Ümsätze für 東京 \N{BAR CHART}" * 10,
        "x" * 200,
        "<script>alert(1)</script> {{ 7 * 7 }}",
        "right\N{RIGHT-TO-LEFT OVERRIDE}left\0",
    ],
)
def test_hostile_titles_stay_titles(app: APIFlask, member: Any, mailbox: Mailbox, title: str) -> None:
    # No NUL gets into PostgreSQL.
    delivery.deliver(ended(app, member, title=title.replace("\0", "")[:200]))

    caught = mailbox.wait(to=member.email, seconds=1)
    assert caught.message["Bcc"] is None
    assert caught.recipients == [member.email]
    assert "\n" not in caught.subject
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in caught.subject
    assert len(caught.subject) <= mail.SUBJECT
    assert caught.subject.startswith(
        ("Ready: Sales Bcc:", "Ready: Ümsätze", "Ready: xxx", "Ready: <scr", "Ready: ri")
    )
    assert "<script>" not in (caught.html or "")
    assert "49" not in caught.subject


def test_no_line_is_too_long_for_smtp(app: APIFlask, member: Any, mailbox: Mailbox) -> None:
    long = "東" * 5000
    delivery.deliver(ended(app, member, title=long[:200], params={"name": long, "ids": list(range(3000))}))
    raw = mailbox.raw(mailbox.wait(seconds=1).name)
    assert max(map(len, raw.splitlines())) <= 250
    assert "0, 1, 2, 3, 4 and 2,995 more" in (mailbox.mails()[0].text or "")


def test_only_the_owner_is_written_to(app: APIFlask, member: Any, admin: Any, mailbox: Mailbox) -> None:
    delivery.deliver(ended(app, member))
    assert [caught.recipients for caught in mailbox.mails()] == [[member.email]]


@pytest.mark.parametrize(
    "email", ["nobody", "a@b@example.org ", "a@exa mple.org", "a\nb@example.org", "@x.org"]
)
def test_what_is_no_address_is_given_up(
    app: APIFlask, person: Callable[..., Any], mailbox: Mailbox, email: str
) -> None:
    member = person("member@example.org", "member")
    id = ended(app, member)
    db.session.execute(sa.text("UPDATE users SET email = :email"), {"email": email})
    db.session.commit()
    delivery.deliver(id)
    assert row(id).given_up_at
    assert not mailbox.mails()


# --- once -------------------------------------------------------------------------------------------------


def test_five_messages_at_once_send_one_mail(app: APIFlask, member: Any, mailbox: Mailbox) -> None:
    id = ended(app, member)
    start = threading.Barrier(5)

    def send() -> None:
        with app.app_context():
            start.wait()
            delivery.deliver(id)

    threads = [threading.Thread(target=send) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mailbox.mails()) == 1
    assert (row(id).tries, len(lines(id))) == (1, 1)


def test_late_messages_find_nothing_to_do(app: APIFlask, member: Any, mailbox: Mailbox) -> None:
    id = ended(app, member)
    for _ in range(3):
        delivery.deliver(id)
        make_due(id)
    delivery.deliver(10**9)
    assert len(mailbox.mails()) == 1


def test_a_mail_whose_sending_could_not_be_noted_keeps_its_message_id(
    app: APIFlask, member: Any, mailbox: Mailbox, tune: Callable[..., None]
) -> None:
    id = ended(app, member)
    delivery.deliver(id)
    # As if the sender had been killed before it noted the outcome, and the settings had changed since.
    make_due(id, sent_at=None)
    tune(mail_default_sender="Waybill <reports@elsewhere.example>")
    delivery.deliver(id)
    first, second = (caught.message["Message-ID"] for caught in mailbox.mails())
    assert first == second


def test_a_sender_that_was_overtaken_notes_nothing(
    app: APIFlask, member: Any, tune: Callable[..., None]
) -> None:
    tune(mail_port=free_port())
    id = ended(app, member)
    tries = delivery._claim(id)
    assert tries == 1
    make_due(id)
    assert delivery._claim(id) == 2
    delivery._missed(row(id), tries, mail.MailRefused("Too late."))
    assert row(id).given_up_at is None
    assert row(id).last_error is None


# --- the mail server ---------------------------------------------------------------------------------------


def test_server_down_then_up(app: APIFlask, member: Any, mailbox: Mailbox, services: Any) -> None:
    id = ended(app, member)
    services.smtp.stop()
    try:
        delivery.deliver(id)
        job = db.session.get_one(Job, row(id).job_id)
        late = delivery.state(job)
        assert (late.status, late.reason) == ("late", "The mail server does not answer.")
        assert late.at is not None
        assert job.status == "succeeded"
        make_due(id)
        delivery.deliver(id)
        assert row(id).next_attempt_at == late.at or row(id).next_attempt_at > late.at
    finally:
        services.smtp.start()
    make_due(id)
    delivery.deliver(id)

    assert len(mailbox.mails()) == 1
    assert delivery.state(db.session.get_one(Job, row(id).job_id)).status == "sent"
    said = lines(id)
    assert len(said) == 2, "a reason is told once"
    assert said[0].startswith("The mail server does not answer. The mail is late; it is tried again at ")
    assert said[1] == f"Mail sent to {member.email}."


def test_a_recipient_put_off_is_tried_again(
    app: APIFlask, person: Callable[..., Any], mailbox: Mailbox
) -> None:
    id = ended(app, person("later@example.org", "member"))
    before = db.session.scalars(sa.select(NOW)).one()
    delivery.deliver(id)
    found = row(id)
    assert found.last_error == (
        "The mail server takes no mail for later@example.org (451 4.3.0 Try again later)."
    )
    assert found.given_up_at is None
    now = db.session.scalars(sa.select(NOW)).one()
    assert before + timedelta(minutes=1) <= found.next_attempt_at <= now + timedelta(minutes=1)


def test_a_recipient_refused_is_given_up(app: APIFlask, person: Callable[..., Any], mailbox: Mailbox) -> None:
    id = ended(app, person("refused@example.org", "member"))
    delivery.deliver(id)
    job = db.session.get_one(Job, row(id).job_id)
    found = delivery.state(job)
    assert (found.status, job.status) == ("given_up", "succeeded")
    assert "550 5.1.1 No such mailbox" in (found.reason or "")
    assert lines(id) == [f"No mail was sent to refused@example.org. {found.reason}"]


def test_no_mail_server_set_up(app: APIFlask, member: Any, tune: Callable[..., None]) -> None:
    tune(mail_server="")
    id = ended(app, member)
    delivery.deliver(id)
    assert "MAIL_SERVER" in (row(id).last_error or "")
    assert row(id).given_up_at


def test_pauses_grow_and_add_up_to_a_day() -> None:
    pauses: list[timedelta] = []
    while (wait := delivery.pause(len(pauses) + 1)) is not None:
        pauses.append(wait)
    minutes = [wait.total_seconds() / 60 for wait in pauses]
    assert minutes[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert 23 * 60 <= sum(minutes) <= 24 * 60


def test_after_a_day_it_is_given_up(app: APIFlask, member: Any, tune: Callable[..., None]) -> None:
    tune(mail_port=free_port())
    id = ended(app, member)
    make_due(id, tries=28)
    delivery.deliver(id)
    assert row(id).given_up_at
    assert lines(id) == [f"No mail was sent to {member.email}. The mail server does not answer."]


def test_a_fault_of_our_own_is_late_not_lost(
    app: APIFlask, member: Any, tune: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    tune(mail_default_sender="Waybill <a@b.example>\nBcc: x@y.example")
    id = ended(app, member)
    delivery.deliver(id)
    assert row(id).last_error == "The mail could not be written (ValueError)."
    assert row(id).given_up_at is None
    assert "nobody foresaw" in caplog.text


# --- what must be true before a mail goes out --------------------------------------------------------------


def test_no_mail_before_the_file_is_there(app: APIFlask, member: Any, mailbox: Mailbox) -> None:
    id = ended(app, member, stored=False)
    delivery.deliver(id)
    found = row(id)
    assert found.given_up_at is None
    assert found.last_error
    assert not mailbox.mails()


def test_no_mail_for_half_a_file(app: APIFlask, member: Any, mailbox: Mailbox) -> None:
    id = ended(app, member)
    change(Artifact, row(id).job_id, bytes=1000)
    delivery.deliver(id)
    assert row(id).last_error == "The storage holds 24 bytes of a file that has 1,000."
    assert not mailbox.mails()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"expires_at": NOW - timedelta(minutes=1)}, "expired"),
        ({"removed_at": NOW}, "expired"),
        ({"link_revoked_at": NOW}, "revoked"),
    ],
)
def test_no_mail_for_a_file_that_is_gone(
    app: APIFlask, member: Any, mailbox: Mailbox, values: dict[str, Any], reason: str
) -> None:
    id = ended(app, member)
    change(Artifact, row(id).job_id, **values)
    delivery.deliver(id)
    assert row(id).given_up_at
    assert reason in (row(id).last_error or "")
    assert not mailbox.mails()


def test_no_mail_of_a_failure_that_was_retried_since(app: APIFlask, member: Any, mailbox: Mailbox) -> None:
    id = ended(app, member, "failed")
    job_id = row(id).job_id
    reopen(db.session.connection(), job_id)
    db.session.commit()
    delivery.deliver(id)
    assert row(id).given_up_at
    assert not mailbox.mails()
    assert delivery.state(db.session.get_one(Job, row(id).job_id)).status == "none"


def test_no_mail_to_a_closed_account(app: APIFlask, member: Any, mailbox: Mailbox) -> None:
    id = ended(app, member)
    db.session.execute(sa.text("UPDATE users SET active = false"))
    db.session.commit()
    delivery.deliver(id)
    assert row(id).last_error == f"The account of {member.email} is closed."
    assert not mailbox.mails()


# --- what a page is told -----------------------------------------------------------------------------------


def test_state_before_anything_was_tried(app: APIFlask, member: Any) -> None:
    id = ended(app, member)
    job = db.session.get_one(Job, row(id).job_id)
    assert delivery.state(job) == delivery.DeliveryState("waiting", member.email)


def test_state_of_a_job_nobody_is_told_of(app: APIFlask, member: Any) -> None:
    job = Job(kind="export", definition="x", title="X", owner_id=member.id, status="cancelled", params={})
    db.session.add(job)
    db.session.commit()
    assert delivery.state(job) == delivery.DeliveryState("none", member.email)
