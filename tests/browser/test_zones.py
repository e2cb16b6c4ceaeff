"""Whose clock: the browser's own zone is offered once, and chosen without leaving the form."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import MEMBER


@pytest.fixture
def unchosen(member: Page, database: psycopg.Connection[Any]) -> Any:
    """The member, who never chose, signed in; afterwards it is so again."""
    yield member
    database.execute("UPDATE users SET time_zone = NULL WHERE email = %s", (MEMBER,))


def test_the_browsers_zone_is_offered_once(unchosen: Page, window: Any) -> None:
    page = window(like=unchosen, timezone_id="Australia/Lord_Howe")
    page.goto("/reports/all_tasks")
    line = page.locator("#zone")
    expect(line.locator("[data-zone]")).to_have_text("UTC")
    line.get_by_role("button", name="Use Australia/Lord_Howe").click()
    expect(line.locator("[data-zone]")).to_have_text("Australia/Lord_Howe")
    expect(line.get_by_role("button")).to_have_count(0)
    page.goto("/reports/all_tasks")
    expect(line.locator("[data-zone]")).to_have_text("Australia/Lord_Howe")
    expect(line.get_by_role("button")).to_have_count(0)


def test_who_keeps_what_is_there_is_not_asked_again(unchosen: Page, window: Any) -> None:
    page = window(like=unchosen, timezone_id="Asia/Tokyo")
    page.goto("/reports/all_tasks")
    page.get_by_role("button", name="Keep UTC").click()
    expect(page.locator("#zone").get_by_role("button")).to_have_count(0)
    page.reload()
    expect(page.locator("#zone").locator("[data-zone]")).to_have_text("UTC")
    expect(page.locator("#zone").get_by_role("button")).to_have_count(0)


def test_the_same_zone_is_not_offered(unchosen: Page, window: Any) -> None:
    page = window(like=unchosen, timezone_id="UTC")
    page.goto("/reports/all_tasks")
    page.wait_for_load_state("networkidle")
    expect(page.locator("#zone").get_by_role("button")).to_have_count(0)
