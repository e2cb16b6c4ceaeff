"""Importing: a step of an import is led by one worker, and its chunks are applied by others."""

from __future__ import annotations

from uuid import UUID

from app import leases

# What reads files is loaded only where files are read: it costs a process 60 MB.


def run_import(job_id: str) -> None:
    """Claim the step whose turn it is and lead it. A late or doubled message finds none to claim."""
    lease = leases.claim_fairest(UUID(job_id))
    if lease is not None:
        from app import imports

        imports.run(lease)


def apply_chunks(job_id: str, attempt: int) -> None:
    """Apply chunks of an import that another worker leads; a late message finds none to apply."""
    from app.imports import chunks

    chunks.help_out(UUID(job_id), attempt)
