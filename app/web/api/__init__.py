"""JSON under /api/v1: ask for exports and follow them. `GET /api/v1/openapi.json` describes it all.

Callers read the views' docstrings: the first line is the operation's summary, the rest its description.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from uuid import UUID

from apiflask import APIBlueprint, APIFlask, HTTPError
from flask import jsonify, render_template, request, url_for
from flask_security import auth_required, current_user
from markupsafe import Markup, escape
from werkzeug.exceptions import UnsupportedMediaType
from werkzeug.wrappers import Response

from app import formats, jobs, preflight, sampling
from app.errors import InvalidParams
from app.imports import requests
from app.models.artifact import Artifact
from app.models.imports import Import
from app.models.job import Job
from app.params import json_schema
from app.reports import Report
from app.settings import current
from app.web.api import bodies, schemas
from app.web.api.examples import (
    DONE_EXAMPLE,
    EXPORT_EXAMPLE,
    PREFLIGHT_EXAMPLE,
    QUEUED_EXAMPLE,
    REPORT_EXAMPLE,
    curl,
)
from app.web.api.openapi import ETAG, NEXT_PAGE, accepted, document, operation
from app.web.errors import waybill_error
from app.web.people import me

# What a body may have, in bytes.
BODY_LIMIT = 1024 * 1024

# Operations that take a JSON body.
WITH_BODY = (
    "api.create_export",
    "api.forecast_export",
    "uploads_api.begin_upload",
    "imports_api.create_step",
)
# Of these, the ones whose params may be long lists, and files of such.
WITH_LISTS = ("api.create_export", "api.forecast_export")

# What APIFlask calls the body as a whole.
WHOLE = "_schema"

api = APIBlueprint("api", __name__, url_prefix="/api/v1")
signed_in = auth_required("token", "session")


def init_app(app: APIFlask) -> None:
    """Register the API and what its document is made from."""
    # Only what stands beside each operation: the answers APIFlask would add by itself are not ours.
    app.config.update(
        AUTO_200_RESPONSE=False,
        AUTO_404_RESPONSE=False,
        AUTO_AUTH_ERROR_RESPONSE=False,
        AUTO_VALIDATION_ERROR_RESPONSE=False,
    )
    # They need what stands below.
    from app.web.api import imports, uploads

    for blueprint in (api, uploads.api, imports.api):
        app.register_blueprint(blueprint)


# Reports.


@api.get("/reports")
@signed_in
@api.output(schemas.Reports, description="The reports.", example={"items": [REPORT_EXAMPLE]})
@operation("listReports", "Reports", 401, 429)
def list_reports() -> Any:
    """List the reports you may export

    By group and title.
    """
    return {"items": [report_json(report) for report in jobs.registry().for_user(me().role_names)]}


@api.get("/reports/<key>")
@signed_in
@api.output(schemas.Report, description="The report.", example=REPORT_EXAMPLE)
@operation("getReport", "Reports", 401, 404, 429)
def get_report(key: str) -> Any:
    """Describe one report

    Its parameters as JSON Schema, its columns, and the formats it can be had in.
    """
    return report_json(jobs.report_for(me(), key))


@api.post("/reports/<key>/preflight")
@signed_in
@api.input(schemas.PreflightRequest, location="json", example={"params": {"status": "open"}, "format": "csv"})
@api.output(schemas.Preflight, description="The forecast.", example=PREFLIGHT_EXAMPLE)
@operation("forecastExport", "Reports", 400, 401, 404, 413, 415, 422, 429)
def forecast_export(key: str, json_data: schemas.PreflightRequest) -> Any:
    """Forecast an export without running it

    The source has two seconds to say how many rows it expects. Nothing is started.
    """
    asked = jobs.think_of(
        me(),
        key,
        bodies.with_lists(key, json_data.params),
        format=json_data.format,
        dialect=json_data.dialect,
        compression=json_data.compression,
        columns=json_data.columns,
        time_zone=json_data.time_zone,
    )
    forecast = preflight.forecast(asked)
    sample = sampling.sample(asked) if json_data.sample else None
    return {
        "rows": forecast.rows,
        "bytes": forecast.bytes,
        "seconds": forecast.seconds,
        "advice": forecast.advice,
        "unknown": forecast.unknown or None,
        "sample": sample
        and {
            "columns": sample.columns,
            "rows": sample.rows,
            "trouble": sample.trouble or None,
            "file": sample.file or None,
        },
    }


# Exports and jobs.


@api.post("/exports")
@signed_in
@api.input(schemas.ExportHeaders, location="headers")
@api.input(schemas.ExportRequest, location="json", example=EXPORT_EXAMPLE)
@api.output(schemas.Job, 202, description="The job, queued.", example=QUEUED_EXAMPLE)
@operation("createExport", "Jobs", 400, 401, 404, 409, 413, 415, 422, 429, answers=accepted(replay=True))
def create_export(json_data: schemas.ExportRequest, headers_data: schemas.ExportHeaders) -> Any:
    """Ask for an export

    Answers at once with a job. Look at it at its `Location`, or follow its events. Lists of values may be
    sent as files: see the body as `multipart/form-data`.
    """
    job = jobs.request_export(
        me(),
        json_data.report,
        bodies.with_lists(json_data.report, json_data.params),
        format=json_data.format,
        dialect=json_data.dialect,
        compression=json_data.compression,
        idempotency_key=headers_data.idempotency_key,
        columns=json_data.columns,
        time_zone=json_data.time_zone,
        fresh=json_data.fresh,
    )
    return worked_on(job)


@api.get("/jobs")
@signed_in
@api.input(schemas.JobsQuery, location="query")
@api.output(schemas.Jobs, description="One page of jobs.", example={"items": [DONE_EXAMPLE], "next": None})
@operation("listJobs", "Jobs", 400, 401, 422, 429, answers=NEXT_PAGE)
def list_jobs(query_data: schemas.JobsQuery) -> Any:
    """List jobs

    Newest first, in pages. Follow `next` until it is null.
    """
    found, cursor = jobs.listing(
        me(),
        status=query_data.status,
        everyone=query_data.everyone,
        before=query_data.before,
        limit=query_data.limit,
    )
    artifacts, now = jobs.artifacts_of(found), jobs.database_now()
    kept = jobs.imports_of(found)
    items = [job_json(job, artifacts.get(job.id), now, kept.get(job.import_id)) for job in found]
    return page("api.list_jobs", query_data, items, cursor)


@api.get("/jobs/<uuid:id>")
@signed_in
@api.output(schemas.Job, description="The job.", example=DONE_EXAMPLE)
@operation("getJob", "Jobs", 401, 404, 429, answers=ETAG)
def get_job(id: UUID) -> Any:
    """Look at a job

    Once a second is often enough; its events come by themselves. `If-None-Match` with the last `ETag`
    answers 304 while nothing has changed.
    """
    return revalidated(job_json(jobs.find(me(), id)), "private, no-cache")


@api.post("/jobs/<uuid:id>/cancellation")
@signed_in
@api.output(schemas.Job, 202, description="The job: cancelled if it was queued, else about to stop.")
@operation("cancelJob", "Jobs", 400, 401, 404, 409, 413, 429, answers=accepted())
def cancel_job(id: UUID) -> Any:
    """Cancel a job

    A queued job is cancelled at once, a running one within a few seconds; nothing of it is published.
    409 if it is over already.
    """
    return worked_on(requests.cancel(jobs.find(me(), id)))


@api.post("/jobs/<uuid:id>/retry")
@signed_in
@api.output(schemas.Job, 202, description="The same job, queued again.")
@operation("retryJob", "Jobs", 400, 401, 404, 409, 413, 429, answers=accepted())
def retry_job(id: UUID) -> Any:
    """Try a failed or cancelled job again

    The same job with the same parameters and a fresh set of attempts; its log goes on.
    409 in any other status.
    """
    return worked_on(requests.retry(me(), jobs.find(me(), id)))


# The description; public, as it tells nothing of reports or people.


@api.get("/openapi.json")
@api.doc(hide=True)
def openapi() -> Response:
    return revalidated(document(), "public, max-age=300")


@api.get("/docs")
@api.doc(hide=True)
def docs() -> str:
    base = current().public_url.rstrip("/")
    return render_template("api/docs.html", api=document(), base=base, curl=curl, coded=coded)


# Details.


@api.before_request
def read_body() -> None:
    """Refuse a body that is too long, is no JSON, or nests too deeply, before any view looks at it."""
    if request.method != "POST":
        return
    endpoint = request.url_rule.endpoint if request.url_rule else ""
    limit = bodies.LIMIT if endpoint in WITH_LISTS and current_user.is_authenticated else BODY_LIMIT
    if endpoint in WITH_LISTS and request.mimetype == "multipart/form-data":
        bodies.read_parts(limit)
        return
    bodies.read(limit)
    if endpoint not in WITH_BODY:
        return
    if not request.is_json:
        raise UnsupportedMediaType("Send JSON, with the header Content-Type: application/json.")
    bodies.read_json()


@api.errorhandler(HTTPError)
def wrong_values(error: HTTPError) -> Response:
    """What APIFlask says of a request that does not have the documented shape: one sentence a name."""
    places = error.detail.items() if isinstance(error.detail, dict) else ()
    return waybill_error(
        InvalidParams(
            {
                name.replace("_", "-").title() if place == "headers" else name: "; ".join(texts)
                for place, named in places
                for name, texts in named.items()
                if name != WHOLE
            }
            or bodies.NO_OBJECT
        )
    )


def report_json(report: Report) -> dict[str, Any]:
    columns = report.columns
    return {
        "key": report.key,
        "title": report.title,
        "description": report.description,
        "group": report.group,
        "roles": list(report.roles),
        "params": json_schema(report.params),
        "columns": columns and [{"name": item.name, "description": item.description} for item in columns],
        "formats": [format_json(item, report) for item in formats.formats().values()],
        "bundled": report.bundled,
        "url": absolute(f"/reports/{report.key}"),
    }


def format_json(format: formats.Format, report: Report) -> dict[str, Any]:
    return {
        "name": format.name,
        "extension": format.extension,
        "content_type": format.content_type,
        "dialects": list(format.dialects),
        "compressions": ["zip"] if report.bundled else list(format.compressions),
    }


def page(endpoint: str, query: schemas.Question, items: list[Any], cursor: str | None) -> Any:
    """One page of a list, and the same `query` at the `cursor` as the next one; None: there is none."""
    if cursor is None:
        return {"items": items, "next": None}
    following = query.model_dump(exclude_defaults=True) | {"before": cursor}
    url = absolute(url_for(endpoint, **following))
    return {"items": items, "next": url}, 200, {"Link": f'<{url}>; rel="next"'}


def worked_on(job: Job) -> tuple[dict[str, Any], int, dict[str, str]]:
    """The job, new or changed, and where to look at it."""
    replay = {"Idempotent-Replay": "true"} if job.replayed else {}
    return job_json(job), 202, {"Location": absolute(url_for("api.get_job", id=job.id)), **replay}


def job_json(
    job: Job, artifact: Artifact | None = None, now: datetime | None = None, import_: Import | None = None
) -> dict[str, Any]:
    return jobs.as_json(job, artifact, now, import_) | {"url": absolute(f"/jobs/{job.id}")}


def absolute(path: str) -> str:
    """What everybody reaches `path` under, whatever host this request came in by."""
    return current().public_url.rstrip("/") + path


def coded(text: str) -> Markup:
    """`code` of the descriptions as <code>; everything else as it is."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def revalidated(body: dict[str, Any], caching: str) -> Response:
    """The body with its ETag, or 304 if the caller has it."""
    response = jsonify(body)
    response.headers["Cache-Control"] = caching
    response.add_etag()
    return response.make_conditional(request)
