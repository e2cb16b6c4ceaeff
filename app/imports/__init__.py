"""An import: upload -> chunks -> importer -> target, with a checkpoint in each transaction.

`run` is one attempt at one step of it. Each step is a module with a function of its name: `apply`, and those
that `STEPS` names. `file` turns any upload into checked rows, `table` brings such rows into the target's;
neither knows the other, and the modules here lead both.
"""

from __future__ import annotations

from importlib import import_module

from app.attempts import attempt
from app.leases import Lease
from app.models.imports import APPLY, DRY_RUN, UNDO

__all__ = ["run"]

STEPS = {DRY_RUN: "dry_run", APPLY: "apply", UNDO: "undo"}
# What was applied stays applied: little is lost by trying again soon. Seconds.
FIRST_PAUSE = 2


def run(lease: Lease) -> None:
    """One attempt, whatever becomes of it. Returns when the job has its next status."""
    attempt(lease, _step, what="import", nothing="Nothing was changed.", first_pause=FIRST_PAUSE)


def _step(lease: Lease) -> None:
    # What reads files is loaded only where files are read: it costs a process 60 MB.
    from app.imports.order import Order

    order = Order.of(lease.job_id)
    step = STEPS[order.step]
    getattr(import_module(f"app.imports.{step}"), step)(lease, order)
