"""Telling the owner that a job ended."""

from __future__ import annotations

from app import delivery


def deliver(delivery_id: int) -> None:
    """Send the mail. A late or doubled message finds it sent, or another sender at it."""
    delivery.deliver(delivery_id)
