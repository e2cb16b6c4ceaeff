"""Uploads over the API, for programs and for upload.js: begin, send in pieces, complete."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from apiflask import APIBlueprint, HTTPError
from flask import Response, request, url_for
from werkzeug.exceptions import UnsupportedMediaType

from app import events, uploads
from app.errors import InvalidRequest, WrongOffset
from app.models.upload import Upload
from app.web.api import absolute, read_body, schemas, signed_in, wrong_values
from app.web.api.examples import UPLOAD_EXAMPLE, UPLOAD_REQUEST_EXAMPLE, UPLOADED_EXAMPLE
from app.web.api.openapi import OFFSET, RIGHT_OFFSET, begun, operation
from app.web.errors import waybill_error
from app.web.people import me
from app.web.uploads import take_time, unlimited

PIECE = "application/offset+octet-stream"

api = APIBlueprint("uploads_api", __name__, url_prefix="/api/v1/uploads")
api.url_value_preprocessor(unlimited)
api.before_request(read_body)
api.register_error_handler(HTTPError, wrong_values)


@api.post("")
@signed_in
@api.input(schemas.UploadRequest, location="json", example=UPLOAD_REQUEST_EXAMPLE)
@api.output(schemas.Upload, 201, description="The upload, without a byte yet.", example=UPLOAD_EXAMPLE)
@operation("beginUpload", "Uploads", 400, 401, 413, 415, 422, 429, answers=begun())
def begin_upload(json_data: schemas.UploadRequest) -> Any:
    """Begin an upload

    Then send the file's bytes to its `Location`, in one piece or in several. One that gets no more bytes is
    removed after the retention.
    """
    upload = uploads.begin(
        me(), json_data.filename, declared_bytes=json_data.bytes, declared_sha256=json_data.sha256
    )
    location = absolute(url_for("uploads_api.get_upload", id=upload.id))
    return upload_json(upload), 201, {"Location": location, **offset_of(upload)}


@api.get("/<uuid:id>")
@signed_in
@api.output(schemas.Upload, description="The upload.", example=UPLOADED_EXAMPLE)
@operation("getUpload", "Uploads", 401, 404, 429, answers=OFFSET)
def get_upload(id: UUID) -> Any:
    """Ask how far an upload is

    After a cut, ask where to go on: `Upload-Offset`. A `HEAD` request gets that, too.
    """
    upload = uploads.find(me(), id)
    return upload_json(upload), 200, offset_of(upload)


@api.patch("/<uuid:id>")
@signed_in
@api.output(schemas.Upload, description="The upload, with the piece in it.", example=UPLOADED_EXAMPLE)
@operation("sendPiece", "Uploads", 400, 401, 404, 409, 410, 413, 415, 422, 429, answers=OFFSET | RIGHT_OFFSET)
def send_piece(id: UUID) -> Any:
    """Send the next bytes of a file

    If the connection breaks, the bytes that came are kept, so ask where to go on. With a `Content-Digest`
    all of the piece is kept or none of it. Pieces of 8 MiB or more are best; 10,000 is the most.
    """
    upload = uploads.find(me(), id)
    if request.mimetype not in (PIECE, "application/octet-stream"):
        raise UnsupportedMediaType(f"Send the bytes as they are, with the header Content-Type: {PIECE}.")
    take_time()
    upload = uploads.receive(
        upload,
        _offset(),
        request.stream,
        length=request.content_length,
        digest=request.headers.get("Content-Digest"),
    )
    return upload_json(upload), 200, offset_of(upload)


@api.post("/<uuid:id>/completion")
@signed_in
@api.output(schemas.Upload, description="The upload, complete.", example=UPLOADED_EXAMPLE)
@operation("completeUpload", "Uploads", 400, 401, 404, 409, 410, 413, 422, 429, answers=RIGHT_OFFSET)
def complete_upload(id: UUID) -> Any:
    """Say that all bytes are there

    The file is looked at: what is nothing to import is refused, and removed. 409 if bytes are missing.
    """
    return upload_json(uploads.complete(uploads.find(me(), id)))


@api.delete("/<uuid:id>")
@signed_in
@api.output({}, 204, description="It is gone.")
@operation("removeUpload", "Uploads", 400, 401, 404, 409, 429)
def remove_upload(id: UUID) -> Any:
    """Remove an upload

    Its bytes, that is. 409 while a job needs them.
    """
    uploads.remove(uploads.find(me(), id))
    return ""


@api.errorhandler(WrongOffset)
def wrong_offset(error: WrongOffset) -> Any:
    answer = waybill_error(error)
    answer.headers["Upload-Offset"] = str(error.offset)
    return answer


@api.after_request
def never_stored(answer: Response) -> Response:
    """A browser that asks where to go on wants the truth."""
    answer.headers["Cache-Control"] = "no-store"
    return answer


def upload_json(upload: Upload) -> dict[str, Any]:
    return {
        "id": str(upload.id),
        "filename": upload.filename,
        "status": upload.status,
        "offset": upload.bytes,
        "bytes": upload.declared_bytes,
        "sha256": upload.sha256,
        "refusal": upload.refusal,
        "created_at": events.rfc3339(upload.created_at),
        "expires_at": events.rfc3339(upload.expires_at),
        "removed_at": events.rfc3339(upload.removed_at) if upload.removed_at else None,
    }


def offset_of(upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.bytes)}


def _offset() -> int:
    told = request.headers.get("Upload-Offset", "")
    if not told.isascii() or not told.isdigit() or len(told) > 18:
        raise InvalidRequest(
            "Say with Upload-Offset how many bytes came before this piece; 0 for the first. "
            "Nothing was changed."
        )
    return int(told)
