"""Whose days and whose clock: chosen by a person, frozen with a job, seen in its file and its receipt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app import exports, jobs, leases, zones
from app.errors import BadSettings, InvalidRequest
from app.extensions import db
from app.models import Artifact, Job, User
from app.reports import Registry
from app.settings import Settings

# Twenty-five hours apart: it is never the same day in both.
EAST, WEST = "Pacific/Kiritimati", "Pacific/Pago_Pago"
REPORT = """/*
title = "Days"
personal = false
fresh_for = "1 hour"
[params.day]
type = "date"
default = "today"
[params.at]
type = "datetime"
default = "2026-07-01T12:00"
*/
SELECT CAST(:day AS text) AS day, CAST(:at AS timestamptz) AS at
"""
FIXED = {"day": "2026-01-31", "at": "2026-07-01T12:00:00Z"}


@pytest.fixture(autouse=True)
def reports(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "days.sql").write_text(REPORT)
    registry = Registry.load(str(tmp_path), sources=("demo",))
    registry.check()
    monkeypatch.setitem(app.extensions, "waybill.reports", registry)


@pytest.fixture
def context(app: Any) -> Iterator[None]:
    with app.app_context():
        yield
        db.session.remove()


@pytest.fixture
def ask(context: None, member: User) -> Callable[..., Job]:
    def ask(key: str = "days", **options: Any) -> Job:
        db.session.remove()
        return jobs.request_export(db.session.merge(member), key, options.pop("params", {}), **options)

    return ask


def made(job: Job) -> tuple[Artifact, str]:
    """The job's file, by one attempt at it."""
    from flask import current_app

    job_id = job.id
    db.session.remove()
    lease = leases.claim(job_id)
    assert lease is not None
    exports.run(lease)
    db.session.remove()
    job = db.session.get_one(Job, job_id)
    found = jobs.artifact_of(job)
    assert found is not None, job.error_message
    return found, b"".join(current_app.extensions["waybill.storage"].open(found.key)).decode()


def choose(member: User, zone: str | None) -> None:
    member.time_zone = zone
    db.session.merge(member)
    db.session.commit()


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Asia/Calcutta", "Etc/UTC", "US/Eastern"])
def test_zones_that_browsers_name_are_known(name: str) -> None:
    assert zones.check(name) == name


@pytest.mark.parametrize(
    "name", ["", "localtime", "Factory", "Europe/Berln", "../etc/passwd", "x" * 99, "\0"]
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="There is no time zone"):
        zones.check(name)


def test_a_typing_error_is_met_with_the_nearest_name() -> None:
    with pytest.raises(InvalidRequest, match="Did you mean Europe/Berlin"):
        zones.check("Europe/Berln")


def test_the_installations_zone_must_be_one(environ: dict[str, str]) -> None:
    assert Settings.from_environ(environ | {"TIME_ZONE": "Asia/Tokyo"}).time_zone == "Asia/Tokyo"
    with pytest.raises(BadSettings, match="TIME_ZONE is 'Mars'"):
        Settings.from_environ(environ | {"TIME_ZONE": "Mars"})


# --- jobs -------------------------------------------------------------------------------------------------


def test_words_are_resolved_where_the_person_is(ask: Callable[..., Job], member: User) -> None:
    choose(member, EAST)
    east = ask()
    assert east.time_zone == EAST
    assert east.params["at"] == "2026-06-30T22:00:00Z"
    west = ask(time_zone=WEST)
    assert west.time_zone == WEST
    assert west.params["day"] < east.params["day"]
    assert jobs.as_json(west)["time_zone"] == WEST


def test_who_never_chose_is_where_the_installation_is(
    app: Any, ask: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask().time_zone == "UTC"
    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], time_zone="Asia/Tokyo"))
    assert ask().time_zone == "Asia/Tokyo"


def test_it_is_frozen(ask: Callable[..., Job], member: User) -> None:
    choose(member, EAST)
    first = ask(dialect="spreadsheet")
    choose(member, WEST)
    _, text = made(first)
    assert text.splitlines()[1].endswith(",2026-07-01 12:00:00")
    again = jobs.again(db.session.merge(member), db.session.merge(first))
    assert (again.time_zone, again.params, again.sameness) == (EAST, first.params, first.sameness)


@pytest.mark.parametrize(
    ("format", "dialect", "shown"),
    [
        ("csv", "spreadsheet", "2026-07-01 14:00:00"),
        ("csv", "spreadsheet-semicolon", "2026-07-01 14:00:00"),
        ("csv", "machine", "2026-07-01 12:00:00+00"),
        ("jsonl", "standard", "2026-07-01T12:00:00+00:00"),
    ],
)
def test_the_file_and_its_receipt(ask: Callable[..., Job], format: str, dialect: str, shown: str) -> None:
    found, text = made(ask(params=FIXED, format=format, dialect=dialect, time_zone="Europe/Berlin"))
    assert shown in text
    assert found.receipt["time_zone"] == ("UTC" if "+00" in shown else "Europe/Berlin")


def test_parts_have_the_clock_too(
    app: Any, demo: None, ask: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.extensions, "waybill.reports", Registry.load("", sources=("demo",)))
    options: dict[str, Any] = {"dialect": "spreadsheet", "time_zone": "Asia/Kathmandu", "fresh": True}
    whole, text = made(ask("all_tasks", **options))
    assert not whole.receipt["parts"]
    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], part_rows=500))
    parted, same = made(ask("all_tasks", **options))
    assert len(parted.receipt["parts"]) > 1
    assert text == same
    assert made(ask("all_tasks", **options | {"time_zone": "UTC"}))[1] != text


@pytest.mark.parametrize(
    ("format", "dialect", "shared"),
    [
        *(("csv", "machine", True), ("jsonl", None, True), ("parquet", None, True)),
        *(("csv", "spreadsheet", False), ("xlsx", None, False)),
    ],
)
def test_a_file_is_shared_only_where_the_zone_makes_no_difference(
    ask: Callable[..., Job], format: str, dialect: str | None, shared: bool
) -> None:
    options: dict[str, Any] = {"params": FIXED, "format": format, "dialect": dialect}
    east = ask(**options, time_zone=EAST).id
    assert ask(**options, time_zone=WEST).follows_id == (east if shared else None)
    assert ask(**options, time_zone=EAST).follows_id == east


def test_words_that_mean_other_days_are_never_shared(ask: Callable[..., Job]) -> None:
    ask(time_zone=EAST)
    assert ask(time_zone=WEST).follows_id is None


def test_a_forecast_is_of_the_same_days(ask: Callable[..., Job], member: User) -> None:
    east, west = (
        jobs.think_of(db.session.merge(member), "days", {}, time_zone=zone).query for zone in (EAST, WEST)
    )
    assert east is not None
    assert west is not None
    assert timedelta() < east.values["day"] - west.values["day"] <= timedelta(days=2)


# --- where it is asked for --------------------------------------------------------------------------------


def test_the_api_takes_it(client: FlaskClient, auth: Any, member: User) -> None:
    auth.sign_in(member)
    headers = {"X-CSRFToken": auth.csrf()}
    body = {"report": "days", "params": FIXED, "time_zone": "Europe/Berlin"}
    answer = client.post("/api/v1/exports", json=body, headers=headers)
    assert answer.status_code == 202
    assert answer.get_json()["time_zone"] == "Europe/Berlin"
    wrong = client.post("/api/v1/exports", json=body | {"time_zone": "Mars"}, headers=headers)
    assert wrong.status_code == 400
    assert "There is no time zone 'Mars'" in wrong.get_json()["detail"]
    asked = client.post("/api/v1/reports/days/preflight", json={"time_zone": "Mars"}, headers=headers)
    assert asked.status_code == 400


def test_a_key_used_for_another_zone_is_told(client: FlaskClient, auth: Any, member: User) -> None:
    auth.sign_in(member)
    headers = {"X-CSRFToken": auth.csrf(), "Idempotency-Key": "one"}
    bodies = [{"report": "days", "time_zone": zone} for zone in (EAST, EAST, WEST)]
    answers = [client.post("/api/v1/exports", json=body, headers=headers) for body in bodies]
    assert [answer.status_code for answer in answers] == [202, 202, 409]


def test_the_command_line_takes_it(runner: Any, app: Any, admin: User) -> None:
    asked = runner.invoke(args=["exports", "create", "days", "--time-zone", "Europe/Berlin"])
    assert asked.exit_code == 0, asked.output
    with app.app_context():
        assert db.session.scalars(db.select(Job.time_zone)).one() == "Europe/Berlin"


def test_an_account_begins_with_one(runner: Any, app: Any) -> None:
    create = ["users", "create", "new@example.org", "--no-password", "--time-zone"]
    refused = runner.invoke(args=[*create, "Mars"])
    assert refused.exit_code == 1
    assert "There is no time zone 'Mars'" in refused.stderr
    assert runner.invoke(args=[*create, "Asia/Tokyo"]).exit_code == 0
    with app.app_context():
        assert db.session.scalars(db.select(User.time_zone)).one() == "Asia/Tokyo"


# --- pages ------------------------------------------------------------------------------------------------


def test_it_is_chosen_on_the_account_page(app: Any, client: FlaskClient, auth: Any, member: User) -> None:
    auth.sign_in(member)

    def choose(zone: str) -> Any:
        return client.post("/account/time-zone", data={"csrf_token": auth.csrf(), "time_zone": zone})

    assert choose("Europe/Berlin").status_code == 303
    page = client.get("/account").text
    assert '<option value="Europe/Berlin" selected>Berlin</option>' in page
    assert "Days and times are those of Europe/Berlin" in page
    assert choose("Mars").status_code == 400
    assert choose("US/Eastern").status_code == 303
    assert '<option value="US/Eastern" selected>US/Eastern</option>' in client.get("/account").text
    assert choose("").status_code == 303
    with app.app_context():
        assert db.session.get_one(User, member.id).time_zone is None


def test_the_form_says_whose_clock_it_is_and_offers_the_browsers_once(
    client: FlaskClient, auth: Any, member: User
) -> None:
    auth.sign_in(member)
    page = client.get("/reports/days").text
    assert "data-zone>UTC</span>" in page
    assert 'data-offer="/account/time-zone"' in page
    client.post("/account/time-zone", data={"csrf_token": auth.csrf(), "time_zone": "Asia/Tokyo"})
    page = client.get("/reports/days").text
    assert "data-zone>Asia/Tokyo</span>" in page
    assert "data-offer" not in page


def test_the_job_page_and_the_log_say_it(app: Any, client: FlaskClient, auth: Any, member: User) -> None:
    with app.app_context():
        asked: dict[str, Any] = {"dialect": "spreadsheet", "time_zone": "Europe/Berlin"}
        job = jobs.request_export(db.session.merge(member), "days", FIXED, **asked)
        job_id = job.id
        made(job)
    auth.sign_in(member)
    page = client.get(f"/jobs/{job_id}").text
    assert "<dt>Times in</dt><dd>Europe/Berlin</dd>" in page
    assert "writing CSV (spreadsheet, times in Europe/Berlin)" in page
