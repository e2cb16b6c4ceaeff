"""The catalogue, one report's page with its form, and asking for an export."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import groupby
from typing import Any
from uuid import UUID

from apiflask import APIBlueprint
from flask import redirect, render_template, request, url_for
from flask_security import auth_required
from sqlalchemy import ARRAY, Text, cast, func, select, true
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.wrappers import Response

from app import columns, formats, jobs, settings
from app.errors import InvalidParams, InvalidRequest, NotFound, TooMany
from app.extensions import db
from app.models.job import SUCCEEDED, Job
from app.models.user import User
from app.params import Param
from app.params.kinds import Reference
from app.params.spans import EXAMPLES
from app.preflight import Forecast
from app.reports import Column, Problem, Report
from app.sampling import Sample
from app.web import lists
from app.web.people import me

reports = APIBlueprint("reports", __name__, enable_openapi=False)
reports.url_value_preprocessor(lists.make_room)

# Fields of a report's own params, apart from the form's others.
PREFIX = "param."
# How many of a report's latest successes say how long it takes.
RECENT = 20


@reports.get("/")
@auth_required("session")
def catalogue() -> str:
    query = " ".join(request.args.get("q", "").split())[:100]
    mine = jobs.registry().for_user(me().role_names)
    return render_template(
        "reports/index.html",
        groups=[(name, list(group)) for name, group in groupby(mine, key=lambda report: report.group)],
        total=len(mine),
        # All are on the page, the others hidden: search.js looks for more without asking again.
        matches={report.key for report in mine if searched(report, query)},
        query=query,
        history=history([report.key for report in mine]),
        problems=_problems(me()),
    )


@reports.get("/reports/<key>")
@auth_required("session")
def show(key: str) -> str:
    """The report's form; `?job=` fills it with that job's parameters."""
    report = jobs.report_for(me(), key)
    form = Form(report)
    if request.args.get("job"):
        form.take(_asked_before(request.args["job"], report))
    return page(form)


@reports.post("/exports")
@auth_required("session")
def ask() -> Response | tuple[str, int]:
    report = jobs.report_for(me(), request.form.get("report", ""))
    form = Form(report, request.form, request.files)
    try:
        form.read_lists()
        job = jobs.request_export(
            me(),
            report.key,
            form.raw,
            format=form.format,
            dialect=form.dialect,
            compression=form.compression,
            idempotency_key=form.idempotency_key,
            columns=form.columns,
            fresh=form.fresh,
        )
    except InvalidParams as error:
        form.errors = error.errors
        return page(form), error.status
    except (InvalidRequest, TooMany) as error:
        form.trouble = error.message
        return page(form), error.status
    if form.columns is not None:
        columns.remember(me(), report, job.columns)
    return redirect(url_for("jobs.show", job_id=job.id), 303)


@dataclass(frozen=True)
class Usual:
    """When a report last succeeded, and how long it usually takes."""

    last: datetime
    takes: timedelta


def history(keys: Iterable[str]) -> dict[str, Usual]:
    """By report key; a report that never succeeded is not among them. The median of the latest `RECENT`."""
    took = (Job.finished_at - Job.started_at).label("took")
    keyed = func.unnest(cast(list(keys), ARRAY(Text))).table_valued("key").render_derived()
    latest = (
        select(Job.finished_at, took)
        .where(
            Job.kind == "export",
            Job.definition == keyed.c.key,
            Job.status == SUCCEEDED,
            Job.sharing.is_(None),
        )
        .order_by(Job.created_at.desc())
        .limit(RECENT)
        .lateral()
    )
    median = func.percentile_cont(0.5).within_group(latest.c.took)
    query = select(keyed.c.key, func.max(latest.c.finished_at), median).group_by(keyed.c.key)
    rows = db.session.execute(query.select_from(keyed).join(latest, true()))
    return {key: Usual(last, takes) for key, last, takes in rows}


@dataclass
class Field:
    """One param on the form: what stands in it and what is wrong with that."""

    param: Param
    value: str
    error: str | None
    kept: Reference | None = None

    @property
    def name(self) -> str:
        return PREFIX + self.param.name

    @property
    def id(self) -> str:
        return f"param-{self.param.name}"

    @property
    def described_by(self) -> str:
        """The ids of the texts that tell about this field, the error first."""
        texts = [f"{self.id}-error"] if self.error else []
        return " ".join([*texts, f"{self.id}-help"] if self.help else texts)

    @property
    def help(self) -> str:
        return " ".join(filter(None, (self.param.help, _limits(self.param))))

    @property
    def kept_field(self) -> str:
        return lists.field(self.kept) if self.kept else ""

    @property
    def asks_for_words(self) -> bool:
        return self.param.type in ("date", "datetime")

    @property
    def checkbox(self) -> bool:
        """A bool that always has a value; one that may be left open is a choice of three."""
        return self.param.type == "bool" and (self.param.default is not None or self.param.required)

    @property
    def checked(self) -> bool:
        return self.value.lower() in ("true", "yes", "on", "1")


@dataclass
class Form:
    """A report's form: fresh, filled from a job, or as it was posted."""

    report: Report
    posted: MultiDict[str, str] | None = None
    files: MultiDict[str, FileStorage] = field(default_factory=MultiDict)
    errors: Mapping[str, str] = field(default_factory=dict)
    trouble: str | None = None
    filled: Mapping[str, Any] = field(default_factory=dict)
    format: str = "csv"
    dialect: str | None = None
    compression: str = "none"
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    taken: Job | None = None
    # Raw values of the lists that were not typed.
    given: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.posted is not None:
            self.format = self.posted.get("format", self.format)
            self.dialect = self.posted.get(f"dialect-{self.format}") or self.posted.get("dialect") or None
            self.compression = self.posted.get("compression", self.compression)

    def read_lists(self) -> None:
        """Take the lists from their files; raises InvalidParams."""
        self.given = lists.given(self.report, self.posted or {}, self.files, PREFIX)

    def take(self, job: Job) -> None:
        """Fill the form with what an earlier job was asked with."""
        self.filled = job.params
        self.format, self.dialect, self.compression = job.format, job.dialect, job.compression
        self.taken = job

    @property
    def raw(self) -> dict[str, object]:
        """What was typed, by param. A checkbox comes after a hidden "no", so the last value counts."""
        posted = self.posted or MultiDict()
        names = (name for name in posted if name.startswith(PREFIX))
        typed = {name.removeprefix(PREFIX): posted.getlist(name)[-1] for name in names}
        return {**typed, **self.given}

    @property
    def columns(self) -> list[str] | None:
        """The ticked columns by their places; None when the form had no such boxes."""
        if self.posted is None or "columns-shown" not in self.posted:
            return None
        posted = self.posted
        return sorted(posted.getlist("column"), key=lambda name: _place(posted.get(f"place.{name}")))

    @cached_property
    def column_boxes(self) -> list[tuple[Column, bool]]:
        """The report's columns and whether each is ticked: the chosen ones first, in their order."""
        there = {column.name: column for column in columns.of(self.report)}
        chosen = self.columns
        if chosen is None:
            chosen = self.taken.columns if self.taken else columns.remembered(me(), self.report)
        ticked = [name for name in (there if chosen is None else chosen) if name in there]
        rest = [name for name in there if name not in ticked]
        return [(there[name], True) for name in ticked] + [(there[name], False) for name in rest]

    @property
    def fresh(self) -> bool:
        """Whether the button was pressed that makes a new file in any case."""
        return (self.posted or MultiDict()).get("fresh") == "true"

    @property
    def fields(self) -> list[Field]:
        return [
            Field(param, self._value(param), self.errors.get(param.name), self._kept(param))
            for param in self.report.params
        ]

    @property
    def strays(self) -> list[str]:
        """Errors of params that are not on the form: somebody wrote the request by hand."""
        known = self.report.params
        elsewhere = {name for name in self.errors if known.get(name) is None} - {"columns"}
        return [f"{name}: {text}" for name, text in self.errors.items() if name in elsewhere]

    @property
    def idempotency_key(self) -> str:
        """The same form sent twice is one export; changed after going back, it is another."""
        sent = (self.posted or MultiDict()).get("nonce", self.nonce)
        how = [self.format, self.dialect, self.compression, self.columns, self.fresh, me().zone]
        asked = [sent, self.report.key, self.raw, how]
        return f"form-{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()}"

    def _kept(self, param: Param) -> Reference | None:
        """The long list that the form has, or had before."""
        if self.posted is None:
            return Reference.of(self.filled.get(param.name))
        before = lists.kept_before(self.posted.get(lists.KEPT + param.name, ""))
        return Reference.of(self.given.get(param.name)) or before

    def _value(self, param: Param) -> str:
        if self.posted is not None:
            return _typed(self.raw.get(param.name, ""))
        return _typed(self.filled.get(param.name, param.default))


def page(form: Form, forecast: Forecast | None = None, sample: Sample | None = None) -> str:
    """The report's page with its form, and what was found out about the export beforehand."""
    report = form.report
    # The source may be asked for its columns: no connection is held meanwhile.
    db.session.rollback()
    columns.of(report)
    return render_template(
        "reports/show.html",
        report=report,
        form=form,
        forecast=forecast,
        sample=sample,
        usual=history([report.key]).get(report.key),
        formats=formats.formats().values(),
        compressions=formats.Format.compressions,
        words=EXAMPLES,
        listening=jobs.listening(report.queue),
    )


def _place(typed: str | None) -> int:
    return int(typed) if typed and typed.isdecimal() and len(typed) < 10 else 0


def searched(report: Report, query: str) -> bool:
    """Every word of `query` stands in what a report's row says; static/search.js does the same."""
    text = f"{report.title} {report.description} {report.group} {report.key}".lower()
    return all(word in text for word in query.lower().split())


def _problems(user: User) -> tuple[Problem, ...]:
    """Reports that cannot be used as they are written, for those who can mend them."""
    return jobs.registry().problems if user.is_admin and settings.current().development else ()


def _asked_before(job_id: str, report: Report) -> Job:
    try:
        job = jobs.find(me(), UUID(job_id))
    except ValueError:
        raise NotFound("There is no such job, or it is not yours.") from None
    if job.definition != report.key:
        raise NotFound("That job is one of another report.")
    return job


def _limits(param: Param) -> str:
    """What `min` and `max` allow, in words."""
    low, high = (_limit(param, limit) for limit in (param.min, param.max))
    kind = "days" if param.type in ("date", "datetime") else "list" if param.type == "list" else "numbers"
    words = {
        "days": ("From {} to {}.", "Not before {}.", "Not after {}."),
        "list": ("{} to {} values.", "{} or more values.", "At most {} values."),
        "numbers": ("From {} to {}.", "{} or more.", "{} or less."),
    }[kind]
    if low is not None and high is not None:
        return words[0].format(low, high)
    if low is not None:
        return words[1].format(low)
    return words[2].format(high) if high is not None else ""


def _limit(param: Param, limit: Any) -> str | None:
    if limit is None:
        return None
    return str(limit) if param.type in ("date", "datetime") else f"{Decimal(str(limit)):,}"


def _typed(value: object) -> str:
    """A default or a frozen value as a person would type it."""
    if value is None or isinstance(value, Mapping):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "\n".join(str(item) for item in value)
    return str(value)
