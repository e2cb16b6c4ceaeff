"""Jobs on pages: the list, one job with its live log, and what its owner may do with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from uuid import UUID

from apiflask import APIBlueprint
from flask import flash, redirect, render_template, request, url_for
from flask_security import auth_required
from sqlalchemy import select
from werkzeug.wrappers import Response

from app import delivery, events, jobs
from app.delivery import DeliveryState
from app.errors import Conflict, NotFound
from app.extensions import db
from app.imports import requests
from app.models.artifact import Artifact, Download
from app.models.job import QUEUED, RUNNING, STATUSES, SUCCEEDED, Job
from app.reports import Report
from app.web import import_page
from app.web.people import me

# Named apart from app.jobs, whose verbs these views call.
pages = APIBlueprint("jobs", __name__, enable_openapi=False)

# Lines of a log on one page.
LINES = 1000
DOWNLOADS_SHOWN = 20


@pages.get("/jobs")
@auth_required("session")
def index() -> str:
    """My jobs, newest first; `?status=`, `?everyone=1` (administrators), `?before=` a page's cursor."""
    status = request.args.get("status") or None
    everyone = me().is_admin and request.args.get("everyone") == "1"
    before = request.args.get("before") or None
    found, older = jobs.listing(me(), status=status, everyone=everyone, before=before)
    counts = jobs.counts(me(), everyone=everyone)
    return render_template(
        "jobs/index.html",
        jobs=found,
        artifacts=jobs.artifacts_of(found),
        older=older,
        before=before,
        status=status,
        statuses=STATUSES,
        counts=counts,
        total=sum(counts.values()),
        everyone=everyone,
        now=jobs.database_now(),
    )


@pages.get("/jobs/<uuid:job_id>")
@auth_required("session")
def show(job_id: UUID) -> str:
    """The job with its latest lines; `?before=` shows the lines before that number instead."""
    job = jobs.find(me(), job_id)
    before = request.args.get("before", type=int)
    end = job.last_event if before is None else max(min(before - 1, job.last_event), 0)
    start = max(end - LINES, 0)
    return render_template(
        "jobs/show.html",
        view=View(job),
        lines=events.after(job.id, start, end - start) if end > start else [],
        live=before is None,
        end=end,
    )


@pages.get("/jobs/<uuid:job_id>/summary")
@auth_required("session")
def summary(job_id: UUID) -> str:
    """The page's parts that change with the status, for job.js to swap in."""
    return render_template("jobs/_summary.html", view=View(jobs.find(me(), job_id)))


@pages.post("/jobs/<uuid:job_id>/cancellation")
@auth_required("session")
def cancel(job_id: UUID) -> Response:
    job = jobs.find(me(), job_id)
    try:
        requests.cancel(job)
    except Conflict as error:
        flash(error.message, "warning")
    return _to(job)


@pages.post("/jobs/<uuid:job_id>/retry")
@auth_required("session")
def retry(job_id: UUID) -> Response:
    job = jobs.find(me(), job_id)
    try:
        requests.retry(me(), job)
    except Conflict as error:
        flash(error.message, "warning")
    return _to(job)


@pages.post("/jobs/<uuid:job_id>/again")
@auth_required("session")
def again(job_id: UUID) -> Response:
    job = jobs.find(me(), job_id)
    try:
        return _to(jobs.again(me(), job))
    except Conflict as error:
        flash(error.message, "warning")
        return _to(job)


def _to(job: Job) -> Response:
    return redirect(url_for("jobs.show", job_id=job.id), 303)


@dataclass
class View:
    """What a job's page asks about it; each answer is looked up when the template first asks."""

    job: Job

    @cached_property
    def of_import(self) -> import_page.View:
        """What is known of the import that the job is a step of; only for those."""
        assert self.job.import_id is not None
        return import_page.View(requests.find(me(), self.job.import_id))

    @cached_property
    def now(self) -> datetime:
        return jobs.database_now()

    @cached_property
    def report(self) -> Report | None:
        """Its definition as it is today; None if it is gone or not this person's any more."""
        if self.job.kind != "export":
            return None
        try:
            return jobs.report_for(me(), self.job.definition)
        except NotFound:
            return None

    @cached_property
    def labels(self) -> dict[str, str]:
        """What each param of the job is called, in the report's order; its name if the report is gone."""
        known = {param.name: param.label for param in self.report.params} if self.report else {}
        known = {name: label for name, label in known.items() if name in self.job.params}
        return known | {name: name for name in self.job.params if name not in known}

    @property
    def chosen(self) -> list[tuple[str, object]]:
        """Label and frozen value of each param that narrows the result."""
        return [(label, self.job.params[name]) for name, label in self.labels.items() if self._is_set(name)]

    @property
    def left_open(self) -> list[str]:
        """Labels of the others."""
        return [label for name, label in self.labels.items() if not self._is_set(name)]

    def _is_set(self, name: str) -> bool:
        return self.job.params[name] not in (None, [])

    @cached_property
    def position(self) -> int | None:
        return jobs.queue_position(self.job)

    @cached_property
    def listening(self) -> bool:
        return jobs.listening(self.job.queue)

    @property
    def others(self) -> bool:
        """Somebody else's, seen by an administrator."""
        return self.job.owner_id != me().id

    @property
    def waits_for_later(self) -> bool:
        """Queued, but not to be tried before a time that is still to come."""
        at = self.job.next_attempt_at
        return self.job.status == QUEUED and at is not None and at > self.now

    @property
    def elapsed(self) -> float:
        """Seconds since it began, or that it took."""
        begun = self.job.started_at or self.job.created_at
        return max(((self.job.finished_at or self.now) - begun).total_seconds(), 0)

    @property
    def percent(self) -> int | None:
        """Whole percent done, None when the total is unknown. It may be an estimate, so 99 is the most."""
        total = self.job.progress_total
        return min(self.job.progress_done * 100 // total, 99) if total else None

    @property
    def rate(self) -> float | None:
        """Rows a second since it began; None where another job's progress is shown."""
        if self.job.follows_id:
            return None
        return self.job.progress_done / self.elapsed if self.elapsed >= 1 and self.job.progress_done else None

    @property
    def left(self) -> float | None:
        """Seconds it still takes at that rate."""
        total = self.job.progress_total
        return (total - self.job.progress_done) / self.rate if total and self.rate else None

    @cached_property
    def artifact(self) -> Artifact | None:
        # An import that was stopped has its refused rows, too.
        done = self.job.status == SUCCEEDED or (self.job.kind == "import" and self.job.final)
        return jobs.artifact_of(self.job) if done else None

    @property
    def snapshot_at(self) -> datetime | None:
        """When the source was read, as the receipt says."""
        return self.artifact.snapshot_at if self.artifact else None

    @cached_property
    def link(self) -> str | None:
        return jobs.link_url(self.artifact) if self.artifact else None

    @property
    def expired(self) -> bool:
        found = self.artifact
        return found is not None and (found.removed_at is not None or found.expires_at <= self.now)

    @cached_property
    def mail(self) -> DeliveryState:
        """The mail about how it ended."""
        return delivery.state(self.job)

    @cached_property
    def downloads(self) -> list[Download]:
        """The latest downloads, newest first."""
        if self.artifact is None:
            return []
        query = select(Download).where(Download.artifact_id == self.artifact.id)
        return list(db.session.scalars(query.order_by(Download.at.desc()).limit(DOWNLOADS_SHOWN)))

    @property
    def refresh(self) -> int | None:
        """After how many seconds the page asks again for what no event tells: the queue, the mail."""
        if self.job.status == QUEUED:
            return 30 if self.job.paused_at else 2
        if self.job.status == RUNNING:
            return 15
        if self.mail.status in ("waiting", "late"):
            return 2 if self.mail.status == "waiting" else 30
        return 60 if self.link else None
