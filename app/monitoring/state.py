"""The state of an installation at one moment: plain values, as queries.py finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

# A worker that was not seen for so long is silent (three of its beats), and after this long forgotten.
SILENCE, FORGOTTEN = timedelta(seconds=15), timedelta(minutes=10)


@dataclass(frozen=True)
class Queue:
    """What waits on a queue, what of it is at work, and who listens."""

    name: str
    # By size, "small" and "large": due and waiting; at work.
    due: Mapping[str, int] = field(default_factory=dict)
    running: Mapping[str, int] = field(default_factory=dict)
    # Queued, but for later: to be tried again, paused, or waiting for another job's file.
    later: int = 0
    # Mails that nobody has tried to send yet; all are on one queue.
    mails: int = 0
    # Of what is due, in seconds.
    longest_wait: float = 0.0
    workers: int = 0
    threads: int = 0

    @property
    def waiting(self) -> int:
        return sum(self.due.values()) + self.mails

    @property
    def at_work(self) -> int:
        return sum(self.running.values())


@dataclass(frozen=True)
class WorkerState:
    id: str
    queues: Sequence[str]
    threads: int
    started_at: datetime
    # Jobs that it holds.
    jobs: int
    # Seconds since its last sign of life.
    silent_for: float

    @property
    def silent(self) -> bool:
        return self.silent_for > SILENCE.total_seconds()


@dataclass(frozen=True)
class Overdue:
    """Jobs at work whose lease ran out, and since how many seconds the longest."""

    jobs: int = 0
    longest: float = 0.0


@dataclass(frozen=True)
class Ended:
    """Jobs of one definition that ended one way within the last day."""

    kind: str
    definition: str
    status: str
    jobs: int


@dataclass(frozen=True)
class Failures:
    """Jobs of one definition that failed for one reason within the last day."""

    kind: str
    definition: str
    title: str
    code: str
    jobs: int
    # Of these, within the last hour.
    recent: int
    last_at: datetime
    # The latest of them, and why it failed.
    job_id: UUID
    message: str


@dataclass(frozen=True)
class Mails:
    """Mails that did not go out. Those that would say what is no longer true are none of them."""

    # Tried, and to be tried again; since how many seconds the longest.
    late: int = 0
    longest_late: float = 0.0
    late_reason: str = ""
    # Within the last day.
    given_up: int = 0
    given_up_reason: str = ""
    # The job of the last one that was given up.
    given_up_job: UUID | None = None


@dataclass(frozen=True)
class Stopped:
    """Imports that failed in the middle and can be gone on with; the latest one's job."""

    imports: int = 0
    job_id: UUID | None = None
    title: str = ""


@dataclass(frozen=True)
class Kept:
    """What the storage keeps; a file that several jobs share counts once."""

    artifacts: int = 0
    artifact_bytes: int = 0
    uploads: int = 0
    upload_bytes: int = 0


@dataclass(frozen=True)
class ClockState:
    """Seconds since the last pass of any clock over what people wait for, and over the rest; None: never."""

    silent_for: float | None = None
    slow_silent_for: float | None = None
    # What fails in the last passes of the living -> why.
    failing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """All of it, at one moment of the database's clock."""

    at: datetime
    queues: Sequence[Queue]
    workers: Sequence[WorkerState]
    overdue: Overdue = Overdue()
    ended: Sequence[Ended] = ()
    failures: Sequence[Failures] = ()
    mails: Mails = Mails()
    stopped: Stopped = Stopped()
    kept: Kept = Kept()
    clock: ClockState = ClockState()
    redis: bool = True
