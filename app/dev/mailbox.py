"""The mails that the embedded catcher caught: read from its folder, shown at `/mailbox` in development."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import getaddresses
from pathlib import Path

from flask import Blueprint, Response, abort, make_response, render_template, request

from app import settings
from app.errors import WaybillError

LIMIT = 200  # mails on the page, newest first
HEAD = re.compile(r"<head[^>]*>|^(?!.*<head)", re.IGNORECASE | re.DOTALL)
NAME = re.compile(r"[0-9A-Za-z-]+")
# A mail is a stranger's page: nothing of it may run, load from elsewhere, or see our cookies.
MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; frame-ancestors 'self'"
)

blueprint = Blueprint("mailbox", __name__, url_prefix="/mailbox", static_folder="static")


class NoSuchMail(WaybillError):
    """The expected mail did not come in time."""

    code = "no_such_mail"


@dataclass(frozen=True)
class Mail:
    """One caught mail; `name` is the file's, without `.eml`, and sorts by time of arrival."""

    name: str
    message: EmailMessage

    @property
    def subject(self) -> str:
        return str(self.message["subject"] or "(no subject)")

    @property
    def sender(self) -> str:
        return str(self.message["from"] or self.message["x-envelope-from"] or "")

    @property
    def recipients(self) -> list[str]:
        """Addresses of the envelope: who really got it."""
        return [address for _, address in getaddresses([str(self.message["x-envelope-to"] or "")])]

    @property
    def caught_at(self) -> datetime:
        return datetime.fromisoformat(str(self.message["x-caught-at"]))

    @property
    def text(self) -> str | None:
        return self._body("plain")

    @property
    def html(self) -> str | None:
        return self._body("html")

    @property
    def links(self) -> list[str]:
        """The web addresses in the text part, in order."""
        return re.findall(r"https?://[^\s<>\"]+", self.text or "")

    @property
    def attachments(self) -> list[str]:
        return [part.get_filename() or part.get_content_type() for part in self.message.iter_attachments()]

    def _body(self, kind: str) -> str | None:
        part = self.message.get_body(preferencelist=(kind,))
        return None if part is None else str(part.get_content())


class Mailbox:
    """The folder that the catcher writes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def mails(self) -> list[Mail]:
        """Oldest first."""
        return [_read(path) for path in sorted(self.directory.glob("*.eml"))]

    def newest(self, limit: int) -> list[Mail]:
        return [_read(path) for path in sorted(self.directory.glob("*.eml"), reverse=True)[:limit]]

    def get(self, name: str) -> Mail | None:
        path = self.directory / f"{name}.eml"
        return _read(path) if NAME.fullmatch(name) and path.is_file() else None

    def raw(self, name: str) -> bytes:
        return (self.directory / f"{name}.eml").read_bytes()

    def wait(
        self,
        *,
        to: str | None = None,
        subject: str | None = None,
        count: int = 1,
        seconds: float = 10.0,
        alive: Callable[[], bool] = lambda: True,
    ) -> Mail:
        """The newest of at least `count` mails to this address whose subject holds these words.

        Gives up with NoSuchMail after `seconds`, or once `alive()` is false.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = [mail for mail in self.mails() if _fits(mail, to, subject)]
            if len(found) >= count:
                return found[-1]
            if time.monotonic() > deadline or not alive():
                caught = [f"{mail.subject} -> {', '.join(mail.recipients)}" for mail in self.mails()]
                raise NoSuchMail(
                    f"{len(found)} of {count} mails to {to or 'anyone'} about {subject or 'anything'} "
                    f"after {seconds:.0f} s. Caught: {caught or 'nothing'}"
                )
            time.sleep(0.05)

    def clear(self) -> None:
        for path in self.directory.glob("*.eml"):
            path.unlink()


@blueprint.get("")
def index() -> str:
    return render_template("mailbox/index.html", mails=_mailbox().newest(LIMIT), limit=LIMIT)


@blueprint.get("/<name>")
def show(name: str) -> str:
    mail = _get(name)
    parts = (("html", mail.html), ("text", mail.text), ("raw", ""))
    views = [view for view, part in parts if part is not None]
    view = request.args.get("view", views[0])
    if view not in views:
        abort(404)
    source = _mailbox().raw(name).decode(errors="replace") if view == "raw" else ""
    return render_template("mailbox/show.html", mail=mail, views=views, view=view, raw=source)


@blueprint.get("/<name>/html")
def html(name: str) -> Response:
    """The HTML part alone, for the frame on the mail's page; links open outside of the frame."""
    body = _get(name).html
    if body is None:
        abort(404)
    response = make_response(HEAD.sub(r'\g<0><base target="_blank">', body, count=1))
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    response.headers["Content-Security-Policy"] = MAIL_POLICY
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _mailbox() -> Mailbox:
    return Mailbox(Path(settings.current().mailbox_dir))


def _get(name: str) -> Mail:
    mail = _mailbox().get(name)
    if mail is None:
        abort(404)
    return mail


def _fits(mail: Mail, to: str | None, subject: str | None) -> bool:
    return (to is None or to in mail.recipients) and (subject is None or subject in mail.subject)


def _read(path: Path) -> Mail:
    return Mail(path.stem, message_from_bytes(path.read_bytes(), policy=policy.default))
