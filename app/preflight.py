"""Preflight: what an export would be, told without running it.

Rows come from the database's own planner, bytes and seconds from earlier exports of the same report. Nobody
waits long: each question to a source has seconds, and what is not known by then is said to be unknown.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Float, cast, func, null, select

from app import formats, lists, questions
from app.errors import WaybillError
from app.extensions import db
from app.models.artifact import Artifact
from app.models.job import LARGE, SMALL, SUCCEEDED, Job
from app.models.user import User
from app.reports import Report, SqlReport, Statement, statement

log = logging.getLogger(__name__)

# How long the source may take to say what it expects.
ESTIMATE = timedelta(seconds=2)
# A small export takes no longer, or when that is not known has no more rows.
SMALL_SECONDS, SMALL_ROWS = 10.0, 100_000
# How many of a report's latest successes say how it usually goes.
RECENT = 20
# A sheet's last row, its header among them; what is worth telling of smaller files; and what is long.
SHEET_ROWS, MUCH, LONG = 1_048_576, 2.0, 60.0


@dataclass(frozen=True)
class Pace:
    """The medians of a report's latest exports; None: there were none."""

    seconds: float | None
    rows_per_second: float | None


@dataclass(frozen=True)
class Asker:
    """Who thinks of asking, apart from any session of the database."""

    id: str
    email: str


@dataclass(frozen=True)
class Program:
    """What a report in Python is started with."""

    values: Mapping[str, Any]
    asker: Asker


@dataclass(frozen=True)
class Request:
    """An export that somebody thinks of asking for: of a report in SQL by its query, else of a program."""

    report: Report
    query: Statement | None
    format: str
    compression: str
    columns: Sequence[str] | None = None
    program: Program | None = None


@dataclass(frozen=True)
class Forecast:
    """What it would be; None for what is not known. `unknown` says why the rows are not."""

    rows: int | None
    bytes: int | None
    seconds: float | None
    advice: Sequence[str]
    unknown: str = ""


def forecast(request: Request) -> Forecast:
    """Asks the source and then the database, holding no connection to either meanwhile."""
    rows, unknown = expected_rows(request.report, request.query)
    seconds = expected_seconds(pace(request.report), rows)
    widths = _bytes_per_row(request.report, request.columns)
    db.session.rollback()
    width = widths.get((request.format, request.compression))
    size = round(rows * width) if rows is not None and width is not None else None
    return Forecast(rows, size, seconds, list(_advice(request, rows, seconds, widths)), unknown)


def program(report: Report, params: Mapping[str, Any], user: User) -> Program | None:
    """What a report in Python is started with for frozen `params`; None for a report in SQL."""
    if isinstance(report, SqlReport):
        return None
    values = lists.fetch(report.params, report.params.bind(params))
    return Program(values, Asker(str(user.id), str(user.email)))


def query(report: Report, params: Mapping[str, Any], user: User) -> Statement | None:
    """The report's statement for frozen `params`; None for a report in Python, which has none."""
    if not isinstance(report, SqlReport):
        return None
    return statement(report, lists.fetch(report.params, report.params.bind(params)), user)


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
    sql, values = query.sql, query.values
    try:
        rows = questions.ask(report, ESTIMATE, lambda reading: reading.estimate(sql, values))
        return rows, "" if rows is not None else "This source does not say how many rows it expects."
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
        .where(*_successes(report))
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


def _successes(report: Report) -> list[ColumnElement[bool]]:
    """Exports of this report whose file was made for them."""
    same = (Job.kind == "export", Job.definition == report.key)
    return [*same, Job.status == SUCCEEDED, Job.sharing.is_(None)]


def _bytes_per_row(report: Report, columns: Sequence[str] | None) -> dict[tuple[str, str], float]:
    """By format and compression: the medians of the latest exports of the same columns."""
    latest = (
        select(Job.format, Job.compression, (Artifact.bytes / cast(Artifact.rows, Float)).label("width"))
        .join(Artifact, Artifact.job_id == Job.id)
        .where(
            *_successes(report),
            Artifact.rows > 0,
            Job.columns.is_not_distinct_from(null() if columns is None else list(columns)),
        )
        .order_by(Job.created_at.desc())
        .limit(10 * RECENT)
        .subquery()
    )
    median = func.percentile_cont(0.5).within_group(latest.c.width)
    query = select(latest.c.format, latest.c.compression, median).group_by(
        latest.c.format, latest.c.compression
    )
    return {(format, compression): float(width) for format, compression, width in db.session.execute(query)}


def _advice(
    request: Request, rows: int | None, seconds: float | None, widths: Mapping[tuple[str, str], float]
) -> Iterator[str]:
    if rows is None:
        return
    if request.format == "xlsx" and rows >= SHEET_ROWS:
        sheets = math.ceil(rows / (SHEET_ROWS - 1))
        yield f"Over {SHEET_ROWS:,} rows: the workbook gets about {sheets} sheets."
    yield from _smaller(request, widths)
    if seconds is not None and seconds >= LONG:
        yield "You need not wait for it: a mail tells you when the file is ready."


def _smaller(request: Request, widths: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """The way of writing that took the least room so far, if that is much less."""
    own = widths.get((request.format, request.compression))
    if own is None:
        return
    (format, compression), least = min(widths.items(), key=lambda item: item[1])
    if own / least >= MUCH:
        packed = "" if compression == "none" else f" with {compression}"
        title = formats.formats()[format].title if format in formats.formats() else format
        yield f"{title}{packed} would be about {own / least:.0f}x smaller."
