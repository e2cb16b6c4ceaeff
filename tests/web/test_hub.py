"""The hub by itself: who is told what, who is closed, what the database is asked."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from apiflask import APIFlask

from app import create_app, events, leases
from app.dev.child import free_port
from app.extensions import db
from app.models.job import Job
from app.models.session import SignIn
from app.models.token import ApiToken
from app.web import passes
from app.web.hub import BREATH, LIMIT, SLOTS, Hub, Stream
from app.web.passes import Pass
from app.web.sse import HEARTBEAT, Frame
from tests.waiting import PATIENCE, until

BEAT = 0.75


@pytest.fixture(autouse=True)
def context(app: APIFlask) -> Iterator[None]:
    with app.app_context():
        yield


@pytest.fixture
def hub(app: APIFlask) -> Iterator[Hub]:
    with ending(Hub(app, app.config["WAYBILL"].redis_url, beat=BEAT)) as made:
        yield made


@pytest.fixture
def deaf(app: APIFlask) -> Iterator[Hub]:
    """A hub that never hears Redis."""
    with ending(Hub(app, f"redis://127.0.0.1:{free_port()}/0", beat=BEAT)) as made:
        yield made


@contextmanager
def ending(hub: Hub) -> Iterator[Hub]:
    """It asks the database nothing more once the test is over: the next one counts."""
    before = set(threading.enumerate())
    yield hub
    hub.close()
    for thread in set(threading.enumerate()) - before:
        if thread.name == "hub-keep":
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def ticket(member: Any) -> Pass:
    return ticket_of(member)


def ticket_of(user: Any, owner_id: int | None = -1) -> Pass:
    token, _ = ApiToken.create(user, "test")
    db.session.commit()
    return Pass(user.id, user.id if owner_id == -1 else owner_id, None, None, token.id)


def make_job(owner: Any) -> UUID:
    job = Job(kind="export", definition="tasks", title="Tasks", owner_id=owner.id)
    db.session.add(job)
    db.session.commit()
    return job.id


def take(stream: Stream, wanted: Callable[[Frame], object], skip: int = 1000) -> Frame:
    """The next frame that is wanted."""
    limit = threading.Timer(PATIENCE, stream.close)
    limit.start()
    try:
        for _ in range(skip):
            frame = stream.take()
            assert frame is not None, "the stream was closed, or nothing came in time"
            if wanted(frame):
                return frame
    finally:
        limit.cancel()
    raise AssertionError("no such frame came")


def test_bytes_are_made_once(hub: Hub, ticket: Pass, member: Any) -> None:
    job_id = make_job(member)
    streams = [hub.enter(ticket, job_id) for _ in range(5)]
    take(streams[0], lambda frame: frame.upto is not None)
    events.append(job_id, member.id, "for all")
    first, *others = [take(stream, lambda frame: frame.line == 1) for stream in streams]
    assert all(frame is first for frame in others)


def test_lines_only_go_where_they_belong(hub: Hub, ticket: Pass, member: Any) -> None:
    one, two = make_job(member), make_job(member)
    ours, theirs = hub.enter(ticket, one), hub.enter(ticket, two)
    for stream in (ours, theirs):  # lines from before this frame are for each stream itself to read
        take(stream, lambda frame: frame.upto is not None)
    events.append(one, member.id, "one")
    events.append(two, member.id, "two")
    assert b"one" in take(ours, lambda frame: frame.line).data
    assert b"two" in take(theirs, lambda frame: frame.line).data


def test_heartbeats_are_spread(hub: Hub, ticket: Pass, member: Any) -> None:
    job_id = make_job(member)
    streams = [hub.enter(ticket, job_id) for _ in range(SLOTS * 2)]
    assert sorted(stream.slot for stream in streams) == sorted([*range(SLOTS), *range(SLOTS)])
    for _ in range(3):
        take(streams[0], lambda frame: frame is HEARTBEAT)
    for stream in streams:  # between two of one stream, each other one has got its own
        beats = 2 if stream is streams[0] else 0
        while stream._frames.qsize():
            beats += stream.take() is HEARTBEAT
        assert beats >= 2


def test_who_reads_nothing_is_closed_and_cut(hub: Hub, ticket: Pass, member: Any) -> None:
    job_id = make_job(member)
    client, server = socket.socketpair()
    with client, server:
        slow, quick = hub.enter(ticket, job_id, server), hub.enter(ticket, job_id)
        until(lambda: hub._subscription.alive)  # what is published before is not heard
        for number in range(LIMIT + 2):
            events.publish_progress(job_id, member.id, number, None, "rows")
            if number % 100 == 99:
                said = b'"done":%d,' % number
                take(quick, lambda frame: said in frame.data)  # noqa: B023
        until(lambda: slow.closed)
        assert slow.take() is None
        assert not quick.closed
        client.settimeout(PATIENCE)
        assert client.recv(1) == b"", "the connection was not cut"
    assert len(hub) == 1


def test_who_ends_by_itself_is_not_cut(hub: Hub, ticket: Pass, member: Any) -> None:
    client, server = socket.socketpair()
    with client, server:
        stream = hub.enter(ticket, make_job(member), server)
        hub.leave(stream)
        client.settimeout(1)
        with pytest.raises(TimeoutError):
            client.recv(1)
    assert len(hub) == 0


def test_closing_ends_all_and_whatever_comes_later(hub: Hub, ticket: Pass, member: Any) -> None:
    job_id = make_job(member)
    streams = [hub.enter(ticket, job_id), hub.enter(ticket, None)]
    hub.close()
    streams.append(hub.enter(ticket, job_id))
    assert [stream.take() for stream in streams] == [None, None, None]
    for stream in streams:
        hub.leave(stream)
        hub.leave(stream)
    assert len(hub) == 0


def test_a_gap_is_filled_at_once(app: APIFlask, ticket: Pass, member: Any) -> None:
    """By a hub that goes round too seldom to find it that way."""
    job_id = make_job(member)
    with ending(Hub(app, app.config["WAYBILL"].redis_url, beat=PATIENCE * 2)) as patient:
        stream = patient.enter(ticket, job_id)
        take(stream, lambda frame: frame.upto is not None)
        until(lambda: patient._subscription.alive)
        with db.engine.begin() as conn:
            events.write(conn, job_id, "lost")
        events.append(job_id, member.id, "heard")
        assert b'"lost"' in take(stream, lambda frame: frame.line == 1).data
        assert b'"heard"' in take(stream, lambda frame: frame.line == 2).data
        patient.leave(stream)


def test_without_redis_all_jobs_are_asked_for_together(deaf: Hub, member: Any, statements: list[str]) -> None:
    tickets = [ticket_of(member) for _ in range(3)]
    jobs = [make_job(member) for _ in range(20)]
    streams = [(job_id, deaf.enter(tickets[number % 3], job_id)) for job_id in jobs for number in range(5)]
    take(streams[-1][1], lambda frame: frame.upto is not None)
    for job_id in jobs:
        events.append(job_id, member.id, "hello")
    begun = time.monotonic()
    statements.clear()
    for _, stream in streams:
        assert take(stream, lambda frame: frame.line == 1)
    time.sleep(BEAT)
    asked = list(statements)
    # A round asks for states, lines, people and tokens, whatever number of streams there is.
    rounds = (time.monotonic() - begun) / BREATH + 2
    assert len(asked) <= 4 * rounds
    assert not [statement for statement in asked if "FROM events" in statement and "unnest" not in statement]


def test_a_burst_comes_whole_though_no_question_brings_all(deaf: Hub, ticket: Pass, member: Any) -> None:
    job_id = make_job(member)
    stream = deaf.enter(ticket, job_id)
    take(stream, lambda frame: frame.upto is not None)
    with db.engine.begin() as conn:
        for number in range(700):
            events.write(conn, job_id, str(number))
    lease = leases.claim(job_id)
    assert lease is not None
    lease.succeed("Done.", lambda conn: None)
    numbers = []
    while not (frame := take(stream, lambda frame: frame.line or frame.final)).final:
        numbers.append(frame.line)
    assert numbers == list(range(1, 703))
    assert frame.upto == 702


def test_lists_hear_of_changes_once(hub: Hub, ticket: Pass, member: Any) -> None:
    job_id = make_job(member)
    stream = hub.enter(ticket, None)
    take(stream, lambda frame: str(job_id).encode() in frame.data)
    with db.engine.begin() as conn:
        events.write(conn, job_id, "only a line")
    events.publish_status(job_id, member.id, "queued")
    events.publish_progress(job_id, member.id, 0, None, "rows")
    deadline = time.monotonic() + BEAT * 2
    while time.monotonic() < deadline:
        assert stream.take() is HEARTBEAT


def test_without_the_database_nobody_may_look_on(environ: dict[str, str], ticket: Pass) -> None:
    other = create_app(environ | {"DATABASE_URL": f"postgresql://u:p@127.0.0.1:{free_port()}/none"})
    with ending(Hub(other, environ["REDIS_URL"], beat=BEAT)) as lonely:
        stream = lonely.enter(ticket, uuid4())
        until(lambda: stream.closed)


# --- passes -----------------------------------------------------------------------------------------------


def test_passes_of_the_living(member: Any, other: Any, admin: Any, statements: list[str]) -> None:
    good = {ticket_of(member), ticket_of(other), ticket_of(admin), ticket_of(admin, None)}
    bad = {ticket_of(member, None), ticket_of(other, member.id), Pass(member.id, member.id, None, None, 0)}
    statements.clear()
    assert passes.still_good(good | bad) == good
    assert len(statements) <= 4
    assert passes.still_good([]) == frozenset()


def test_passes_of_sign_ins(member: Any) -> None:
    living, ended, expired = (
        SignIn.begin(member, via="password", address="127.0.0.1", user_agent="test") for _ in range(3)
    )
    ended.ended_at = db.func.now()
    expired.expires_at = db.func.now()
    db.session.commit()
    made = [
        Pass(member.id, member.id, one.id, member.fs_uniquifier, None) for one in (living, ended, expired)
    ]
    assert passes.still_good(made) == {made[0]}
    assert passes.still_good([made[0]._replace(uniquifier="an older one")]) == frozenset()
    assert (
        passes.still_good([made[0]._replace(token_id=ticket_of(member).token_id, sign_in_id=uuid4())])
        == set()
    )
