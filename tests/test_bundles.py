"""Exports of several files, in one process, over real PostgreSQL and storage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import InvalidRequest
from app.exports import bundle
from app.models import User
from tests.exporting import adder, artifact, clean, lines, make, opened, table


@pytest.fixture
def context(app: Any, demo: None) -> Iterator[None]:
    with clean(app):
        yield


@pytest.fixture
def report(
    app: Any, context: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], None]:
    return adder(app, tmp_path, monkeypatch)


def files(body: str) -> str:
    return f"""
from app.reports import Bundle, File, Param, Params, Query

class Several(Bundle):
    title = "Several"
    description = "Several files."
    personal = False

    def files(self, params, context):
        {body}
"""


def test_a_file_for_each_campaign_and_a_summary(context: None, member: User) -> None:
    job = make(member, "campaign_export")
    found, content = artifact(job)
    archive = opened(content)
    summary = table(archive.read("summary.csv"))
    assert (job.compression, found.content_type) == ("zip", "application/zip")
    assert found.filename.startswith("campaigns-")
    assert found.filename.endswith(".zip")
    assert archive.namelist()[-1] == "summary.csv"
    assert len(archive.namelist()) == len(summary) > 100
    first = next(name for name in archive.namelist() if name.startswith(f"{int(summary[1][0]):03} "))
    assert len(table(archive.read(first))) - 1 == int(summary[1][5])
    assert found.rows == sum(int(row[5]) for row in summary[1:]) + len(summary) - 1
    assert job.progress_done == found.rows


def test_the_receipt_names_each_file(context: None, member: User) -> None:
    found, content = artifact(make(member, "campaign_export", params={"channel": "post"}, format="jsonl"))
    archive, receipt = opened(content), found.receipt
    assert receipt["sha256"] == found.sha256 == hashlib.sha256(content).hexdigest()
    assert (receipt["compression"], receipt["format"]) == ("zip", "jsonl")
    assert [told["name"] for told in receipt["members"]] == archive.namelist()
    for told in receipt["members"]:
        inner = archive.read(told["name"])
        assert told["rows_expected"] == told["rows"] == inner.count(b"\n")
        assert told["bytes"] == len(inner)
        assert told["sha256"] == hashlib.sha256(inner).hexdigest()
    assert receipt["rows"] == sum(told["rows"] for told in receipt["members"])


def test_the_same_data_give_the_same_bytes(context: None, member: User) -> None:
    one, other = (artifact(make(member, "campaign_export"))[0].sha256 for _ in range(2))
    assert one == other


@pytest.mark.parametrize("format", ["csv", "jsonl", "xlsx", "parquet"])
def test_every_format_is_had_in_an_archive(report: Callable[..., None], member: User, format: str) -> None:
    report(
        "several.py",
        files("""
        yield File("a", [(1, "x"), (2, None)], ("id", "name"))
        yield File("b", Query("SELECT :n AS n, 'y' AS name", n=3))
        yield File("none", [], ("id",))
    """),
    )
    found, content = artifact(make(member, "several", format=format))
    archive = opened(content)
    assert archive.namelist() == [f"a.{format}", f"b.{format}", f"none.{format}"]
    assert [told["rows"] for told in found.receipt["members"]] == [2, 1, 0]
    assert found.rows == 3


def test_names_are_safe_and_unlike(report: Callable[..., None], member: User) -> None:
    names = [
        "../../etc/passwd",
        "C:\\x",
        "CON",
        "nul.txt",
        "a",
        "A",
        "a",
        "",
        "...",
        "x" * 500,
        "e\u0301",
        "é",
    ]
    given = f"yield from (File(name, [(1,)], ('n',)) for name in {names!r})"
    report("several.py", files(given))
    _, content = artifact(make(member, "several"))
    found = opened(content).namelist()
    assert len({name.casefold() for name in found}) == len(names)
    assert not any("/" in name or "\\" in name or name.startswith(".") for name in found)
    assert found[2:7] == ["_CON.csv", "_nul.txt.csv", "a.csv", "A (2).csv", "a (3).csv"]


def test_what_cannot_be_written_is_begun_anew_as_text(report: Callable[..., None], member: User) -> None:
    query = "SELECT * FROM (VALUES (DATE '2026-01-31'), ('infinity'::date)) AS t (day)"
    report(
        "several.py",
        files(f'''
        yield File("plain", Query("SELECT DATE '2026-01-31' AS day"))
        yield File("odd", Query("{query}"))
    '''),
    )
    job = make(member, "several", format="parquet")
    found, content = artifact(job)
    assert found.rows == 3
    assert any(line.startswith("odd.parquet: The column 'day' holds 'infinity'") for line in lines(job))
    import io

    from pyarrow import parquet as pq

    archive = opened(content)
    types = [str(pq.read_schema(io.BytesIO(archive.read(name))).field(0).type) for name in archive.namelist()]
    assert types == ["date32[day]", "string"]


def test_a_row_of_the_wrong_width_fails_the_job(report: Callable[..., None], member: User) -> None:
    report("several.py", files('yield File("a", [(1, 2)], ("id",))'))
    job = make(member, "several")
    assert job.error_code == "incomplete_artifact" or "promises 1 columns" in lines(job)[-1]


def test_an_archive_of_nothing(report: Callable[..., None], member: User) -> None:
    report("several.py", files("yield from ()"))
    job = make(member, "several")
    found, content = artifact(job)
    assert (found.rows, opened(content).namelist()) == (0, [])
    assert lines(job)[-1].startswith("Done: 0 files, 0 rows")


def test_thousands_of_files_have_few_lines(report: Callable[..., None], member: User) -> None:
    report("several.py", files('yield from (File(f"{n}", [(n,)], ("n",)) for n in range(3000))'))
    job = make(member, "several")
    found, content = artifact(job)
    assert (found.rows, len(opened(content).namelist())) == (3000, 3000)
    told = lines(job)
    assert bundle.TOLD < len(told) < bundle.TOLD + 20
    assert any("3,000 files with 3,000 rows" in line for line in told)


def test_more_files_than_one_archive_takes(
    report: Callable[..., None], member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MOST_FILES", 3)
    report("several.py", files('yield from (File(f"{n}", [(n,)], ("n",)) for n in range(4))'))
    job = make(member, "several")
    assert "more than 3 files" in (job.error_message or "")


def test_several_files_are_always_a_zip(context: None, member: User) -> None:
    with pytest.raises(InvalidRequest, match="one zip archive"):
        make(member, "campaign_export", compression="gzip")
