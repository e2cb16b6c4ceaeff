"""Feeds all open streams of this web process from one Redis subscription.

Two threads, started by the first stream. One hears what Redis says and passes it on. The other asks the
database about all that is in doubt: a gap between two lines, a status that changed, whatever was missed
before listening began and, while nothing is heard, every watched job once a second. It also goes round all
streams once in `beat` seconds, a slot of them at a time: it asks in one go whether those may still look on,
sends them a heartbeat, and doubts their jobs, as a message may get lost.

Each message becomes bytes once, whoever wants it. A stream that leaves `LIMIT` frames unread is closed; its
client comes back and reads on from the database.
"""

from __future__ import annotations

import json
import logging
import queue
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from uuid import UUID

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from app import events
from app.events import Line, State
from app.web import passes, sse
from app.web.passes import Pass
from app.web.sse import Frame
from app.web.subscription import Subscription

log = logging.getLogger(__name__)

# Frames left unread after which a stream is too slow.
LIMIT = 1000
SLOTS = 15
# Between two questions to the database, however much there is to ask. Seconds.
BREATH = 0.05
# How long a closed stream may take to end before its connection is cut. Seconds.
FAREWELL = 0.5
# So many jobs in lists are remembered, so that they are told of changes only.
REMEMBERED = 10_000
# So many streams are woken in a row; then pages and new streams have a turn.
WOKEN = 100


class Stream:
    """One open stream's end: the frames that wait to be sent. `job_id` None: a list of jobs."""

    __slots__ = ("_connection", "_frames", "admission", "closed", "job_id", "slot")

    def __init__(self, job_id: UUID | None, admission: Pass, connection: socket.socket | None) -> None:
        self.job_id, self.admission = job_id, admission
        self.slot = 0
        self.closed = False
        self._connection = connection
        # Looked up now, as gevent puts its own in the place of the standard library's.
        self._frames: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()

    def put(self, frame: Frame) -> bool:
        """False if too much is unread already."""
        if self._frames.qsize() >= LIMIT:
            return False
        self._frames.put(frame)
        return True

    def take(self) -> Frame | None:
        """The next frame, waiting for it; None once the stream is closed, whatever was left unread."""
        frame = self._frames.get()
        return None if self.closed else frame

    def close(self) -> None:
        self.closed = True
        self._frames.put(None)

    def cut(self) -> None:
        """End the connection, under a writer whose client reads nothing."""
        if self._connection is not None:
            with suppress(OSError):  # it has ended by itself
                self._connection.shutdown(socket.SHUT_RDWR)


class Watched:
    """A job with open streams, the last line they were sent and the state they were told."""

    __slots__ = ("line", "state", "streams")

    def __init__(self) -> None:
        self.streams: set[Stream] = set()
        self.line: int | None = None
        self.state: State | None = None


class Hub:
    """`beat` is in seconds: how often a stream is asked for its pass again and gets a heartbeat."""

    def __init__(self, app: Flask, redis_url: str, *, beat: float = 15.0) -> None:
        self._app = app
        self._subscription = Subscription(redis_url, self._begin, self._hear)
        self._tick = beat / SLOTS
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._started = self._closed = False
        self._jobs: defaultdict[UUID, Watched] = defaultdict(Watched)
        # Streams of lists, by whose jobs they show; None: everybody's.
        self._lists: defaultdict[int | None, set[Stream]] = defaultdict(set)
        self._listed: dict[UUID, State] = {}
        self._slots: list[set[Stream]] = [set() for _ in range(SLOTS)]
        # Closed, but not ended: since when.
        self._leaving: dict[Stream, float] = {}
        self._doubted_jobs: set[UUID] = set()
        self._doubted_lists: set[int | None] = set()

    # What streams call.

    def enter(self, admission: Pass, job_id: UUID | None, connection: socket.socket | None = None) -> Stream:
        """Open a stream of a job or, with None, of the list of jobs that the pass speaks of; then `leave`."""
        stream = Stream(job_id, admission, connection)
        with self._lock:
            if self._closed:
                stream.close()
                return stream
            self._start()
            stream.slot = min(range(SLOTS), key=lambda slot: len(self._slots[slot]))
            self._slots[stream.slot].add(stream)
            self._audience(stream).add(stream)
        return stream

    def leave(self, stream: Stream) -> None:
        """The stream has ended."""
        with self._lock:
            self._forget(stream)
            self._leaving.pop(stream, None)

    def close(self) -> None:
        """End all streams, and those that come later at once: the web process is stopping."""
        with self._lock:
            self._closed = True
            self._expel([stream for slot in self._slots for stream in slot])
        self._subscription.end()
        self._wake.set()

    def __len__(self) -> int:
        """How many streams are open."""
        with self._lock:
            return sum(map(len, self._slots))

    def _start(self) -> None:
        if not self._started:
            self._started = True
            for name, work in (("hub-listen", self._subscription.run), ("hub-keep", self._keep)):
                threading.Thread(target=work, name=name, daemon=True).start()

    # The thread that listens.

    def _begin(self) -> None:
        with self._lock:
            self._doubt_all()
        self._wake.set()

    def _hear(self, channel: str, data: bytes) -> None:
        try:
            owner_id, job_id = events.read_channel(channel)
        except ValueError:
            log.warning("Redis sent a message about no job (%r); it was ignored.", channel)
            return
        with self._lock:
            job = self._jobs.get(job_id)
            listed = owner_id in self._lists or None in self._lists
        if job is not None or listed:
            try:
                certain = self._pass_on(json.loads(data), job) and not listed
            except (ValueError, KeyError, TypeError) as error:
                log.warning("Redis sent a message about job %s that is not Waybill's (%r).", job_id, error)
                certain = False
            if not certain:
                self._doubt(job_id)

    def _pass_on(self, message: dict[str, Any], job: Watched | None) -> bool:
        """False if the database must be asked: a line is missing before this one, or the status changed."""
        kind = message["event"]
        if kind == "status":
            return False
        if job is None:
            return True
        frame = sse.log_frame(message) if kind == "log" else sse.progress_frame(message)
        with self._lock:
            if frame.line is not None and job.line is not None and frame.line != job.line + 1:
                return frame.line <= job.line
            job.line = frame.line or job.line
            self._send(job.streams, frame)
        return True

    def _doubt(self, job_id: UUID) -> None:
        with self._lock:
            self._doubted_jobs.add(job_id)
        self._wake.set()

    # The thread that keeps watch.

    def _keep(self) -> None:
        slot, due = 0, time.monotonic() + self._tick
        with self._app.app_context():
            while not self._closed or self._leaving:
                self._wake.wait(max(due - time.monotonic(), 0))
                self._wake.clear()
                try:
                    if time.monotonic() >= due:
                        slot, due = (slot + 1) % SLOTS, max(due + self._tick, time.monotonic())
                        self._go_round(slot)
                    self._settle_doubts()
                except Exception:
                    # Without this thread no stream would be asked for its pass any more.
                    log.exception("A round of the open streams failed; the next one goes on.")
                time.sleep(BREATH)

    def _go_round(self, slot: int) -> None:
        with self._lock:
            self._cut_leaving()
            present = list(self._slots[slot])
            if not self._subscription.alive:
                self._doubt_all()
            self._doubted_jobs.update(stream.job_id for stream in present if stream.job_id)
            self._doubted_lists.update(stream.admission.owner_id for stream in present if not stream.job_id)
        good = _still_good({stream.admission for stream in present})
        with self._lock:
            present = [stream for stream in present if not stream.closed]
            self._expel([stream for stream in present if stream.admission not in good])
            self._send([stream for stream in present if stream.admission in good], sse.HEARTBEAT)

    def _settle_doubts(self) -> None:
        """Ask the database about all that is in doubt, and tell the streams."""
        with self._lock:
            job_ids, self._doubted_jobs = self._doubted_jobs, set()
            owners, self._doubted_lists = self._doubted_lists & self._lists.keys(), set()
        try:
            states = self._tell_jobs(job_ids) if job_ids else {}
            if owners:
                states |= events.recent(None if None in owners else [owner for owner in owners if owner])
        except SQLAlchemyError as error:
            log.warning("The database does not answer (%s); streams wait for it.", error)
            with self._lock:
                self._doubted_jobs |= job_ids
                self._doubted_lists |= owners
        else:
            self._tell_lists(states)

    def _tell_jobs(self, job_ids: set[UUID]) -> dict[UUID, State]:
        states = events.states(job_ids)
        with self._lock:
            behind = {job_id: sent for job_id in states if (sent := self._behind(states[job_id])) is not None}
        lines = events.unseen(behind) if behind else []
        with self._lock:
            for job_id, line in lines:
                self._tell_line(job_id, line)
            for job_id in job_ids & self._jobs.keys():
                self._tell_state(job_id, states.get(job_id))
        return states

    def _behind(self, state: State) -> int | None:
        """The last line that the job's streams were sent, if it is not the job's last."""
        job = self._jobs.get(state.job_id)
        if job is None:
            return None
        if job.line is None:
            # Nothing was sent yet. A stream that lacks one of these lines sees it by the state.
            job.line = state.last_event
        return job.line if job.line < state.last_event else None

    def _tell_line(self, job_id: UUID, line: Line) -> None:
        job = self._jobs.get(job_id)
        if job is not None and job.line is not None and line.number == job.line + 1:
            job.line = line.number
            self._send(job.streams, sse.log_frame(line.as_json()))

    def _tell_state(self, job_id: UUID, state: State | None) -> None:
        job = self._jobs[job_id]
        if state is None:
            self._expel(job.streams)  # the job was deleted
        elif job.line is None or job.line < state.last_event:
            # There were more lines than one question brings, or the first stream came just now: ask again.
            self._doubted_jobs.add(job_id)
            self._wake.set()
        elif job.state is None or not job.state.looks_like(state):
            job.state = state
            self._send(job.streams, sse.state_frame(state))

    def _tell_lists(self, states: dict[UUID, State]) -> None:
        with self._lock:
            if len(self._listed) > REMEMBERED or not self._lists:
                self._listed.clear()
            for state in states.values():
                audience = self._lists.get(state.owner_id, set()) | self._lists.get(None, set())
                known = self._listed.get(state.job_id)
                if audience and (known is None or not known.looks_like(state)):
                    self._listed[state.job_id] = state
                    self._send(audience, sse.job_frame(state))

    # While the lock is held.

    def _doubt_all(self) -> None:
        self._doubted_jobs.update(self._jobs)
        self._doubted_lists.update(self._lists)

    def _send(self, streams: Iterable[Stream], frame: Frame) -> None:
        slow = []
        for number, stream in enumerate(streams, start=1):
            if not stream.put(frame):
                slow.append(stream)
            if number % WOKEN == 0:
                time.sleep(0)
        self._expel(slow)

    def _expel(self, streams: Iterable[Stream]) -> None:
        for stream in list(streams):
            self._forget(stream)
            self._leaving[stream] = time.monotonic()
            stream.close()

    def _cut_leaving(self) -> None:
        for stream, since in list(self._leaving.items()):
            if time.monotonic() - since > FAREWELL:
                del self._leaving[stream]
                stream.cut()

    def _audience(self, stream: Stream) -> set[Stream]:
        if stream.job_id is None:
            return self._lists[stream.admission.owner_id]
        return self._jobs[stream.job_id].streams

    def _forget(self, stream: Stream) -> None:
        self._slots[stream.slot].discard(stream)
        audience = self._audience(stream)
        audience.discard(stream)
        if not audience and stream.job_id is None:
            del self._lists[stream.admission.owner_id]
        elif not audience and stream.job_id is not None:
            del self._jobs[stream.job_id]


def _still_good(admissions: set[Pass]) -> frozenset[Pass]:
    """Without an answer nobody's is: the streams are closed, come back and are asked at the door."""
    try:
        return passes.still_good(admissions) if admissions else frozenset()
    except SQLAlchemyError as error:
        log.warning("Streams are closed, as the database does not say who may look on (%s).", error)
        return frozenset()
