"""Every page in every state, as strangers meet it: narrow, dark, without scripts, by keyboard, read aloud."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import ADMIN_SIGN_IN, MEMBER, MEMBER_SIGN_IN, lines, numbers, start, status
from tests.waiting import until

ALWAYS = {
    "sign-in": "/sign-in",
    "catalogue": "/",
    "nothing found": "/?q=zeppelin",
    "report": "/reports/late_invoices",
    "another report": "/reports/all_tasks",
    "jobs": "/jobs",
    "no such jobs": "/jobs?status=cancelled",
    "account": "/account",
    "API": "/api/v1/docs",
    "not there": "/nothing/here",
}
HERE = Path(__file__).parent
STATES = (
    *("queued", "later", "running", "unknown total", "cancelling"),
    *("succeeded", "empty", "expired", "revoked", "failed", "cancelled", "long log"),
)

JOB = """
INSERT INTO jobs (id, kind, definition, title, owner_id, params, format, dialect, compression, queue, status,
    attempt, progress_done, progress_total, progress_unit, last_event, error_code, error_message, created_at,
    started_at, finished_at, lease_expires_at, next_attempt_at, dispatched_at, cancel_requested_at)
SELECT %(id)s, 'export', 'all_tasks', 'All tasks', id, '{"since": "2026-01-01", "status": "open"}', 'csv',
    'machine', 'none', 'default', %(status)s, 1, 421337, %(total)s, 'rows', %(lines)s, %(code)s, %(message)s,
    now() - interval '40 seconds', now() - interval '30 seconds', %(finished)s, now() + interval '1 hour',
    %(next)s, now(), %(cancel)s
FROM users WHERE email = %(email)s
"""
EVENTS = """
INSERT INTO events (job_id, number, level, text, at)
SELECT %(id)s, n, CASE WHEN n %% 7 = 0 THEN 'warning' WHEN n %% 11 = 0 THEN 'error' ELSE 'info' END,
    'Line ' || n || ' of a log with a_word_far_too_long_to_fit_into_a_narrow_window_so_that_it_has_to_break',
    now()
FROM generate_series(1, %(lines)s) AS n
"""
ARTIFACT = """
INSERT INTO artifacts (id, job_id, key, filename, content_type, bytes, rows, sha256, receipt, expires_at,
    removed_at, link_revoked_at)
VALUES (%(id)s, %(id)s, %(id)s::text, 'all-tasks-with-quite-a-long-name-2026-01-31.csv', 'text/csv', 85312345,
    %(rows)s, repeat('ab', 32), '{"attempt": 1}', now() + %(life)s::interval, %(removed)s, %(revoked)s)
"""


@pytest.fixture
def seeded(database: Any) -> Iterator[Callable[[str], str]]:
    """seeded("failed"): a job of the demo's member in that state; the path of its page."""
    made = []

    def make(state: str, count: int = 9) -> str:
        id = uuid4()
        plain = {
            "long log": "succeeded",
            "later": "queued",
            "unknown total": "running",
            "cancelling": "running",
        }
        is_file = state in ("succeeded", "empty", "expired", "revoked", "long log")
        status = "succeeded" if is_file else plain.get(state, state)
        now = database.execute("SELECT now()").fetchone()[0]
        values = {
            "id": id,
            "email": MEMBER,
            "status": status,
            "total": None if state == "unknown total" else 1_000_000,
            "lines": 2500 if state == "long log" else count,
            "code": "query_failed" if state == "failed" else None,
            "message": "The source refused the query: division by zero." if state == "failed" else None,
            "finished": now if status in ("succeeded", "failed", "cancelled") else None,
            "next": now.replace(year=now.year + 1) if state == "later" else None,
            "cancel": now if state == "cancelling" else None,
            "rows": 0 if state == "empty" else 1_000_000,
            "life": "-1 hour" if state == "expired" else "23 hours",
            "removed": now if state == "expired" else None,
            "revoked": now if state == "revoked" else None,
        }
        database.execute(JOB, values)
        database.execute(EVENTS, values)
        if is_file:
            database.execute(ARTIFACT, values)
        made.append(id)
        return f"/jobs/{id}"

    yield make
    database.execute("DELETE FROM jobs WHERE id = ANY(%s)", [made])


@pytest.fixture
def paths(seeded: Callable[[str], str]) -> dict[str, str]:
    """Each page there is, by what it shows."""
    return ALWAYS | {state: seeded(state) for state in STATES}


WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_no_page_scrolls_sideways_or_complains(member: Page, window: Any, paths: dict[str, str]) -> None:
    narrow = window(member, viewport={"width": 390, "height": 844})
    said: list[str] = []
    narrow.on("console", lambda message: said.append(message.text))
    narrow.on("pageerror", lambda error: said.append(str(error)))
    for name, path in paths.items():
        said.clear()
        answer = narrow.goto(path)
        assert answer is not None
        assert answer.status == (404 if name == "not there" else 200), name
        # Modules have run, and the stream is open.
        narrow.wait_for_timeout(100)
        for width in (390, 320):
            narrow.set_viewport_size({"width": width, "height": 844})
            assert narrow.evaluate(WIDER) <= 0, f"{name} is wider than {width} pixels"
        assert [text for text in said if "404" not in text] == [], name


CONTRAST = (HERE / "contrast.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out(member: Page, window: Any, paths: dict[str, str], scheme: str) -> None:
    shown = window(member, color_scheme=scheme)
    for name, path in paths.items():
        shown.goto(path)
        assert shown.evaluate(CONTRAST) == [], f"{name}, {scheme}"


UNNAMED = (HERE / "unnamed.js").read_text()


def test_everything_has_a_name_for_who_listens(member: Page, paths: dict[str, str]) -> None:
    for name, path in paths.items():
        member.goto(path)
        assert member.evaluate(UNNAMED) == [], name


def test_admins_see_the_switch_to_everybodys_jobs(page: Page, sign_in: Any, seeded: Any) -> None:
    sign_in(page, *ADMIN_SIGN_IN)
    path = seeded("running")
    page.goto("/jobs")
    expect(page.locator(f"#job-{path.rpartition('/')[2]}")).to_have_count(0)
    page.get_by_role("link", name="Everybody's").click()
    expect(page.locator(f"#job-{path.rpartition('/')[2]}")).to_contain_text(MEMBER)


# --- without scripts --------------------------------------------------------------------------------------


def test_without_scripts_the_page_refreshes_itself(stack: Any, window: Any, sign_in: Any) -> None:
    plain = window(java_script_enabled=False)
    sign_in(plain, *MEMBER_SIGN_IN)
    plain.goto("/?q=slow")
    expect(plain.get_by_role("link", name="All tasks")).to_have_count(0)
    start(plain, rows=300, batches=25, pause="0.4")
    expect(plain.locator("#job-head .status")).to_have_text("Running")
    seen = len(numbers(plain))
    expect(plain.locator(f"#L{seen + 1}")).to_be_attached()
    expect(plain.get_by_role("link", name="Download")).to_be_visible()
    last = plain.locator("#log-lines > li").last
    expect(last).to_be_in_viewport(ratio=0.1)
    # No button is there that would do nothing.
    expect(plain.get_by_role("button", name="Copy")).to_have_count(0)
    plain.get_by_role("button", name="Revoke link").click()
    expect(plain.get_by_role("button", name="Make a new link")).to_be_visible()


# --- by keyboard ------------------------------------------------------------------------------------------


def press_until(page: Page, wanted: str, key: str = "Tab", most: int = 40) -> None:
    """Press `key` until what has the focus matches."""
    for _ in range(most):
        page.keyboard.press(key)
        if page.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
            return
    raise AssertionError(f"{most} x {key} did not lead to {wanted}")


def test_an_export_by_keyboard_alone(member: Page) -> None:
    member.goto("/")
    member.keyboard.press("Tab")
    expect(member.get_by_role("link", name="Skip to the content")).to_be_focused()
    member.keyboard.press("/")
    expect(member.get_by_role("searchbox")).to_be_focused()
    member.keyboard.type("slow")
    member.keyboard.press("Enter")
    member.wait_for_url("**/reports/slow_tasks")
    press_until(member, "[name='param.rows']")
    member.keyboard.type("50")
    member.keyboard.press("Enter")
    member.wait_for_url(re.compile(r"/jobs/"))
    status(member, "running")
    press_until(member, ".actions button")
    member.keyboard.press("Enter")
    dialog = member.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Go back")).to_be_focused()
    member.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(member.get_by_role("button", name="Cancel")).to_be_focused()
    press_until(member, "#log")
    status(member, "succeeded")
    expect(member.locator("#log")).to_be_focused()


def test_a_yes_counts_although_the_page_changed_meanwhile(member: Page, seeded: Any) -> None:
    member.goto(seeded("succeeded"))
    member.get_by_role("button", name="Revoke link").click()
    member.evaluate("document.getElementById('job-side').replaceChildren()")
    member.get_by_role("button", name="Revoke the link").click()
    expect(member.locator("#job-band")).to_contain_text("Its link was revoked")


def test_the_account_menu_by_keyboard(member: Page) -> None:
    member.goto("/jobs")
    menu = member.locator("details.menu")
    press_until(member, "summary")
    member.keyboard.press("Enter")
    expect(member.get_by_role("button", name="Sign out")).to_be_visible()
    member.keyboard.press("Escape")
    expect(menu).not_to_have_attribute("open", "")
    expect(menu.locator("summary")).to_be_focused()
    member.keyboard.press("Enter")
    press_until(member, "button.menu-item")
    member.keyboard.press("Enter")
    # Not `wait_for_url`: the list itself may reload as its session ends, which cuts the first way there off.
    expect(member).to_have_url(re.compile(r"/sign-in"))


def test_mistakes_take_the_focus_to_the_first_of_them(member: Page) -> None:
    member.goto("/reports/late_invoices")
    member.fill("[name='param.due_before']", "someday")
    member.get_by_role("button", name="Export").click()
    field = member.locator("[name='param.due_before']")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(field).to_have_value("someday")
    expect(member.get_by_role("alert")).to_contain_text("Nothing was started")
    field.fill("last month")
    member.get_by_role("button", name="Export").click()
    member.wait_for_url(re.compile(r"/jobs/"))


def test_the_calendar_fills_the_field(member: Page) -> None:
    member.goto("/reports/late_invoices")
    box = member.locator(".picker").first
    expect(box.get_by_role("button")).to_have_accessible_name("Pick from a calendar: Due before")
    native = box.locator(".picker-native")
    native.evaluate("field => { field.value = '2026-03-05'; field.dispatchEvent(new Event('change')); }")
    expect(box.locator("input").first).to_have_value("2026-03-05")


# --- the log ----------------------------------------------------------------------------------------------


FAR = "box => box.scrollHeight - box.scrollTop - box.clientHeight"
PUSH = """([first, count]) => {
  const job = document.getElementById("job");
  for (let number = first; number < first + count; number += 1) {
    job.dispatchEvent(new CustomEvent("waybill:log", {
      detail: { number, at: "2026-01-31T09:15:00.123456Z", level: "info", text: `Line ${number}` },
    }));
  }
  return new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
}"""


def test_the_log_stays_at_its_end_unless_one_scrolled_up(member: Page, seeded: Any) -> None:
    member.set_viewport_size({"width": 1000, "height": 500})
    member.goto(seeded("running"))
    log, jump = member.locator("#log"), member.locator("#log-jump")
    member.evaluate(PUSH, [10, 20])
    lines(member, 29)
    until(lambda: log.evaluate(FAR) < 2)
    expect(jump).to_be_hidden()
    log.hover()
    member.mouse.wheel(0, -150)
    expect(jump).to_be_visible()
    stood = log.evaluate("box => box.scrollTop")
    member.evaluate(PUSH, [30, 5])
    lines(member, 34)
    assert log.evaluate("box => box.scrollTop") == stood
    expect(jump).to_contain_text("new line")
    jump.click()
    expect(jump).to_be_hidden()
    member.evaluate(PUSH, [35, 3])
    lines(member, 37)
    until(lambda: log.evaluate(FAR) < 2)


def test_a_log_of_100_000_lines_stays_quick(member: Page, seeded: Any) -> None:
    member.goto(seeded("running"))
    took = []
    for first in range(10, 100_010, 1000):
        began = member.evaluate("performance.now()")
        member.evaluate(PUSH, [first, 1000])
        took.append(member.evaluate("performance.now()") - began)
    last = 100_009
    expect(member.locator(f"#L{last}")).to_be_in_viewport()
    # The last lines cost what the first did, whatever else the machine was at meanwhile.
    assert min(took[-30:]) < 4 * min(took[:30]), took
    found = numbers(member)
    assert found[-1] == last
    assert found == list(range(found[0], last + 1))
    assert len(found) == 2000
    earlier = member.locator("[data-earlier]")
    expect(earlier).to_contain_text("98,009 earlier lines")
    expect(earlier).to_have_attribute("href", re.compile(rf"\?before={found[0]}$"))
    assert member.locator("#log").evaluate(FAR) < 2


def test_a_line_has_an_address(member: Page, seeded: Any) -> None:
    path = seeded("long log")
    member.goto(f"{path}#L1600")
    expect(member.locator("#L1600")).to_be_in_viewport()
    expect(member.locator("#log-jump")).to_be_visible()
    member.get_by_role("link", name="1,500 earlier lines").click()
    assert (numbers(member)[0], numbers(member)[-1]) == (501, 1500)
    member.get_by_role("link", name="Latest lines").click()
    assert numbers(member)[-1] == 2500


def test_texts_are_copied(member: Page, seeded: Any) -> None:
    member.context.grant_permissions(["clipboard-read", "clipboard-write"])
    member.goto(seeded("succeeded"))
    member.locator("[data-copy=sha256]").click()
    expect(member.locator("[data-copy=sha256]")).to_have_text("Copied")
    assert member.evaluate("navigator.clipboard.readText()") == "ab" * 32
    member.get_by_role("button", name="Copy log").click()
    expect(member.locator("[data-copy-log]")).to_have_text("Copied")
    copied = member.evaluate("navigator.clipboard.readText()").split("\n")
    assert len(copied) == 9
    assert copied[0].split("\t")[0] == "1"
    assert copied[6].split("\t")[2].startswith("warning Line 7 of a log")


def test_quarters_are_announced_and_nothing_else(member: Page, seeded: Any) -> None:
    member.goto(seeded("running"))
    said = member.evaluate(
        """() => new Promise((done) => {
          const said = [];
          const place = document.getElementById("announcer");
          new MutationObserver(() => said.push(place.textContent)).observe(place, { childList: true });
          const job = document.getElementById("job");
          for (let thousands = 430; thousands <= 1000; thousands += 5) {
            setTimeout(() => job.dispatchEvent(new CustomEvent("waybill:progress", {
              detail: { done: thousands * 1000, total: 1000000, unit: "rows" },
            })), thousands - 430);
          }
          setTimeout(() => setTimeout(() => done(said), 200), 600);
        })"""
    )
    assert said == ["50 percent done.", "75 percent done."]
    expect(member.locator("[data-count]")).to_have_text("1,000,000 of about 1,000,000 rows")
    assert member.title().startswith("99 %")
