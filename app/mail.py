"""Mails: composed from a folder of templates, handed to the mail server in bounded time.

Flask-Mail keeps the settings and the connection; two things are ours. It sets no timeout, so that a server
which accepts a connection and then says nothing would hold a worker for ever. And it sends bodies as they
are, though no line of a mail may be longer than 998 bytes.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import localtime, parseaddr
from ipaddress import ip_address
from typing import Any, NoReturn
from urllib.parse import urlsplit

import flask_mail
from flask import current_app

from app import settings
from app.errors import WaybillError
from app.settings import Settings

# Seconds for one answer of the mail server, and for a whole mail: a server may also drip.
ANSWER, WHOLE = 30.0, 120.0
# By now the mail is accepted; a server that is slow to say goodbye is not waited for.
GOODBYE = 2.0
SUBJECT = 180  # characters
# Line ends and other control characters, and those that turn the direction of what follows.
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


class MailLate(WaybillError):
    """The mail server did not take the mail now; it may later."""

    code = "mail_late"
    retryable = True


class MailRefused(WaybillError):
    """Nobody will ever take this mail."""

    code = "mail_refused"


def compose(
    template: str, *, to: str, message_id: str, headers: dict[str, str], words: dict[str, Any]
) -> EmailMessage:
    """The mail of templates/mail/<template>/, for one recipient; raises MailRefused for what is no address.

    Rendered by the app's Jinja alone, without the pages' context: no request is needed.
    """
    render = current_app.jinja_env.get_template
    message = EmailMessage(policy.SMTP)
    message["From"] = settings.current().mail_default_sender
    message["To"] = _address(to)
    message["Subject"] = one_line(render(f"mail/{template}/subject.txt").render(words), SUBJECT)
    message["Date"] = localtime()
    message["Message-ID"] = message_id
    # No out-of-office answers to a machine.
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    for name, value in headers.items():
        message[name] = value
    # Quoted-printable keeps every line under 77 characters.
    message.set_content(render(f"mail/{template}/body.txt").render(words), cte="quoted-printable")
    html = render(f"mail/{template}/body.html").render(words)
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    return message


def send(message: EmailMessage, *, answer: float = ANSWER, whole: float = WHOLE) -> None:
    """Hand over one mail; when this returns, the mail server has it. Raises MailLate or MailRefused.

    `answer` and `whole` are the seconds that one answer of the server and the whole mail may take.
    """
    with connected(answer, whole) as connection:
        connection.send(message)


@contextmanager
def connected(answer: float = ANSWER, whole: float = WHOLE) -> Iterator[Connection]:
    """A connection that the mail server has let in, for `whole` seconds at most; raises as `send` does."""
    config = settings.current()
    if not config.mail_server:
        raise MailRefused("No mail server is set up here (MAIL_SERVER).")
    client = _client(config, answer)
    try:
        with _at_most(whole, client), Connection(current_app.extensions["mail"], client) as connection:
            yield connection
    finally:
        client.close()


class Connection(flask_mail.Connection):
    """Flask-Mail's, over a client that waits for nothing for ever."""

    def __init__(self, mail: Any, client: smtplib.SMTP) -> None:
        super().__init__(mail)
        self._client = client

    def configure_host(self) -> smtplib.SMTP:
        _connect(self._client, settings.current())
        return self._client

    def send(self, message: EmailMessage) -> None:  # type: ignore[override]  # composed by us, see above
        if self.host is not None:
            _hand_over(self.host, message)
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        flask_mail.email_dispatched.send(app, message=message)

    def __exit__(self, *_: object) -> None:
        """Nothing to say any more: `_hand_over` said goodbye, or there is nobody to say it to."""


def one_line(text: str, limit: int) -> str:
    """Text that can stand in a header or a heading: one line, nothing unseen, at most `limit` characters."""
    text = " ".join(UNSEEN.sub(" ", text).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def domain() -> str:
    """The domain our mails speak for: the sender's, so that it agrees with DKIM, or else PUBLIC_URL's."""
    config = settings.current()
    for name in (parseaddr(config.mail_default_sender)[1].rpartition("@")[2], _public_host(config)):
        with suppress(ValueError):
            return _ascii_domain(name)
    return "localhost"


def _address(to: str) -> Address:
    local, _, host = to.rpartition("@")
    try:
        if not local:
            raise ValueError("no local part")
        return Address(username=local, domain=_ascii_domain(host))
    except ValueError as error:
        raise MailRefused(f"{one_line(to, 100)!r} is no mail address.") from error


def _ascii_domain(name: str) -> str:
    found = name.encode("idna").decode("ascii")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", found):
        raise ValueError(f"{name!r} is no domain.")
    return found


def _public_host(config: Settings) -> str:
    return urlsplit(config.public_url).hostname or "localhost"


def _client(config: Settings, answer: float) -> smtplib.SMTP:
    """Not connected yet, so that the deadline knows of it. Our name is given: looking it up may take long."""
    if config.mail_use_ssl:
        return smtplib.SMTP_SSL(
            timeout=answer, local_hostname=_greeting(config), context=ssl.create_default_context()
        )
    return smtplib.SMTP(timeout=answer, local_hostname=_greeting(config))


def _greeting(config: Settings) -> str:
    host = _public_host(config)
    try:
        address = ip_address(host)
    except ValueError:
        return _ascii_domain(host)
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"


@contextmanager
def _at_most(seconds: float, client: smtplib.SMTP) -> Iterator[None]:
    """Cut the client's connection off after so many seconds, whatever it waits for."""
    timer = threading.Timer(seconds, _cut, (client,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cut(client: smtplib.SMTP) -> None:
    with suppress(OSError):
        if client.sock:
            # The plain socket's: a TLS socket would pull its state away under the reading thread.
            socket.socket.shutdown(client.sock, socket.SHUT_RDWR)


def _connect(client: smtplib.SMTP, config: Settings) -> None:
    # SMTP_SSL checks the certificate against this name, which only its constructor sets.
    client._host = config.mail_server  # type: ignore[attr-defined]
    try:
        code, text = client.connect(config.mail_server, config.mail_port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)
        if config.mail_use_tls:
            client.starttls(context=ssl.create_default_context())
        if config.mail_username:
            client.login(config.mail_username, config.mail_password)
    except smtplib.SMTPAuthenticationError as error:
        raise MailLate(
            f"The mail server refuses our user name or password ({_said(error.smtp_code, error.smtp_error)})."
        ) from error
    except smtplib.SMTPNotSupportedError as error:
        raise MailLate(
            "The mail server lacks what the settings ask for (STARTTLS or a way to sign in)."
        ) from error
    except ssl.SSLError as error:
        raise MailLate(f"No trusted connection to the mail server ({error.reason or error}).") from error
    except (smtplib.SMTPException, OSError) as error:
        raise _late(error) from error


def _hand_over(client: smtplib.SMTP, message: EmailMessage) -> None:
    try:
        client.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        ((address, (code, text)),) = error.recipients.items()
        _refused(code, f"The mail server takes no mail for {address} ({_said(code, text)}).", error)
    except smtplib.SMTPSenderRefused as error:
        # Not this mail's fault but the settings', so that it is worth another try.
        said = _said(error.smtp_code, error.smtp_error)
        raise MailLate(f"The mail server takes no mail from {error.sender} ({said}).") from error
    except smtplib.SMTPDataError as error:
        said = _said(error.smtp_code, error.smtp_error)
        _refused(error.smtp_code, f"The mail server did not take the mail ({said}).", error)
    except smtplib.SMTPNotSupportedError as error:
        raise MailRefused(f"The mail server cannot write to the address {message['To']}.") from error
    except (smtplib.SMTPException, OSError) as error:
        raise _late(error) from error
    with suppress(smtplib.SMTPException, OSError):
        if client.sock:
            client.sock.settimeout(GOODBYE)
            client.quit()


def _refused(code: int, text: str, error: Exception) -> NoReturn:
    raise (MailRefused if code >= 500 else MailLate)(text) from error


def _late(error: Exception) -> MailLate:
    if isinstance(error, smtplib.SMTPResponseException):
        return MailLate(f"The mail server does not let us in ({_said(error.smtp_code, error.smtp_error)}).")
    return MailLate("The mail server does not answer.")


def _said(code: int, text: bytes | str) -> str:
    """A server's answer, short and printable."""
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return one_line(f"{code} {words}", 200)
