"""An export: report -> source -> format -> storage -> artifact, streaming, hashed and counted on the way."""

from __future__ import annotations

import logging

from sqlalchemy.exc import SQLAlchemyError

from app import sharing
from app.attempts import attempt
from app.exports.order import Order
from app.exports.produce import produce
from app.leases import Lease

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(lease: Lease) -> None:
    """One attempt at an export, whatever becomes of it. Returns when the job has its next status."""
    attempt(lease, lambda held: produce(held, Order.of(held.job_id)), what="report")
    try:
        sharing.settle(lease.job_id)
    except SQLAlchemyError as error:
        log.warning("The sweep must tell those who wait for job %s (%s).", lease.job_id, error)
