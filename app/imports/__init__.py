"""An import: upload -> chunks -> importer -> target, with a checkpoint in each transaction.

`run` is one attempt at one step of it. Each step is a module with a function of its name: `apply`, and those
that `STEPS` names; each raises what is decided here for all of them.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from importlib import import_module

from sqlalchemy.exc import DBAPIError

from app import settings
from app.errors import Cancelled, LeaseLost, Paused, Stopping, WaybillError
from app.extensions import db
from app.leases import Lease
from app.models.imports import APPLY, DRY_RUN, UNDO
from app.models.job import Job

__all__ = ["run"]

log = logging.getLogger(__name__)

STEPS = {DRY_RUN: "dry_run", APPLY: "apply", UNDO: "undo"}
# The pause before the next attempt, in seconds: 2, 8, 32 …
FIRST_PAUSE, PAUSE_FACTOR = 2, 4


def run(lease: Lease) -> None:
    """One attempt, whatever becomes of it. Returns when the job has its next status."""
    with lease:
        try:
            _attempt(lease)
        except Cancelled:
            lease.cancelled("Cancelled before anything was changed.")
        except Paused:
            lease.pause("Paused.")
        except Stopping:
            lease.hand_back()
        except LeaseLost:
            log.warning("Attempt %d of job %s ends: another one has the job.", lease.attempt, lease.job_id)
        except WaybillError as error:
            _failed(lease, error)
        except DBAPIError as error:
            log.warning("Job %s lost the database: %s", lease.job_id, error)
            _failed(lease, _DatabaseCut("Waybill's own database broke off the connection."))
        except Exception as error:
            log.exception("Job %s failed in a way nobody foresaw.", lease.job_id)
            text = f"The import stopped with an error of its own ({type(error).__name__}: {error})."
            lease.fail("internal", text)


def _attempt(lease: Lease) -> None:
    # What reads files is loaded only where files are read: it costs a process 60 MB.
    from app.imports.order import Order

    try:
        order = Order.of(lease.job_id)
        step = STEPS[order.step]
        getattr(import_module(f"app.imports.{step}"), step)(lease, order)
    except Exception:
        # Whatever else went wrong, an interruption explains it: a statement that was broken off, for one.
        lease.check()
        raise


class _DatabaseCut(WaybillError):
    code = "database_cut"
    retryable = True


def _failed(lease: Lease, error: WaybillError) -> None:
    with db.engine.connect() as conn:
        forgiven = conn.execute(db.select(Job.forgiven).where(Job.id == lease.job_id)).scalar_one()
    counted = lease.attempt - int(forgiven)
    if error.retryable and counted < settings.current().attempts_limit:
        pause = FIRST_PAUSE * PAUSE_FACTOR ** max(0, counted - 1)
        lease.retry_later(error.message, timedelta(seconds=pause))
    else:
        lease.fail(error.code, error.message)
