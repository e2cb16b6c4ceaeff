"""A list from a file, through the real page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import FilePayload, Page, expect

from app.dev.run import ADMIN


def test_a_list_from_a_file(page: Page, sign_in: Callable[..., Any]) -> None:
    sign_in(page, ADMIN[0], ADMIN[1])
    page.goto("/reports/lookup_members")
    expect(page.locator("#forecast")).to_contain_text("told without running it")
    content = b"Name,E-Mail\nMona,member@demo.waybill.test\nNo,nobody@example.org\n"
    file = FilePayload(name="people.csv", mimeType="text/csv", buffer=content)
    page.get_by_label("Or a file").set_input_files(files=[file])
    expect(page.locator("#forecast")).to_contain_text("about")
    page.get_by_label("Its column").fill("phone")
    page.get_by_role("button", name="Export").click()
    expect(page.locator("#param-emails-error")).to_contain_text("There is no column 'phone'")
    page.get_by_label("Or a file").set_input_files(files=[file])
    page.get_by_label("Its column").fill("")
    page.get_by_role("button", name="Export").click()
    expect(page.locator("#job-side")).to_contain_text("1 of 2", timeout=60_000)
    expect(page.locator("#job-side")).to_contain_text("not_found.csv")
