"""Bundles and lists on the command line."""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app import exports, leases
from app.extensions import db
from app.models import Job


@pytest.fixture
def flask(runner: Any, admin: Any) -> Callable[..., Any]:
    """flask("exports", "create", ...): the result."""
    return lambda *words: runner.invoke(args=[*map(str, words)])


@pytest.fixture
def worker(app: Any, demo: None) -> Iterator[None]:
    """Does the next queued job in the background, as soon as there is one."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.02):
            with app.app_context():
                job_id = db.session.scalar(select(Job.id).where(Job.status == "queued"))
                lease = leases.claim(job_id) if job_id else None
                if lease is not None:
                    exports.run(lease)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    ended.set()
    thread.join()


def test_a_list_from_a_file_and_what_was_not_found(
    flask: Callable[..., Any], worker: None, tmp_path: Path
) -> None:
    given, made = tmp_path / "people.csv", tmp_path / "found.zip"
    given.write_text("name;login\nMona;member@demo.waybill.test\nNo;nobody@example.org\n")
    words = ("--param-file", f"emails={given}", "--param-column", "emails=Login", "--output", made)
    asked = flask("exports", "create", "lookup_members", *words)
    assert asked.exit_code == 0, asked.output
    assert "Not found: 1 of the 2 values asked for." in asked.output
    archive = zipfile.ZipFile(made)
    assert archive.read("not_found.csv") == b"emails\nnobody@example.org\n"
    checked = flask("exports", "verify", made)
    assert checked.exit_code == 0
    assert checked.output.startswith(f"{made} is whole: 2 files, 1 rows, ")


def test_the_files_of_a_changed_archive_are_told(
    flask: Callable[..., Any], worker: None, tmp_path: Path
) -> None:
    made = tmp_path / "campaigns.zip"
    assert (
        flask("exports", "create", "campaign_export", "-p", "channel=post", "--output", made).exit_code == 0
    )
    members = json.loads((tmp_path / "campaigns.zip.receipt.json").read_text())["members"]
    with zipfile.ZipFile(made) as good, zipfile.ZipFile(tmp_path / "other.zip", "w") as bad:
        for member in members[1:]:
            content = good.read(member["name"])
            bad.writestr(member["name"], content + b"x" if member is members[-1] else content)
    made.write_bytes((tmp_path / "other.zip").read_bytes())
    told = flask("exports", "verify", made).stderr
    assert f"{members[0]['name']} is missing." in told
    assert "summary.csv is not what it was." in told
    made.write_bytes(made.read_bytes()[:-50])
    assert "the archive is broken" in flask("exports", "verify", made).stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--param-file", "emails"), "write it as NAME=VALUE"),
        (("--param-file", "email=x"), "no list of the report. Did you mean emails?"),
        (("--param-file", "emails=none.csv"), "can't be read: No such file"),
        (("--param-column", "emails=x"), "there is no --param-file of that name"),
    ],
)
def test_a_wrong_file_is_told(
    flask: Callable[..., Any], demo: None, words: tuple[str, ...], told: str
) -> None:
    asked = flask("exports", "create", "lookup_members", *words)
    assert asked.exit_code == 2
    assert told in asked.stderr


def test_what_is_wrong_in_a_file_is_told(flask: Callable[..., Any], demo: None, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("ä".encode("latin-1"))
    asked = flask("exports", "create", "lookup_members", "--param-file", f"emails={tmp_path}/list.csv")
    assert asked.exit_code == 1
    assert "emails: Line 1 is not UTF-8." in asked.stderr
