"""What can be wrong with a report's definition, each with the option it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from app.definitions import Finding, Known, misspelt, name_findings, sequence
from app.params import RESERVED, Param, did_you_mean
from app.params.kinds import Moment
from app.reports._base import Bundle, Column, Lookup, Report, SqlReport, age
from app.reports._sql import placeholders, unsafe

_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")
_COLUMN = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# A file's name may not wander into another folder, nor break a header.
_FILENAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,150}")


def findings(report: Report, known: Known) -> Iterator[Finding]:
    """Everything that is wrong with `report`, so that its author mends it in one go."""
    yield from _texts(report)
    yield from _names(report, known)
    yield from _params(report)
    yield from _sharing(report)
    yield from _lookup(report)
    if isinstance(report, SqlReport):
        yield from _sql(report)
    else:
        yield from _python(report)


def _texts(report: Report) -> Iterator[Finding]:
    for option in ("title", "description", "group", "source", "filename"):
        if not isinstance(getattr(report, option), str):
            yield Finding(f"{option} must be a text", option)
    if not report.title:
        yield Finding('the report has no title; say for instance: title = "Tasks by project"', "title")
    if not _KEY.fullmatch(str(report.key)):
        yield Finding(f"the key {report.key!r} must be made of lower-case letters, digits, _ and -", "key")
    if not _FILENAME.fullmatch(str(report.filename)):
        yield Finding("filename must have 1 to 150 characters and no slash or line break", "filename")


def _names(report: Report, known: Known) -> Iterator[Finding]:
    yield from name_findings(report, known)
    if report.queue not in ("default", "low"):
        yield Finding(f"queue is {report.queue!r}; use 'default', or 'low' for one that takes hours", "queue")
    if report.consistency not in ("parts", "snapshot"):
        yield Finding(f"consistency is {report.consistency!r}; use 'parts' or 'snapshot'", "consistency")
    if report.link not in ("signed", "signed-in"):
        yield Finding(f"link is {report.link!r}; use 'signed' or 'signed-in'", "link")


def _params(report: Report) -> Iterator[Finding]:
    moment = Moment.at(datetime.now(UTC), UTC)
    if not all(isinstance(param, Param) for param in report.params):
        yield Finding("params must be a list of Param", "params")
        return
    seen: set[str] = set()
    for param in report.params:
        if param.name in seen:
            yield Finding(f"param {param.name} is there twice", "params", param.name)
        seen.add(param.name)
        for message in param.problems(moment):
            yield Finding(message, "params", param.name)


def _sharing(report: Report) -> Iterator[Finding]:
    if report.fresh_for is not None:
        try:
            age(str(report.fresh_for))
        except ValueError:
            words = f"fresh_for is {report.fresh_for!r}; write a time span, such as '10 minutes' or '2 hours'"
            yield Finding(words, "fresh_for")
    if report.personal not in (None, True, False):
        yield Finding("personal must be true or false", "personal")
    if report.sampled not in (True, False):
        yield Finding("sampled must be true or false", "sampled")


def _lookup(report: Report) -> Iterator[Finding]:
    lookup: object = report.lookup
    if lookup is None:
        return
    if not isinstance(lookup, Lookup):
        yield Finding('lookup must be Lookup("a list param", "a column of the result")', "lookup")
        return
    param = report.params.get(lookup.param)
    if param is None or param.type != "list":
        yield Finding(f"lookup names {lookup.param!r}, which is no param of the type list", "lookup")
    if isinstance(report, Bundle):
        yield Finding("lookup has no meaning for a Bundle: yield a file of what was not found", "lookup")
    elif not isinstance(report, SqlReport) and lookup.column not in _names_of(report.columns):
        yield Finding(f"lookup names {lookup.column!r}, which is none of the columns", "lookup")


def _sql(report: SqlReport) -> Iterator[Finding]:
    for problem in unsafe(report.query):
        yield Finding(str(problem), line=problem.line)
    used = placeholders(report.query)
    declared = report.params.names
    for name in declared:
        if name not in used:
            yield Finding(f"param {name} is never used; write :{name} in the query", "params", name)
    for name, line in used.items():
        if name not in (*declared, *RESERVED):
            hint = did_you_mean(name, [*declared, *RESERVED])
            yield Finding(
                f":{name} is not declared; add [params.{name}] to the head.{hint} "
                "(In an array slice put spaces round the colon.)",
                line=line,
            )
    if report.personal is False and not used.keys().isdisjoint(RESERVED):
        yield Finding("personal is false, but the query uses who asks; take personal out", "personal")
    if report.partition_by is not None and not _COLUMN.fullmatch(str(report.partition_by)):
        yield Finding("partition_by must be the name of one column of the result", "partition_by")


def _python(report: Report) -> Iterator[Finding]:
    yield from _bundle(report) if isinstance(report, Bundle) else _one_file(report)
    if report.partition_by is not None:
        yield Finding("partition_by is for reports in SQL only", "partition_by")
    yield from misspelt(report, Report.OPTIONS, "a report")


def _one_file(report: Report) -> Iterator[Finding]:
    if type(report).rows is Report.rows:
        yield Finding("the report has no rows(self, params, context)")
    columns = sequence(report.columns)
    if not columns or not all(isinstance(column, Column) for column in columns):
        yield Finding('columns must be a tuple of Column, such as (Column("id"), Column("title"))', "columns")


def _bundle(report: Bundle) -> Iterator[Finding]:
    if type(report).files is Bundle.files:
        yield Finding("the report has no files(self, params, context)")
    if report.columns is not None:
        yield Finding("columns has no meaning for a Bundle: each File has its own", "columns")


def _names_of(columns: object) -> list[str]:
    return [column.name for column in sequence(columns) if isinstance(column, Column)]
