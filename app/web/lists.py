"""Lists of values on a report's form: pasted, from a file, or kept from the try before."""

from __future__ import annotations

from collections.abc import Mapping

from flask import request
from werkzeug.datastructures import FileStorage, MultiDict

from app import lists
from app.errors import InvalidParams
from app.params import Param
from app.params.kinds import Reference
from app.params.lists import FILE_LIMIT
from app.reports import Report

# Fields beside a list's own one: a file, the header of its column, and what was given before.
FILE, COLUMN, KEPT = "list-file.", "list-column.", "list-kept."
# What a form may have, in bytes: what is typed or pasted, and with a file.
TYPED_LIMIT = 16 * 1024 * 1024
FORM_LIMIT = TYPED_LIMIT + FILE_LIMIT


def make_room(*_: object) -> None:
    """Let a form be as long as a pasted list. Registered so that it comes before whatever reads the form."""
    if request.method == "POST":
        request.max_form_memory_size = TYPED_LIMIT
        request.max_content_length = FORM_LIMIT


def given(
    report: Report, posted: Mapping[str, str], files: MultiDict[str, FileStorage], prefix: str
) -> dict[str, object]:
    """Raw values of the lists that were not typed: a file goes before a text, a text before what was kept.

    Raises InvalidParams with what is wrong in any file.
    """
    found: dict[str, object] = {}
    errors: dict[str, str] = {}
    for param in report.params:
        if param.type != "list":
            continue
        file = files.get(FILE + param.name)
        if file is not None and file.filename:
            try:
                found[param.name] = _from_file(report, param, file, posted.get(COLUMN + param.name, ""))
            except InvalidParams as error:
                errors |= error.errors
        elif posted.get(prefix + param.name, "").strip():
            continue
        elif kept := kept_before(posted.get(KEPT + param.name, "")):
            found[param.name] = kept.frozen()
    if errors:
        raise InvalidParams(errors)
    return found


def kept_before(field: str) -> Reference | None:
    """What `field` of a reference gave."""
    sha256, _, count = field.partition(":")
    number = int(count) if count.isdecimal() and len(count) < 10 else 0
    return Reference.of({"sha256": sha256, "count": number})


def field(reference: Reference) -> str:
    """A reference as a form sends it back."""
    return f"{reference.sha256}:{reference.count}"


def _from_file(report: Report, param: Param, file: FileStorage, column: str) -> object:
    values = lists.from_file(report, param, file.stream, column.strip() or None)
    # A form that comes back has lost its file: the list is kept for the next try.
    return lists.keep(values).frozen() if lists.is_long(values) else values
