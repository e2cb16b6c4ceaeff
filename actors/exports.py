"""Producing an artifact."""

from __future__ import annotations

from contextlib import ExitStack
from uuid import UUID

from app import dispatch, exports, lanes, leases
from app.exports import parts
from app.models.job import LARGE, SMALL


def run_export(job_id: str) -> None:
    """Claim the export whose turn it is and make its file. A late or doubled message finds none to claim."""
    with ExitStack() as place:
        entered = place.enter_context(lanes.large.inside())
        lease = leases.claim_fairest(UUID(job_id), small_only=not entered)
        if lease is None:
            return
        if lease.size == SMALL:
            place.close()
        exports.run(lease)
    if lease.size == LARGE:
        # Messages of large jobs that were heard while the lane was full are gone.
        dispatch.send_next([lease.claim.queue])


def make_parts(job_id: str, attempt: int) -> None:
    """Make parts of an export that another worker holds; a late message finds none to make."""
    with lanes.large.inside() as entered:
        # Help takes a thread like a large export of its own; without a place there are others to help.
        if entered:
            parts.help_out(UUID(job_id), attempt)
