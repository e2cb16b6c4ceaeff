"""How things are said in a `text/event-stream`. Pure.

Data is JSON in ASCII: no character of a log line, not even a newline or U+2028, can break a frame.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from app.events import State
from app.models.job import FINAL


class Frame(NamedTuple):
    """Bytes as they go to every stream that wants them.

    `line` is the number of the log line they carry; `upto` the number of the job's last line when the
    state they carry was read; `final` says that nothing comes after.
    """

    data: bytes
    line: int | None = None
    upto: int | None = None
    final: bool = False


# A comment: it keeps proxies from closing an idle connection, and finds out who is gone.
HEARTBEAT = Frame(b":\n\n")


def log_frame(line: Mapping[str, Any]) -> Frame:
    """`line` as `events.Line.as_json` or a message has it."""
    number = int(line["number"])
    return Frame(event("log", _pick(line, "number", "at", "level", "text"), id=number), line=number)


def progress_frame(progress: Mapping[str, Any]) -> Frame:
    return Frame(event("progress", _pick(progress, "done", "total", "unit")))


def state_frame(state: State) -> Frame:
    """The status comes last, as a final one ends the stream."""
    data = event("progress", state.progress) + event("status", {"status": state.status})
    return Frame(data, upto=state.last_event, final=state.status in FINAL)


def job_frame(state: State) -> Frame:
    """One row of a list of jobs."""
    return Frame(event("job", {"id": str(state.job_id), "status": state.status, "progress": state.progress}))


def event(name: str, data: Mapping[str, Any], *, id: int | None = None) -> bytes:
    head = f"event: {name}\n" if id is None else f"event: {name}\nid: {id}\n"
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode("ascii")


def retry(milliseconds: int) -> bytes:
    """How long a browser waits before it comes back."""
    return b"retry: %d\n\n" % milliseconds


def _pick(source: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: source[name] for name in names}
