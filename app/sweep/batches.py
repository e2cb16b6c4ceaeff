"""What the steps share: a bounded number of rows at a time, each on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from redis import RedisError
from sqlalchemy import Select
from sqlalchemy.exc import OperationalError

from app.errors import WaybillError
from app.extensions import db

# Of each kind in one pass; the next pass takes the next ones.
BATCH = 500

T = TypeVar("T")


def first(query: Select[T], limit: int = BATCH) -> Sequence[T]:
    """The first values of a one-column query; holds no connection afterwards."""
    with db.engine.connect() as conn:
        return conn.execute(query.limit(limit)).scalars().all()


def each(values: Iterable[T], act: Callable[[T], bool]) -> int:
    """How many times `act` did something.

    One value's failure keeps no other waiting; the first is raised at the end. A service that is down is
    down for all values, so that is raised at once.
    """
    count, failure = 0, None
    for value in values:
        try:
            count += act(value)
        except Exception as error:
            if _down(error):
                raise
            failure = failure or error
    if failure:
        raise failure
    return count


def _down(error: Exception) -> bool:
    if isinstance(error, WaybillError):
        return error.retryable
    return isinstance(error, OperationalError | RedisError)
