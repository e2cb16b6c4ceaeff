"""What people may do with jobs, and the status table behind it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from sqlalchemy import select, update

from app import dispatch, events, jobs, leases
from app.attempts import attempt
from app.errors import Conflict, InvalidParams, InvalidRequest, LeaseLost, NotFound, TooMany
from app.extensions import db, patience, redis_client
from app.models import Event, Job, User, Worker
from app.models import job as transitions
from app.models.job import CANCELLED, FAILED, FINAL, QUEUED, RUNNING, STATUSES, SUCCEEDED, Claim
from tests.waiting import PATIENCE, until

# Seconds, probes, and milliseconds.
WIRE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}


@pytest.fixture(autouse=True)
def context(app: Any) -> Iterator[None]:
    with app.app_context():
        yield
        db.session.remove()


@pytest.fixture
def ask(member: User) -> Callable[..., Job]:
    def ask(user: User = member, key: str = "all_tasks", **options: Any) -> Job:
        return jobs.request_export(db.session.merge(user), key, options.pop("params", {}), **options)

    return ask


# --- the database -----------------------------------------------------------------------------------------


def test_a_database_that_is_gone_without_a_word_is_not_waited_for() -> None:
    with db.engine.connect() as conn:
        driver: Any = conn.connection.dbapi_connection
        with socket.socket(fileno=os.dup(driver.pgconn.socket)) as wire:
            told = {name: wire.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in WIRE}
    assert told == WIRE


def test_the_databases_url_has_the_last_word() -> None:
    found = patience("postgresql+psycopg://waybill@127.0.0.1/waybill?keepalives_idle=90&connect_timeout=2")
    assert found == {"keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}


# --- the status table -------------------------------------------------------------------------------------

VERBS: dict[str, tuple[set[str], Callable[[Any, Claim], bool]]] = {
    "claim": (
        {QUEUED},
        lambda conn, claim: (
            transitions.claim(conn, claim.job_id, worker="w", lease=timedelta(minutes=1), limit=9) is not None
        ),
    ),
    "finish": ({RUNNING}, lambda conn, claim: transitions.finish(conn, claim, SUCCEEDED)),
    "requeue": ({RUNNING}, lambda conn, claim: transitions.requeue(conn, claim)),
    "withdraw": ({QUEUED}, lambda conn, claim: transitions.withdraw(conn, claim.job_id, CANCELLED)),
    "reopen": ({FAILED, CANCELLED}, lambda conn, claim: transitions.reopen(conn, claim.job_id)),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("status", STATUSES)
def test_a_verb_works_from_its_statuses_only(verb: str, status: str, ask: Callable[..., Job]) -> None:
    job = ask()
    held = {"lease_expires_at": db.func.now() + timedelta(minutes=1)} if status == RUNNING else {}
    db.session.execute(update(Job).values(status=status, attempt=1, **held))
    db.session.commit()
    allowed, act = VERBS[verb]
    with db.engine.begin() as conn:
        assert act(conn, Claim(job.id, job.owner_id, 1)) is (status in allowed)


def test_one_of_many_claims_wins(ask: Callable[..., Job], app: Any) -> None:
    job_id = ask().id
    won: list[Any] = []

    def claim() -> None:
        with app.app_context():
            won.append(leases.claim(job_id))

    threads = [threading.Thread(target=claim) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lease.attempt for lease in won if lease) == [1]
    assert len(won) == 5


def test_a_job_without_attempts_left_is_not_claimed(ask: Callable[..., Job], app: Any) -> None:
    job_id = ask().id
    limit = app.config["WAYBILL"].attempts_limit
    for number in range(1, limit + 1):
        lease = leases.claim(job_id)
        assert lease is not None
        assert lease.attempt == number
        db.session.execute(update(Job).values(lease_expires_at=db.func.now()))
        db.session.commit()
    assert leases.claim(job_id) is None


@pytest.mark.parametrize(
    "quoted",
    ["a\0b", "of a name \udcff", "\ud83d", "x" * 100_000, ""],
    ids=["null", "byte", "surrogate", "long", "nothing"],
)
def test_an_attempt_ends_whatever_its_error_quotes(
    quoted: str, ask: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The log quotes it, too, and pytest's processes can hand each other captured lines in UTF-8 only.
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    job_id = ask().id
    lease = leases.claim(job_id)
    assert lease is not None

    def work(_: leases.Lease) -> None:
        raise RuntimeError(quoted)

    attempt(lease, work, what="report")
    job = db.session.get_one(Job, job_id, populate_existing=True)
    assert (job.status, job.error_code) == (FAILED, "internal")
    assert job.error_message is not None
    assert job.error_message.startswith("The report stopped with an error of its own (RuntimeError: ")
    assert len(job.error_message) <= 10_000
    assert events.after(job_id, 0)[-1].text == job.error_message


# --- leases -----------------------------------------------------------------------------------------------


def test_a_lease_is_renewed_while_it_is_held(
    ask: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT", 0.1)
    job_id = ask().id
    lease = leases.claim(job_id)
    assert lease is not None
    first = _expiry(job_id)
    with lease:
        until(lambda: _expiry(job_id) > first)
    still = _expiry(job_id)
    threading.Event().wait(0.4)
    assert _expiry(job_id) == still


def test_an_attempt_hears_that_the_job_is_anothers(
    ask: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT", 0.1)
    job_id = ask().id
    lease = leases.claim(job_id)
    assert lease is not None
    broken_off = threading.Event()
    with lease, lease.breaking_off(broken_off.set):
        db.session.execute(update(Job).values(attempt=2))
        db.session.commit()
        assert broken_off.wait(PATIENCE)
        with pytest.raises(LeaseLost):
            lease.progress(1)
        with pytest.raises(LeaseLost):
            lease.log("from the grave")
        assert not lease.fail("x", "from the grave")
    assert _status(job_id) == RUNNING
    assert "from the grave" not in " ".join(line.text for line in events.after(job_id, 0))


def test_an_attempt_that_cannot_renew_stops_before_another_begins(
    ask: Callable[..., Job], app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    monkeypatch.setattr(leases, "HEARTBEAT", 0.1)
    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], lease_seconds=1))
    lease = leases.claim(ask().id)
    assert lease is not None

    def away(*_: Any) -> Any:
        raise OperationalError("UPDATE", {}, Exception("the database is away"))

    broken_off = threading.Event()
    with lease, lease.breaking_off(broken_off.set):
        lease.check()
        monkeypatch.setattr(transitions, "renew", away)
        assert broken_off.wait(PATIENCE)
        with pytest.raises(LeaseLost):
            lease.check()


def test_progress_is_written_not_too_often(ask: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    lease = leases.claim(ask().id)
    assert lease is not None
    told: list[tuple[int, int | None]] = []
    monkeypatch.setattr(
        events, "publish_progress", lambda job, owner, done, total, unit: told.append((done, total))
    )
    for done in range(10_000):
        lease.progress(done, 10_000)
    lease.ticker.flush()
    assert told[-1] == (9_999, 10_000)
    assert len(told) < 100


# --- asking -----------------------------------------------------------------------------------------------


def test_asking_commits_logs_and_dispatches(ask: Callable[..., Job], member: User) -> None:
    job = ask(params={"status": "open"})
    db.session.refresh(job)
    assert job.status == QUEUED
    assert job.dispatched_at is not None
    assert [line.text for line in events.after(job.id, 0)] == [f"{job.title}: asked for by {member.email}."]
    assert redis_client().llen("dramatiq:default") == 1


def test_wrong_params_are_told_by_name(ask: Callable[..., Job]) -> None:
    with pytest.raises(InvalidParams) as caught:
        ask(params={"status": "nope", "since": "not a day", "wat": 1})
    assert set(caught.value.errors) == {"status", "since", "wat"}
    assert db.session.scalar(select(Job)) is None


@pytest.mark.parametrize("options", [{"format": "doc"}, {"dialect": "latin"}, {"compression": "rar"}])
def test_what_nobody_can_write_is_refused(options: dict[str, str], ask: Callable[..., Job]) -> None:
    with pytest.raises(InvalidRequest, match=r"There is no|has no"):
        ask(**options)


def test_a_report_of_other_roles_is_not_there(person: Callable[..., User], ask: Callable[..., Job]) -> None:
    with pytest.raises(NotFound):
        ask(person("nobody@example.org"))
    with pytest.raises(NotFound):
        ask(key="nothing")


def test_the_same_key_gives_the_same_job(ask: Callable[..., Job], other: User) -> None:
    first = ask(idempotency_key="k").id
    assert ask(idempotency_key="k").id == first
    assert ask(other, idempotency_key="k").id != first
    with pytest.raises(Conflict):
        ask(idempotency_key="k", params={"status": "open"})
    with pytest.raises(InvalidRequest):
        ask(idempotency_key="k" * 201)


def test_the_same_key_at_once_makes_one_job(app: Any, member: User) -> None:
    made: list[UUID] = []

    def ask_once() -> None:
        with app.app_context():
            made.append(
                jobs.request_export(db.session.merge(member), "all_tasks", {}, idempotency_key="k").id
            )

    threads = [threading.Thread(target=ask_once) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 5
    assert len(set(made)) == 1


def test_unfinished_jobs_of_one_person_are_limited(
    app: Any, ask: Callable[..., Job], other: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], user_running_limit=2))
    ask()
    ask()
    with pytest.raises(TooMany) as caught:
        ask()
    assert caught.value.retry_after > 0
    ask(other)


def test_trying_again_is_limited_as_asking_is(
    app: Any, ask: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], user_running_limit=2))
    cancelled = jobs.cancel(ask())
    first, _ = ask(), ask()
    with pytest.raises(TooMany):
        jobs.retry(cancelled)
    assert cancelled.status == CANCELLED
    jobs.cancel(first)
    assert jobs.retry(cancelled).status == QUEUED


def test_redis_down_at_the_click_keeps_the_job(
    ask: Callable[..., Job], app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = app.extensions["waybill.broker"]
    monkeypatch.setattr(broker, "client", redis.Redis(port=1))
    for script in broker.scripts.values():
        monkeypatch.setattr(script, "registered_client", broker.client)
    job = ask()
    assert (job.status, job.dispatched_at) == (QUEUED, None)
    assert "safe" in [line.text for line in events.after(job.id, 0)][-1]


# --- looking ----------------------------------------------------------------------------------------------


def test_only_owner_and_admin_find_a_job(
    ask: Callable[..., Job], member: User, other: User, admin: User
) -> None:
    job_id = ask().id
    assert jobs.find(db.session.merge(member), job_id).id == job_id
    assert jobs.find(db.session.merge(admin), job_id).id == job_id
    for user, sought in ((other, job_id), (member, uuid4())):
        with pytest.raises(NotFound):
            jobs.find(db.session.merge(user), sought)


def test_pages_of_jobs_miss_none_and_double_none(
    ask: Callable[..., Job], member: User, other: User, admin: User
) -> None:
    mine = [ask().id for _ in range(7)]
    ask(other)
    db.session.execute(update(Job).values(created_at=db.func.now()))  # all in one instant: the id decides
    db.session.commit()
    me, boss = db.session.merge(member), db.session.merge(admin)
    seen: list[UUID] = []
    cursor = None
    while True:
        page, cursor = jobs.listing(me, before=cursor, limit=3)
        seen += [job.id for job in page]
        if cursor is None:
            break
    assert sorted(seen) == sorted(mine)
    assert len(jobs.listing(boss, everyone=True)[0]) == 8
    assert jobs.listing(boss)[0] == []
    assert len(jobs.listing(me, everyone=True)[0]) == 7
    assert jobs.counts(me)[QUEUED] == 7
    for status, before in ((None, "!!"), (None, "YWJj"), ("lost", None)):
        with pytest.raises(InvalidRequest):
            jobs.listing(me, status=status, before=before)


def test_the_place_in_the_queue(ask: Callable[..., Job], member: User) -> None:
    first, second = ask(), ask(fresh=True)
    assert (jobs.queue_position(first), jobs.queue_position(second)) == (1, 2)
    jobs.cancel(first)
    assert (jobs.queue_position(first), jobs.queue_position(second)) == (None, 1)


def test_whether_a_worker_listens() -> None:
    assert not jobs.listening("default")
    db.session.add(Worker(id="w", queues=["high", "default"], threads=4))
    db.session.commit()
    assert jobs.listening("default")
    assert not jobs.listening("low")
    db.session.execute(update(Worker).values(seen_at=db.func.now() - timedelta(minutes=1)))
    db.session.commit()
    assert not jobs.listening("default")


# --- cancel, retry, again ---------------------------------------------------------------------------------


def test_cancelling(ask: Callable[..., Job]) -> None:
    queued, running = ask(), ask(fresh=True)
    lease = leases.claim(running.id)
    assert lease is not None
    jobs.cancel(queued)
    jobs.cancel(running)
    assert _status(queued.id) == CANCELLED
    assert _status(running.id) == RUNNING
    lease.cancelled("Cancelled. Nothing was published.")
    for job in (queued, running):
        with pytest.raises(Conflict):
            jobs.cancel(db.session.get_one(Job, job.id))
    assert _status(running.id) == CANCELLED


def test_retrying_gives_a_fresh_set_of_attempts(ask: Callable[..., Job], app: Any) -> None:
    job = ask()
    with pytest.raises(Conflict):
        jobs.retry(job)
    lease = leases.claim(job.id)
    assert lease is not None
    lease.fail("x", "It broke.")
    db.session.expire_all()
    jobs.retry(job)
    db.session.expire_all()
    assert (job.status, job.attempt, job.forgiven, job.error_code) == (QUEUED, 1, 1, None)
    again = leases.claim(job.id)
    assert again is not None
    assert again.attempt == 2


def test_asking_again_copies_the_frozen_params(ask: Callable[..., Job], member: User, other: User) -> None:
    job = ask(params={"since": "last month"}, compression="gzip")
    copy = jobs.again(db.session.merge(member), job)
    assert copy.id != job.id
    assert (copy.params, copy.compression, copy.parent_id) == (job.params, "gzip", job.id)


def test_the_log_is_numbered_without_a_gap(ask: Callable[..., Job], app: Any) -> None:
    job = ask()

    def write() -> None:
        with app.app_context():
            for _ in range(20):
                events.append(job.id, job.owner_id, "line")

    threads = [threading.Thread(target=write) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = db.session.scalars(
        select(Event.number).where(Event.job_id == job.id).order_by(Event.number)
    ).all()
    assert numbers == list(range(1, 102))


def test_final_statuses_are_statuses() -> None:
    assert set(STATUSES) - {QUEUED, RUNNING} == FINAL
    assert set(dispatch.ACTORS) == {"export", "import"}


def _status(job_id: UUID) -> str:
    db.session.expire_all()
    return str(db.session.scalar(select(Job.status).where(Job.id == job_id)))


def _expiry(job_id: UUID) -> Any:
    db.session.rollback()
    return db.session.scalar(select(Job.lease_expires_at).where(Job.id == job_id))


# --- whose turn it is -------------------------------------------------------------------------------------


@pytest.fixture
def queued(member: User) -> Callable[..., UUID]:
    """queued(owner, "small", waited=minutes): a job on the queue that nobody was told of."""

    def queued(owner: User = member, size: str = "large", waited: float = 0, queue: str = "default") -> UUID:
        job = Job(kind="export", definition="r", title="R", owner_id=owner.id, size=size, queue=queue)
        job.status = QUEUED
        db.session.add(job)
        db.session.flush()
        job.created_at = jobs.database_now() - timedelta(minutes=waited)
        db.session.commit()
        return job.id

    return queued


def taken(hint: UUID, count: int, **options: Any) -> list[UUID | None]:
    leased = (leases.claim_fairest(hint, **options) for _ in range(count))
    return [lease.job_id if lease else None for lease in leased]


def test_nobody_waits_behind_the_many_of_another(queued: Callable[..., UUID], other: User) -> None:
    mine = [queued(waited=4 - n) for n in range(3)]
    theirs = [queued(other), queued(other)]
    assert taken(mine[0], 6) == [mine[0], theirs[0], mine[1], theirs[1], mine[2], None]


def test_small_jobs_pass_large_ones_for_a_while(queued: Callable[..., UUID], other: User) -> None:
    large, old, small = queued(waited=4), queued(other, waited=6), queued(other, "small", waited=1)
    assert taken(large, 3) == [old, large, small]
    large, small = queued(waited=4), queued(size="small")
    assert taken(large, 2) == [small, large]


def test_a_full_lane_takes_small_jobs_only(queued: Callable[..., UUID]) -> None:
    large, small = queued(), queued(size="small")
    assert taken(large, 2, small_only=True) == [small, None]
    assert leases.claim(large, small_only=True) is None
    assert taken(large, 1) == [large]


def test_queues_stay_apart(queued: Callable[..., UUID]) -> None:
    default, low = queued(), queued(queue="low")
    assert taken(low, 2) == [low, None]
    assert taken(uuid4(), 1) == [None]
    assert taken(default, 1) == [default]


def test_a_job_that_is_locked_for_a_moment_is_waited_for(queued: Callable[..., UUID], app: Any) -> None:
    job_id = queued()
    claimed: list[Any] = []

    def claim() -> None:
        with app.app_context():
            claimed.extend(taken(job_id, 1))

    with db.engine.begin() as conn:
        conn.execute(select(Job.id).where(Job.id == job_id).with_for_update())
        thread = threading.Thread(target=claim)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(PATIENCE)
    assert claimed == [job_id]


def test_of_many_workers_none_gets_the_same(queued: Callable[..., UUID], app: Any) -> None:
    waiting = [queued() for _ in range(6)]
    got: list[Any] = []

    def claim() -> None:
        with app.app_context():
            got.extend(taken(waiting[0], 2))

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(filter(None, got)) == sorted(waiting)


def test_the_place_in_the_queue_is_that_of_ones_turn(queued: Callable[..., UUID], other: User) -> None:
    mine = [queued(waited=4 - n) for n in range(3)]
    theirs = queued(other)
    places = [jobs.queue_position(db.session.get_one(Job, job_id)) for job_id in (*mine, theirs)]
    assert places == [1, 3, 4, 2]


@pytest.mark.parametrize(
    ("key", "params", "size"),
    [
        ("late_invoices", {}, "small"),
        ("slow_tasks", {}, "large"),
        ("my_tasks", {}, "small"),
    ],
)
def test_the_planner_says_which_lane(
    key: str, params: dict[str, Any], size: str, demo: None, ask: Callable[..., Job]
) -> None:
    assert ask(key=key, params=params).size == size
