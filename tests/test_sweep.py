"""Each step of the sweep, alone, twice at once, and with its neighbours broken."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
import redis
import sqlalchemy as sa
from apiflask import APIFlask
from sqlalchemy.exc import OperationalError

from app import create_app, events, leases
from app import sweep as sweeping
from app.dev.child import free_port
from app.extensions import db, redis_client
from app.models import Artifact, Delivery, Event, Job, Worker
from app.models import job as jobs
from app.models.session import SignIn, SignInLink
from app.storage import artifact_key
from app.sweep import cleaning, recovery
from app.sweep.batches import first
from tests.waiting import PATIENCE, until

NOW = sa.func.clock_timestamp()
PAST, FUTURE = NOW - timedelta(seconds=1), NOW + timedelta(hours=1)
QUEUE = "dramatiq:default"


@pytest.fixture(autouse=True)
def context(app: APIFlask) -> Iterator[None]:
    with app.app_context():
        yield


@pytest.fixture
def make(member: Any) -> Callable[..., UUID]:
    """make(status="running"): a job that was asked for a minute ago; returns its id."""

    def make(status: str = "queued", **values: Any) -> UUID:
        job_id = uuid4()
        defaults = {
            "kind": "export",
            "definition": "all_tasks",
            "title": "All tasks",
            "params": {},
            "created_at": NOW - timedelta(minutes=1),
        }
        db.session.add(Job(id=job_id, owner_id=member.id, status=status, **(defaults | values)))
        db.session.commit()
        return job_id

    return make


@pytest.fixture
def make_artifact(app: APIFlask, make: Callable[..., UUID]) -> Callable[..., str]:
    """make_artifact(expires_at=PAST): a finished job's artifact and its bytes; returns its key."""

    def make_artifact(**values: Any) -> str:
        job_id = make("succeeded", attempt=1, finished_at=NOW)
        key = store(app, job_id)
        db.session.add(
            Artifact(
                job_id=job_id,
                key=key,
                filename="x.csv",
                content_type="text/csv",
                bytes=1,
                rows=0,
                sha256="0" * 64,
                receipt={},
                **({"expires_at": FUTURE} | values),
            )
        )
        db.session.commit()
        return key

    return make_artifact


@pytest.fixture
def redis_down(app: APIFlask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clients of the app ask a port where nobody listens."""
    client = redis.Redis.from_url(f"redis://127.0.0.1:{free_port()}/0", socket_connect_timeout=1)
    monkeypatch.setitem(app.extensions, "waybill.redis", client)
    monkeypatch.setattr(app.extensions["waybill.broker"], "client", client)


def store(app: APIFlask, job_id: UUID, attempt: int = 1, *, age: timedelta = timedelta(0)) -> str:
    key = artifact_key(job_id, attempt, "csv")
    with app.extensions["waybill.storage"].writer(key, content_type="text/csv", filename="x.csv") as writer:
        writer.write(b"x")
        writer.commit()
    then = time.time() - age.total_seconds()
    os.utime(root(app) / key, (then, then))
    return key


def root(app: APIFlask) -> Path:
    return Path(urlsplit(app.config["WAYBILL"].storage_url).path)


def there(app: APIFlask, key: str) -> bool:
    return (root(app) / key).exists()


def job(job_id: UUID) -> Job:
    db.session.rollback()
    return db.session.get_one(Job, job_id, populate_existing=True)


def change(model: Any, **values: Any) -> None:
    db.session.execute(sa.update(model).values(**values))
    db.session.commit()


def texts(job_id: UUID) -> list[str]:
    return [line.text for line in events.after(job_id, 0)]


def queued(queue: str = QUEUE) -> int:
    length: Any = redis_client().llen(queue)
    return int(length)


def together(app: APIFlask, count: int, act: Callable[[], Any]) -> None:
    """Call it from so many threads at once; an error in one fails the test."""
    start, errors = threading.Barrier(count), []

    def call() -> None:
        with app.app_context():
            start.wait()
            try:
                act()
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


# --- jobs of silent workers --------------------------------------------------------------------------------


def test_a_silent_workers_job_goes_on(make: Callable[..., UUID]) -> None:
    job_id = make("running", attempt=1, lease_expires_at=PAST, dispatched_at=PAST)
    swept = sweeping.sweep()
    assert not swept.failures
    found = job(job_id)
    assert (found.status, found.attempt, found.forgiven, found.lease_expires_at) == ("queued", 1, 0, None)
    assert texts(job_id) == ["The worker stopped answering; another one goes on with this job."]
    # Sent in the same pass.
    assert found.dispatched_at is not None
    assert queued() == 1


def test_a_living_workers_job_is_left_alone(make: Callable[..., UUID]) -> None:
    job_id = make("running", attempt=1, lease_expires_at=FUTURE)
    assert recovery.lapsed_jobs() == 0
    assert job(job_id).status == "running"


def test_a_job_that_kills_its_workers_fails(make: Callable[..., UUID]) -> None:
    job_id = make("running", attempt=4, forgiven=1, lease_expires_at=PAST)
    assert recovery.lapsed_jobs() == 1
    found = job(job_id)
    assert (found.status, found.error_code) == ("failed", "worker_lost")
    assert found.finished_at is not None
    assert "died three times" in (found.error_message or "")
    assert texts(job_id) == [found.error_message]
    told = db.session.scalars(sa.select(Delivery)).one()
    assert (told.job_id, told.name, told.attempt) == (job_id, "failed", 4)


def test_a_job_that_was_to_be_cancelled_is_cancelled(make: Callable[..., UUID]) -> None:
    job_id = make("running", attempt=1, lease_expires_at=PAST, cancel_requested_at=PAST)
    recovery.lapsed_jobs()
    assert job(job_id).status == "cancelled"
    assert texts(job_id) == ["Cancelled. Nothing was published."]
    assert db.session.scalars(sa.select(Delivery)).first() is None


def test_only_the_next_attempt_can_tell_what_a_cancelled_import_left(make: Callable[..., UUID]) -> None:
    job_id = make("running", attempt=1, lease_expires_at=PAST, cancel_requested_at=PAST, step="apply")
    recovery.lapsed_jobs()
    assert (job(job_id).status, job(job_id).cancel_requested_at is not None) == ("queued", True)


def test_what_an_import_wrote_stands_when_no_attempt_is_left(make: Callable[..., UUID]) -> None:
    stands = "What was written up to its last checkpoint stands; trying again goes on behind it."
    lost = make("running", attempt=3, lease_expires_at=PAST, step="undo")
    cancelled = make("running", attempt=3, lease_expires_at=PAST, cancel_requested_at=PAST, step="apply")
    dry = make("running", attempt=3, lease_expires_at=PAST, step="dry-run")
    recovery.lapsed_jobs()
    assert [job(job_id).status for job_id in (lost, cancelled, dry)] == ["failed", "cancelled", "failed"]
    assert stands in texts(lost)[-1]
    assert texts(cancelled) == [f"Cancelled. {stands}"]
    assert "Nothing was published." in texts(dry)[-1]


def test_a_worker_that_wakes_up_in_time_keeps_its_job(app: APIFlask, make: Callable[..., UUID]) -> None:
    """It renews between our look and our grip."""
    job_id = make("running", attempt=1, lease_expires_at=PAST)
    with db.engine.begin() as conn:
        claim = jobs.Claim(job_id, job(job_id).owner_id, 1)
        db.session.rollback()
        assert jobs.renew(conn, claim, timedelta(seconds=15)) == jobs.Wish(cancel=False, pause=False)
        assert not recovery._take_over(job_id), "a row in another's hands is passed over"
    assert not recovery._take_over(job_id)
    assert job(job_id).status == "running"


def test_a_fenced_worker_changes_nothing(make: Callable[..., UUID]) -> None:
    job_id = make("running", attempt=1, lease_expires_at=PAST)
    claim = jobs.Claim(job_id, job(job_id).owner_id, 1)
    db.session.rollback()
    recovery.lapsed_jobs()
    with db.engine.begin() as conn:
        assert not jobs.finish(conn, claim, "succeeded")
        assert jobs.renew(conn, claim, timedelta(seconds=15)) is None


def test_ten_sweeps_at_once_take_each_job_once(app: APIFlask, make: Callable[..., UUID]) -> None:
    ids = [make("running", attempt=1, lease_expires_at=PAST) for _ in range(5)]
    spent = make("running", attempt=3, lease_expires_at=PAST)
    db.session.rollback()
    together(app, 10, recovery.lapsed_jobs)
    assert [texts(job_id) for job_id in ids] == [
        ["The worker stopped answering; another one goes on with this job."]
    ] * 5
    assert len(texts(spent)) == 1
    assert len(db.session.scalars(sa.select(Delivery)).all()) == 1


def test_a_queued_job_without_an_attempt_left_fails(make: Callable[..., UUID]) -> None:
    job_id, fine = make(attempt=3), make(attempt=3, forgiven=1)
    assert recovery.exhausted_jobs() == 1
    found = job(job_id)
    assert (found.status, found.error_code) == ("failed", "attempts_used")
    assert texts(job_id) == [found.error_message]
    assert job(fine).status == "queued"
    assert db.session.scalars(sa.select(Delivery.job_id)).one() == job_id


def test_a_job_that_was_reopened_meanwhile_has_its_attempts(make: Callable[..., UUID]) -> None:
    spent = make(attempt=3)
    # Another clock failed it, and its owner tried it again, since this one found it.
    change(Job, forgiven=3)
    assert not recovery._exhaust(spent)
    assert job(spent).status == "queued"


# --- messages ----------------------------------------------------------------------------------------------


def test_jobs_nobody_dispatched_are_sent(make: Callable[..., UUID]) -> None:
    never = make()
    retried = make(next_attempt_at=PAST, attempt=1)
    waiting = make(next_attempt_at=FUTURE, attempt=1)
    fresh = make(created_at=FUTURE)
    sent = make(dispatched_at=FUTURE)
    assert recovery.waiting_jobs() == 2
    assert queued() == 2
    assert job(never).dispatched_at
    assert job(retried).dispatched_at
    assert job(waiting).dispatched_at is None
    assert job(fresh).dispatched_at is None
    assert job(sent).dispatched_at
    assert recovery.waiting_jobs() == 0


def test_a_message_nobody_heard_is_sent_again(make: Callable[..., UUID]) -> None:
    redis_client().set(recovery.MARKER, 1)
    old, young = make(dispatched_at=NOW - timedelta(seconds=20)), make(dispatched_at=FUTURE)
    assert recovery.lost_messages() == 1
    assert job(old).dispatched_at is None
    assert job(young).dispatched_at is not None


def test_a_long_queue_is_given_time(make: Callable[..., UUID]) -> None:
    redis_client().set(recovery.MARKER, 1)
    redis_client().rpush(QUEUE, "another job's message")
    make(), make()
    change(Job, dispatched_at=NOW - timedelta(minutes=9))
    assert recovery.lost_messages() == 0
    change(Job, dispatched_at=NOW - timedelta(minutes=11))
    assert recovery.lost_messages() == 2


def test_messages_do_not_pile_up_where_nobody_listens(make: Callable[..., UUID]) -> None:
    ended = make("failed", attempt=1)
    leases.announce(db.session.connection(), ended, 1, "failed")
    db.session.commit()
    make(), make(), make(queue="high")
    sweeping.sweep()
    for _ in range(3):
        change(Job, dispatched_at=NOW - timedelta(minutes=11))
        change(Delivery, dispatched_at=NOW - timedelta(minutes=11), next_attempt_at=NOW - timedelta(hours=1))
        assert not sweeping.sweep().failures
        assert (queued(), queued("dramatiq:high")) == (2, 2)


def test_an_emptied_redis_gets_every_message_again(make: Callable[..., UUID]) -> None:
    ids = [make() for _ in range(3)]
    low = make(queue="low")
    sweeping.sweep()
    assert (queued(), queued("dramatiq:low")) == (3, 1)

    redis_client().flushdb()
    swept = sweeping.sweep()
    assert not swept.failures
    assert (queued(), queued("dramatiq:low")) == (3, 1)
    assert all(job(job_id).status == "queued" for job_id in [*ids, low])

    sweeping.sweep()
    assert queued() == 3, "and only once"


def test_many_are_sent_some_at_a_time(make: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "first", partial(first, limit=2))
    newest, oldest, middle = (make(created_at=NOW - timedelta(minutes=age)) for age in (1, 3, 2))
    assert recovery.waiting_jobs() == 2
    assert job(oldest).dispatched_at
    assert job(middle).dispatched_at
    assert job(newest).dispatched_at is None
    assert recovery.waiting_jobs() == 1


def test_mails_are_sent_on_their_way_once_a_try(make: Callable[..., UUID]) -> None:
    job_id = make("failed", attempt=1)
    leases.announce(db.session.connection(), job_id, 1, "failed")
    db.session.commit()
    assert recovery.due_deliveries() == 1
    assert recovery.due_deliveries() == 0
    assert queued("dramatiq:high") == 1

    change(Delivery, dispatched_at=NOW - timedelta(minutes=2), next_attempt_at=PAST, tries=1)
    assert recovery.due_deliveries() == 1
    change(Delivery, dispatched_at=None, next_attempt_at=FUTURE)
    assert recovery.due_deliveries() == 0
    change(Delivery, next_attempt_at=PAST, sent_at=PAST)
    assert recovery.due_deliveries() == 0


def test_a_mails_lost_message_is_sent_again(make: Callable[..., UUID]) -> None:
    job_id = make("failed", attempt=1)
    leases.announce(db.session.connection(), job_id, 1, "failed")
    db.session.commit()
    sweeping.sweep()
    redis_client().flushdb()
    sweeping.sweep()
    assert queued("dramatiq:high") == 1

    redis_client().delete("dramatiq:high")
    change(Delivery, dispatched_at=NOW - timedelta(seconds=20), next_attempt_at=NOW - timedelta(seconds=30))
    sweeping.sweep()
    assert queued("dramatiq:high") == 1


def test_redis_down(
    app: APIFlask, make: Callable[..., UUID], make_artifact: Callable[..., str], redis_down: None
) -> None:
    lapsed, waiting = make("running", attempt=1, lease_expires_at=PAST), make()
    key = make_artifact(expires_at=PAST)
    swept = sweeping.sweep()
    assert {"lost messages", "jobs sent"} <= swept.failures.keys()
    assert all(isinstance(error, redis.RedisError) for error in swept.failures.values())
    assert job(lapsed).status == "queued"
    assert job(waiting).dispatched_at is None
    assert not there(app, key), "what needs no Redis is done"


# --- cleaning ----------------------------------------------------------------------------------------------


def test_expired_files_go_and_receipts_stay(app: APIFlask, make_artifact: Callable[..., str]) -> None:
    old, young = make_artifact(expires_at=PAST), make_artifact()
    (root(app) / f"{old}.receipt.json").write_text("{}")
    assert cleaning.expired_artifacts() == 1
    assert not there(app, old)
    assert not there(app, f"{old}.receipt.json")
    assert there(app, young)
    found = db.session.scalars(sa.select(Artifact).where(Artifact.key == old)).one()
    assert found.removed_at is not None
    assert texts(found.job_id) == ["The file expired and was removed; its receipt stays."]
    assert cleaning.expired_artifacts() == 0


def test_sweeps_at_once_remove_a_file_once(app: APIFlask, make_artifact: Callable[..., str]) -> None:
    keys = [make_artifact(expires_at=PAST) for _ in range(5)]
    together(app, 4, cleaning.expired_artifacts)
    assert not any(there(app, key) for key in keys)
    assert len(db.session.scalars(sa.select(Event)).all()) == 5


def test_one_file_that_cannot_be_removed_keeps_no_other(
    app: APIFlask, make_artifact: Callable[..., str]
) -> None:
    stuck, fine = make_artifact(expires_at=NOW - timedelta(hours=1)), make_artifact(expires_at=PAST)
    (root(app) / stuck).unlink()
    (root(app) / stuck).mkdir()
    (root(app) / stuck / "in the way").touch()
    try:
        swept = sweeping.sweep()
        assert list(swept.failures) == ["expired files"]
        assert not there(app, fine)
    finally:
        (root(app) / stuck / "in the way").unlink()
        (root(app) / stuck).rmdir()


def test_orphans_go_and_everything_else_stays(
    app: APIFlask, make: Callable[..., UUID], make_artifact: Callable[..., str]
) -> None:
    hours = timedelta(hours=2)
    kept = make_artifact()
    its_receipt = f"{kept}.receipt.json"
    (root(app) / its_receipt).write_text("{}")
    for key in (kept, its_receipt):
        os.utime(root(app) / key, (0, 0))
    at_work = store(app, make("running", attempt=2, lease_expires_at=FUTURE), 1, age=hours)
    waiting = store(app, make("queued", attempt=1), 1, age=hours)
    young = store(app, uuid4())
    failed = store(app, make("failed", attempt=2), 2, age=hours)
    of_no_job = store(app, uuid4(), age=hours)
    finished = db.session.scalars(sa.select(Artifact.job_id)).one()
    earlier_attempt = store(app, finished, 7, age=hours)
    foreign = root(app) / "artifacts" / "README.txt"
    foreign.write_text("Put here by a person.")
    os.utime(foreign, (0, 0))
    earlier_receipt = f"{earlier_attempt}.receipt.json"
    (root(app) / earlier_receipt).write_text("{}")
    os.utime(root(app) / earlier_receipt, (0, 0))

    assert cleaning.orphans() == 4
    assert not any(there(app, key) for key in (failed, of_no_job, earlier_attempt, earlier_receipt))
    assert all(
        there(app, key) for key in (kept, its_receipt, at_work, waiting, young, "artifacts/README.txt")
    )
    foreign.unlink()


def test_a_file_that_is_published_while_the_sweep_asks_stays(
    app: APIFlask, make: Callable[..., UUID]
) -> None:
    job_id = make("running", attempt=1, lease_expires_at=FUTURE)
    key = store(app, job_id, age=timedelta(hours=2))
    artifact = {"filename": "x.csv", "content_type": "text/csv", "bytes": 1, "rows": 0, "sha256": "0" * 64}
    asked: list[str] = []

    def publish(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        """Between the first question and the second."""
        asked.append(statement)
        if len(asked) == 1:
            with db.engine.begin() as other:
                other.execute(sa.update(Job).where(Job.id == job_id).values(status="succeeded"))
                other.execute(
                    sa.insert(Artifact).values(
                        job_id=job_id, key=key, receipt={}, expires_at=FUTURE, **artifact
                    )
                )

    sa.event.listen(db.engine, "after_cursor_execute", publish)
    try:
        cleaning.orphans()
    finally:
        sa.event.remove(db.engine, "after_cursor_execute", publish)
    assert there(app, key)
    (root(app) / key).unlink()


def test_abandoned_uploads_go(app: APIFlask) -> None:
    partial = root(app) / ".partial"
    partial.mkdir(exist_ok=True)
    for name, hours in (("killed", 3), ("slow", 1)):
        (partial / name).touch()
        then = time.time() - hours * 3600
        os.utime(partial / name, (then, then))
    assert cleaning.abandoned_uploads() == 1
    assert (partial / "slow").exists()
    (partial / "slow").unlink()


def test_a_report_may_take_its_time_over_each_row(app: APIFlask, make: Callable[..., UUID]) -> None:
    make("running", attempt=1, lease_expires_at=FUTURE, started_at=NOW - timedelta(hours=9))
    # Other tests may have left some.
    others = set((root(app) / ".partial").glob("*"))
    with app.extensions["waybill.storage"].writer(
        artifact_key(uuid4(), 1, "csv"), content_type="text/csv", filename="x.csv"
    ) as writer:
        writer.write(b"id")
        (partial,) = set((root(app) / ".partial").iterdir()) - others
        then = time.time() - 8 * 3600
        os.utime(partial, (then, then))
        cleaning.abandoned_uploads()
        assert partial.exists()
        writer.write(b"\r\n")
        assert writer.commit().bytes == 4
    (root(app) / writer.key).unlink()


def test_old_lines_go_but_the_last_stays(make: Callable[..., UUID]) -> None:
    month = NOW - timedelta(days=31)
    old, young = make("succeeded", finished_at=month), make("succeeded", finished_at=PAST)
    unfinished = make("queued", created_at=month)
    for job_id in (old, young, unfinished):
        for text in ("Started.", "Read.", "Done."):
            events.append(job_id, job(job_id).owner_id, text)
    db.session.rollback()
    assert cleaning.old_events() == 2
    assert texts(old) == ["Done."]
    assert len(texts(young)) == len(texts(unfinished)) == 3
    assert cleaning.old_events() == 0


def test_dead_rows_go(member: Any) -> None:
    long_ago = NOW - timedelta(days=2)
    for name, at in (("dead", long_ago), ("alive", NOW)):
        db.session.add(Worker(id=name, queues=["high"], threads=1, seen_at=at))
        common = {"user_id": member.id, "address": "", "user_agent": "", "via": name}
        db.session.add(SignIn(expires_at=FUTURE, ended_at=long_ago if name == "dead" else None, **common))
        db.session.add(SignInLink(user_id=member.id, sha256=name, expires_at=at))
    db.session.commit()
    assert cleaning.old_rows() == 3
    assert db.session.scalars(sa.select(Worker.id)).all() == ["alive"]
    assert db.session.scalars(sa.select(SignIn.via)).all() == ["alive"]
    assert db.session.scalars(sa.select(SignInLink.sha256)).all() == ["alive"]


def test_cleaning_is_one_clocks_turn(app: APIFlask) -> None:
    calls: list[int] = []

    def step() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise redis.RedisError("down")
        return 1

    taken = cleaning.in_turn(step)
    with pytest.raises(redis.RedisError):
        taken()
    # A turn that failed is given back.
    assert [taken(), taken()] == [1, 0]
    redis_client().flushdb()
    assert taken() == 1


# --- the clock ---------------------------------------------------------------------------------------------


def test_clock_goes_on_through_outages_and_says_so_once(
    app: APIFlask,
    make: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="app.sweep")
    good = app.extensions["waybill.redis"]
    dead = redis.Redis.from_url(f"redis://127.0.0.1:{free_port()}/0")
    monkeypatch.setitem(app.extensions, "waybill.redis", dead)
    job_id = make()
    db.session.rollback()
    stop = threading.Event()

    def tick() -> None:
        with app.app_context():
            sweeping.clock(stop, every=0.05)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        until(lambda: "fails at lost messages" in caplog.text)
        time.sleep(0.5)
        monkeypatch.setitem(app.extensions, "waybill.redis", good)
        until(lambda: "works again at lost messages" in caplog.text)
        until(lambda: job(job_id).dispatched_at is not None)
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()
    assert caplog.text.count("fails at lost messages") == 1
    assert caplog.text.count("works again at lost messages") == 1


def test_database_down(environ: dict[str, str]) -> None:
    down = create_app(environ | {"DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/none"})
    with down.app_context():
        swept = sweeping.sweep()
    assert {"jobs of silent workers", "jobs sent", "expired files"} <= swept.failures.keys()
    assert all(isinstance(error, OperationalError) for error in swept.failures.values())


def test_swept_in_words() -> None:
    swept = sweeping.Swept(
        {"jobs sent": 1200, "old rows": 0}, {"lost messages": redis.RedisError("no Redis")}
    )
    assert str(swept) == "jobs sent: 1,200\nlost messages: no Redis"
    assert str(sweeping.Swept()) == "nothing to do"


def test_settings_of_the_day_are_used(
    app: APIFlask, make: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], attempts_limit=1))
    job_id = make("running", attempt=1, lease_expires_at=PAST)
    recovery.lapsed_jobs()
    assert "died once" in (job(job_id).error_message or "")
