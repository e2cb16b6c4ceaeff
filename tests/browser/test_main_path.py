"""The main path as a newcomer walks it: report, live log, closed tab, mail, link, file."""

from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.conftest import MEMBER, MEMBER_SIGN_IN, lines, numbers, start, status
from tests.browser.wire import Wire
from tests.waiting import until


def test_from_the_catalogue_to_the_file_in_the_mail(member: Page, stack: Any, window: Any) -> None:
    page = member
    page.goto("/")
    page.get_by_role("searchbox").fill("slow")
    page.get_by_role("link", name="Slow tasks").click()
    page.fill("[name='param.rows']", "1500")
    page.fill("[name='param.batches']", "20")
    page.fill("[name='param.pause']", "0.4")
    page.get_by_role("button", name="Export").click()
    page.wait_for_url(re.compile(r"/jobs/"))
    job = page.url.rpartition("/")[2]

    expect(page.locator("#job-band")).to_contain_text("of about 1,500 rows")
    expect(page.locator("[data-connection]")).to_have_text("Live")
    seen = page.locator("progress").get_attribute("value") or ""
    lines(page, len(numbers(page)) + 2)
    expect(page.locator("progress")).not_to_have_attribute("value", seen)
    assert "%" in page.title()
    page.close()

    until(lambda: mails_of(stack, job), 60)
    (mail,) = mails_of(stack, job)
    assert "Slow tasks" in mail.subject
    assert mail.recipients == [MEMBER]
    link = next(url for url in mail.links if "/d/" in url)
    stranger = window(accept_downloads=True)
    with stranger.expect_download() as waiting:
        # The answer is a file, so no page comes of it.
        stranger.evaluate("url => { location.href = url; }", link)
    path = Path(waiting.value.path())
    content = path.read_bytes()
    rows = list(csv.reader(content.decode().splitlines()))
    assert waiting.value.suggested_filename.startswith("slow-tasks-")
    assert len(rows) == 1501
    assert hashlib.sha256(content).hexdigest() == receipt(mail, window(member), content)


def mails_of(stack: Any, job: str) -> list[Any]:
    """Not those of the jobs of other tests."""
    return [mail for mail in stack.mailbox.mails() if any(job in url for url in mail.links)]


def receipt(mail: Any, page: Page, content: bytes) -> str:
    """The SHA-256 on the page that the mail leads to, after checking the rest of the receipt."""
    page.goto(next(url for url in mail.links if "/jobs/" in url))
    side = page.locator("#job-side")
    expect(side).to_contain_text("1,500")
    expect(side.locator("[title$=' bytes']")).to_have_attribute("title", f"{len(content):,} bytes")
    expect(side).to_contain_text("Somebody with the link")
    expect(side).to_contain_text(f"Sent to {MEMBER}")
    return page.locator("#sha256").inner_text()


def test_the_page_changes_by_itself_when_the_job_is_done(member: Page) -> None:
    start(member, rows=200, batches=4, pause="0.2")
    status(member, "succeeded")
    expect(member.get_by_role("link", name="Download")).to_be_visible()
    expect(member.locator("[data-connection]")).to_have_text("Ended")
    expect(member.locator("#announcer")).to_have_text("The export is complete. The download is ready.")
    expect(member.locator("#job-side")).to_contain_text("Sent to")
    expect(member.locator("#log-lines > li").last).to_contain_text(f"Mail sent to {MEMBER}")
    assert member.title().startswith("✓ Slow tasks")
    assert (member.locator("link[rel=icon]").get_attribute("href") or "").startswith("data:image/png")
    with member.expect_download() as waiting:
        member.get_by_role("link", name="Download").click()
    assert len(Path(waiting.value.path()).read_text().splitlines()) == 201


def test_a_reload_in_mid_run_loses_and_doubles_no_line(member: Page) -> None:
    start(member, rows=400, batches=40, pause="0.1")
    for _ in range(4):
        lines(member, 3)
        before = numbers(member)
        member.reload()
        after = numbers(member)
        assert after[: len(before)] == before
    status(member, "succeeded")
    found = numbers(member)
    assert found == list(range(1, len(found) + 1))
    assert len(found) > 40


def test_a_network_cut_loses_and_doubles_no_line(
    stack: Any, window: Any, sign_in: Any, database: Any
) -> None:
    with Wire(int(stack.settings["PORT"])) as wire:
        far = window(base_url=wire.url)
        sign_in(far, *MEMBER_SIGN_IN)
        job = start(far, rows=400, batches=100, pause="0.5")
        lines(far, 4)
        wire.cut()
        expect(far.locator("[data-connection]")).to_have_text("Reconnecting…")
        stood = len(numbers(far))
        far.wait_for_timeout(1500)
        assert len(numbers(far)) == stood
        wire.mend()
        expect(far.locator("[data-connection]")).to_have_text("Live")
        lines(far, stood + 5)
        database.execute("UPDATE jobs SET cancel_requested_at = now() WHERE id = %s", [job])
        status(far, "cancelled")
        found = numbers(far)
    assert found == list(range(1, len(found) + 1))


def test_a_web_restart_loses_and_doubles_no_line(member: Page, stack: Any) -> None:
    start(member, rows=400, batches=40, pause="0.15")
    lines(member, 4)
    stack.restart("web")
    status(member, "succeeded")
    found = numbers(member)
    assert found == list(range(1, len(found) + 1))
    assert len(found) > 40


def test_a_job_is_cancelled_from_its_page(member: Page) -> None:
    start(member, rows=2000, batches=100, pause=1)
    status(member, "running")
    member.get_by_role("button", name="Cancel").click()
    dialog = member.get_by_role("dialog")
    expect(dialog).to_contain_text("thrown away")
    dialog.get_by_role("button", name="Go back").click()
    expect(dialog).to_be_hidden()
    member.get_by_role("button", name="Cancel").click()
    dialog.get_by_role("button", name="Cancel the export").click()
    status(member, "cancelled")
    expect(member.locator("#job-band")).to_contain_text("Nothing was published")
    member.get_by_role("button", name="Start it again").click()
    status(member, "running")
    member.wait_for_load_state()
    member.get_by_role("button", name="Cancel").click()
    member.get_by_role("button", name="Cancel the export").click()
    status(member, "cancelled")


def test_a_double_click_on_export_makes_one_job(member: Page, database: Any) -> None:
    count = "SELECT count(*) FROM jobs"
    before = database.execute(count).fetchone()[0]
    member.goto("/reports/my_tasks")
    member.get_by_role("button", name="Export").dblclick()
    member.wait_for_url(re.compile(r"/jobs/"))
    assert database.execute(count).fetchone()[0] == before + 1


def test_the_list_of_jobs_moves_by_itself(member: Page, window: Any) -> None:
    other = window(member)
    other.goto("/jobs")
    job = start(member, rows=300, batches=20, pause="0.4")
    row = other.locator(f"#job-{job}")
    expect(row.locator(".status")).to_have_text("Running")
    expect(row.locator(".cell-rows")).not_to_be_empty()
    expect(row.locator(".status")).to_have_text("Succeeded")
    expect(row.locator(".cell-rows")).to_have_text("300")


def test_run_again_with_the_same_parameters(member: Page) -> None:
    first = start(member, rows=30, batches=1, pause=0)
    status(member, "succeeded")
    member.get_by_role("button", name="Run again").click()
    member.wait_for_url(lambda url: first not in url)
    status(member, "succeeded")
    expect(member.locator("#job-band")).to_contain_text("30 rows")
    member.get_by_role("link", name="Change parameters").click()
    expect(member.locator("[name='param.rows']")).to_have_value("30")


def test_a_link_is_revoked_and_made_anew(member: Page, window: Any) -> None:
    start(member, rows=30, batches=1, pause=0)
    status(member, "succeeded")
    link = member.locator("#link").inner_text()
    member.get_by_role("button", name="Revoke link").click()
    member.get_by_role("button", name="Revoke the link").click()
    expect(member.locator("#job-band")).to_contain_text("Its link was revoked")
    assert window().goto(link).status == 410
    member.get_by_role("button", name="Make a new link").click()
    expect(member.locator("#download")).to_be_visible()
    assert member.locator("#link").inner_text() != link
