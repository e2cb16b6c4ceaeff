"""5,000 open streams on one web process: its memory, how soon a line reaches all, how pages answer meanwhile.

    python -m benchmarks.streams [--streams 5000]

Starts PostgreSQL, Valkey and the Procfile's web process; the clients are a process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID

import psutil
from apiflask import APIFlask

from benchmarks.stand import MB, median, percentile, processes, services, show

STREAMS = 5000
LINES = 20
# Pages asked for per figure, and the pause between two of them in seconds.
ASKED, PAUSE = 200, 0.02
# At most so many connections are opened at a time.
OPENING = 100
MEMORY_LIMIT, LINE_LIMIT, PAGE_LIMIT = 250.0, 1.0, 100.0  # MB, s, ms

Row = tuple[str, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure many open streams on one web process.")
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--client", nargs=3, metavar=("PORT", "PATH", "TOKEN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.client:
        port, path, token = options.client
        asyncio.run(Crowd(options.streams, int(port), path, token).run())
    else:
        measure(options.streams)


def measure(streams: int) -> None:
    with ExitStack() as stack:
        environ = stack.enter_context(services())
        app, job, token, cookie = prepare(environ)
        stood = stack.enter_context(processes(environ, "web"))
        web = psutil.Process(stood["web"].pid)
        port = int(environ["PORT"])
        pages: dict[str, Callable[[], float]] = {
            "/healthz": lambda: answer_time(port, "/healthz", ""),
            "/jobs": lambda: answer_time(port, "/jobs", cookie),
        }
        for ask in pages.values():
            ask()
        empty = memory(web)
        begun = time.monotonic()
        crowd = stack.enter_context(clients(streams, port, f"/jobs/{job[0]}/events", token))
        opened = time.monotonic() - begun
        # Two rounds of heartbeats, so that the idle state is the usual one.
        time.sleep(30)
        full = memory(web)
        rows: list[Row] = [
            ("streams open", f"{streams:,}", ""),
            ("opened in", f"{opened:.1f} s", ""),
            ("memory of the web process", f"{full:.0f} MB", f"under {MEMORY_LIMIT:.0f} MB"),
            ("  a stream", f"{(full - empty) * 1000 / streams:.1f} KB", ""),
        ]
        rows += [page_row(name, ask, "idle") for name, ask in pages.items()]
        times = [reach(app, job, crowd) for _ in range(LINES)]
        rows.append(("a line reaches the last, median", f"{median(times):.2f} s", ""))
        worst = f"a line reaches the last, worst of {LINES}"
        rows.append((worst, f"{max(times):.2f} s", f"under {LINE_LIMIT:.0f} s"))
        with talking(environ, job):
            rows += [page_row(name, ask, "a line a second") for name, ask in pages.items()]
    show("Open streams on one web process", rows)


# --- what is measured -----------------------------------------------------------------------------------


def reach(app: APIFlask, job: tuple[UUID, int], crowd: subprocess.Popen[str]) -> float:
    """Seconds from before a line is written until the last stream has it."""
    from app import events

    time.sleep(0.5)
    begun = time.monotonic()
    with app.app_context():
        line = events.append(*job, "A line for everybody, as long as such lines are.")
    assert line is not None
    assert crowd.stdout is not None
    said = json.loads(crowd.stdout.readline())
    assert said["number"] == line.number, said
    return float(said["at"] - begun)


def page_row(name: str, ask: Callable[[], float], when: str) -> Row:
    times = []
    for _ in range(ASKED):
        times.append(ask())
        time.sleep(PAUSE)
    found = percentile(times, 95) * 1000
    return (f"GET {name}, p95, {when}", f"{found:.0f} ms", f"under {PAGE_LIMIT:.0f} ms")


def answer_time(port: int, path: str, cookie: str) -> float:
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Cookie": cookie})
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 200, (path, response.status)
    return time.monotonic() - begun


def memory(master: psutil.Process) -> float:
    """MB of the worker alone: what it shares with gunicorn's master is divided between them."""
    (worker,) = master.children()
    return float(worker.memory_full_info().pss) / MB


# --- what it stands on ----------------------------------------------------------------------------------


def prepare(environ: dict[str, str]) -> tuple[APIFlask, tuple[UUID, int], str, str]:
    """Migrate; make a person with one job to watch and a page of old ones.

    The app, (job, owner), an API token and a session's cookie.
    """
    from flask_migrate import upgrade

    from app import accounts, create_app
    from app.extensions import db
    from app.models.job import Job
    from app.models.token import ApiToken

    app = create_app(environ)
    with app.app_context():
        upgrade()
        user = accounts.create_user("bench@example.org", "correct horse battery staple")
        made = [
            Job(kind="export", definition="tasks", title="Tasks", owner_id=user.id, status=status)
            for status in ["queued", *["cancelled"] * 50]
        ]
        db.session.add_all(made)
        _, token = ApiToken.create(user, "bench")
        db.session.commit()
        return app, (made[0].id, user.id), token, sign_in(app)


def sign_in(app: APIFlask) -> str:
    """The Cookie header of a browser that signed in by the form."""
    client = app.test_client()
    page = client.get("/sign-in").get_data(as_text=True)
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
    assert token is not None
    form = {"email": "bench@example.org", "password": "correct horse battery staple", "csrf_token": token[1]}
    assert client.post("/sign-in", data=form).status_code == 302
    cookie = client.get_cookie("waybill")
    assert cookie is not None
    return f"waybill={cookie.value}"


@contextmanager
def clients(streams: int, port: int, path: str, token: str) -> Iterator[subprocess.Popen[str]]:
    """All streams open; the process prints a JSON line whenever the last of them got a line."""
    options = [f"--streams={streams}", "--client", str(port), path, token]
    command = [sys.executable, "-m", "benchmarks.streams", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crowd:
        try:
            assert crowd.stdout is not None
            said = json.loads(crowd.stdout.readline())
            assert said == {"open": streams}, said
            yield crowd
        finally:
            crowd.kill()


@contextmanager
def talking(environ: dict[str, str], job: tuple[UUID, int]) -> Iterator[None]:
    """Another process writes a line each second meanwhile."""
    code = (
        "import sys, time; from uuid import UUID; from app import create_app, events\n"
        "with create_app().app_context():\n"
        "    while True: events.append(UUID(sys.argv[1]), int(sys.argv[2]), 'On it goes.'); time.sleep(1)"
    )
    command = [sys.executable, "-c", code, str(job[0]), str(job[1])]
    with subprocess.Popen(command, env=environ) as talker:
        try:
            time.sleep(3)
            yield
        finally:
            talker.kill()


# --- the clients ----------------------------------------------------------------------------------------


class Crowd:
    """Opens all streams, then tells when a line has reached the last of them."""

    def __init__(self, streams: int, port: int, path: str, token: str) -> None:
        self.streams, self.port = streams, port
        self.request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        self.reached: dict[int, int] = {}
        self.opened = 0
        self.places = asyncio.Semaphore(OPENING)

    async def run(self) -> None:
        await asyncio.gather(*(self.open() for _ in range(self.streams)))
        say(open=self.opened)
        await asyncio.Event().wait()

    async def open(self) -> None:
        async with self.places:
            loop = asyncio.get_running_loop()
            _, reader = await loop.create_connection(lambda: Reader(self), "127.0.0.1", self.port)
            await reader.ready.wait()
            self.opened += 1

    def got(self, number: int) -> None:
        self.reached[number] = count = self.reached.get(number, 0) + 1
        if count == self.streams:
            del self.reached[number]
            say(number=number, at=time.monotonic())


class Reader(asyncio.Protocol):
    """One stream. Heartbeats and lines are small: each comes in one piece."""

    LINE = re.compile(rb"\nid: (\d+)\n")

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.ready = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        transport.write(self.crowd.request)

    def data_received(self, data: bytes) -> None:
        if b"event: status" in data:
            self.ready.set()
        for number in self.LINE.findall(data):
            self.crowd.got(int(number))

    def connection_lost(self, error: Exception | None) -> None:
        say(lost=repr(error))


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
