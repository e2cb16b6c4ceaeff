"""The OpenAPI 3.1 document: APIFlask's reading of the operations, and what it cannot know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from apiflask import APIBlueprint, APIFlask
from flask import current_app

from app.settings import current
from app.web.api import import_schemas
from app.web.api.examples import EVENTS_EXAMPLE, LINES_EXAMPLE

Json = dict[str, Any]
Answers = dict[int, Json]
View = TypeVar("View", bound=Callable[..., Any])

DESCRIPTION = """\
Ask for exports, follow them, and fetch their files; upload files to import.

Send a token as `Authorization: Bearer wb_…`. Make one on your account's page, or with
`flask tokens create EMAIL`. A signed-in browser's session works, too; then every POST, PATCH and DELETE needs
the session's CSRF token as `X-CSRFToken`.

Every error is a problem document (RFC 9457). All times are RFC 3339 in UTC. Members and headers may be added
to answers; within v1 none is taken away.
"""
FOLLOWING = """\
Server-sent events. `log` carries a line (see Line) with its number as `id`; each line comes once and in
order. `progress` carries `{done, total, unit}`, `status` carries `{status}`. The stream ends after a final
status; a client that comes back with the last line's id gets 204 and should stop.
"""
TAGS = [
    {"name": "Reports", "description": "What there is to export."},
    {"name": "Jobs", "description": "Asking for files, and following the work."},
    {"name": "Imports", "description": "Sending files in, checking them, applying and undoing them."},
    {"name": "Uploads", "description": "Sending files in, in pieces, however often the connection breaks."},
]

# Operations whose lists may be sent as files.
WITH_LISTS = ("createExport", "forecastExport")

# What each refusal means.
REFUSALS = {
    400: "The request cannot be understood; `detail` says why.",
    401: "No token and no session, or one that is not good any more.",
    404: "There is no such thing, or it is not yours to see.",
    409: "The state of things does not allow it.",
    410: "It was here once, and has been removed.",
    413: "The body is longer than 1 MiB (16 MiB with lists), or a file larger than it may be.",
    415: "The body is not of the kind that is asked for.",
    422: "Some values are wrong; `errors` names each.",
    429: "Too many requests, or too many unfinished jobs.",
}
PROBLEM: Json = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457. `code` is stable and for programs, `detail` is for people.",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {
            "type": "object",
            "description": "One message for each wrong value, by its name.",
            "additionalProperties": {"type": "string"},
        },
        "reference": {"type": "string", "description": "With a 5xx: what the operator finds in the log."},
    },
    "required": ["type", "title", "status", "detail", "code"],
    "additionalProperties": False,
}
LINE: Json = {
    "type": "object",
    "title": "Line",
    "description": "The data of `event: log`.",
    "properties": {
        "number": {"type": "integer", "minimum": 1, "description": "Also the event's `id`."},
        "at": {"type": "string", "format": "date-time"},
        "level": {"enum": ["info", "warning", "error"]},
        "text": {"type": "string"},
    },
    "required": ["number", "at", "level", "text"],
    "additionalProperties": False,
}


LINE_REF = {"$ref": "#/components/schemas/Line"}


def header(description: str, **schema: Any) -> Json:
    return {"description": description, "schema": schema}


RETRY_AFTER = {"Retry-After": header("Ask again after so many seconds.", type="integer", minimum=0)}
NEXT_PAGE: Answers = {200: {"headers": {"Link": header('The next page: `<…>; rel="next"`.', type="string")}}}
ETAG: Answers = {
    200: {"headers": {"ETag": header("Changes with the job.", type="string")}},
    304: {"description": "Nothing has changed."},
}


UPLOAD_OFFSET = header("How many bytes are here; the next piece begins there.", type="integer", minimum=0)
OFFSET: Answers = {200: {"headers": {"Upload-Offset": UPLOAD_OFFSET}}}
RIGHT_OFFSET: Answers = {409: {"headers": {"Upload-Offset": UPLOAD_OFFSET}}}


def begun() -> Answers:
    """The headers of a 201."""
    location = header("The upload.", type="string", format="uri")
    return {201: {"headers": {"Location": location, "Upload-Offset": UPLOAD_OFFSET}}}


def accepted(*, replay: bool = False) -> Answers:
    """The headers of a 202."""
    headers = {"Location": header("The job.", type="string", format="uri")}
    if replay:
        text = "There, and `true`, when an earlier request with the same key has made the job."
        headers["Idempotent-Replay"] = header(text, const="true")
    return {202: {"headers": headers}}


def operation(id: str, tag: str, *refusals: int, answers: Answers | None = None) -> Callable[[View], View]:
    """What an operation says of itself beside its shapes: its refusals, and the headers of its answers."""
    responses: Any = (answers or {}) | {
        status: _problem(status) | (answers or {}).get(status, {}) for status in refusals
    }
    return APIBlueprint("operation", __name__).doc(operation_id=id, tags=[tag], responses=responses)


def document() -> Json:
    """The document, made once for each app."""
    made = current_app.extensions.get("waybill.openapi")
    if made is None:
        made = current_app.extensions["waybill.openapi"] = _make(cast(APIFlask, current_app))
    return cast(Json, made)


def _make(flask_app: APIFlask) -> Json:
    flask_app.servers = [{"url": current().public_url.rstrip("/")}]
    flask_app.description = DESCRIPTION
    flask_app.tags = cast(Any, TAGS)
    made = cast(Json, flask_app.spec)
    made["components"] = {
        "schemas": {_plain(name): shape for name, shape in made["components"]["schemas"].items()}
        | {"Line": LINE, "Problem": PROBLEM, "ImportRequest": import_schemas.shape()},
        "securitySchemes": _security_schemes(flask_app),
    }
    made["paths"]["/api/v1/imports"]["post"]["requestBody"] = import_schemas.body()
    _add_piece(made["paths"]["/api/v1/uploads/{id}"]["patch"])
    # In the order in which a caller meets them: exports before jobs.
    made["paths"] = dict(sorted((made["paths"] | _log()).items()))
    for method, found in _operations(made):
        _tidy(method, found)
    for ref in _references(made):
        ref["$ref"] = "#/components/schemas/" + _plain(ref["$ref"].rpartition("/")[2])
    return made


def _security_schemes(flask_app: APIFlask) -> Json:
    cookie = flask_app.config["SESSION_COOKIE_NAME"]
    return {
        "token": {"type": "http", "scheme": "bearer", "description": "An API token, `wb_…`."},
        "session": {"type": "apiKey", "in": "cookie", "name": cookie, "description": "A signed-in browser."},
        "csrf": {
            "type": "apiKey",
            "in": "header",
            "name": "X-CSRFToken",
            "description": "The session's CSRF token.",
        },
    }


def _log() -> dict[str, Json]:
    """The paths of app/web/stream.py: a stream is no JSON, and so no business of APIFlask's."""
    stream = {"text/event-stream": {"schema": {"type": "string"}, "example": EVENTS_EXAMPLE}}
    lines = {"application/json": {"schema": _object(items=_array(LINE_REF)), "example": LINES_EXAMPLE}}
    number: Json = {"type": "integer", "minimum": 0}
    job = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    after = {"name": "after", "in": "query", "required": False} | header(
        "The number of the last line you have: only those behind it are sent.", **number
    )
    last = {"name": "Last-Event-ID", "in": "header", "required": False} | header(
        "The same; browsers send it by themselves when they come back.", **number
    )
    refusals = {str(status): _problem(status) for status in (401, 404, 429)}
    return {
        "/api/v1/jobs/{id}/events": {
            "get": {
                "summary": "Follow a job live",
                "description": FOLLOWING,
                "operationId": "followJob",
                "tags": ["Jobs"],
                "parameters": [job, after, last],
                "responses": {
                    "200": {"description": "The stream.", "content": stream},
                    "204": {"description": "The job is over, and you have every line."},
                }
                | refusals,
            }
        },
        "/api/v1/jobs/{id}/log": {
            "get": {
                "summary": "Read a job's log",
                "description": "At most 1000 lines, oldest first, for those who cannot hold a stream open.",
                "operationId": "readLog",
                "tags": ["Jobs"],
                "parameters": [dict(job), dict(after)],
                "responses": {"200": {"description": "The lines.", "content": lines}} | refusals,
            }
        },
    }


def _add_piece(found: Json) -> None:
    """The body of app/web/api/uploads.py's pieces: bytes are no JSON, either."""
    bytes_: Json = {"type": "string", "format": "binary"}
    found["requestBody"] = {"content": {"application/offset+octet-stream": {"schema": bytes_}}}
    number: Json = {"type": "integer", "minimum": 0}
    found["parameters"] += [
        {"name": "Upload-Offset", "in": "header", "required": True}
        | header("How many bytes came before this piece; 0 for the first.", **number),
        {"name": "Content-Digest", "in": "header", "required": False}
        | header(
            "RFC 9530, of this piece: `sha-256=:<base64>:`, or `sha-512`.",
            type="string",
        ),
    ]


def _object(**members: Json) -> Json:
    return {"type": "object", "properties": members, "required": [*members]}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _problem(status: int) -> Json:
    schema = {"$ref": "#/components/schemas/Problem"}
    found: Json = {
        "description": REFUSALS[status],
        "content": {"application/problem+json": {"schema": schema}},
    }
    return found | ({"headers": RETRY_AFTER} if status == 429 else {})


def _tidy(method: str, found: Json) -> None:
    """What holds for every operation."""
    session: Json = {"session": []} if method == "get" else {"session": [], "csrf": []}
    found["security"] = [{"token": []}, session]
    for parameter in found.get("parameters", []):
        _tidy_parameter(parameter, found["tags"])
    if "requestBody" in found:
        found["requestBody"]["required"] = True
        if found["operationId"] in WITH_LISTS:
            content = found["requestBody"]["content"]
            content["multipart/form-data"] = {"schema": _parts(content["application/json"]["schema"])}
    for answer in found["responses"].values():
        if not answer.get("content", True):
            del answer["content"]


def _parts(request: Json) -> Json:
    """The same request with lists in files: one part for each, named after its param."""
    file: Json = {
        "type": "string",
        "format": "binary",
        "description": "The values of the list param of that name: text, CSV or an Excel workbook (.xlsx).",
    }
    header: Json = {
        "type": "string",
        "description": "The header of the file's column that holds them; else the one named like the param, "
        "else the first.",
    }
    return {
        "type": "object",
        "properties": {"request": dict(request)},
        "required": ["request"],
        "patternProperties": {"^params\\.": file, "^column\\.": header},
        "additionalProperties": False,
    }


def _tidy_parameter(parameter: Json, tags: list[str]) -> None:
    if parameter["name"] == "id":
        thing = tags[0].removesuffix("s").lower()
        parameter |= {"description": f"The {thing}'s id.", "schema": {"type": "string", "format": "uuid"}}
    elif parameter["name"] == "key":
        what = "importer" if tags == ["Imports"] else "report"
        parameter["description"] = f"The {what}'s key."
    else:
        schema = parameter["schema"]
        parameter.setdefault("description", schema.pop("description", ""))
        # Left out is not null: neither a header nor a query knows such a thing.
        if schema.get("default", "") is None:
            parameter["schema"] = schema["anyOf"][0]
    if parameter["name"] == "idempotency-key":
        parameter["name"] = "Idempotency-Key"


def _operations(made: Json) -> Iterator[tuple[str, Json]]:
    for path in made["paths"].values():
        yield from path.items()


def _plain(name: str) -> str:
    """APIFlask calls a shape in a shape "Outer.Inner", each time anew; no two of ours share a name."""
    return name.rpartition(".")[2]


def _references(node: Any) -> Iterator[Json]:
    """Every object of the document that is a reference."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _references(value)
