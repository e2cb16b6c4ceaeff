"""`/metrics` and `/operations`: who sees them, what they say, and what they do without the database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from app.dev.child import free_port
from app.errors import BadSettings
from app.extensions import db
from app.models import ApiToken, Clock, Job, User, Worker
from app.monitoring import CODES

TOKEN = "sixteen-and-more-characters"
NOW = sa.func.clock_timestamp()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def secret_of(app: APIFlask, person: Any) -> str:
    with app.app_context():
        _, secret = ApiToken.create(db.session.get_one(User, person.id), "prometheus")
        db.session.commit()
        return secret


def samples(answer: Any) -> Mapping[tuple[str, ...], float]:
    """("waybill_jobs_due", "default", "small") -> 3.0, the labels in the alphabet's order."""
    assert answer.status_code == 200
    families = list(text_string_to_metric_families(answer.text))
    for family in families:
        assert family.name.startswith("waybill")
        assert family.documentation.endswith(".")
        assert family.type == "gauge"
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def scraped(app_with: Any) -> FlaskClient:
    """A client of an app that has a token for Prometheus."""
    client: FlaskClient = app_with(METRICS_TOKEN=TOKEN).test_client()
    return client


# Who may read them.


def test_the_token_lets_in(scraped: FlaskClient) -> None:
    assert samples(scraped.get("/metrics", headers=bearer(TOKEN)))[("waybill_redis_up",)] == 1


@pytest.mark.parametrize("wrong", ["", "x", TOKEN[:-1], TOKEN + "x", "ünïcode-ünïcode-ünïcode"])
def test_a_wrong_token_is_told_that_there_is_nothing(scraped: FlaskClient, wrong: str) -> None:
    answer = scraped.get("/metrics", headers=bearer(wrong))
    assert answer.status_code == 404
    assert "waybill_" not in answer.text


def test_without_a_setting_no_token_lets_in(client: FlaskClient) -> None:
    for secret in ("", "none", TOKEN):
        assert client.get("/metrics", headers=bearer(secret)).status_code == 404


def test_the_token_is_for_the_metrics_alone(scraped: FlaskClient) -> None:
    assert scraped.get("/api/v1/jobs", headers=bearer(TOKEN)).status_code == 401
    assert scraped.get("/operations", headers=bearer(TOKEN)).status_code == 303


def test_people(app: APIFlask, client: FlaskClient, auth: Any, member: Any, admin: Any) -> None:
    assert client.get("/metrics").status_code == 404
    assert client.get("/operations").location.startswith("/sign-in")
    for person, status in ((member, 404), (admin, 200)):
        for path in ("/metrics", "/operations"):
            assert auth.client_of(person).get(path).status_code == status
        assert client.get("/metrics", headers=bearer(secret_of(app, person))).status_code == status


def test_only_administrators_are_led_there(auth: Any, member: Any, admin: Any) -> None:
    assert 'href="/operations"' not in auth.client_of(member).get("/jobs").text
    assert 'href="/operations"' in auth.client_of(admin).get("/jobs").text


def test_a_token_that_could_be_guessed_is_refused(app_with: Any) -> None:
    with pytest.raises(BadSettings, match="METRICS_TOKEN is shorter"):
        app_with(METRICS_TOKEN="short")


# What they say.


@pytest.fixture
def troubled(app: APIFlask, member: Any) -> None:
    """Three jobs wait for `low`, where nobody listens; two failed; a clock is at work."""

    def job(**values: Any) -> Job:
        kind = {"kind": "export", "definition": "all_tasks", "title": "All <tasks>", "owner_id": member.id}
        return Job(id=uuid4(), **(kind | values))

    ago = NOW - timedelta(minutes=12)
    why = {"error_code": "source_down", "error_message": "The source does not answer."}
    rows = [job(queue="low", size="small", created_at=ago) for _ in range(3)]
    rows += [job(status="failed", finished_at=ago, **why) for _ in range(2)]
    rows += [job(status="running", attempt=1, worker="w", lease_expires_at=NOW + timedelta(minutes=1))]
    with app.app_context():
        db.session.add_all([*rows, Worker(id="w", queues=["high", "default"], threads=4)])
        db.session.add_all([Clock(id="clock", passes=passes, failing={}) for passes in ("prompt", "slow")])
        db.session.commit()


def test_the_metrics_tell_the_state(troubled: None, scraped: FlaskClient) -> None:
    told = samples(scraped.get("/metrics", headers=bearer(TOKEN)))
    assert told[("waybill_jobs_due", "low", "small")] == 3
    assert told[("waybill_jobs_due", "low", "large")] == 0
    assert told[("waybill_queue_longest_wait_seconds", "low")] >= 720
    assert told[("waybill_queue_threads", "low")] == 0
    assert told[("waybill_queue_threads", "default")] == 4
    assert told[("waybill_jobs_running", "default", "large")] == 1
    assert told[("waybill_jobs_failed_last_hour", "source_down", "all_tasks", "export")] == 2
    assert told[("waybill_jobs_finished_last_day", "all_tasks", "export", "failed")] == 2
    assert told[("waybill_findings", "queue_unattended", "critical")] == 1
    assert told[("waybill_findings", "jobs_failing", "warning")] == 1
    assert told[("waybill_findings", "clock_silent", "critical")] == 0
    findings = {key[1:] for key in told if key[0] == "waybill_findings"}
    assert findings == {(code, level) for code, levels in CODES.items() for level in levels}


def test_no_label_names_a_person_or_a_job(troubled: None, scraped: FlaskClient) -> None:
    text = scraped.get("/metrics", headers=bearer(TOKEN)).text
    labels = {
        name
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for name in sample.labels
    }
    assert labels == {"version", "code", "level", "queue", "size", "kind", "definition", "status", "passes"}
    assert "member@example.org" not in text


def test_two_scrapes_do_not_add_up(scraped: FlaskClient) -> None:
    first, second = (scraped.get("/metrics", headers=bearer(TOKEN)) for _ in range(2))
    assert samples(first).keys() == samples(second).keys()


def test_the_page_tells_what_is_wrong_and_what_to_do(troubled: None, auth: Any, admin: Any) -> None:
    page = auth.client_of(admin).get("/operations").text
    what = "Nobody listens to the queue low: 3 jobs wait, the first for 12 minutes."
    assert page.index(what) < page.index("2 jobs failed within the last hour") < page.index("Queues")
    assert "Start the process <code>bulk</code>" in page
    assert "All &lt;tasks&gt;" in page
    assert "<title>Something is wrong" in page


def test_the_page_says_when_all_is_well(app: APIFlask, troubled: None, auth: Any, admin: Any) -> None:
    with app.app_context():
        db.session.execute(sa.delete(Job))
        db.session.execute(sa.update(Worker).values(queues=["default", "high", "low"]))
        db.session.commit()
    page = auth.client_of(admin).get("/operations").text
    assert "All is well." in page
    assert "notice-danger" not in page


# Without the database.


def test_without_the_database(app_with: Any) -> None:
    away = f"postgresql://somebody:secret@127.0.0.1:{free_port()}/none"
    client = app_with(METRICS_TOKEN=TOKEN, DATABASE_URL=away).test_client()
    answer = client.get("/metrics", headers=bearer(TOKEN))
    assert answer.status_code == 503
    assert "secret" not in answer.text
    assert client.get("/metrics").status_code == 404, "strangers do not even learn that"
