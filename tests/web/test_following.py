"""The browser's side of a stream: a page follows a job through whatever happens to its connection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from apiflask import APIFlask

from app import events
from tests.conftest import Auth, Services
from tests.waiting import PATIENCE
from tests.web.test_stream import Web, finish, make_job

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NUMBERS = "[...document.querySelectorAll('#log-lines > li')].map(item => Number(item.dataset.number))"


@pytest.fixture(scope="module")
def process(session_app: APIFlask, session_environ: dict[str, str], services: Services) -> Iterator[Web]:
    web = Web(session_environ, services.directory / "following.log")
    web.start()
    yield web
    web.child.stop()


@pytest.fixture
def web(process: Web, app: APIFlask) -> Iterator[Web]:
    with app.app_context():
        yield process


@pytest.fixture
def tab(browser: Browser, web: Web, auth: Auth, member: Any) -> Iterator[Page]:
    """A page of `member`, signed in."""
    cookie = auth.client_of(member).get_cookie("waybill")
    assert cookie is not None
    context = browser.new_context(base_url=web.url)
    context.add_cookies([{"name": "waybill", "value": cookie.value, "url": web.url}])
    yield context.new_page()
    context.close()


def shows(tab: Page, numbers: list[int], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while (found := tab.evaluate(NUMBERS)) != numbers:
        assert time.monotonic() < deadline, f"the page shows {found}"
        tab.wait_for_timeout(50)


def ends(tab: Page, job_id: UUID) -> None:
    tab.wait_for_selector('[data-connection="ended"]', state="attached")
    tab.wait_for_selector('[data-job][data-status="succeeded"]')


def test_live(tab: Page, member: Any) -> None:
    job_id = make_job(member, lines=2)
    tab.goto(f"/jobs/{job_id}")
    tab.wait_for_selector('[data-connection="open"]', state="attached")
    events.append(job_id, member.id, "live")
    shows(tab, [1, 2, 3])
    finish(job_id)
    ends(tab, job_id)
    shows(tab, [1, 2, 3, 4, 5])


def test_a_restart_of_the_web_process(tab: Page, web: Web, member: Any) -> None:
    job_id = make_job(member, lines=2)
    tab.goto(f"/jobs/{job_id}")
    tab.wait_for_selector('[data-connection="open"]', state="attached")
    web.child.stop()
    tab.wait_for_selector('[data-connection="lost"]', state="attached")
    events.append(job_id, member.id, "while nobody listened")
    web.start()
    shows(tab, [1, 2, 3])
    finish(job_id)
    ends(tab, job_id)
    shows(tab, [1, 2, 3, 4, 5])


def test_a_proxy_that_lets_no_stream_through(tab: Page, member: Any) -> None:
    job_id = make_job(member, lines=2)
    tab.route("**/events*", lambda route: route.fulfill(status=502, body="no"))
    tab.goto(f"/jobs/{job_id}")
    events.append(job_id, member.id, "asked for")
    shows(tab, [1, 2, 3])
    finish(job_id)
    ends(tab, job_id)
    shows(tab, [1, 2, 3, 4, 5])


def test_a_browser_without_event_streams(tab: Page, member: Any) -> None:
    job_id = make_job(member, lines=2)
    tab.add_init_script("delete window.EventSource")
    tab.goto(f"/jobs/{job_id}")
    finish(job_id)
    ends(tab, job_id)
    shows(tab, [1, 2, 3, 4])


def test_the_job_ends_between_the_page_and_its_stream(tab: Page, app: APIFlask, member: Any) -> None:
    """The stream answers 204 to a page that has all lines but not the status."""
    job_id = make_job(member, lines=2)
    asked: list[str] = []

    def hold(route: Any) -> None:
        if not asked:
            with app.app_context():
                finish(job_id)
        asked.append(route.request.url)
        route.continue_(url=route.request.url.replace("after=2", "after=4"))

    tab.route("**/events*", hold)
    tab.goto(f"/jobs/{job_id}")
    ends(tab, job_id)
    shows(tab, [1, 2, 3, 4])
    assert len(asked) == 1
