"""Columns of a report: which there are, which a person chose, and what was chosen the last time."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert

from app import questions
from app.errors import InvalidParams, WaybillError
from app.extensions import db
from app.models.choice import ColumnChoice
from app.models.user import User
from app.params import did_you_mean
from app.reports import Column, Report, SqlReport, Statement, statement
from app.sources import Reading

log = logging.getLogger(__name__)

# How long a source may take to name a query's columns, and how long its answer is believed, in seconds.
PATIENCE, BELIEVED = timedelta(seconds=2), 300.0
# By report and the text of its file: when it was asked, and the answer.
_known: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}


@dataclass(frozen=True)
class _Nobody:
    """Who asks for columns: they are the same for everybody."""

    id: int = 0
    email: str = ""


def of(report: Report) -> tuple[Column, ...]:
    """The columns that may be chosen, as the source names them.

    None if two are alike, or if the source does not say. May ask the source: hold no connection meanwhile.
    """
    told = {column.name: column for column in report.columns or ()}
    names = _names(report) if isinstance(report, SqlReport) else tuple(told)
    if len(set(names)) < len(names):
        return ()
    return tuple(told.get(name, Column(name)) for name in names)


def choose(report: Report, chosen: Sequence[str]) -> list[str] | None:
    """The chosen columns, or None for all of them in their own order; raises InvalidParams."""
    there = [column.name for column in of(report)]
    if not there:
        raise InvalidParams({"columns": "These columns cannot be chosen just now; leave them all."})
    if not chosen:
        raise InvalidParams({"columns": "Choose one column or more."})
    for name in chosen:
        if name not in there:
            hint = did_you_mean(name[:80], there)
            raise InvalidParams({"columns": f"There is no column {name[:80]!r}.{hint}"})
    if len(set(chosen)) < len(chosen):
        raise InvalidParams({"columns": "Choose each column once."})
    return None if list(chosen) == there else list(chosen)


def remember(user: User, report: Report, chosen: Sequence[str] | None) -> None:
    """Begin the report's form with this choice from now on; commits."""
    if chosen is None:
        mine = (ColumnChoice.user_id == user.id, ColumnChoice.report == report.key)
        db.session.execute(delete(ColumnChoice).where(*mine))
    else:
        kept = insert(ColumnChoice).values(user_id=user.id, report=report.key, columns=list(chosen))
        keys = [ColumnChoice.user_id, ColumnChoice.report]
        db.session.execute(
            kept.on_conflict_do_update(index_elements=keys, set_={"columns": kept.excluded.columns})
        )
    db.session.commit()


def remembered(user: User, report: Report) -> list[str] | None:
    """What this person chose the last time; None for all."""
    choice = db.session.get(ColumnChoice, (user.id, report.key))
    return choice.columns if choice else None


def _names(report: SqlReport) -> tuple[str, ...]:
    key = (report.key, report.fingerprint)
    asked, names = _known.get(key, (-BELIEVED, ()))
    if time.monotonic() - asked < BELIEVED:
        return names
    empty = statement(report, dict.fromkeys(report.params.names), _Nobody())
    try:
        names = questions.ask(report, PATIENCE, lambda reading: _told(reading, empty))
    except WaybillError as error:
        log.info("The columns of %s are not known: %s", report.key, error)
        return ()
    if len(_known) > 1000:
        _known.clear()
    _known[key] = (time.monotonic(), names)
    return names


def _told(reading: Reading, query: Statement) -> tuple[str, ...]:
    return tuple(field.name for field in reading.fields(reading.nothing(query.sql), query.values))
