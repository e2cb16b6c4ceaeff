"""One attempt at a job: what became of the work, and what that means for the job's status."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy.exc import InterfaceError, OperationalError

from app import settings
from app.errors import Cancelled, LeaseLost, Paused, Stopping, WaybillError
from app.extensions import db
from app.leases import Lease
from app.models.job import Job

log = logging.getLogger(__name__)

# The pause before the next attempt, in seconds: 5, 20, 80 …
FIRST_PAUSE, PAUSE_FACTOR = 5, 4


def attempt(
    lease: Lease,
    work: Callable[[Lease], None],
    *,
    what: str,
    nothing: str = "Nothing was published.",
    first_pause: int = FIRST_PAUSE,
) -> None:
    """Do the `work`, whatever becomes of it. Returns when the job has its next status.

    `what` is a word for those who read of an error that nobody foresaw: "report", "import". `nothing` tells
    what a cancelled job left; work that leaves something ends the lease itself.
    """
    with lease:
        try:
            _explained(lease, work)
        except Cancelled:
            lease.cancelled(f"Cancelled. {nothing}")
        except Paused:
            lease.pause("Paused.")
        except Stopping:
            lease.hand_back()
        except LeaseLost:
            log.warning("Attempt %d of job %s ends: another one has the job.", lease.attempt, lease.job_id)
        except WaybillError as error:
            _failed(lease, error, first_pause)
        except (OperationalError, InterfaceError) as error:
            log.warning("Job %s lost the database: %s", lease.job_id, error)
            _failed(lease, _DatabaseCut("Waybill's own database broke off the connection."), first_pause)
        except Exception as error:
            log.exception("Job %s failed in a way nobody foresaw.", lease.job_id)
            text = f"The {what} stopped with an error of its own ({type(error).__name__}: {error})."
            lease.fail("internal", text)


def last(lease: Lease) -> bool:
    """Whether no other attempt follows this one by itself."""
    return _counted(lease) >= settings.current().attempts_limit


def _counted(lease: Lease) -> int:
    with db.engine.connect() as conn:
        forgiven = conn.execute(db.select(Job.forgiven).where(Job.id == lease.job_id)).scalar_one()
    return lease.attempt - int(forgiven)


def _explained(lease: Lease, work: Callable[[Lease], None]) -> None:
    try:
        work(lease)
    except Exception:
        # Whatever else went wrong, an interruption explains it: a query that was broken off, for one.
        lease.check()
        raise


class _DatabaseCut(WaybillError):
    code = "database_cut"
    retryable = True


def _failed(lease: Lease, error: WaybillError, first_pause: int) -> None:
    counted = _counted(lease)
    if error.retryable and counted < settings.current().attempts_limit:
        pause = first_pause * PAUSE_FACTOR ** max(0, counted - 1)
        lease.retry_later(error.message, timedelta(seconds=pause))
    else:
        lease.fail(error.code, error.message)
