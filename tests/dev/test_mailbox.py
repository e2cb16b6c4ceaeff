"""The catcher and the reader of its folder."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from app.dev.mailbox import Mailbox, NoSuchMail
from app.dev.smtp import Smtp


@pytest.fixture
def smtp(tmp_path: Path) -> Iterator[Smtp]:
    server = Smtp(tmp_path / "mail")
    server.start()
    yield server
    server.stop()


def mail(subject: str, to: str = "ann@example.org") -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = "Waybill <waybill@example.org>"
    message["To"] = to
    message.set_content("Your report: http://127.0.0.1:8000/d/abc\n")
    message.add_alternative("<p>Your <b>report</b></p>", subtype="html")
    return message


def send(smtp: Smtp, message: EmailMessage) -> None:
    with smtplib.SMTP(smtp.host, smtp.port) as client:
        client.send_message(message)


def test_a_caught_mail_is_read_with_its_envelope_and_both_parts(smtp: Smtp) -> None:
    send(smtp, mail("Köln is ready"))
    caught = Mailbox(smtp.directory).wait(to="ann@example.org", subject="Köln")
    assert caught.subject == "Köln is ready"
    assert caught.recipients == ["ann@example.org"]
    assert caught.links == ["http://127.0.0.1:8000/d/abc"]
    assert caught.html is not None
    assert "<b>report</b>" in caught.html


def test_mails_come_in_the_order_of_arrival(smtp: Smtp) -> None:
    for number in range(5):
        send(smtp, mail(f"Number {number}"))
    assert [found.subject for found in Mailbox(smtp.directory).mails()] == [f"Number {n}" for n in range(5)]


def test_a_mail_that_does_not_come_is_reported_with_those_that_did(smtp: Smtp) -> None:
    send(smtp, mail("Something else"))
    with pytest.raises(NoSuchMail, match=r"0 of 1 mails.*Something else"):
        Mailbox(smtp.directory).wait(subject="Ready", seconds=0.2)


@pytest.mark.parametrize(("address", "code"), [("later@example.org", 451), ("refused@example.org", 550)])
def test_the_recipient_decides_what_fails(smtp: Smtp, address: str, code: int) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as failure:
        send(smtp, mail("No", to=address))
    assert failure.value.recipients[address][0] == code
    assert Mailbox(smtp.directory).mails() == []


def test_names_that_are_no_mails_are_not_read(smtp: Smtp) -> None:
    mailbox = Mailbox(smtp.directory)
    assert mailbox.get("../../etc/passwd") is None
    assert mailbox.get("nothing") is None
