"""Names of columns: how alike two are, whoever wrote them, and which a file of refused rows adds. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import count

# "CompanyName" and "HTTPStatus" are two words each.
HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
SPELT = str.maketrans({"ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "œ": "oe", "ł": "l", "đ": "d"})
# What a file of refused rows has beside the original columns.
ADDED = ("line", "column", "code", "message")


def plain(name: str) -> str:
    """Without case, accents, spaces and signs: "Straße_Nr." -> "strasse nr"."""
    spelt = unicodedata.normalize("NFKD", HUMPS.sub(" ", name.strip()).translate(SPELT))
    bare = "".join(
        " " if not letter.isalnum() else letter for letter in spelt if not unicodedata.combining(letter)
    )
    return " ".join(bare.casefold().split())


def likeness(one: str, other: str) -> float:
    """From 0 to 1: 1 is the same but for what `plain` takes away."""
    first, second = plain(one), plain(other)
    if not first or not second:
        return 0.0
    if first.replace(" ", "") == second.replace(" ", ""):
        return 1.0
    letters = SequenceMatcher(None, first.replace(" ", ""), second.replace(" ", "")).ratio()
    mine, theirs = set(first.split()), set(second.split())
    words = len(mine & theirs) / len(mine | theirs)
    # All words of one are in the other one: "mail" in "e mail address".
    inside = 0.85 if mine <= theirs or theirs <= mine else 0.0
    return min(0.99, max(letters * 0.9, words, inside))


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
