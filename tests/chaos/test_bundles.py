"""An archive of several files, its worker killed in the middle: the next one makes the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app import jobs
from app.extensions import db
from app.models import User
from tests.chaos.killing import kill_at, run_out
from tests.exporting import artifact, attempt, clean, lines, make


@pytest.fixture(autouse=True)
def context(app: Any, demo: None) -> Iterator[None]:
    with clean(app):
        yield


@pytest.mark.parametrize(
    ("table", "condition"),
    [
        ("events", "NEW.text LIKE '% campaigns with %'"),
        ("events", "NEW.text LIKE '010 %: % row%'"),
        ("events", "NEW.text LIKE '% files with %'"),
        ("artifacts", "true"),
    ],
    ids=["before the first file", "between two files", "after the last file", "before it is published"],
)
@pytest.mark.parametrize("format", ["csv", "xlsx"])
def test_a_worker_killed_in_mid_bundle(
    table: str, condition: str, format: str, member: User, app: Any
) -> None:
    undisturbed = artifact(make(member, "campaign_export", format=format))[1]
    asked = jobs.request_export(db.session.merge(member), "campaign_export", {}, format=format, fresh=True).id
    kill_at(table, condition, app, asked)
    run_out(asked)
    job = attempt(asked)
    found, content = artifact(job)
    assert job.attempt == 2, lines(job)
    assert content == undisturbed
    assert found.receipt["attempt"] == 2


def test_a_lookup_killed_before_it_tells_what_was_not_found(member: User, admin: User, app: Any) -> None:
    params = {"emails": ["member@demo.waybill.test", *(f"nobody{n}@example.org" for n in range(5000))]}
    undisturbed = artifact(make(admin, "lookup_members", params=params))[1]
    asked = jobs.request_export(db.session.merge(admin), "lookup_members", params, fresh=True).id
    kill_at("events", "NEW.text LIKE 'lookup_members.csv: %'", app, asked)
    run_out(asked)
    assert artifact(attempt(asked))[1] == undisturbed
