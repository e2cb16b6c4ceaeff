"""The sweep: what was lost, forgotten or left lying about is found again, from the database alone.

Everything is safe to do twice and by several clocks at once: jobs and deliveries change by compare-and-set,
a doubled message finds nothing to claim, a deleted object is deleted already. Each step stands alone, so
that one that fails keeps no other from its work.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flask import Flask, current_app
from redis import RedisError
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from app import leases
from app.errors import WaybillError
from app.extensions import db
from app.models import clock as clocks
from app.models.clock import Clock
from app.sweep import cleaning, ledgers, recovery

log = logging.getLogger(__name__)

Step = Callable[[], int]

# The step that asks whether the storage can be written to.
STORAGE = "storage"
# What people wait for; in this order, so that a job taken from a dead worker is sent in the same pass.
PROMPT: Mapping[str, Step] = {
    "jobs of silent workers": recovery.lapsed_jobs,
    "jobs without an attempt left": recovery.exhausted_jobs,
    "followers of finished jobs": recovery.followers,
    "lost messages": recovery.lost_messages,
    "jobs sent": recovery.waiting_jobs,
    "mails sent on their way": recovery.due_deliveries,
}
# What needs the storage, or may take long.
SLOW: Mapping[str, Step] = {
    STORAGE: cleaning.ask_storage,
    "expired files": cleaning.expired_artifacts,
    "abandoned uploads": cleaning.in_turn(cleaning.abandoned_uploads),
    "orphaned objects": cleaning.in_turn(cleaning.orphans),
    "expired uploads": cleaning.expired_uploads,
    "orphaned blocks": cleaning.in_turn(cleaning.orphaned_blocks),
    "old lists of values": cleaning.in_turn(cleaning.old_lists),
    "old log lines": cleaning.in_turn(cleaning.old_events),
    "spent ledgers": ledgers.spent_ledgers,
    "old rows": cleaning.in_turn(cleaning.old_rows),
}
# How often the clock does the slow steps, in seconds.
SLOW_EVERY = 60.0
# Of what stands in a step's way, so much is noted, in characters.
LINE = 300


@dataclass
class Swept:
    """What one pass did, by step, and what stood in the way of the steps that failed."""

    done: dict[str, int] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)

    def __str__(self) -> str:
        done = ", ".join(f"{name}: {count:,}" for name, count in self.done.items() if count)
        return "\n".join(
            [done or "nothing to do", *(f"{name}: {error}" for name, error in self.failures.items())]
        )


def sweep() -> Swept:
    """One pass over everything."""
    return _pass({**PROMPT, **SLOW})


def clock(stop: threading.Event, every: float = 3.0) -> None:
    """Sweep about every `every` seconds until `stop` is set, whatever is down meanwhile.

    A storage that is slow to answer holds up nothing but the slow steps: they have a thread of their own.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    slow = threading.Thread(
        target=_keep, args=(app, clocks.SLOW, SLOW, stop, SLOW_EVERY), name="sweep-slow", daemon=True
    )
    slow.start()
    _keep(app, clocks.PROMPT, PROMPT, stop, every)
    slow.join(timeout=5)


def _keep(app: Flask, passes: str, steps: Mapping[str, Step], stop: threading.Event, every: float) -> None:
    with app.app_context():
        # The note before the first pass says that the clock has begun.
        failing = _report({}, _noted(passes, Swept()))
        while not stop.is_set():
            failing = _report(failing, _noted(passes, _pass(steps)))
            # Uneven, so that several clocks do not stay in step.
            stop.wait(every * random.uniform(0.8, 1.2))


def _pass(steps: Mapping[str, Step]) -> Swept:
    swept = Swept()
    for name, step in steps.items():
        _do(swept, name, step)
    return swept


def _do(swept: Swept, name: str, step: Step) -> None:
    try:
        swept.done[name] = step()
    except Exception as error:
        swept.failures[name] = error


def _noted(passes: str, swept: Swept) -> Swept:
    """The same, with a note in the database for those who watch (app/monitoring/), which may fail, too."""
    _do(swept, "its own note", lambda: _note(passes, swept))
    return swept


def _note(passes: str, swept: Swept) -> int:
    failing = {name: _line(error) for name, error in swept.failures.items()}
    statement = insert(Clock).values(id=leases.WORKER, passes=passes, failing=failing)
    values = {"seen_at": func.clock_timestamp(), "failing": failing}
    with db.engine.begin() as conn:
        conn.execute(statement.on_conflict_do_update(index_elements=[Clock.id, Clock.passes], set_=values))
    return 0


def _line(error: Exception) -> str:
    """The first line of what it says: a database's error goes on with the whole statement."""
    said = next(iter(str(error).replace("\0", "").splitlines()), "").strip()
    return said[:LINE] or type(error).__name__


def _report(before: Mapping[str, Exception], swept: Swept) -> Mapping[str, Exception]:
    """Say what was done, and which steps began or ceased to fail: an outage is a line, not a line a pass.

    Returns the failures, to be given as `before` the next time.
    """
    if any(swept.done.values()):
        log.info("Swept. %s", Swept(swept.done))
    for name, error in swept.failures.items():
        if type(error) is not type(before.get(name)):
            foreseen = isinstance(error, SQLAlchemyError | RedisError | WaybillError)
            log.warning("The sweep fails at %s: %s", name, error, exc_info=None if foreseen else error)
    for name in before.keys() - swept.failures.keys():
        log.info("The sweep works again at %s.", name)
    return swept.failures
