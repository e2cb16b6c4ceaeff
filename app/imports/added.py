"""The columns that a file of refused rows has beside the original ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

ADDED = ("line", "column", "code", "message")


def own(header: Sequence[str]) -> int:
    """How many columns of a file are its own: all, if it is no file of refused rows that came back."""
    before = len(header) - len(ADDED)
    return before if before > 0 and tuple(header[before:]) == names(header[:before]) else len(header)


def names(header: Sequence[str]) -> tuple[str, ...]:
    """What the added columns are called beside these: a number makes them names that no other one has."""
    return tuple(_free(name, header) for name in ADDED)


def _free(name: str, taken: Sequence[str]) -> str:
    if name not in taken:
        return name
    return next(found for number in count(2) if (found := f"{name}_{number}") not in taken)
