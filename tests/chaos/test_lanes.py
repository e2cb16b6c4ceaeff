"""Real workers under the load of one person: others, and small exports, do not wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, text

from app import create_app, dispatch, jobs
from app.extensions import db
from app.models import Job, User
from app.models.job import CANCELLED, FINAL, QUEUED, RUNNING, SUCCEEDED
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)

MEMBER, ADMIN = "member@demo.waybill.test", "admin@demo.waybill.test"
LONG = {"rows": 5000, "batches": 100, "pause": "3"}  # five minutes: none ends while we look
THREADS = 4


@pytest.fixture
def context(stack: Any) -> Iterator[None]:
    app = create_app(stack.settings)
    with app.app_context():
        db.session.execute(text("DELETE FROM jobs"))  # TRUNCATE may deadlock with those who read
        db.session.commit()
        yield
        db.session.rollback()
        for job in db.session.scalars(select(Job).where(Job.status.not_in(FINAL))).all():
            jobs.cancel(job)
        until(lambda: not _count(RUNNING))
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def crowd(context: None) -> Callable[[int], list[UUID]]:
    """crowd(100): so many large jobs of one person, sent, and as many at work as may be."""

    def crowd(count: int) -> list[UUID]:
        first = jobs.request_export(_person(MEMBER), "slow_tasks", LONG, fresh=True)
        copied = ("kind", "definition", "title", "owner_id", "params", "queue", "size", "created_at")
        values = {name: getattr(first, name) for name in copied}
        others = [Job(**values) for _ in range(count - 1)]
        db.session.add_all(others)
        db.session.commit()
        crowded = [first.id, *(job.id for job in others)]
        for job_id in crowded[1:]:
            dispatch.send(job_id)
        until(lambda: _count(RUNNING) == THREADS - 1)
        return crowded

    return crowd


@pytest.mark.slow
def test_behind_a_hundred_large_jobs_of_another_nobody_waits(crowd: Callable[[int], list[UUID]]) -> None:
    crowded = crowd(100)
    small = jobs.request_export(_person(ADMIN), "late_invoices", {}, fresh=True).id
    assert _job(small).size == "small"
    until(lambda: _job(small).status == SUCCEEDED)
    assert _ended(crowded) == 0

    # A large one takes the next place that gets free, before the 97 that were there first.
    large = jobs.request_export(_person(ADMIN), "slow_tasks", LONG, fresh=True).id
    time.sleep(1.5)
    assert (_job(large).status, _count(RUNNING)) == (QUEUED, THREADS - 1)
    assert jobs.queue_position(_job(large)) == 1
    ended = db.session.scalars(select(Job).where(Job.status == RUNNING)).first()
    assert ended is not None
    ended_id = jobs.cancel(ended).id
    until(lambda: _job(large).started_at is not None)
    assert _job(ended_id).status == CANCELLED
    assert (_ended(crowded), _started(crowded)) == (1, THREADS - 1)


@pytest.mark.slow
def test_a_job_that_no_message_tells_of_is_found(context: None) -> None:
    """Its message lies in the memory of a worker that is busy, or is gone."""
    first = jobs.request_export(_person(ADMIN), "late_invoices", {}, fresh=True)
    until(lambda: _job(first.id).status == SUCCEEDED)
    copied = ("kind", "definition", "title", "owner_id", "params", "queue", "size")
    untold = Job(**{name: getattr(first, name) for name in copied})
    untold.dispatched_at = jobs.database_now()
    db.session.add(untold)
    db.session.commit()
    untold_id, dispatched = untold.id, untold.dispatched_at
    until(lambda: _job(untold_id).status == SUCCEEDED)
    assert _job(untold_id).dispatched_at == dispatched, "it was found, not sent again"


def _person(email: str) -> User:
    return db.session.scalars(select(User).where(User.email == email)).one()


def _job(job_id: UUID) -> Job:
    db.session.rollback()
    return db.session.get_one(Job, job_id)


def _count(status: str) -> int:
    db.session.rollback()
    return db.session.scalar(select(func.count()).where(Job.status == status)) or 0


def _started(job_ids: list[UUID]) -> int:
    db.session.rollback()
    return (
        db.session.scalar(select(func.count()).where(Job.id.in_(job_ids), Job.started_at.is_not(None))) or 0
    )


def _ended(job_ids: list[UUID]) -> int:
    db.session.rollback()
    return db.session.scalar(select(func.count()).where(Job.id.in_(job_ids), Job.status.in_(FINAL))) or 0
