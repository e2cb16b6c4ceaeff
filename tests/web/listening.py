"""A client of event streams that reads bytes off a socket, as strictly as the standard says."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from tests.waiting import PATIENCE


@dataclass
class Event:
    name: str
    id: str | None
    data: Any


@dataclass
class Listener:
    """Opens `url` and reads until the server ends the stream; `events` grows meanwhile."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    comments: int = 0
    retry: int | None = None
    status: int = 0
    # None while it is open; "end": as HTTP ends a body; else the error.
    ended: str | None = None

    def __enter__(self) -> Self:
        parts = urlsplit(self.url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        self.connection.request("GET", target, headers={"Accept": "text/event-stream", **self.headers})
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.ended is None and self.connection.sock is not None:
            with suppress(OSError):  # it ended this moment
                self.connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self.response.close()
        self.connection.close()

    def wait(self, condition: Callable[[Self], object], seconds: float = PATIENCE) -> Self:
        deadline = time.monotonic() + seconds
        while not condition(self):
            assert time.monotonic() < deadline, f"in vain; ended: {self.ended}, events: {self.events[-5:]}"
            time.sleep(0.01)
        return self

    def wait_end(self) -> Self:
        return self.wait(lambda self: self.ended is not None)

    @property
    def numbers(self) -> list[int]:
        return [event.data["number"] for event in self.events if event.name == "log"]

    @property
    def texts(self) -> list[str]:
        return [event.data["text"] for event in self.events if event.name == "log"]

    @property
    def statuses(self) -> list[str]:
        return [event.data["status"] for event in self.events if event.name == "status"]

    def _read(self) -> None:
        try:
            block: list[bytes] = []
            while line := self.response.readline():
                assert line.endswith(b"\n"), f"cut off in the middle: {line!r}"
                assert b"\r" not in line
                if line != b"\n":
                    block.append(line[:-1])
                else:
                    self._take(block)
                    block = []
            assert not block, f"cut off in the middle: {block!r}"
            self.ended = "end"
        except Exception as error:
            self.ended = repr(error)

    def _take(self, block: list[bytes]) -> None:
        fields: dict[str, str] = {}
        for line in block:
            name, _, value = line.decode("ascii").partition(":")
            assert name in ("", "event", "id", "data", "retry"), line
            assert name not in fields
            fields[name] = value.removeprefix(" ")
        self.comments += "" in fields
        self.retry = int(fields["retry"]) if "retry" in fields else self.retry
        if "data" in fields:
            self.events.append(Event(fields["event"], fields.get("id"), json.loads(fields["data"])))
