"""Producing an artifact."""

from __future__ import annotations

from uuid import UUID

from app import exports, leases
from app.exports import parts


def run_export(job_id: str) -> None:
    """Claim the export and make its file. A late or doubled message finds nothing to claim."""
    lease = leases.claim(UUID(job_id))
    if lease is not None:
        exports.run(lease)


def make_parts(job_id: str, attempt: int) -> None:
    """Make parts of an export that another worker holds; a late message finds none to make."""
    parts.help_out(UUID(job_id), attempt)
