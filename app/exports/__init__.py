"""An export: report -> source -> format -> storage -> artifact, streaming, hashed and counted on the way."""

from __future__ import annotations

import logging
from datetime import timedelta

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app import settings, sharing
from app.errors import Cancelled, LeaseLost, Stopping, WaybillError
from app.exports.order import Order
from app.exports.produce import produce
from app.extensions import db
from app.leases import Lease
from app.models.job import Job

__all__ = ["run"]

log = logging.getLogger(__name__)

# The pause before the next attempt, in seconds: 5, 20, 80 …
FIRST_PAUSE, PAUSE_FACTOR = 5, 4


def run(lease: Lease) -> None:
    """One attempt at an export, whatever becomes of it. Returns when the job has its next status."""
    with lease:
        try:
            _attempt(lease)
        except Cancelled:
            lease.cancelled()
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
            lease.fail(
                "internal", f"The report stopped with an error of its own ({type(error).__name__}: {error})."
            )
    try:
        sharing.settle(lease.job_id)
    except SQLAlchemyError as error:
        log.warning("The sweep must tell those who wait for job %s (%s).", lease.job_id, error)


def _attempt(lease: Lease) -> None:
    try:
        produce(lease, Order.of(lease.job_id))
    except Exception:
        # Whatever else went wrong, an interruption explains it: a query that was broken off, for one.
        lease.check()
        raise


class _DatabaseCut(WaybillError):
    code = "database_cut"
    retryable = True


def _failed(lease: Lease, error: WaybillError) -> None:
    left = settings.current().attempts_limit - _counted(lease)
    if error.retryable and left > 0:
        pause = FIRST_PAUSE * PAUSE_FACTOR ** max(0, _counted(lease) - 1)
        lease.retry_later(error.message, timedelta(seconds=pause))
    else:
        lease.fail(error.code, error.message)


def _counted(lease: Lease) -> int:
    """Attempts that count against the limit, this one included."""
    with db.engine.connect() as conn:
        forgiven = conn.execute(db.select(Job.forgiven).where(Job.id == lease.job_id)).scalar_one()
    return lease.attempt - int(forgiven)
