"""Streams as a client sees them: gunicorn with gevent, PostgreSQL and Valkey are real."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from apiflask import APIFlask

from app import events, leases
from app.dev.child import Child, free_port, listens
from app.extensions import db, redis_client
from app.models.job import Job
from app.models.session import SignIn
from app.models.token import ApiToken
from app.settings import ROOT
from tests.conftest import Auth, Services
from tests.waiting import PATIENCE, until
from tests.web.listening import Listener


class Web:
    """One gunicorn on the tests' database, its hub in a hurry; and what a worker would do to jobs."""

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.child = Child(
            "web",
            [str(Path(sys.executable).with_name("gunicorn")), "tests.web.swift:app()"],
            log=log,
            environ={**environ, "PORT": str(self.port), "PATH": os.environ["PATH"], "PUBLIC_URL": self.url},
            directory=ROOT,
        )

    def start(self) -> None:
        self.child.start()
        self.child.wait_until(lambda: listens(self.port))

    def listen(self, path: str, secret: str, **headers: str) -> Listener:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return Listener(self.url + path, {"Authorization": f"Bearer {secret}", **names})

    def ask(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with closing(connection):
            connection.request("GET", path, headers={name: value.encode() for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, response.read()

    def follow(self, job_id: UUID, secret: str, after: int | None = None) -> Listener:
        headers = {} if after is None else {"Last_Event_ID": str(after)}
        return self.listen(f"/api/v1/jobs/{job_id}/events", secret, **headers)


@pytest.fixture(scope="module")
def process(session_app: APIFlask, session_environ: dict[str, str], services: Services) -> Iterator[Web]:
    web = Web(session_environ, services.directory / "swift.log")
    web.start()
    yield web
    web.child.stop()


@pytest.fixture
def web(process: Web, app: APIFlask) -> Iterator[Web]:
    if not process.child.alive:
        process.start()
    with app.app_context():
        yield process


@pytest.fixture
def secret(web: Web, member: Any) -> str:
    return token(member)


def token(user: Any) -> str:
    _, secret = ApiToken.create(user, "test")
    db.session.commit()
    return secret


def make_job(owner: Any, lines: int = 0) -> UUID:
    job = Job(kind="export", definition="tasks", title="Tasks", owner_id=owner.id)
    db.session.add(job)
    db.session.commit()
    for number in range(lines):
        events.append(job.id, owner.id, f"line {number + 1}")
    return job.id


def finish(job_id: UUID, *, lines: int = 0) -> None:
    """What a worker does: claim, say something, succeed. That makes two lines more than `lines`."""
    lease = leases.claim(job_id)
    assert lease is not None
    for number in range(lines):
        lease.log(f"working {number + 1}")
    assert lease.succeed("Done.", lambda conn: None)


# --- the contract ---------------------------------------------------------------------------------------


def test_a_job_from_its_first_line_to_its_end(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=2)
    with web.follow(job_id, secret) as listener:
        listener.wait(lambda it: it.numbers == [1, 2])
        lease = leases.claim(job_id)
        assert lease is not None
        lease.progress(10, 40)
        lease.log("Half of it.")
        lease.succeed("Done.", lambda conn: None)
        listener.wait_end()
    assert listener.ended == "end"
    assert listener.numbers == [1, 2, 3, 4, 5]
    assert [event.id for event in listener.events if event.name == "log"] == ["1", "2", "3", "4", "5"]
    assert all(event.id is None for event in listener.events if event.name != "log")
    told = [event.data for event in listener.events if event.name == "progress"]
    assert {"done": 10, "total": 40, "unit": "rows"} in told
    assert [listener.statuses[0], listener.statuses[-1]] == ["queued", "succeeded"]
    assert listener.events[-1].name == "status"
    assert listener.retry is not None


def test_a_line_is_what_was_written(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member)
    line = events.append(job_id, member.id, "Slow.", level="warning")
    assert line is not None
    with web.follow(job_id, secret) as listener:
        listener.wait(lambda it: it.numbers)
    (event,) = [event for event in listener.events if event.name == "log"]
    assert event.data == {"number": 1, "at": events.rfc3339(line.at), "level": "warning", "text": "Slow."}


def test_the_answer_is_not_to_be_kept_back_by_anybody(web: Web, member: Any, secret: str) -> None:
    with web.follow(make_job(member), secret) as listener:
        headers = listener.response.headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-cache"
    assert headers["X-Accel-Buffering"] == "no"


def test_the_state_comes_first(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=1)
    with web.follow(job_id, secret) as listener:
        listener.wait(lambda it: it.numbers)
    assert [event.name for event in listener.events[:3]] == ["progress", "status", "log"]


def test_text_that_would_break_frames(web: Web, member: Any, secret: str) -> None:
    texts = [
        "two\nlines",
        "a\r\nb\rc",
        "sep\u2028and\u2029and\x85and\x0b",
        "data: x\n\nevent: status\ndata: {}",
        "<script>alert(1)</script>",
        "żółć 漢字 🎉",
        "",
        "x" * 10_000,
    ]
    job_id = make_job(member)
    for text in texts[:4]:
        events.append(job_id, member.id, text)
    with web.follow(job_id, secret) as listener:
        listener.wait(lambda it: len(it.numbers) == 4)
        for text in texts[4:]:
            events.append(job_id, member.id, text)
        listener.wait(lambda it: len(it.numbers) == len(texts))
    assert listener.texts == texts


def test_coming_back_at_every_number(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=8)
    finish(job_id)
    for after in range(10):
        with web.follow(job_id, secret, after) as listener:
            listener.wait_end()
        assert listener.numbers == list(range(after + 1, 11))
        assert listener.statuses == ["succeeded"]
        assert listener.events[-1].name == "status"


def test_who_has_all_of_a_finished_job_need_not_come_again(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=1)
    finish(job_id)
    with web.follow(job_id, secret, after=3) as listener:
        listener.wait_end()
    assert listener.status == 204
    assert listener.events == []
    with web.listen(f"/jobs/{job_id}/events?after=3", secret) as listener:
        assert listener.status == 204


def test_the_header_counts_more_than_the_address(web: Web, member: Any, secret: str) -> None:
    """A browser that comes back asks the same address again, with the header."""
    job_id = make_job(member, lines=5)
    with web.listen(f"/jobs/{job_id}/events?after=1", secret) as listener:
        listener.wait(lambda it: len(it.numbers) == 4)
    assert listener.numbers == [2, 3, 4, 5]
    with web.listen(f"/jobs/{job_id}/events?after=1", secret, Last_Event_ID="4") as listener:
        listener.wait(lambda it: it.numbers)
    assert listener.numbers == [5]


@pytest.mark.parametrize("garbage", ["x", "-1", "1.5", "9" * 30, "７", "99", "1; DROP TABLE events"])
def test_a_senseless_position_is_the_start(web: Web, member: Any, secret: str, garbage: str) -> None:
    job_id = make_job(member, lines=2)
    finish(job_id)
    status, body = web.ask(f"/jobs/{job_id}/events", bearer(secret) | {"Last-Event-ID": garbage})
    assert status == 200
    assert [f"id: {number}\n".encode() in body for number in (1, 2, 3, 4, 5)] == [True] * 4 + [False]


def test_ten_thousand_lines(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member)
    with db.engine.begin() as conn:
        conn.exec_driver_sql(
            "INSERT INTO events (job_id, number, level, text) "
            "SELECT %s, n, 'info', 'line ' || n FROM generate_series(1, 10000) n",
            (job_id,),
        )
        conn.exec_driver_sql("UPDATE jobs SET last_event = 10000 WHERE id = %s", (job_id,))
    with web.follow(job_id, secret) as listener:
        listener.wait(lambda it: len(it.numbers) >= 10_000)
        events.append(job_id, member.id, "one more")
        listener.wait(lambda it: len(it.numbers) == 10_001)
    assert listener.numbers == list(range(1, 10_002))


def test_lines_for_those_who_cannot_hold_a_stream(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=3)
    status, body = web.ask(f"/api/v1/jobs/{job_id}/log?after=1", bearer(secret))
    assert status == 200
    assert [item["number"] for item in json.loads(body)["items"]] == [2, 3]


# --- once and in order ----------------------------------------------------------------------------------


def test_ten_write_at_once(web: Web, app: APIFlask, member: Any, secret: str) -> None:
    """Every watcher gets each line once and in order."""
    job_id = make_job(member)

    def write(writer: int) -> None:
        with app.app_context():
            for number in range(30):
                events.append(job_id, member.id, f"{writer}: {number}")

    with web.follow(job_id, secret) as early:
        writers = [threading.Thread(target=write, args=(writer,)) for writer in range(10)]
        for thread in writers:
            thread.start()
        with web.follow(job_id, secret) as amid:
            for thread in writers:
                thread.join()
            for listener in (early, amid):
                listener.wait(lambda it: len(it.numbers) >= 300)
    for listener in (early, amid):
        assert listener.numbers == list(range(1, 301))
        for writer in range(10):
            mine = [text for text in listener.texts if text.startswith(f"{writer}: ")]
            assert mine == [f"{writer}: {number}" for number in range(30)]


def test_a_message_that_redis_lost_is_read_from_the_database(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=1)
    with web.follow(job_id, secret) as listener:
        listener.wait(lambda it: it.numbers == [1])
        unpublished(job_id, "lost")
        events.append(job_id, member.id, "heard")
        listener.wait(lambda it: len(it.numbers) == 3)
        assert listener.texts == ["line 1", "lost", "heard"]
        unpublished(job_id, "lost, and nothing after it")
        listener.wait(lambda it: len(it.numbers) == 4)
    assert listener.numbers == [1, 2, 3, 4]


def test_an_end_that_redis_lost(web: Web, member: Any, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = make_job(member, lines=1)
    with web.follow(job_id, secret) as listener:
        listener.wait(lambda it: it.numbers == [1])
        with monkeypatch.context() as patch:
            patch.setattr(events, "publish", lambda *_: None)
            finish(job_id, lines=3)
        listener.wait_end()
    assert listener.numbers == [1, 2, 3, 4, 5, 6]
    assert listener.statuses[-1] == "succeeded"


def test_the_status_never_overtakes_the_lines(web: Web, member: Any, secret: str) -> None:
    """A status is heard before the lines it follows: they are all sent before it."""
    job_id = make_job(member, lines=1)
    with web.follow(job_id, secret) as listener:
        listener.wait(lambda it: it.numbers == [1])
        lease = leases.claim(job_id)
        assert lease is not None
        with db.engine.begin() as conn:
            for number in range(500):
                events.write(conn, job_id, f"quiet {number}")
        lease.succeed("Done.", lambda conn: None)
        listener.wait_end()
    assert listener.numbers == list(range(1, 504))
    assert listener.events[-1].data == {"status": "succeeded"}


def test_messages_that_are_not_ours_do_no_harm(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=1)
    channel = events.channel(member.id, job_id)
    with web.follow(job_id, secret) as listener:
        listener.wait(lambda it: it.numbers == [1])
        for rubbish in (b"\xff", b"[]", b"{}", b'{"event":"log"}', b'{"event":"log","number":"x"}', b"null"):
            redis_client().publish(channel, rubbish)
        redis_client().publish("waybill:events:not:a:job", "{}")
        redis_client().publish("waybill:events:\xff", "{}")
        events.append(job_id, member.id, "still here")
        listener.wait(lambda it: it.texts == ["line 1", "still here"])


def test_without_redis(web: Web, services: Services, member: Any, secret: str) -> None:
    """Lines come from the database meanwhile."""
    job_id = make_job(member, lines=1)
    with web.follow(job_id, secret) as before:
        before.wait(lambda it: it.numbers == [1])
        services.valkey.stop()
        try:
            events.append(job_id, member.id, "in the dark")
            before.wait(lambda it: it.numbers == [1, 2])
            with web.follow(job_id, secret) as amid:
                amid.wait(lambda it: it.numbers == [1, 2])
                events.append(job_id, member.id, "still dark")
                for listener in (before, amid):
                    listener.wait(lambda it: it.numbers == [1, 2, 3])
                services.valkey.start()
                events.append(job_id, member.id, "light again")
                finish(job_id)
                for listener in (before, amid):
                    listener.wait_end()
                    assert listener.numbers == [1, 2, 3, 4, 5, 6]
                    assert listener.statuses[-1] == "succeeded"
        finally:
            if not services.valkey.alive:
                services.valkey.start()


def test_a_flushed_redis_changes_nothing(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=1)
    with web.follow(job_id, secret) as listener:
        redis_client().flushall()
        redis_client().client_kill_filter(_type="pubsub")
        events.append(job_id, member.id, "after the flood")
        listener.wait(lambda it: it.numbers == [1, 2])


def test_a_job_that_was_deleted_ends_its_streams(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=1)
    with web.follow(job_id, secret) as listener:
        listener.wait(lambda it: it.numbers == [1])
        db.session.execute(db.delete(Job).where(Job.id == job_id))
        db.session.commit()
        listener.wait_end()
    assert listener.ended == "end"


# --- who may look on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/jobs/{}/events", "/api/v1/jobs/{}/events", "/api/v1/jobs/{}/log"])
def test_whose_jobs(web: Web, member: Any, other: Any, admin: Any, path: str) -> None:
    job_id = make_job(member, lines=1)
    finish(job_id)
    for user, status in ((member, 200), (admin, 200), (other, 404)):
        with web.listen(path.format(job_id), token(user)) as listener:
            assert listener.status == status
    assert web.ask(path.format(uuid4()), bearer(token(member)))[0] == 404
    # Not a redirect to the sign-in page: an EventSource would read that.
    assert web.ask(path.format(job_id), {"Accept": "text/event-stream"})[0] == 401
    assert web.ask(path.format(job_id), bearer("wb_wrong") | {"Accept": "text/event-stream"})[0] == 401


def test_signing_out_ends_the_stream(web: Web, auth: Auth, member: Any) -> None:
    client = auth.client_of(member)
    cookies = [client.get_cookie("waybill")]
    with Listener(
        f"{web.url}/jobs/{make_job(member, lines=1)}/events",
        {"Cookie": "; ".join(f"{cookie.key}={cookie.value}" for cookie in cookies if cookie)},
    ) as listener:
        listener.wait(lambda it: it.numbers == [1])
        listener.wait(lambda it: it.comments >= 2)
        auth.sign_out(client)
        listener.wait_end()
    assert listener.ended == "end"


def revoke(user: Any) -> None:
    db.session.execute(db.update(ApiToken).values(revoked_at=db.func.now()))


def expire(user: Any) -> None:
    db.session.execute(db.update(ApiToken).values(expires_at=db.func.now()))


def deactivate(user: Any) -> None:
    db.session.execute(db.update(type(user)).where(type(user).id == user.id).values(active=False))


@pytest.mark.parametrize("verb", [revoke, expire, deactivate])
def test_a_stream_ends_with_what_let_it_in(
    web: Web, member: Any, secret: str, verb: Callable[[Any], None]
) -> None:
    with web.follow(make_job(member, lines=1), secret) as listener:
        listener.wait(lambda it: it.comments >= 1)
        verb(member)
        db.session.commit()
        listener.wait_end()
    assert listener.ended == "end"


def test_an_administrator_no_more(web: Web, member: Any, admin: Any) -> None:
    with web.follow(make_job(member, lines=1), token(admin)) as listener:
        listener.wait(lambda it: it.comments >= 1)
        db.session.execute(db.text("DELETE FROM roles_users WHERE user_id = :id"), {"id": admin.id})
        db.session.commit()
        listener.wait_end()


def test_a_sign_in_that_ran_out(web: Web, auth: Auth, member: Any) -> None:
    cookie = auth.client_of(member).get_cookie("waybill")
    assert cookie is not None
    headers = {"Cookie": f"waybill={cookie.value}"}
    with Listener(f"{web.url}/jobs/events", headers) as listener:
        listener.wait(lambda it: it.comments >= 1)
        db.session.execute(db.update(SignIn).values(expires_at=db.func.now()))
        db.session.commit()
        listener.wait_end()


# --- lists ----------------------------------------------------------------------------------------------


def test_a_list_tells_of_my_jobs(web: Web, member: Any, other: Any, secret: str) -> None:
    job_id = make_job(member, lines=1)
    with web.listen("/jobs/events", secret) as listener:
        listener.wait(lambda it: it.events)
        assert listener.events[0].name == "job"
        assert listener.events[0].data == {
            "id": str(job_id),
            "status": "queued",
            "progress": {"done": 0, "total": None, "unit": "rows"},
        }
        theirs = make_job(other, lines=1)
        finish(theirs)
        lease = leases.claim(job_id)
        assert lease is not None
        lease.progress(5, 10)
        listener.wait(lambda it: any(event.data["progress"]["done"] == 5 for event in it.events))
        lease.succeed("Done.", lambda conn: None)
        listener.wait(lambda it: it.events[-1].data["status"] == "succeeded")
        late = make_job(member)
        events.publish_status(late, member.id, "queued")
        listener.wait(lambda it: it.events[-1].data["id"] == str(late))
    assert {event.data["id"] for event in listener.events} == {str(job_id), str(late)}


def test_everybodys_list_is_for_administrators(web: Web, member: Any, other: Any, admin: Any) -> None:
    mine, theirs = make_job(member, lines=1), make_job(other, lines=1)
    with web.listen("/jobs/events?everyone=1", token(member)) as listener:
        listener.wait(lambda it: it.comments)
        assert {event.data["id"] for event in listener.events} == {str(mine)}
    with web.listen("/jobs/events?everyone=1", token(admin)) as listener:
        finish(theirs)
        listener.wait(lambda it: "succeeded" in {event.data["status"] for event in it.events})
        assert {event.data["id"] for event in listener.events} == {str(mine), str(theirs)}


# --- trouble --------------------------------------------------------------------------------------------


def test_who_reads_nothing_is_cut_off(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=1)
    with socket.create_connection(("127.0.0.1", web.port)) as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.sendall(request(job_id, secret))
        assert idle.recv(15) == b"HTTP/1.1 200 OK"
        with web.follow(job_id, secret) as reader:
            # More than the sockets' buffers take, and a thousand frames besides.
            for _ in range(3):
                with db.engine.begin() as conn:
                    for _ in range(200):
                        events.write(conn, job_id, "x" * 10_000)
                events.append(job_id, member.id, "look")
                wanted = len(reader.numbers) + 201
                reader.wait(lambda it: len(it.numbers) >= wanted)  # noqa: B023
            for part in range(0, 1200, 200):
                for done in range(part, part + 200):
                    events.publish_progress(job_id, member.id, done + 1, None, "rows")
                last = {"done": part + 200, "total": None, "unit": "rows"}
                reader.wait(lambda it: it.events[-1].data == last)  # noqa: B023
            assert reader.numbers == list(range(1, 605))
            until(lambda: not writers(web, idle))


def test_a_client_that_is_gone_is_forgotten(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=1)
    before = connections(web)
    for _ in range(5):
        with web.follow(job_id, secret) as listener:
            listener.wait(lambda it: it.numbers)
    until(lambda: connections(web) <= before)


def test_streams_hold_no_database_connection(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=1)
    listeners = [web.follow(job_id, secret).__enter__() for _ in range(60)]
    for listener in listeners:
        listener.wait(lambda it: it.numbers == [1])
    events.append(job_id, member.id, "for all")
    for listener in listeners:
        listener.wait(lambda it: it.numbers == [1, 2])
    db.session.remove()

    def idle() -> int:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND state LIKE 'idle in transaction%%'"
        )
        with db.engine.connect() as conn:
            return int(conn.exec_driver_sql(query).scalar_one())

    # Not for longer than a request or a look for new lines takes.
    until(lambda: not idle())
    for listener in listeners:
        listener.__exit__()


def test_killed_database_connections(web: Web, services: Services, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=1)
    with web.follow(job_id, secret) as listener:
        listener.wait(lambda it: it.numbers == [1])
        db.session.remove()
        with psycopg.connect(services.postgres.database_url("postgres"), autocommit=True) as conn:
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tests'")
        events.append(job_id, member.id, "goes on")
        unpublished(job_id, "so does asking")
        listener.wait(lambda it: len(it.numbers) == 3 or it.ended)
        assert listener.ended is None


def test_stopping_the_web_process_ends_streams_cleanly(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=1)
    listeners = [web.follow(job_id, secret).__enter__() for _ in range(30)]
    for listener in listeners:
        listener.wait(lambda it: it.numbers == [1])
    with socket.create_connection(("127.0.0.1", web.port)) as stuck:
        stuck.sendall(request(job_id, secret))
        os.kill(web.child.pid, signal.SIGTERM)
        for listener in listeners:
            listener.wait_end()
            assert listener.ended == "end"
        until(lambda: not web.child.alive)
    assert web.child.exit_status == 0
    # It waited for nobody: gunicorn cut nothing off at the end of its patience.
    assert "graceful timeout" not in web.child.tail(100)
    web.start()
    events.append(job_id, member.id, "while nobody listened")
    with web.follow(job_id, secret, after=1) as listener:
        listener.wait(lambda it: it.numbers == [2])
    for listener in listeners:
        listener.__exit__()


def test_a_killed_web_process_loses_no_line(web: Web, member: Any, secret: str) -> None:
    job_id = make_job(member, lines=3)
    with web.follow(job_id, secret) as listener:
        listener.wait(lambda it: it.numbers == [1, 2, 3])
        web.child.kill()
        listener.wait_end()
    finish(job_id)
    web.start()
    with web.follow(job_id, secret, after=listener.numbers[-1]) as again:
        again.wait_end()
    assert listener.numbers + again.numbers == [1, 2, 3, 4, 5]


def unpublished(job_id: UUID, text: str) -> None:
    """A line of which Redis never heard."""
    with db.engine.begin() as conn:
        assert events.write(conn, job_id, text)


def request(job_id: UUID, secret: str) -> bytes:
    head = f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n\r\n"
    return head.encode()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def connections(web: Web) -> int:
    """Open connections to the web process, as the kernel counts them."""
    return sum(1 for local, _ in _established() if local == web.port)


def writers(web: Web, client: socket.socket) -> bool:
    """Whether the web process still has the other end of this connection."""
    return (web.port, client.getsockname()[1]) in _established()


def _established() -> list[tuple[int, int]]:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [(int(row[1].split(":")[1], 16), int(row[2].split(":")[1], 16)) for row in rows if row[3] == "01"]
