"""What is wrong with the installation, and what to do: for the page, the metrics and the command alike."""

from __future__ import annotations

from psycopg.errors import QueryCanceled, UndefinedColumn, UndefinedTable
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.exc import DBAPIError

from app import settings
from app.monitoring import queries
from app.monitoring.findings import CODES, LEVELS, PROCESSES, Finding, Level, findings, level, span
from app.monitoring.state import State

__all__ = ["CODES", "LEVELS", "Finding", "Level", "State", "away", "findings", "level", "look", "span"]

# Seconds; Redis is a hint, nobody waits for it.
REDIS_PATIENCE = 1.0


def look() -> State:
    """The state of now. Raises SQLAlchemy's OperationalError if the database does not answer in seconds,
    and ProgrammingError if it was not migrated."""
    redis = _redis_answers()
    with queries.asking() as ask:
        listening = queries.workers(ask)
        return State(
            at=ask.now,
            queues=queries.queues(ask, tuple(PROCESSES), listening),
            workers=listening,
            overdue=queries.overdue(ask),
            ended=queries.ended(ask),
            failures=queries.failures(ask),
            mails=queries.mails(ask),
            stopped=queries.stopped(ask),
            kept=queries.kept(ask),
            clock=queries.clock(ask),
            redis=redis,
        )


def away(error: DBAPIError) -> Finding:
    """What `look` raised, as a finding."""
    if isinstance(error.orig, UndefinedTable | UndefinedColumn):
        what = "The database lacks tables or columns that this version needs."
        do = "Migrate it: `flask db upgrade`."
    elif isinstance(error.orig, QueryCanceled):
        what = f"The database takes more than {queries.PATIENCE:.0f} seconds to answer."
        do = "Look in pg_stat_activity what it is busy with, and whether its disk is full."
    else:
        said = next(iter(str(error.orig).splitlines()), "").strip().rstrip(".")
        what = f"The database does not answer: {said}."
        do = "Start PostgreSQL, or check DATABASE_URL. Jobs at work stop, and go on once it is back."
    return Finding("database_down", "critical", what, do)


def _redis_answers() -> bool:
    # Not the app's own client, which tries again by itself.
    patience = {"socket_timeout": REDIS_PATIENCE, "socket_connect_timeout": REDIS_PATIENCE}
    with Redis.from_url(settings.current().redis_url, retry=Retry(NoBackoff(), 0), **patience) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False
