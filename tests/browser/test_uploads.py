"""Files sent by the page's script: gone on with after a cut, a reload and a pause; and without any script."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from tests.waiting import PATIENCE, until

from .conftest import MEMBER_SIGN_IN
from .wire import Wire

MIB = 1024 * 1024
ROW = b"ann%07d@example.org,Ann,Company 1,2026-01-31\n"
IMPORT = re.compile(r"/imports/[0-9a-f-]{36}$")
STATE, PAUSE = "[data-upload-state]", "[data-upload-pause]"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A table of some 25 MB, under a name of its own."""
    path = tmp_path / f"members-{uuid4().hex[:8]}.csv"
    with path.open("wb") as out:
        out.write(b"email,name,company,joined\n")
        for start in range(0, 500_000, 10_000):
            out.write(b"".join(ROW % number for number in range(start, start + 10_000)))
    return path


@pytest.fixture
def sent(database: Any, file: Path) -> Callable[[], list[tuple[str, int]]]:
    """sent(): status and bytes of each upload of the file."""

    def sent() -> list[tuple[str, int]]:
        query = "SELECT status, (SELECT coalesce(sum(size), 0) FROM unnest(sizes) AS size) FROM uploads"
        rows = database.execute(f"{query} WHERE filename = %s", [file.name]).fetchall()
        return [(status, int(size)) for status, size in rows]

    return sent


def choose(page: Page, file: Path) -> None:
    page.goto("/imports/new?importer=members")
    page.set_input_files("input[type=file]", file)


def slowly(page: Page, bytes_a_second: int) -> Callable[[], None]:
    """Slow the browser's network down; call what is returned to let it go."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")

    def throttle(throughput: int) -> None:
        session.send(
            "Network.emulateNetworkConditions",
            {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": throughput},
        )

    throttle(bytes_a_second)
    return lambda: throttle(-1)


def upload(page: Page) -> None:
    page.get_by_role("button", name="Upload").click()


def partly(sent: Callable[[], list[tuple[str, int]]]) -> bool:
    found = sent()
    return bool(found) and found[0][1] > 0


def whole(sent: Callable[[], list[tuple[str, int]]], file: Path) -> bool:
    return sent() == [("complete", file.stat().st_size)]


def arrived(page: Page) -> None:
    page.wait_for_url(IMPORT, timeout=PATIENCE * 2000)


def test_a_file_and_its_progress(member: Page, file: Path, sent: Callable[[], list[tuple[str, int]]]) -> None:
    choose(member, file)
    expect(member.locator(STATE)).to_contain_text(file.name)
    hurry = slowly(member, 2 * MIB)
    upload(member)
    expect(member.locator("[data-upload-count]")).to_contain_text("left", timeout=PATIENCE * 1000)
    expect(member.locator("[data-upload-big]")).to_contain_text("%")
    hurry()
    arrived(member)
    assert whole(sent, file)


def test_a_network_that_is_cut(
    window: Any,
    sign_in: Callable[..., None],
    stack: Any,
    file: Path,
    sent: Callable[[], list[tuple[str, int]]],
) -> None:
    port = urlsplit(stack.base_url).port
    assert port
    with Wire(port) as wire:
        page = window(base_url=wire.url)
        sign_in(page, *MEMBER_SIGN_IN)
        choose(page, file)
        hurry = slowly(page, MIB)
        upload(page)
        until(lambda: partly(sent))
        wire.cut()
        expect(page.locator(STATE)).to_contain_text("Trying again", timeout=PATIENCE * 1000)
        expect(page.locator(STATE)).to_contain_text("what was sent is safe")
        wire.mend()
        hurry()
        arrived(page)
        assert whole(sent, file)


def test_a_page_that_is_loaded_anew(
    member: Page, file: Path, sent: Callable[[], list[tuple[str, int]]]
) -> None:
    member.on("dialog", lambda dialog: dialog.accept())
    choose(member, file)
    hurry = slowly(member, MIB)
    upload(member)
    until(lambda: partly(sent))
    member.reload()
    choose(member, file)
    expect(member.locator(STATE)).to_contain_text("goes on where it stopped")
    hurry()
    upload(member)
    arrived(member)
    assert whole(sent, file)


def test_pause_and_resume(member: Page, file: Path, sent: Callable[[], list[tuple[str, int]]]) -> None:
    choose(member, file)
    hurry = slowly(member, MIB)
    upload(member)
    until(lambda: partly(sent))
    member.click(PAUSE)
    expect(member.locator(STATE)).to_contain_text("Paused")
    hurry()
    assert not whole(sent, file)
    member.get_by_role("button", name="Resume").click()
    arrived(member)
    assert whole(sent, file)


def test_a_file_that_is_dropped(member: Page) -> None:
    member.goto("/imports/new?importer=members")
    transfer = member.evaluate_handle(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File(["email,name\\nann@example.org,Ann\\n"], "dropped.csv"));
            return transfer;
        }"""
    )
    member.dispatch_event("[data-upload-drop]", "dragover", {"dataTransfer": transfer})
    expect(member.locator("[data-upload-drop]")).to_have_class(re.compile("dragging"))
    member.dispatch_event("[data-upload-drop]", "drop", {"dataTransfer": transfer})
    expect(member.locator(STATE)).to_contain_text("dropped.csv, 31 bytes")
    upload(member)
    arrived(member)


def test_a_file_that_is_no_table(member: Page, tmp_path: Path) -> None:
    path = tmp_path / "letter.pdf"
    path.write_bytes(b"%PDF-1.7 ...")
    choose(member, path)
    upload(member)
    expect(member.locator(STATE)).to_contain_text("letter.pdf is a PDF document", timeout=PATIENCE * 1000)
    expect(member.locator("input[type=file]")).to_be_enabled()


def test_without_script(
    member: Page, window: Any, file: Path, sent: Callable[[], list[tuple[str, int]]]
) -> None:
    page = window(like=member, java_script_enabled=False)
    choose(page, file)
    upload(page)
    arrived(page)
    assert whole(sent, file)
