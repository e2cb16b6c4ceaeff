"""Text for people that may quote anything: an error of somebody's code, a line of somebody's file."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Text
from sqlalchemy.types import TypeDecorator

# Characters; more of it nobody reads.
LONGEST = 10_000


def storable(text: str) -> str:
    """The text, cut to `LONGEST`, with a mark for each character that PostgreSQL takes in no text."""
    whole = text[:LONGEST].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Sentence(TypeDecorator[str]):
    """A column that takes any text: what ends a job must not fail because of what it quotes."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else storable(value)
