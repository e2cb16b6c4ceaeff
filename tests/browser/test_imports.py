"""Imports as a person meets them: a file sent in, checked, applied, corrected and undone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import MEMBER_SIGN_IN, status

HERE = Path(__file__).parent
CONTRAST = (HERE / "contrast.js").read_text()
UNNAMED = (HERE / "unnamed.js").read_text()
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

FILE = """E-Mail;Full Name;Company;Joined;Nothing to us
ann@example.org;Ann;Company 1;31.01.2026;x
bob@example.org;Bob;Company 2;28.02.2026;y
;Nobody;Company 2;28.02.2026;y
eve@example.org;Eve;Company 2;tomorrow;z
"""
UNSURE = "email,name,company,joined\nann@example.org,Ann,Company 1,01/02/2026\n"
COUNTS = {
    "read": 5_000_000,
    "inserted": 4_200_000,
    "updated": 650_000,
    "unchanged": 149_750,
    "superseded": 3,
    "refused": 247,
    "refused_by": {"required": 200, "unknown_reference": 47},
}
EXAMPLE = {
    "line": 17,
    "key": {"email": "ann@example.org"},
    "changes": {"name": ["Anna", "Ann"], "role": [None, "guest"]},
}
STATES: dict[str, tuple[str, str, dict[str, Any], dict[str, str]]] = {
    # by name: step, status of its job, what the import knows, more of the job
    "dry run at work": ("dry-run", "running", {}, {}),
    "dry run": ("dry-run", "succeeded", {"forecast": COUNTS | {"examples": [EXAMPLE]}}, {}),
    "queued": ("apply", "queued", {}, {}),
    "running": ("apply", "running", {}, {}),
    "pausing": ("apply", "running", {}, {"paused_at": "now()"}),
    "paused": ("apply", "queued", {}, {"paused_at": "now()"}),
    "applied": ("apply", "succeeded", {"result": COUNTS}, {}),
    "failed": ("apply", "failed", {"result": COUNTS}, {}),
    "cancelled": ("apply", "cancelled", {"result": COUNTS}, {}),
    "undone": (
        "undo",
        "succeeded",
        {"result": COUNTS, "undone": {"updated": 9, "inserted": 4, "skipped": 2}},
        {},
    ),
}
JOB = """
INSERT INTO jobs (id, kind, definition, title, owner_id, params, format, dialect, compression, queue, status,
    attempt, progress_done, progress_total, progress_unit, last_event, error_code, error_message, created_at,
    started_at, finished_at, lease_expires_at, next_attempt_at, dispatched_at, import_id, step, paused_at)
SELECT gen_random_uuid(), 'import', importer, 'Import: Members', owner_id, '{}', 'csv', 'machine', 'none',
    'high', %(status)s, 1, 1234567, 5000000, 'rows', 0, %(code)s, %(message)s, now() - interval '40 seconds',
    now() - interval '30 seconds', %(finished)s, now() + interval '1 hour', now() + interval '1 hour', now(),
    id, %(step)s, %(paused)s
FROM imports WHERE id = %(import)s
RETURNING id, now()
"""


def send(page: Page, content: str = FILE, name: str = "members.csv") -> str:
    """Send a file in through the page; the path of its import."""
    page.goto("/imports/new?importer=members")
    page.set_input_files(
        "input[type=file]", {"name": name, "mimeType": "text/csv", "buffer": content.encode()}
    )
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url(re.compile(r"/imports/[0-9a-f-]{36}$"))
    return "/imports/" + page.url.rpartition("/")[2]


@pytest.fixture
def seeded(database: Any, member: Page) -> Iterator[Callable[[str], tuple[str, str]]]:
    """seeded("paused"): the paths of an import and of its latest job in that state."""
    made: list[str] = []

    def make(state: str) -> tuple[str, str]:
        path = send(member)
        import_id = path.rpartition("/")[2]
        step, status, known, more = STATES[state]
        steps = [("apply", "succeeded"), (step, status)] if step == "undo" else [(step, status)]
        for each, ended in steps:
            final = ended in ("succeeded", "failed", "cancelled")
            job = database.execute(
                JOB,
                {
                    "import": import_id,
                    "step": each,
                    "status": ended,
                    "code": "too_many_refused" if ended == "failed" else None,
                    "message": "More than 5 % of the rows were refused." if ended == "failed" else None,
                    "finished": database.execute("SELECT now()").fetchone()[0] if final else None,
                    "paused": database.execute("SELECT now()").fetchone()[0] if more else None,
                },
            ).fetchone()[0]
            made.append(job)
        for name, value in known.items():
            database.execute(f"UPDATE imports SET {name} = %s WHERE id = %s", [json.dumps(value), import_id])
        return path, f"/jobs/{job}"

    yield make
    database.execute("DELETE FROM jobs WHERE id = ANY(%s)", [made])


@pytest.fixture
def paths(member: Page, seeded: Callable[[str], tuple[str, str]]) -> dict[str, str]:
    """Each page there is, by what it shows."""
    found = {"imports": "/imports", "upload": "/imports/new?importer=members"}
    found["check"] = send(member)
    found["unsure"] = send(member, UNSURE)
    found["nothing fits"] = send(member, "a,b\n1,2\n")
    for state in STATES:
        found[state], found[f"job: {state}"] = seeded(state)
    return found


def test_no_page_scrolls_sideways_or_complains(member: Page, window: Any, paths: dict[str, str]) -> None:
    narrow = window(member, viewport={"width": 390, "height": 844})
    said: list[str] = []
    narrow.on("console", lambda message: said.append(message.text))
    narrow.on("pageerror", lambda error: said.append(str(error)))
    for name, path in paths.items():
        said.clear()
        answer = narrow.goto(path)
        assert answer is not None
        assert answer.status == 200, name
        for width in (390, 320):
            narrow.set_viewport_size({"width": width, "height": 844})
            assert narrow.evaluate(WIDER) <= 0, f"{name} is wider than {width} pixels"
        assert said == [], name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out(member: Page, window: Any, paths: dict[str, str], scheme: str) -> None:
    shown = window(member, color_scheme=scheme)
    for name, path in paths.items():
        shown.goto(path)
        assert shown.evaluate(CONTRAST) == [], f"{name}, {scheme}"


def test_everything_has_a_name_for_who_listens(member: Page, paths: dict[str, str]) -> None:
    for name, path in paths.items():
        member.goto(path)
        assert member.evaluate(UNNAMED) == [], name


@pytest.fixture
def clean(database: Any) -> Iterator[None]:
    """The demo's members as they were, afterwards."""
    yield
    database.execute("DELETE FROM demo.members WHERE email LIKE '%@import.test'")


def company(database: Any) -> str:
    return str(database.execute("SELECT name FROM demo.companies ORDER BY id LIMIT 1").fetchone()[0])


def members(database: Any) -> dict[str, str]:
    """Name by address of those that the test imports."""
    query = "SELECT email, name FROM demo.members WHERE email LIKE '%@import.test' ORDER BY 1"
    return dict(database.execute(query).fetchall())


def test_a_file_is_sent_in_checked_applied_corrected_and_undone(
    member: Page, database: Any, clean: None, tmp_path: Path
) -> None:
    works_at = company(database)
    rows = [f"m{n:03}@import.test;Name {n};{works_at};{n % 28 + 1:02}.02.2026" for n in range(200)]
    rows[7] = rows[7].replace("m007@import.test", "")
    rows[9] = rows[9].replace(works_at, "No such company")
    path = send(member, "\n".join(["E-Mail;Full Name;Company;Joined", *rows]) + "\n")
    expect(member.locator("#rows")).to_contain_text(re.compile("[12] refused"))
    expect(member.locator(".step[aria-current]")).to_have_text(re.compile("Check"))

    # How it was understood is corrected, and looked at again.
    member.get_by_label("Dates").select_option("iso")
    member.get_by_role("button", name="Save and look again").click()
    expect(member.locator("#rows")).to_contain_text("50 refused")
    member.get_by_label("Dates").select_option("dmy")

    member.get_by_role("button", name="Dry run").click()
    member.wait_for_url(re.compile(r"/jobs/"))
    status(member, "succeeded")
    expect(member.locator("#job-band")).to_contain_text("nothing was written")
    assert members(database) == {}
    member.get_by_role("link", name="Go on to import").click()
    expect(member.locator("#forecast")).to_contain_text("198")

    member.get_by_role("button", name="Import now").click()
    member.wait_for_url(re.compile(r"/jobs/"))
    job = member.url
    status(member, "succeeded")
    expect(member.locator("#job-band")).to_contain_text("198")
    assert len(members(database)) == 198

    with member.expect_download() as caught:
        member.get_by_role("link", name="Download refused rows").click()
    refused = tmp_path / "refused.csv"
    caught.value.save_as(refused)
    text = refused.read_text("utf-8-sig")
    assert "No such company" in text
    assert len(text.splitlines()) == 3

    # Corrected, they come back and are matched as before.
    member.goto(job)
    member.get_by_role("link", name="Upload corrected rows").click()
    corrected = text.replace("No such company", works_at).replace("\n;Name 7;", "\nm007@import.test;Name 7;")
    refused.write_text(corrected)
    member.set_input_files("input[type=file]", refused)
    member.get_by_role("button", name="Upload").click()
    member.wait_for_url(re.compile(r"/imports/[0-9a-f-]{36}$"))
    expect(member.get_by_text("corrected rows of")).to_be_visible()
    expect(member.locator("#rows")).not_to_contain_text("refused")
    member.get_by_role("button", name="Import now").click()
    status(member, "succeeded")
    assert len(members(database)) == 200

    # Somebody edits a row; the undo leaves it alone, and names it.
    database.execute("UPDATE demo.members SET name = 'Edited' WHERE email = 'm000@import.test'")
    member.goto(path)
    expect(member.get_by_text("Corrected rows came back")).to_be_visible()
    member.get_by_role("button", name="Undo").click()
    member.get_by_role("dialog").get_by_role("button", name="Undo the import").click()
    member.wait_for_url(re.compile(r"/jobs/"))
    status(member, "succeeded")
    expect(member.locator("#job-band")).to_contain_text("left alone")
    expect(member.locator("#log-lines")).to_contain_text("m000@import.test")
    left = members(database)
    assert left.pop("m000@import.test") == "Edited"
    assert set(left) == {"m007@import.test", "m009@import.test"}


def test_an_import_without_scripts(stack: Any, window: Any, sign_in: Any, database: Any, clean: None) -> None:
    plain = window(java_script_enabled=False)
    sign_in(plain, *MEMBER_SIGN_IN)
    content = f"email,name,company,joined\nplain@import.test,Ann,{company(database)},2026-01-31\n"
    send(plain, content)
    plain.get_by_role("button", name="Import now").click()
    expect(plain.locator("#job-head .status")).to_have_text("Succeeded", timeout=60_000)
    assert members(database) == {"plain@import.test": "Ann"}
    # The form asks for no confirmation then; its page says what came of it.
    plain.get_by_role("button", name="Undo").click()
    expect(plain.locator("#job-band")).to_contain_text("removed again", timeout=60_000)
    assert members(database) == {}


def test_enter_in_a_field_looks_again_and_imports_nothing(member: Page) -> None:
    path = send(member)
    member.get_by_label("Lines before the table").press("Enter")
    member.wait_for_url(re.compile(path + "#rows"))
    expect(member.get_by_role("button", name="Import now")).to_be_visible()


def test_a_running_import_is_paused_resumed_and_cancelled(member: Page, database: Any, clean: None) -> None:
    works_at = company(database)
    rows = [f"m{n:05}@import.test,Name {n},{works_at},2026-01-31" for n in range(3000)]
    send(member, "\n".join(["email,name,company,joined", *rows]) + "\n")
    member.get_by_label("Rows a second at most").fill("200")
    press(member, "Import now")
    status(member, "running")
    press(member, "Pause")
    expect(member.locator("#job-band")).to_contain_text("goes on behind that", timeout=60_000)
    press(member, "Resume")
    status(member, "running")
    member.get_by_role("button", name="Cancel").click()
    member.get_by_role("dialog").get_by_role("button", name="Stop it").click()
    status(member, "cancelled")
    expect(member.get_by_role("button", name="Go on with it")).to_be_visible()
    before = len(members(database))
    assert before < 3000

    # It goes on where it was; one that is paused and then cancelled says what is in, too.
    press(member, "Go on with it")
    status(member, "running")
    press(member, "Pause")
    expect(member.locator("#job-band")).to_contain_text("goes on behind that", timeout=60_000)
    member.get_by_role("button", name="Cancel").click()
    member.get_by_role("dialog").get_by_role("button", name="Stop it").click()
    status(member, "cancelled")
    expect(member.locator("#job-band")).to_contain_text("In so far")
    assert before <= len(members(database)) < 3000


def press(page: Page, name: str) -> None:
    """And be on the page that comes: the one before it may tell of what happens a moment longer."""
    with page.expect_navigation():
        page.get_by_role("button", name=name).click()
