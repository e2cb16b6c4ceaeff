"""Preflight: what an export would be, told without running it.

Rows come from the database's own planner, bytes and seconds from earlier exports of the same report. Nobody
waits long: each question to a source has seconds, and what is not known by then is said to be unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select

from app import settings
from app.errors import NotFound, WaybillError
from app.extensions import db
from app.models.artifact import Artifact
from app.models.job import LARGE, SMALL, SUCCEEDED, Job
from app.models.user import User
from app.reports import Report, SqlReport, Statement, statement
from app.sources import Source, open_source

log = logging.getLogger(__name__)

# How long the source may take to say what it expects.
ESTIMATE = timedelta(seconds=2)
# A small export takes no longer, or when that is not known has no more rows.
SMALL_SECONDS, SMALL_ROWS = 10.0, 100_000
# How many of a report's latest successes say how it usually goes.
RECENT = 20


@dataclass(frozen=True)
class Pace:
    """The medians of a report's latest exports; None: there were none."""

    seconds: float | None
    rows_per_second: float | None


def query(report: Report, params: Mapping[str, Any], user: User) -> Statement | None:
    """The report's statement for frozen `params`; None for a report in Python, which has none."""
    if not isinstance(report, SqlReport):
        return None
    return statement(report, report.params.bind(params), user)


def size(report: Report, query: Statement | None) -> str:
    """The lane of an export. Asks the source and then the database, holding no connection to either."""
    if report.queue == "low":
        return LARGE
    rows, _ = expected_rows(report, query)
    seconds = expected_seconds(pace(report), rows)
    db.session.rollback()
    if seconds is not None:
        return SMALL if seconds <= SMALL_SECONDS else LARGE
    return SMALL if rows is not None and rows <= SMALL_ROWS else LARGE


def expected_rows(report: Report, query: Statement | None) -> tuple[int | None, str]:
    """How many rows the planner expects, or None and why that is not known."""
    if query is None:
        return None, "This report is a program: how many rows it gives is known when it has run."
    try:
        with source(report, ESTIMATE).reading() as reading:
            return reading.estimate(query.sql, query.values), ""
    except WaybillError as error:
        log.info("No estimate for %s: %s", report.key, error)
        return None, error.message


def expected_seconds(pace: Pace, rows: int | None) -> float | None:
    """Rows at the usual rate; of a report whose rows nobody knows beforehand, the usual time."""
    if rows is not None and pace.rows_per_second:
        return rows / pace.rows_per_second
    return pace.seconds if rows is None else None


def pace(report: Report) -> Pace:
    """How this report usually goes, whatever its format."""
    took = func.extract("epoch", Job.finished_at - Job.started_at)
    latest = (
        select(took.label("took"), Artifact.rows)
        .join(Artifact, Artifact.job_id == Job.id)
        .where(
            Job.kind == "export",
            Job.definition == report.key,
            Job.status == SUCCEEDED,
            Job.sharing.is_(None),
        )
        .order_by(Job.created_at.desc())
        .limit(RECENT)
        .subquery()
    )
    median = func.percentile_cont(0.5)
    rate = latest.c.rows / func.greatest(latest.c.took, 0.01)
    row = db.session.execute(
        select(
            median.within_group(latest.c.took),
            # The fixed costs of a small file say nothing of the rate.
            median.within_group(rate).filter(latest.c.rows >= 1000),
        )
    ).one()
    return Pace(*(None if value is None else float(value) for value in row))


def source(report: Report, timeout: timedelta) -> Source:
    """The report's source, with a limit of our own; raises NotFound."""
    url = settings.current().source_urls.get(report.source)
    if url is None:
        raise NotFound(f"The source {report.source!r} is not set up. Set SOURCE_{report.source.upper()}_URL.")
    return open_source(report.source, url, timeout)
