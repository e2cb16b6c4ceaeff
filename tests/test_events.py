"""A job's log: numbered under the row's lock, read in pages, told through Redis."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from apiflask import APIFlask

from app import create_app, events, leases
from app.dev.child import free_port
from app.extensions import db, redis_client
from app.models.job import Job


@pytest.fixture(autouse=True)
def context(app: APIFlask) -> Iterator[None]:
    with app.app_context():
        yield


@pytest.fixture
def job_id(member: Any) -> UUID:
    return make_job(member)


def make_job(owner: Any, **values: Any) -> UUID:
    job = Job(kind="export", definition="tasks", title="Tasks", owner_id=owner.id, **values)
    db.session.add(job)
    db.session.commit()
    return job.id


def test_numbers_run_from_one(job_id: UUID, member: Any) -> None:
    lines = [events.append(job_id, member.id, text, level="warning") for text in ("a", "b", "c")]
    assert [line.number for line in lines if line] == [1, 2, 3]
    assert events.after(job_id, 0) == lines
    assert events.after(job_id, 1, limit=1) == lines[1:2]
    assert events.after(job_id, 3) == []


def test_ten_writers_leave_no_gap(app: APIFlask, job_id: UUID, member: Any) -> None:
    def write() -> None:
        with app.app_context():
            for number in range(20):
                events.append(job_id, member.id, str(number))

    writers = [threading.Thread(target=write) for _ in range(10)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = events.after(job_id, 0)
    assert [line.number for line in lines] == list(range(1, 201))
    # Times follow the numbers: both were taken under the row's lock.
    assert [line.at for line in lines] == sorted(line.at for line in lines)


def test_what_the_database_cannot_hold(job_id: UUID, member: Any) -> None:
    line = events.append(job_id, member.id, "a\0b" + "x" * 20_000)
    assert line is not None
    (read,) = events.after(job_id, 0)
    assert read.text.startswith("a\ufffdb")
    assert len(read.text) == 10_000
    assert read == events.Line(line.number, line.at, line.level, read.text)


def test_no_line_for_a_job_that_is_gone(member: Any) -> None:
    assert events.append(uuid4(), member.id, "hello") is None


def test_who_lost_the_job_writes_no_line(job_id: UUID) -> None:
    lease = leases.claim(job_id)
    assert lease is not None
    assert lease.hand_back()
    before = events.states([job_id])[job_id].last_event
    with db.engine.begin() as conn:
        assert events.write(conn, job_id, "too late", claim=lease.claim) is None
    assert events.states([job_id])[job_id].last_event == before


def test_a_rolled_back_line_leaves_its_number(job_id: UUID, member: Any) -> None:
    with db.engine.connect() as conn:
        assert events.write(conn, job_id, "never was")
        conn.rollback()
    line = events.append(job_id, member.id, "was")
    assert line is not None
    assert line.number == 1


def test_unseen_lines_of_many_jobs_in_one_question(member: Any) -> None:
    first, second, third = (make_job(member) for _ in range(3))
    for job_id, count in ((first, 5), (second, 3), (third, 2)):
        for number in range(count):
            events.append(job_id, member.id, f"{number}")
    found = events.unseen({first: 2, second: 0, third: 2, uuid4(): 0}, limit=2)
    assert sorted((job_id, line.number) for job_id, line in found) == sorted(
        [(first, 3), (first, 4), (second, 1), (second, 2)]
    )
    ours = [line.number for job_id, line in found if job_id == second]
    assert ours == [1, 2]
    assert events.unseen({}) == []


def test_states(job_id: UUID, member: Any) -> None:
    events.append(job_id, member.id, "hello")
    lease = leases.claim(job_id)
    assert lease is not None
    lease.progress(3, 7)
    state = events.states([job_id, uuid4()])[job_id]
    assert state == events.State(job_id, member.id, "running", 3, 7, "rows", 2)
    assert state.progress == {"done": 3, "total": 7, "unit": "rows"}


def test_recent_jobs(member: Any, other: Any) -> None:
    now = datetime.now(UTC)
    waiting = make_job(member)
    lately = make_job(member, status="failed", finished_at=now - timedelta(hours=2))
    make_job(member, status="failed", finished_at=now - timedelta(days=2))
    theirs = make_job(other)
    assert events.recent([member.id]).keys() == {waiting, lately}
    assert events.recent(None).keys() == {waiting, lately, theirs}
    assert events.recent(None, limit=1).keys() == {theirs}
    assert events.recent([]) == {}


def test_a_line_is_told_whole(job_id: UUID, member: Any) -> None:
    with redis_client().pubsub() as heard:
        heard.psubscribe(events.PATTERN)
        assert heard.get_message(timeout=30)
        line = events.append(job_id, member.id, "żółć\n")
        message = heard.get_message(timeout=30)
    assert line is not None
    assert events.read_channel(message["channel"].decode()) == (member.id, job_id)
    assert json.loads(message["data"]) == {"event": "log", **line.as_json()}


@pytest.mark.parametrize("name", ["waybill:events:1", "waybill:events:x:y", "a:b:c:d:e", "", "a:b:1:nothing"])
def test_channels_of_others(name: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        events.read_channel(name)


def test_without_redis_a_line_is_written_all_the_same(
    environ: dict[str, str], job_id: UUID, member: Any
) -> None:
    other = create_app(environ | {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"})
    with other.app_context():
        assert events.append(job_id, member.id, "in the dark")
        assert [line.text for line in events.after(job_id, 0)] == ["in the dark"]
        db.engine.dispose()


def test_times_are_utc_to_the_microsecond() -> None:
    at = datetime(2026, 1, 31, 10, 15, tzinfo=timezone(timedelta(hours=1)))
    assert events.rfc3339(at) == "2026-01-31T09:15:00.000000Z"
