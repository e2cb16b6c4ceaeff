"""Before an export: the forecast, the first rows, and columns chosen by keyboard; without scripts, too."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from app.dev.run import MEMBER


def test_the_forecast_follows_the_form(member: Page) -> None:
    member.goto("/reports/all_tasks")
    forecast = member.locator("#forecast")
    expect(forecast).to_contain_text("about")
    before = forecast.inner_text()
    member.locator("[name='param.status']").select_option("blocked")
    expect(forecast).not_to_have_text(before)
    expect(member.locator("[data-estimate]")).to_be_hidden()
    member.get_by_role("button", name="Show the first rows").click()
    expect(member.locator("#sample tbody tr")).to_have_count(50)
    expect(member.locator("#sample-title")).to_be_focused()
    assert member.url.endswith("/reports/all_tasks")


def test_columns_are_moved_by_keyboard_and_remembered(member: Page) -> None:
    member.goto("/reports/late_invoices")
    member.locator(".choose-columns summary").focus()
    member.keyboard.press("Enter")
    first = member.locator(".choose-columns li").first
    name = first.locator("[name=column]").get_attribute("value")
    down = first.get_by_role("button", name=f"Move {name} down")
    down.focus()
    member.keyboard.press("Enter")
    expect(member.locator(".choose-columns li").nth(1).locator("[name=column]")).to_have_value(str(name))
    expect(member.get_by_role("button", name=f"Move {name} down")).to_be_focused()
    last = member.locator(".choose-columns li").last.locator("[name=column]")
    left_out = last.get_attribute("value")
    last.uncheck()
    member.get_by_role("button", name="Export").click()
    member.wait_for_url("**/jobs/*")
    member.goto("/reports/late_invoices")
    member.locator(".choose-columns summary").click()
    boxes = member.locator(".choose-columns [name=column]")
    expect(boxes.nth(1)).to_have_value(str(name))
    expect(member.locator(f".choose-columns [value='{left_out}']")).not_to_be_checked()


def test_without_scripts_the_form_does_the_same(stack: Any, window: Any, sign_in: Any) -> None:
    page = window(java_script_enabled=False)
    sign_in(page, *MEMBER[:2])
    page.goto("/reports/all_tasks")
    page.get_by_role("button", name="Estimate").click()
    expect(page.locator("#forecast")).to_contain_text("about")
    page.locator(".choose-columns summary").click()
    page.get_by_label("Place of id").fill("9")
    for name in ("description", "status", "project"):
        page.locator(f"[name=column][value={name}]").uncheck()
    page.get_by_role("button", name="Show the first rows").click()
    expect(page.locator("#sample th").first).to_have_text("title")
    expect(page.locator("#sample th")).to_have_count(5)
