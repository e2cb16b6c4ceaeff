"""`flask status`: what it prints, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app import create_app
from app.dev.child import free_port
from app.extensions import db
from app.models import Clock, Job, Worker

NOW = sa.func.clock_timestamp()


@pytest.fixture
def status(runner: Any) -> Callable[..., Any]:
    return lambda *words: runner.invoke(args=["status", *words])


@pytest.fixture
def well(app: Any) -> None:
    with app.app_context():
        db.session.add_all([Clock(id="clock", passes=passes, failing={}) for passes in ("prompt", "slow")])
        db.session.add(Worker(id="host:1:abc", queues=["default", "high", "low"], threads=4))
        db.session.commit()


@pytest.fixture
def failed(app: Any, member: Any) -> str:
    with app.app_context():
        job = Job(id=uuid4(), kind="export", definition="all_tasks", title="All tasks", owner_id=member.id)
        job.status, job.finished_at = "failed", NOW - timedelta(minutes=5)
        job.error_code, job.error_message = "internal", "The report stopped (KeyError)."
        db.session.add(job)
        db.session.commit()
        return str(job.id)


def test_all_is_well(well: None, status: Callable[..., Any]) -> None:
    shown = status()
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert lines[0] == "All is well."
    assert lines[2].split() == ["QUEUE", "WAITING", "LONGEST", "AT", "WORK", "LATER", "WORKERS", "THREADS"]
    assert "host:1:abc" in shown.output
    assert lines[-1].startswith("Clock: last pass ")


def test_a_warning_exits_0(well: None, failed: str, status: Callable[..., Any]) -> None:
    shown = status()
    assert shown.exit_code == 0
    assert shown.output.startswith("WARNING: 1 job failed within the last hour for internal (All tasks).")
    assert f"  Job {failed}\n" in shown.output


def test_what_is_critical_exits_1_and_comes_first(failed: str, status: Callable[..., Any]) -> None:
    shown = status()
    assert shown.exit_code == 1
    assert shown.output.startswith("CRITICAL: No clock is running")
    assert "  Start the process `clock`." in shown.output
    assert max(map(len, shown.output.splitlines())) <= 100


def test_json_is_for_programs(well: None, failed: str, status: Callable[..., Any]) -> None:
    shown = status("--json")
    assert shown.exit_code == 0
    told = json.loads(shown.output)
    assert told["level"] == "warning"
    [finding] = told["findings"]
    assert finding.keys() == {"code", "level", "what", "do", "job_id"}
    assert (finding["code"], finding["job_id"]) == ("jobs_failing", failed)
    assert [queue["name"] for queue in told["state"]["queues"]] == ["high", "default", "low"]
    assert told["state"]["failures"][0]["code"] == "internal"


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_without_the_database(environ: dict[str, str], words: tuple[str, ...]) -> None:
    away = f"postgresql://somebody:secret@127.0.0.1:{free_port()}/none"
    shown = create_app(environ | {"DATABASE_URL": away}).test_cli_runner().invoke(args=["status", *words])
    assert shown.exit_code == 1
    assert "The database does not answer" in shown.output
    assert "Start PostgreSQL, or check DATABASE_URL." in " ".join(shown.output.split())
    assert "secret" not in shown.output
    if words:
        assert json.loads(shown.output)["state"] is None
