"""The operations page at the real stack: true at any moment, narrow, dark, without scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import ADMIN_SIGN_IN, MEMBER

HERE = Path(__file__).parent
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CONTRAST, UNNAMED = (HERE / "contrast.js").read_text(), (HERE / "unnamed.js").read_text()

JOB = """
INSERT INTO jobs (id, kind, definition, title, owner_id, params, format, dialect, compression, queue, size,
    status, attempt, progress_done, progress_unit, last_event, error_code, error_message, created_at,
    finished_at)
SELECT %(id)s, 'export', %(definition)s, %(title)s, id, '{}', 'csv', 'machine', 'none', %(queue)s, 'small',
    %(status)s, 1, 0, 'rows', 0, %(code)s, %(message)s, now() - interval '12 minutes', %(finished)s
FROM users WHERE email = %(email)s
"""


@pytest.fixture
def admin(page: Page, sign_in: Callable[..., None]) -> Page:
    sign_in(page, *ADMIN_SIGN_IN)
    return page


@pytest.fixture
def job(database: Any) -> Iterator[Callable[..., str]]:
    """job(status="failed", code="internal"): a job of the demo's member; its id."""
    made = []

    def make(**values: Any) -> str:
        id = uuid4()
        made.append(id)
        now = database.execute("SELECT now()").fetchone()[0]
        finished = now if values.get("status") == "failed" else None
        plain = {
            "id": id,
            "email": MEMBER,
            "definition": "all_tasks",
            "title": "All tasks",
            "queue": "default",
        }
        plain |= {"status": "queued", "code": None, "message": None, "finished": finished}
        database.execute(JOB, plain | values)
        return str(id)

    yield make
    database.execute("DELETE FROM jobs WHERE id = ANY(%s)", [made])


@pytest.fixture
def troubled(job: Callable[..., str]) -> str:
    """Jobs wait where nobody listens, others failed; the id of one that failed."""
    for _ in range(3):
        job(queue="nowhere", title="A report with quite a long title that takes its room")
    why = {"status": "failed", "code": "source_down", "message": "The source demo does not answer. " * 5}
    job(**why, definition="a_definition_with_a_name_far_too_long_for_a_narrow_window_so_that_it_breaks")
    return job(**why)


def test_it_is_reached_by_the_navigation_and_says_that_all_is_well(admin: Page) -> None:
    admin.get_by_role("navigation", name="Main").get_by_role("link", name="Operations").click()
    expect(admin.get_by_role("heading", name="Operations")).to_be_visible()
    # Another test may have killed a worker, which is told of for ten minutes, or made jobs fail for an hour.
    expect(admin.locator(".finding").first).to_be_visible()
    expect(admin.locator(".finding.notice-danger")).to_have_count(0)
    queues = admin.get_by_role("region", name="Queues")
    expect(queues.get_by_role("row")).to_have_count(4)
    expect(queues).to_contain_text("4 threads")
    expect(admin.get_by_role("region", name="Workers and clock")).to_contain_text("The clock's last pass")
    metrics = admin.request.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=")
    assert 'waybill_queue_threads{queue="low"} 4.0' in metrics.text()


def test_it_keeps_itself_true_without_jumping(admin: Page, job: Callable[..., str], database: Any) -> None:
    admin.set_viewport_size({"width": 1280, "height": 500})
    admin.goto("/operations")
    link = admin.get_by_role("link", name="Failed jobs")
    link.focus()
    admin.evaluate("scrollTo(0, 200); document.querySelector('.page-head').dataset.mark = 'old'")
    id = job(queue="nowhere")
    finding = admin.locator("[data-code=queue_unattended]")
    expect(finding).to_contain_text("Nobody listens to the queue nowhere: 1 job waits for 12 minutes.")
    expect(admin).to_have_title("Something is wrong · Operations · Waybill")
    expect(link).to_be_focused()
    database.execute("DELETE FROM jobs WHERE id = %s", [id])
    expect(finding).to_have_count(0)
    assert admin.evaluate("scrollY") > 0


def test_it_says_when_the_database_does_not_answer(admin: Page, database: Any) -> None:
    admin.goto("/operations")
    with database.transaction():
        # Nobody but monitoring reads it, and only the clock writes to it.
        database.execute("LOCK TABLE clocks IN ACCESS EXCLUSIVE MODE")
        finding = admin.locator("[data-code=unanswered]")
        expect(finding).to_contain_text("The database does not answer just now.")
        expect(admin).to_have_title("No answer · Operations · Waybill")
        expect(admin.get_by_role("region", name="Queues")).to_contain_text("default")
    expect(finding).to_have_count(0)
    expect(admin.locator(".finding").first).to_be_visible()


def test_it_leads_to_the_jobs(admin: Page, troubled: str) -> None:
    admin.goto("/operations")
    admin.locator("[data-code=jobs_failing]").get_by_role("link").click()
    admin.wait_for_url(f"**/jobs/{troubled}")
    admin.go_back()
    admin.get_by_role("link", name="Failed jobs").click()
    admin.wait_for_url("**/jobs?status=failed&everyone=1")
    expect(admin.locator(f"#job-{troubled}")).to_be_visible()


def test_it_is_reached_from_a_telephone(admin: Page) -> None:
    admin.set_viewport_size({"width": 390, "height": 844})
    admin.goto("/jobs")
    assert admin.evaluate(WIDER) <= 0
    admin.get_by_label("Account of").click()
    admin.get_by_role("link", name="Operations").click()
    admin.wait_for_url("**/operations")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_reads_well(admin: Page, window: Any, troubled: str, width: int, scheme: str) -> None:
    shown = window(admin, viewport={"width": width, "height": 900}, color_scheme=scheme)
    shown.goto("/operations")
    expect(shown.locator("[data-code=queue_unattended]")).to_be_visible()
    assert shown.evaluate(WIDER) <= 0
    assert shown.evaluate(CONTRAST) == []
    assert shown.evaluate(UNNAMED) == []


def test_it_works_without_scripts(admin: Page, window: Any, troubled: str) -> None:
    bare = window(admin, java_script_enabled=False)
    bare.goto("/operations")
    expect(bare.locator("[data-code=queue_unattended]")).to_contain_text(
        "Nobody listens to the queue nowhere"
    )
    assert "http-equiv" in bare.content()
