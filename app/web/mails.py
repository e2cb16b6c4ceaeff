"""Mails about accounts: sent inside the request, so a mail server that hangs must not hang the page."""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

from flask import url_for
from flask_security.mail_util import MailUtil

from app import mail
from app.errors import WaybillError
from app.settings import current

log = logging.getLogger(__name__)

# Seconds for one answer of the mail server, and for all of it: somebody is waiting for the page.
ANSWER, WHOLE = 4.0, 5.0
# Mails that only tell what has happened: it has happened, whether or not the mail goes out.
NOTICES = ("password_changed",)


class MailUnavailable(WaybillError):
    """The mail server does not take a mail that a person waits for."""

    code = "mail_unavailable"
    retryable = True
    status = 503


def send(name: str, to: str, **words: Any) -> None:
    """Send the mail of templates/mail/<name>/; raises MailUnavailable unless it is only a notice."""
    try:
        message = mail.compose(
            name, to=to, message_id=f"<{uuid4()}@{mail.domain()}>", headers={}, words={**words, "email": to}
        )
        mail.send(message, answer=ANSWER, whole=WHOLE)
    except (mail.MailLate, mail.MailRefused) as error:
        if name not in NOTICES:
            raise _unavailable() from error
        log.warning("%s was not told by mail that the password changed: %s", to, error)


def rehearse() -> None:
    """Everything but the mail itself, so that an address without an account gets the same answer as slowly.

    Raises MailUnavailable where sending would.
    """
    try:
        with mail.connected(ANSWER, WHOLE) as connection:
            if connection.host is not None:
                connection.host.noop()
    except (mail.MailLate, mail.MailRefused, OSError) as error:
        raise _unavailable() from error


def public_url(endpoint: str, **values: Any) -> str:
    """An address for mails. Never the request's Host, which whoever asks may choose."""
    return current().public_url.rstrip("/") + url_for(endpoint, **values)


class AccountMails(MailUtil):
    """How Flask-Security sends its mails; its template names are ours, it renders nothing itself."""

    def send_mail(
        self,
        template: str,
        subject: str,
        recipient: str | tuple[str, str],
        sender: str | tuple[str, str],
        body: str | None,
        html: str | None,
        **words: Any,
    ) -> None:
        if "reset_token" in words:
            link = public_url("security.reset_password", token=words["reset_token"])
        else:
            link = public_url("security.forgot_password")
        send(template, str(recipient), link=link, within=words.get("within", ""))


def _unavailable() -> MailUnavailable:
    return MailUnavailable(
        "No mail could be sent: the mail server does not answer or refuses. Nothing was changed; "
        "try again in a few minutes."
    )
