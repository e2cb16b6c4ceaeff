"""Real processes, really killed: the job goes on, and the file is right."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import select, text

from app import create_app, dispatch, events, jobs
from app.extensions import db, redis_client
from app.models import Delivery, Job, User
from app.models.job import CANCELLED, FAILED, FINAL, RUNNING, SUCCEEDED

pytestmark = pytest.mark.timeout(300)

MEMBER = "member@demo.waybill.test"
PATIENCE = 90.0


@pytest.fixture
def ask(stack: Any) -> Iterator[Callable[..., UUID]]:
    """ask("slow_tasks", rows=500): an export on the real processes; its id."""
    app = create_app(stack.settings)
    with app.app_context():
        db.session.execute(text("DELETE FROM jobs"))  # TRUNCATE may deadlock with those who read
        db.session.commit()
        stack.mailbox.clear()
        member = _member()

        def ask(key: str = "slow_tasks", **params: Any) -> UUID:
            return UUID(str(jobs.request_export(member, key, params, fresh=True).id))

        yield ask
        db.session.remove()
        db.engine.dispose()


def test_a_worker_killed_in_mid_export_costs_seconds_not_the_job(
    stack: Any, ask: Callable[..., UUID]
) -> None:
    undisturbed = _digest(_wait(ask(rows=3000, batches=30, pause="0.2"), FINAL))
    job_id = ask(rows=3000, batches=30, pause="0.2")
    _wait(job_id, {RUNNING}, progress=300)
    stack["worker"].kill()
    stack["worker"].start()
    job = _wait(job_id, FINAL)
    assert (job.status, job.attempt) == (SUCCEEDED, 2)
    assert _digest(job) == undisturbed
    numbers = [line.number for line in events.after(job_id, 0)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert _mails(stack, job_id) == 1


def test_a_job_that_kills_its_worker_three_times_fails_and_its_neighbour_finishes(
    stack: Any, ask: Callable[..., UUID]
) -> None:
    job_id = ask(rows=5000, batches=100, pause="0.5")
    for attempt in (1, 2, 3):
        _wait(job_id, {RUNNING}, attempt=attempt)
        stack["worker"].kill()
        stack["worker"].start()
    neighbour = ask("late_invoices")
    assert _wait(neighbour, FINAL).status == SUCCEEDED
    job = _wait(job_id, FINAL)
    assert job.status == FAILED
    assert job.error_code == "worker_lost"
    assert "three times" in (job.error_message or "") or "3 times" in (job.error_message or "")


def test_a_stopping_worker_hands_its_job_back_without_burning_an_attempt(
    stack: Any, ask: Callable[..., UUID]
) -> None:
    job_id = ask(rows=3000, batches=30, pause="0.2")
    _wait(job_id, {RUNNING}, progress=300)
    stack["worker"].stop()
    handed_back = _job(job_id)
    assert (handed_back.status, handed_back.forgiven) == ("queued", 1)
    stack["worker"].start()
    assert _wait(job_id, FINAL).status == SUCCEEDED


def test_the_same_message_five_times_at_once(stack: Any, ask: Callable[..., UUID]) -> None:
    job_id = ask("late_invoices")
    for _ in range(5):
        dispatch.enqueue("run_export", "default", str(job_id))
    job = _wait(job_id, FINAL)
    deliveries = db.session.scalars(select(Delivery.id).where(Delivery.job_id == job_id)).all()
    for _ in range(5):
        dispatch.send_delivery(deliveries[0])
    assert _mails(stack, job_id) == 1
    time.sleep(2)
    assert (job.status, job.attempt, len(deliveries)) == (SUCCEEDED, 1, 1)
    assert _mails(stack, job_id) == 1


def test_redis_flushed_with_jobs_queued(stack: Any, ask: Callable[..., UUID]) -> None:
    stack["worker"].stop()
    job_ids = [ask("late_invoices") for _ in range(5)]
    redis_client().flushall()
    stack["worker"].start()
    assert [_wait(job_id, FINAL).status for job_id in job_ids] == [SUCCEEDED] * 5


def test_redis_down_at_the_click(stack: Any, ask: Callable[..., UUID]) -> None:
    stack.valkey.kill()
    job_id = ask("late_invoices")
    assert _job(job_id).dispatched_at is None
    stack.valkey.start()
    stack.revive()
    assert _wait(job_id, FINAL).status == SUCCEEDED


def test_all_database_connections_cut_in_mid_export(stack: Any, ask: Callable[..., UUID]) -> None:
    job_id = ask(rows=3000, batches=30, pause="0.2")
    _wait(job_id, {RUNNING}, progress=300)
    db.session.remove()
    db.engine.dispose()  # our own connections are not what is tried
    url = stack.settings["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert _wait(job_id, FINAL).status == SUCCEEDED


def test_cancelling_a_running_job(stack: Any, ask: Callable[..., UUID]) -> None:
    job_id = ask(rows=5000, batches=100, pause="0.5")
    _wait(job_id, {RUNNING}, progress=50)
    jobs.cancel(_job(job_id))
    assert _wait(job_id, FINAL).status == CANCELLED
    assert jobs.artifact_of(_job(job_id)) is None


def test_two_clocks_at_once(stack: Any, ask: Callable[..., UUID]) -> None:
    """Every job is swept up once, however many clocks look."""
    from app.sweep import sweep

    stack["worker"].stop()
    job_ids = [ask("late_invoices") for _ in range(3)]
    app = create_app(stack.settings)

    def look() -> None:
        with app.app_context():
            sweep()

    clocks = [threading.Thread(target=look) for _ in range(4)]
    for clock in clocks:
        clock.start()
    for clock in clocks:
        clock.join()
    with app.app_context():
        db.engine.dispose()
    stack["worker"].start()
    done = [_wait(job_id, FINAL) for job_id in job_ids]
    assert [(job.status, job.attempt) for job in done] == [(SUCCEEDED, 1)] * 3


def _member() -> User:
    from app.accounts import create_user

    found: User | None = db.session.scalar(select(User).where(User.email == MEMBER))
    return found or create_user(MEMBER, "waybill-member", ["member"])


def _job(job_id: UUID) -> Job:
    db.session.rollback()
    db.session.expire_all()
    return db.session.get_one(Job, job_id)


def _wait(job_id: UUID, statuses: Any, *, progress: int = 0, attempt: int = 0) -> Job:
    """The job once it has one of `statuses`, so many rows, and so many attempts."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        job = _job(job_id)
        if job.status in statuses and job.progress_done >= progress and job.attempt >= attempt:
            return job
        time.sleep(0.1)
    log = "\n".join(line.text for line in events.after(job_id, 0))
    raise AssertionError(f"The job is {job.status}, not {statuses}, after {PATIENCE} s. Its log:\n{log}")


def _mails(stack: Any, job_id: UUID) -> int:
    """How many mails of this job were caught, once there is one or it took too long."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        caught = [stack.mailbox.raw(mail.name) for mail in stack.mailbox.mails()]
        found = [raw for raw in caught if str(job_id).encode() in raw]
        if found:
            return len(found)
        time.sleep(0.1)
    return 0


def _digest(job: Job) -> str:
    from flask import current_app

    found = jobs.artifact_of(job)
    assert found is not None
    content = b"".join(current_app.extensions["waybill.storage"].open(found.key))
    assert hashlib.sha256(content).hexdigest() == found.sha256
    return found.sha256
