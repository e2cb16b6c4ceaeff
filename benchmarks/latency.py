"""From the click to the first line of the log: POST /api/v1/exports, an idle worker, the event stream.

    python -m benchmarks.latency [--clicks 50]

Starts PostgreSQL, Valkey and the Procfile's web and worker processes. The clock runs from before the POST
is sent until two things have arrived over the stream: the line that says the job was asked for, which a
page shows first, and the line that says the worker has begun.
"""

from __future__ import annotations

import argparse
import http.client
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

from benchmarks.stand import percentile, processes, services, show
from benchmarks.streams import Row, prepare

CLICKS = 50
LIMIT = 300.0  # ms
TASKS = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how soon a click shows on the page.")
    parser.add_argument("--clicks", type=int, default=CLICKS)
    measure(parser.parse_args().clicks)


def measure(clicks: int) -> None:
    with ExitStack() as stack:
        environ = stack.enter_context(services())
        _, _, token, _ = prepare(environ)
        load_demo(environ)
        stack.enter_context(processes(environ, "web", "worker"))
        port = int(environ["PORT"])
        # The first jobs find cold caches and a worker that is still starting.
        for _ in range(3):
            click(port, token)
        found = []
        for _ in range(clicks):
            time.sleep(0.3)
            found.append(click(port, token))
    first, begun = zip(*found, strict=True)
    show(
        "From the click to the page",
        [*rows("the first line", first), *rows("the worker's first line", begun)],
    )


def click(port: int, token: str) -> tuple[float, float]:
    """Seconds from the click to the first line, and to the first of the worker's lines."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    begun = time.monotonic()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", "/api/v1/exports", json.dumps({"report": "late_invoices"}), headers)
        response = connection.getresponse()
        job = json.loads(response.read())
        assert response.status == 202, job
        connection.request("GET", f"/jobs/{job['id']}/events", headers=headers)
        times: list[float] = []
        for event, data in parse(connection.getresponse()):
            if event == "log" and (not times or data["text"].startswith("Started")):
                times.append(time.monotonic() - begun)
            if event == "status" and data["status"] in ("succeeded", "failed", "cancelled"):
                assert data["status"] == "succeeded"
                return times[0], times[1]
    raise AssertionError("The stream ended before the job.")


def parse(response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    event = ""
    while line := response.readline():
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            yield event, json.loads(value)


def load_demo(environ: dict[str, str]) -> None:
    from app.dev import demo

    demo.load(environ["DATABASE_URL"], tasks=TASKS)


def rows(what: str, times: Sequence[float]) -> list[Row]:
    return [
        (f"{what}, p50", f"{percentile(times, 50) * 1000:.0f} ms", ""),
        (f"{what}, p95", f"{percentile(times, 95) * 1000:.0f} ms", f"under {LIMIT:.0f} ms"),
    ]


if __name__ == "__main__":
    main()
