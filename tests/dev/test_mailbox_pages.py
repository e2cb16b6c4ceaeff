"""`/mailbox`: a caught mail as a person sees it, and nothing of it may run or reach our pages."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.dev.catcher import save
from app.dev.mailbox import Mailbox

HOSTILE = '<html><head><title>x</title></head><body><p>Hi</p><script>alert(1)</script><a href="/d/1">get</a>'


@pytest.fixture
def caught(mailbox: Mailbox) -> str:
    """The name of a caught mail."""
    message = EmailMessage()
    message["Subject"] = "<b>Ready</b>: Köln"
    message["From"] = "Waybill <waybill@example.org>"
    message["To"] = "ann@example.org"
    message.set_content("See http://127.0.0.1:8000/d/abc & <script>")
    message.add_alternative(HOSTILE, subtype="html")
    mailbox.directory.mkdir(exist_ok=True)
    return save(mailbox.directory, "waybill@example.org", ["ann@example.org"], message.as_bytes()).stem


def test_the_list_shows_subject_and_recipient(client: FlaskClient, caught: str) -> None:
    page = client.get("/mailbox").text
    assert "&lt;b&gt;Ready&lt;/b&gt;: Köln" in page
    assert "ann@example.org" in page
    assert f"/mailbox/{caught}" in page


def test_an_empty_mailbox_says_what_comes_here(client: FlaskClient, mailbox: Mailbox) -> None:
    assert "No mail yet" in client.get("/mailbox").text


def test_html_is_shown_in_a_frame_that_may_do_nothing(client: FlaskClient, caught: str) -> None:
    page = client.get(f"/mailbox/{caught}").text
    assert f'src="/mailbox/{caught}/html"' in page
    assert "<script>alert" not in page
    part = client.get(f"/mailbox/{caught}/html")
    policy = part.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-popups")
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert '<head><base target="_blank"><title>' in part.text


def test_text_and_source_are_shown_as_they_are(client: FlaskClient, caught: str) -> None:
    text = client.get(f"/mailbox/{caught}?view=text").text
    assert 'href="http://127.0.0.1:8000/d/abc"' in text
    assert "&lt;script&gt;" in text
    assert "X-Envelope-To: ann@example.org" in client.get(f"/mailbox/{caught}?view=raw").text


@pytest.mark.parametrize("path", ["none", "none/html", "{}?view=nonsense", "..%2f..%2fetc%2fpasswd"])
def test_what_is_not_there_is_not_found(client: FlaskClient, caught: str, path: str) -> None:
    assert client.get(f"/mailbox/{path.format(caught)}").status_code == 404


@pytest.mark.parametrize("change", [{"ENVIRONMENT": "production"}, {"MAILBOX_DIR": ""}])
def test_there_is_none_outside_development(app: Any, environ: dict[str, str], change: dict[str, str]) -> None:
    other = create_app(environ | change)
    assert other.test_client().get("/mailbox").status_code == 404


def test_a_link_in_the_frame_opens_outside_of_it(page: Any, stack: Any) -> None:
    message = EmailMessage()
    message["Subject"] = "Follow me"
    message["To"] = "ann@example.org"
    message.set_content("text")
    message.add_alternative(f'<p><a href="{stack.base_url}/healthz">go</a></p>', subtype="html")
    directory: Path = stack.mailbox.directory
    name = save(directory, "waybill@example.org", ["ann@example.org"], message.as_bytes()).stem
    page.goto(f"/mailbox/{name}")
    with page.expect_popup() as popup:
        page.frame_locator("iframe").get_by_role("link", name="go").click()
    popup.value.wait_for_load_state()
    assert popup.value.url.endswith("/healthz")
