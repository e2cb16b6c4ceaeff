"""Imports over the API: what can be imported, sending a file in, its steps, pausing them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

from apiflask import APIBlueprint, HTTPError
from flask import request, url_for
from pydantic import ValidationError
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import UnsupportedMediaType

from app import events, importers, jobs, uploads
from app.errors import InvalidParams
from app.importers import Column, Importer
from app.imports import requests
from app.imports.file.dialect import Dialect
from app.imports.rows import Counts
from app.models.imports import Import
from app.models.job import Job
from app.models.upload import Upload
from app.web.api import (
    absolute,
    bodies,
    import_schemas,
    page,
    read_body,
    revalidated,
    schemas,
    signed_in,
    worked_on,
    wrong_values,
)
from app.web.api.examples import APPLYING_EXAMPLE, IMPORT_EXAMPLE, IMPORTER_EXAMPLE, STEP_EXAMPLE
from app.web.api.openapi import ETAG, NEXT_PAGE, accepted, operation
from app.web.people import me
from app.web.uploads import receive_form, takes_file, unlimited

api = APIBlueprint("imports_api", __name__, url_prefix="/api/v1")
api.url_value_preprocessor(unlimited)
api.register_error_handler(HTTPError, wrong_values)

# What a form says in words, as JSON has it.
STRUCTURED = ("mapping", "dialect")
NUMBERS = ("reject_limit", "reject_percent", "rate")


@api.before_request
def read() -> None:
    """A form may hold a file of any size; every other body is short."""
    if request.endpoint != "imports_api.create_import" or request.mimetype != "multipart/form-data":
        read_body()


@api.get("/importers")
@signed_in
@api.output(import_schemas.Importers, description="The importers.", example={"items": [IMPORTER_EXAMPLE]})
@operation("listImporters", "Imports", 401, 429)
def list_importers() -> Any:
    """List what you may import

    By group and title.
    """
    return {"items": [importer_json(importer) for importer in importers.registry().for_user(me().role_names)]}


@api.get("/importers/<key>")
@signed_in
@api.output(import_schemas.Importer, description="The importer.", example=IMPORTER_EXAMPLE)
@operation("getImporter", "Imports", 401, 404, 429)
def get_importer(key: str) -> Any:
    """Describe one importer

    Its columns and what they take, and its modes.
    """
    return importer_json(requests.importer_for(me(), key))


@api.post("/imports")
@signed_in
@api.input(schemas.ExportHeaders, location="headers")
@api.output(schemas.Job, 202, description="The job, queued.", example=APPLYING_EXAMPLE)
@operation(
    "createImport", "Imports", 400, 401, 404, 409, 410, 413, 415, 422, 429, answers=accepted(replay=True)
)
@takes_file
def create_import(headers_data: schemas.ExportHeaders) -> Any:
    """Import a file

    Send the file along as `multipart/form-data`, or name a complete upload. How it is read is detected and
    its columns are matched by name; `dialect` and `mapping` say it better. Answers at once with the job of
    the step: `apply`, or `dry-run`, which writes nothing.
    """
    asked, upload = _asked()
    parent = requests.find(me(), asked.parent) if asked.parent else None
    key = asked.importer or (parent.importer if parent else None)
    if key is None:
        raise InvalidParams({"importer": "Name the importer."})
    importer = requests.importer_for(me(), key)
    job = requests.ask(
        me(),
        importer.key,
        upload,
        asked.step,
        mode=asked.mode or (parent.mode if parent else None),
        mapping=asked.mapping,
        dialect=asked.dialect,
        limits=_limits(asked),
        parent=parent,
        idempotency_key=headers_data.idempotency_key,
    )
    return worked_on(job)


@api.get("/imports")
@signed_in
@api.input(import_schemas.ImportsQuery, location="query")
@api.output(
    import_schemas.Imports,
    description="One page of imports.",
    example={"items": [IMPORT_EXAMPLE], "next": None},
)
@operation("listImports", "Imports", 400, 401, 422, 429, answers=NEXT_PAGE)
def list_imports(query_data: import_schemas.ImportsQuery) -> Any:
    """List imports

    Newest first, in pages. Follow `next` until it is null.
    """
    found, cursor = requests.listing(
        me(), everyone=query_data.everyone, before=query_data.before, limit=query_data.limit
    )
    steps = requests.jobs_of(found)
    items = [import_json(import_, steps[import_.id]) for import_ in found]
    return page("imports_api.list_imports", query_data, items, cursor)


@api.get("/imports/<uuid:id>")
@signed_in
@api.output(import_schemas.Import, description="The import.", example=IMPORT_EXAMPLE)
@operation("getImport", "Imports", 401, 404, 429, answers=ETAG)
def get_import(id: UUID) -> Any:
    """Look at an import

    How its file is read, where its columns go, and what its steps found and did.
    """
    import_ = requests.find(me(), id)
    return revalidated(import_json(import_, requests.jobs_of([import_])[import_.id]), "private, no-cache")


@api.post("/imports/<uuid:id>/jobs")
@signed_in
@api.input(import_schemas.StepRequest, location="json", example=STEP_EXAMPLE)
@api.input(schemas.ExportHeaders, location="headers")
@api.output(schemas.Job, 202, description="The job, queued.", example=APPLYING_EXAMPLE)
@operation(
    "createStep", "Imports", 400, 401, 404, 409, 410, 413, 415, 422, 429, answers=accepted(replay=True)
)
def create_step(id: UUID, json_data: import_schemas.StepRequest, headers_data: schemas.ExportHeaders) -> Any:
    """Ask for a step of an import

    `apply` after a dry run, or to go on with what failed or was cancelled; `undo` within the retention.
    409 if the step can't follow what was done.
    """
    import_ = requests.find(me(), id)
    job = requests.request(me(), import_, json_data.step, idempotency_key=headers_data.idempotency_key)
    return worked_on(job)


@api.post("/jobs/<uuid:id>/pause")
@signed_in
@api.output(schemas.Job, 202, description="The job: about to pause, or paused.")
@operation("pauseJob", "Jobs", 400, 401, 404, 409, 413, 429, answers=accepted())
def pause_job(id: UUID) -> Any:
    """Pause an import

    It stops at the end of the rows at work; what is in stays in. 409 for an export, or if it is over.
    """
    return worked_on(requests.pause(jobs.find(me(), id)))


@api.post("/jobs/<uuid:id>/resumption")
@signed_in
@api.output(schemas.Job, 202, description="The job, going on.")
@operation("resumeJob", "Jobs", 400, 401, 404, 409, 413, 429, answers=accepted())
def resume_job(id: UUID) -> Any:
    """Go on with a paused import

    Behind the last row that is in. 409 if it is not paused.
    """
    return worked_on(requests.resume(jobs.find(me(), id)))


def importer_json(importer: Importer) -> dict[str, Any]:
    return {
        "key": importer.key,
        "title": importer.title,
        "description": importer.description,
        "group": importer.group,
        "roles": list(importer.roles),
        "table": importer.table,
        "natural_key": list(importer.natural_key),
        "modes": list(importer.modes),
        "columns": [_column_json(column) for column in importer.columns],
        "url": absolute(url_for("imports.new", importer=importer.key)),
    }


def import_json(import_: Import, steps: list[Job]) -> dict[str, Any]:
    return {
        "id": str(import_.id),
        "importer": import_.importer,
        "title": import_.title,
        "upload": str(import_.upload_id),
        "filename": import_.upload.filename,
        "parent": str(import_.parent_id) if import_.parent_id else None,
        "mode": import_.mode,
        "dialect": Dialect.of(import_.dialect).as_json(),
        "unsure": {name: why.text for name, why in requests.reasons(import_).items() if not why.sure},
        "header": list(import_.header),
        "mapping": import_.mapping,
        **{name: getattr(import_, name) for name in NUMBERS},
        "forecast": _counts(import_.forecast),
        "examples": list((import_.forecast or {}).get("examples", ())),
        "result": _counts(import_.result),
        "undone": _counts(import_.undone),
        "jobs": [{"id": str(job.id), "step": job.step, "status": job.status} for job in steps],
        "created_at": events.rfc3339(import_.created_at),
        "url": absolute(f"/imports/{import_.id}"),
    }


def _counts(raw: dict[str, Any] | None) -> dict[str, Any] | None:
    return Counts.of(raw).as_json() if raw else None


def _column_json(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "label": column.label,
        "description": column.description,
        "required": column.required,
        "default": None if column.default is None else str(column.default),
        "choices": list(column.choices),
        "references": f"{column.references.table}.{column.references.key}" if column.references else None,
    }


def _limits(asked: import_schemas.ImportRequest) -> requests.Limits:
    given = asked.model_dump(include=set(NUMBERS), exclude_unset=True)
    return replace(requests.Limits(), **given)


def _asked() -> tuple[import_schemas.ImportRequest, Upload]:
    """What was asked for, and the upload that came along or was named."""
    if request.mimetype == "multipart/form-data":
        form = receive_form()
        asked = _valid(_of_form(form.fields))
        if form.upload is not None:
            return asked, form.upload
    elif request.is_json:
        asked = _valid(bodies.read_json())
    else:
        raise UnsupportedMediaType("Send multipart/form-data with a file, or JSON that names an upload.")
    if asked.upload is None:
        raise InvalidParams({"file": "Send a file, or name a complete upload."})
    return asked, uploads.find(me(), asked.upload)


def _of_form(fields: MultiDict[str, str]) -> dict[str, Any]:
    """The fields of a form as JSON has them; what is left empty is not given."""
    found: dict[str, Any] = {name: value for name, value in fields.items() if value and name != "csrf_token"}
    for name in STRUCTURED:
        if name in found:
            try:
                found[name] = json.loads(found[name])
            except (ValueError, RecursionError):
                raise InvalidParams({name: "Write it as a JSON object."}) from None
    for name in NUMBERS:
        if name in found:
            found[name] = None if found[name] == "null" else found[name]
    return found


def _valid(given: Any) -> import_schemas.ImportRequest:
    if not isinstance(given, dict):
        raise InvalidParams(bodies.NO_OBJECT)
    try:
        return import_schemas.ImportRequest.model_validate(given)
    except ValidationError as error:
        raise InvalidParams(
            {".".join(map(str, found["loc"])): found["msg"] for found in error.errors()}
        ) from None
