"""Bodies: JSON; or several parts, the request as JSON and files with the values of its lists."""

from __future__ import annotations

from dataclasses import dataclass
from json import JSONDecodeError, loads
from typing import IO, Any

from flask import request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from app import jobs, lists
from app.errors import InvalidParams, InvalidRequest
from app.params.lists import FILE_LIMIT
from app.web.people import me

# What JSON may have in which a list can be, in bytes; files come on top.
LIMIT = 16 * 1024 * 1024
# The parts: the JSON, and for the list of that name a file, and the header of the file's column.
REQUEST, FILE, COLUMN = "request", "params.", "column."
# The error of a body that is JSON, but a list, say.
NO_OBJECT = {"body": "Send a JSON object."}


@dataclass(frozen=True)
class Sent:
    """A list in a file; `column` is the header of its column, if it was named."""

    file: IO[bytes]
    column: str | None


def read(limit: int) -> None:
    """Take in the whole body; raises RequestEntityTooLarge if it has more than `limit` bytes."""
    # One more, as Werkzeug cuts a body that comes without its length at the limit, and says nothing.
    request.max_content_length = limit + 1
    if len(request.get_data()) > limit:
        raise RequestEntityTooLarge


def read_json() -> Any:
    """What the body says; raises InvalidRequest if it is no JSON, or nests too deeply."""
    try:
        return request.get_json()
    except BadRequest:
        flaw = _flaw(request.get_data())
        raise InvalidRequest(f"The body is not JSON{flaw}. Nothing was changed.") from None
    except RecursionError:
        raise InvalidRequest("The JSON is nested too deeply. Nothing was changed.") from None


def _flaw(body: bytes) -> str:
    """What is wrong with it, and where; "" if that cannot be said."""
    try:
        loads(body)
    except JSONDecodeError as error:
        return f": {error.msg}, line {error.lineno}, column {error.colno}"
    except ValueError:
        return ": it holds a number that is too long, or is not in UTF-8"
    return ""


def read_parts(limit: int) -> None:
    """Read the part that is JSON, up to `limit` bytes, and put each file where its list goes."""
    request.max_content_length = limit + FILE_LIMIT
    request.max_form_memory_size = limit
    try:
        body = loads(request.form[REQUEST])
    except (KeyError, ValueError, RecursionError):
        text = f"Send the request as JSON in the part {REQUEST!r}. Nothing was changed."
        raise InvalidRequest(text) from None
    params = body.setdefault("params", {}) if isinstance(body, dict) else None
    if isinstance(params, dict):
        for part, file in request.files.items():
            name = part.removeprefix(FILE)
            if name == part:
                raise InvalidRequest(f"There is no part {part[:80]!r}. A file of a list is {FILE}<its name>.")
            params[name] = Sent(file.stream, request.form.get(COLUMN + name))
    # What `get_json` gives from now on.
    request._cached_json = (body, body)


def with_lists(key: str, params: dict[str, Any]) -> dict[str, Any]:
    """The raw params with the values of each file. Raises NotFound and InvalidParams."""
    sent = {name: value for name, value in params.items() if isinstance(value, Sent)}
    if not sent:
        return params
    report = jobs.report_for(me(), key)
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, value in sent.items():
        param = report.params.get(name)
        if param is None or param.type != "list":
            errors[name] = "The report has no list of this name, so no file is taken for it."
            continue
        try:
            found[name] = lists.from_file(report, param, value.file, value.column)
        except InvalidParams as error:
            errors |= error.errors
    if errors:
        raise InvalidParams(errors)
    return params | found
