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
from app.models.job import FINAL, QUEUED, RUNNING, SUCCEEDED

MEMBER, ADMIN = "member@demo.waybill.test", "admin@demo.waybill.test"
LONG = {"rows": 5000, "batches": 100, "pause": "0.5"}
THREADS = 4
PATIENCE = 60.0


@pytest.fixture
def context(stack: Any) -> Iterator[None]:
    app = create_app(stack.settings)
    with app.app_context():
        db.session.execute(text("TRUNCATE jobs CASCADE"))
        db.session.commit()
        yield
        db.session.rollback()
        for job in db.session.scalars(select(Job).where(Job.status.not_in(FINAL))).all():
            jobs.cancel(job)
        _until(lambda: not _count(RUNNING))
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
        _until(lambda: _count(RUNNING) == THREADS - 1)
        return crowded

    return crowd


@pytest.mark.slow
def test_behind_a_hundred_large_jobs_of_another_nobody_waits(crowd: Callable[[int], list[UUID]]) -> None:
    crowd(100)
    asked = time.monotonic()
    small = jobs.request_export(_person(ADMIN), "late_invoices", {}, fresh=True).id
    assert _job(small).size == "small"
    _until(lambda: _job(small).started_at is not None)
    assert time.monotonic() - asked < 2
    _until(lambda: _job(small).status == SUCCEEDED)

    # A large one takes the next place that gets free, before the 97 that were there first.
    large = jobs.request_export(_person(ADMIN), "slow_tasks", LONG, fresh=True).id
    time.sleep(1.5)
    assert (_job(large).status, _count(RUNNING)) == (QUEUED, THREADS - 1)
    assert jobs.queue_position(_job(large)) == 1
    ended = db.session.scalars(select(Job).where(Job.status == RUNNING)).first()
    assert ended is not None
    ended_id = jobs.cancel(ended).id
    _until(lambda: _job(large).started_at is not None)
    started, freed = _job(large).started_at, _job(ended_id).finished_at
    assert started is not None
    assert freed is not None
    assert (started - freed).total_seconds() < 2


@pytest.mark.slow
def test_a_job_that_no_message_tells_of_is_found(context: None) -> None:
    """Its message lies in the memory of a worker that is busy, or is gone."""
    first = jobs.request_export(_person(ADMIN), "late_invoices", {}, fresh=True)
    _until(lambda: _job(first.id).status == SUCCEEDED)
    copied = ("kind", "definition", "title", "owner_id", "params", "queue", "size")
    untold = Job(**{name: getattr(first, name) for name in copied})
    untold.dispatched_at = jobs.database_now()
    db.session.add(untold)
    db.session.commit()
    untold_id, made = untold.id, time.monotonic()
    _until(lambda: _job(untold_id).status == SUCCEEDED)
    assert time.monotonic() - made < 6


def _person(email: str) -> User:
    return db.session.scalars(select(User).where(User.email == email)).one()


def _job(job_id: UUID) -> Job:
    db.session.rollback()
    return db.session.get_one(Job, job_id)


def _count(status: str) -> int:
    db.session.rollback()
    return db.session.scalar(select(func.count()).where(Job.status == status)) or 0


def _until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > until:
            raise AssertionError(f"It did not happen within {PATIENCE} s.")
        time.sleep(0.05)
