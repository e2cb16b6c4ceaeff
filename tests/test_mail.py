"""Handing a mail to servers that hang, drip, refuse and misbehave: it ends in bounded time, in words."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from apiflask import APIFlask

from app import mail
from app.dev.child import free_port

GREETING = b"220 ready\r\n"
Answer = Callable[[bytes], bytes | None]


class ScriptedServer:
    """An SMTP server that says what a test tells it to; None: nothing, for ever."""

    def __init__(self, answers: dict[bytes, bytes | None], greeting: bytes | None = GREETING) -> None:
        polite: dict[bytes, bytes | None] = {
            b"EHLO": b"250 hello\r\n",
            b"MAIL": b"250 ok\r\n",
            b"RCPT": b"250 ok\r\n",
            b"DATA": b"354 go on\r\n",
            b".": b"250 accepted\r\n",
            b"RSET": b"250 ok\r\n",
            b"QUIT": b"221 bye\r\n",
        }
        self.answers = polite | answers
        self.greeting = greeting
        self.heard: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.socket.close()

    def _serve(self) -> None:
        connections = []
        with suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                connections.append(connection)
                self._talk(connection)
        for connection in connections:
            connection.close()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError), connection.makefile("rb") as lines:
            if not self._say(connection, self.greeting):
                return
            in_data = False
            for line in lines:
                self.heard.append(line)
                if in_data and line != b".\r\n":
                    continue
                verb = b"." if in_data else line[:4].strip().upper()
                answer = self.answers.get(verb, b"502 what?\r\n")
                in_data = verb == b"DATA" and answer is not None and answer.startswith(b"354")
                if not self._say(connection, answer):
                    return

    def _say(self, connection: socket.socket, answer: bytes | None) -> bool:
        """False after saying nothing; the connection stays open."""
        if answer is None:
            return False
        for byte in answer if answer.startswith(b"drip") else [answer]:
            connection.sendall(bytes([byte]) if isinstance(byte, int) else byte)
            time.sleep(0.1 if isinstance(byte, int) else 0)
        return True


@pytest.fixture
def server(app: APIFlask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ScriptedServer]]:
    """server({b"MAIL": b"421 later"}): the app's mail server from now on."""
    servers = []
    monkeypatch.setattr(mail, "GOODBYE", 0.2)

    def start(answers: dict[bytes, bytes | None] | None = None, **settings: Any) -> ScriptedServer:
        greeting = settings.pop("greeting", GREETING)
        servers.append(ScriptedServer(answers or {}, greeting))
        changed = {"mail_server": "127.0.0.1", "mail_port": servers[-1].port} | settings
        monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], **changed))
        return servers[-1]

    with app.app_context():
        yield start
    for each in servers:
        each.close()


def message() -> EmailMessage:
    found = EmailMessage(policy.SMTP)
    found["From"], found["To"], found["Subject"] = "Waybill <a@waybill.example>", "ann@example.org", "Ready"
    found.set_content("Hello")
    return found


def send(message: EmailMessage) -> None:
    """With short patience, so that the tests are short."""
    mail.send(message, answer=0.4, whole=1.2)


def test_a_good_server_gets_it_whole(server: Callable[..., ScriptedServer]) -> None:
    found = server()
    send(message())
    data = found.heard[found.heard.index(b"data\r\n") + 1 : found.heard.index(b".\r\n")]
    assert message_from_bytes(b"".join(data))["Subject"] == "Ready"
    assert found.heard[0].startswith(b"ehlo [127.0.0.1]")
    assert found.heard[-1] == b"quit\r\n"


def test_a_server_that_is_gone(server: Callable[..., ScriptedServer]) -> None:
    server(mail_port=free_port())
    with pytest.raises(mail.MailLate, match="does not answer"):
        send(message())


def test_a_name_that_does_not_exist(server: Callable[..., ScriptedServer]) -> None:
    server(mail_server="no-such-host.invalid")
    with pytest.raises(mail.MailLate, match="does not answer"):
        send(message())


@pytest.mark.parametrize("silent", [None, b"EHLO", b"MAIL", b"RCPT", b"DATA", b"."])
def test_a_server_that_falls_silent_does_not_hold_us(
    server: Callable[..., ScriptedServer], silent: bytes | None
) -> None:
    if silent:
        server({silent: None})
    else:
        server(greeting=None)
    with pytest.raises(mail.MailLate, match="does not answer"):
        send(message())


def test_a_server_that_drips_does_not_hold_us(server: Callable[..., ScriptedServer]) -> None:
    server(greeting=b"drip" * 100)
    began = time.monotonic()
    with pytest.raises(mail.MailLate):
        send(message())
    assert time.monotonic() - began < 30  # of the 40 that the greeting takes


def test_an_accepted_mail_is_sent_whatever_follows(server: Callable[..., ScriptedServer]) -> None:
    server({b"QUIT": None})
    send(message())


@pytest.mark.parametrize(
    ("answers", "error", "words"),
    [
        ({b"MAIL": b"530 sign in first\r\n"}, mail.MailLate, "takes no mail from a@waybill.example"),
        ({b"MAIL": b"421 busy\r\n"}, mail.MailLate, "421 busy"),
        ({b"RCPT": b"450 greylisted\r\n"}, mail.MailLate, "takes no mail for ann@example.org"),
        ({b"RCPT": b"421 closing\r\n"}, mail.MailLate, "421 closing"),
        ({b"RCPT": b"550 who?\r\n"}, mail.MailRefused, "550 who?"),
        ({b".": b"451 try later\r\n"}, mail.MailLate, "451 try later"),
        ({b".": b"554 spam\x07\r\n"}, mail.MailRefused, "554 spam"),
        ({b"EHLO": b"554 no\r\n", b"HELO": b"554 no\r\n"}, mail.MailLate, "554 no"),
        ({b"EHLO": b"gibberish\r\n", b"HELO": b"gibberish\r\n"}, mail.MailLate, "mail server"),
    ],
)
def test_refusals_are_told_apart(
    server: Callable[..., ScriptedServer],
    answers: dict[bytes, bytes | None],
    error: type[Exception],
    words: str,
) -> None:
    server(answers)
    with pytest.raises(error, match=words) as caught:
        send(message())
    assert str(caught.value).isprintable()


def test_a_server_that_is_not_ready(server: Callable[..., ScriptedServer]) -> None:
    server(greeting=b"421 too busy\r\n")
    with pytest.raises(mail.MailLate, match="421 too busy"):
        send(message())


def test_a_password_that_is_refused_is_the_settings_fault(server: Callable[..., ScriptedServer]) -> None:
    server(
        {b"EHLO": b"250-hello\r\n250 AUTH PLAIN\r\n", b"AUTH": b"535 wrong\r\n"},
        mail_username="waybill",
        mail_password="wrong",
    )
    with pytest.raises(mail.MailLate, match=r"user name or password \(535 wrong\)"):
        send(message())


def test_starttls_is_never_done_without(server: Callable[..., ScriptedServer]) -> None:
    found = server(mail_use_tls=True)
    with pytest.raises(mail.MailLate, match="STARTTLS"):
        send(message())
    assert not any(line.startswith(b"mail") for line in found.heard)


def test_tls_from_the_first_byte_needs_a_certificate(server: Callable[..., ScriptedServer]) -> None:
    server(mail_use_ssl=True)
    with pytest.raises(mail.MailLate, match="No trusted connection"):
        send(message())


def test_an_address_the_server_cannot_write_to(server: Callable[..., ScriptedServer]) -> None:
    server()
    strange = message()
    strange.replace_header("To", "jörg@example.org")
    with pytest.raises(mail.MailRefused, match="cannot write to the address"):
        send(strange)


@pytest.mark.parametrize(
    ("values", "domain"),
    [
        ({"mail_default_sender": "Waybill <a@waybill.example>"}, "waybill.example"),
        ({"mail_default_sender": "a@bücher.example"}, "xn--bcher-kva.example"),
        ({"mail_default_sender": "", "public_url": "https://waybill.example/x"}, "waybill.example"),
        ({"mail_default_sender": "a@b!c", "public_url": "https://[::1]"}, "localhost"),
    ],
)
def test_domain(server: Callable[..., ScriptedServer], values: dict[str, str], domain: str) -> None:
    server(**values)
    assert mail.domain() == domain


def test_one_line() -> None:
    assert mail.one_line(" a\r\n\tb\0c\u202ed ", 100) == "a b c d"
    assert mail.one_line("abcdef", 4) == "abc…"
