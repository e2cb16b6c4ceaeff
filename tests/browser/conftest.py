"""What browser tests share: the demo's member signed in at the real stack."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from app.dev import run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MEMBER_SIGN_IN, ADMIN_SIGN_IN = run.MEMBER[:2], run.ADMIN[:2]
MEMBER = run.MEMBER[0]


@pytest.fixture
def member(page: Page, sign_in: Callable[..., None]) -> Page:
    """`page`, signed in as the demo's member."""
    sign_in(page, *MEMBER_SIGN_IN)
    return page


@pytest.fixture
def database(stack: Any) -> Iterator[psycopg.Connection[Any]]:
    """The stack's own database."""
    with psycopg.connect(stack.settings["DATABASE_URL"], autocommit=True) as connection:
        yield connection


@dataclass
class Visitor:
    """Opens further windows; each closes with the test."""

    browser: Browser
    base_url: str
    contexts: list[Any]

    def __call__(self, like: Page | None = None, **options: Any) -> Page:
        """A window of its own, signed in as `like` is."""
        state = like.context.storage_state() if like else None
        context = self.browser.new_context(storage_state=state, **{"base_url": self.base_url} | options)
        self.contexts.append(context)
        return context.new_page()


@pytest.fixture
def window(browser: Browser, stack: Any) -> Iterator[Visitor]:
    visitor = Visitor(browser, stack.base_url, [])
    yield visitor
    for context in visitor.contexts:
        context.close()


def start(page: Page, report: str = "slow_tasks", **params: object) -> str:
    """Ask for an export through its form; the job's id."""
    page.goto(f"/reports/{report}")
    for name, value in params.items():
        page.fill(f"[name='param.{name}']", str(value))
    page.get_by_role("button", name="Export").click()
    page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    return page.url.rpartition("/")[2]


def numbers(page: Page) -> list[int]:
    """The numbers of the log's lines, as they stand on the page."""
    found: list[int] = page.eval_on_selector_all(
        "#log-lines > li", "all => all.map(one => +one.dataset.number)"
    )
    return found


def status(page: Page, expected: str, timeout: float = 60_000) -> None:
    """Wait until the page says so."""
    page.wait_for_selector(f"#job[data-status={expected}]", timeout=timeout)


def lines(page: Page, count: int, timeout: float = 60_000) -> None:
    """Wait until the log has so many lines or more."""
    page.wait_for_selector(f"#log-lines > li:nth-child({count})", state="attached", timeout=timeout)
