"""Telling the owner that a job ended: one mail an ending."""

from __future__ import annotations


def deliver(delivery_id: int) -> None:
    """Send the mail, if it is due and nobody else is at it."""
    raise NotImplementedError(delivery_id)
