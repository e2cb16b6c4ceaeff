"""What a state means: what is wrong in a sentence, and what to do about it in another. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import shorten
from typing import Literal
from uuid import UUID

from app.monitoring.state import Failures, Queue, State, WorkerState
from app.sweep import STORAGE

Level = Literal["ok", "warning", "critical"]
LEVELS: Sequence[Level] = ("ok", "warning", "critical")
WARNING, CRITICAL = "warning", "critical"

# Each queue, and which process of the Procfile listens to it.
PROCESSES = {"high": "worker", "default": "worker", "low": "bulk"}

# When things are wrong, in seconds. A deploy, in which nobody listens for a while, is nothing.
DEPLOY = 30.0
# What is due should be at work after a few minutes; after an hour nobody counts on it any more.
LONG_WAIT, ENDLESS_WAIT = 300.0, 3600.0
# A clock makes a pass every three seconds and takes over what is overdue.
CLOCK_SILENCE, OVERDUE = 60.0, 60.0
# Its slow passes may list a large storage.
CLEANING_SILENCE = 3600.0
# Of a reason, so many characters are told.
LONGEST_REASON = 200

# Every kind of finding, and the levels it may have; docs/operator.md tells of each.
CODES: dict[str, Sequence[Level]] = {
    "queue_unattended": ("warning", "critical"),
    "queue_slow": ("warning", "critical"),
    "clock_silent": ("critical",),
    "leases_overdue": ("critical",),
    "storage_down": ("critical",),
    "redis_down": ("warning",),
    "sweep_failing": ("warning",),
    "cleaning_silent": ("warning",),
    "jobs_failing": ("warning",),
    "mails_late": ("warning",),
    "mails_given_up": ("warning",),
    "imports_stopped": ("warning",),
    "worker_lost": ("warning",),
}

# Why jobs fail that is not their report's or file's fault, and what to do.
ADVICE = {
    "storage_full": "Make room in the storage, then retry the jobs on their pages.",
    "storage_refused": "Check STORAGE_URL and the rights of its keys or folder, then retry the jobs.",
    "storage_unavailable": "See that the storage answers, then retry the jobs on their pages.",
    "object_missing": "Look who else removes objects from the storage: it must be Waybill's alone.",
    "incomplete_artifact": "Look into the storage's own log: it did not keep what it was given.",
    "source_down": "Ask the sources with `flask reports check`; when they answer, retry the jobs.",
    "database_cut": "Look into PostgreSQL's log for restarts and for connections that it ended.",
    "worker_lost": "Look into the logs of `worker`, `bulk` and the system for processes that were killed.",
    "attempts_used": "Read the log of the last one: it tells what ended each attempt.",
    "internal": "Look into the log of `worker` and `bulk`: the error is there with its traceback.",
}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: what, and what to do."""

    code: str
    level: Level
    what: str
    do: str
    # A job whose page tells more.
    job_id: UUID | None = None


def findings(state: State) -> list[Finding]:
    """The worst first."""
    found = [*_queues(state), *_clock(state), *_overdue(state), *_redis(state), *_failing(state)]
    found += [*_mails(state), *_stopped(state), *_lost(state.workers)]
    return sorted(found, key=lambda finding: -LEVELS.index(finding.level))


def level(found: Iterable[Finding]) -> Level:
    """That of the worst."""
    return max((finding.level for finding in found), key=LEVELS.index, default="ok")


def span(seconds: float) -> str:
    """How long, in the one unit that matters: 754 -> "12 minutes"."""
    for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * length or (unit == "minute" and seconds >= length):
            return counted(int(seconds // length), unit)
    return counted(int(seconds), "second")


def counted(count: int, word: str) -> str:
    """1 job, 1,234 jobs."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def _queues(state: State) -> Iterator[Finding]:
    alone = [queue for queue in state.queues if not queue.threads]
    by_process = sorted(alone, key=lambda queue: PROCESSES.get(queue.name, ""))
    for process, queues in groupby(by_process, key=lambda queue: PROCESSES.get(queue.name, "")):
        yield _unattended(process, list(queues))
    for queue in state.queues:
        if queue.threads and queue.longest_wait >= LONG_WAIT:
            yield _slow(queue)


def _unattended(process: str, queues: Sequence[Queue]) -> Finding:
    names = f"queue{'' if len(queues) == 1 else 's'} {' and '.join(queue.name for queue in queues)}"
    start = f"Start the process `{process}`" if process else "Start a worker with it among its `--queues`"
    longest = max(queue.longest_wait for queue in queues)
    if not any(queue.waiting for queue in queues):
        what = f"Nobody listens to the {names}; nothing waits there yet."
        return Finding("queue_unattended", "warning", what, f"{start}, or what is asked for will wait.")
    level: Level = "critical" if longest >= DEPLOY else "warning"
    what = f"Nobody listens to the {names}: {_waiting(queues)}."
    do = f"{start}. If it runs, look into its log: it does not reach the database, or ends again."
    return Finding("queue_unattended", level, what, do)


def _slow(queue: Queue) -> Finding:
    level: Level = "critical" if queue.longest_wait >= ENDLESS_WAIT else "warning"
    process = PROCESSES.get(queue.name, "worker")
    # One of a worker's threads may be kept free, for small exports.
    busy = queue.at_work >= queue.threads - queue.workers
    what = f"The queue {queue.name} is slow: {_waiting([queue])}. Of {counted(queue.threads, 'thread')} "
    what += f"that may listen there, {queue.at_work:,} {_be(queue.at_work)} at its jobs."
    if busy:
        do = f"Start more of the process `{process}`, or raise its WORKER_THREADS."
    else:
        do = (
            f"Look into the log of the process `{process}`: it is busy elsewhere or hangs. Start another one."
        )
    return Finding("queue_slow", level, what, do)


def _waiting(queues: Sequence[Queue]) -> str:
    """3 jobs wait, the first for 12 minutes."""
    jobs, mails = sum(sum(queue.due.values()) for queue in queues), sum(queue.mails for queue in queues)
    things = [counted(count, word) for count, word in ((jobs, "job"), (mails, "mail")) if count]
    longest = span(max(queue.longest_wait for queue in queues))
    alone = jobs + mails == 1
    return f"{' and '.join(things)} {f'waits for {longest}' if alone else f'wait, the first for {longest}'}"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _clock(state: State) -> Iterator[Finding]:
    clock = state.clock
    if clock.silent_for is None or clock.silent_for >= CLOCK_SILENCE:
        last = (
            "no pass is known"
            if clock.silent_for is None
            else f"the last pass was {span(clock.silent_for)} ago"
        )
        what = f"No clock is running ({last}): lost jobs, later attempts and late mails wait."
        do = "Start the process `clock`. If it runs, look into its log: it does not reach the database."
        yield Finding("clock_silent", "critical", what, do)
        return
    if clock.slow_silent_for is not None and clock.slow_silent_for >= CLEANING_SILENCE:
        what = f"The clock has cleaned nothing for {span(clock.slow_silent_for)}: expired files stay."
        yield Finding(
            "cleaning_silent",
            "warning",
            what,
            "See that the storage answers, and restart the process `clock`.",
        )
    failing = dict(clock.failing)
    if why := failing.pop(STORAGE, None):
        do = "See that the storage answers and has room, and check STORAGE_URL and the rights of its keys."
        yield Finding("storage_down", "critical", f"The storage can't be written to: {_sentence(why)}", do)
    if failing:
        # One finding: what is away stands in the way of many steps.
        steps = _listed([f"“{step}”" for step in failing])
        do = "Mend what it names; it tries again by itself. The log of the process `clock` tells more."
        what = f"The clock fails at {steps}: {_sentence(next(iter(failing.values())))}"
        yield Finding("sweep_failing", "warning", what, do)


def _overdue(state: State) -> Iterator[Finding]:
    late = state.overdue
    if late.jobs and late.longest >= OVERDUE:
        what = f"{counted(late.jobs, 'job')} lost {'its' if late.jobs == 1 else 'their'} worker "
        what += f"{span(late.longest)} ago, and nobody has taken {'it' if late.jobs == 1 else 'them'} over."
        do = "Start the process `clock`: it puts them back on their queues. If it runs, look into its log."
        yield Finding("leases_overdue", "critical", what, do)


def _redis(state: State) -> Iterator[Finding]:
    if not state.redis:
        what = (
            "Redis does not answer: jobs are taken and wait until it does, and pages are live once a second."
        )
        yield Finding(
            "redis_down", "warning", what, "Start Redis, or check REDIS_URL. Nothing is lost meanwhile."
        )


def _failing(state: State) -> Iterator[Finding]:
    ours = sorted(
        (one for one in state.failures if one.recent and one.code in ADVICE), key=lambda one: one.code
    )
    for code, group in groupby(ours, key=lambda one: one.code):
        yield _failing_for(code, list(group))


def _failing_for(code: str, group: list[Failures]) -> Finding:
    last = max(group, key=lambda one: one.last_at)
    jobs = sum(one.recent for one in group)
    titles = _listed(list(dict.fromkeys(one.title for one in group)))
    what = f"{counted(jobs, 'job')} failed within the last hour for {code} ({titles}). "
    return Finding(
        "jobs_failing",
        "warning",
        what + f"The last one: {_sentence(last.message)}",
        ADVICE[code],
        last.job_id,
    )


def _mails(state: State) -> Iterator[Finding]:
    mails = state.mails
    if mails.late:
        what = f"{counted(mails.late, 'mail')} {_be(mails.late)} late, "
        what += f"the first by {span(mails.longest_late)}: {_sentence(mails.late_reason)}"
        do = "See that the mail server answers, and check MAIL_*. For a day they are tried again."
        yield Finding("mails_late", "warning", what, do)
    if mails.given_up:
        was = "was" if mails.given_up == 1 else "were"
        what = f"{counted(mails.given_up, 'mail')} {was} given up within the last day. "
        what += f"The last one: {_sentence(mails.given_up_reason)}"
        do = "Tell its owner, who finds the file on the job's page; mend the address or the mail server."
        yield Finding("mails_given_up", "warning", what, do, mails.given_up_job)


def _stopped(state: State) -> Iterator[Finding]:
    stopped = state.stopped
    if stopped.imports:
        what = (
            f"{counted(stopped.imports, 'import')} stopped in the middle, the last one of {stopped.title}: "
        )
        what += "a part of the file is in its table."
        do = "Read why on its job's page, mend it and try again there, or take it back."
        yield Finding("imports_stopped", "warning", what, do, stopped.job_id)


def _lost(workers: Sequence[WorkerState]) -> Iterator[Finding]:
    silent = [worker for worker in workers if worker.silent]
    if silent:
        last, names = min(worker.silent_for for worker in silent), _listed([worker.id for worker in silent])
        what = f"{counted(len(silent), 'worker')} fell silent without signing off, the last one {span(last)} "
        what += f"ago ({names}): killed, hanging, or cut off from the database."
        do = "Look into the worker's log, and the system's for “out of memory”. Its jobs go on elsewhere."
        yield Finding("worker_lost", "warning", what, do)


def _listed(names: Sequence[str]) -> str:
    """The first three."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _sentence(text: str) -> str:
    """As the end of a sentence, and not too much of it."""
    text = shorten(text, LONGEST_REASON, placeholder=" …") or "no reason is known"
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
