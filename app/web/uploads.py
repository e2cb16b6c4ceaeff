"""Receiving files in web requests, straight into blocks: neither memory nor /tmp ever holds one whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flask import current_app, g, request
from flask_wtf.csrf import CSRFError, validate_csrf
from werkzeug.datastructures import ImmutableMultiDict, MultiDict
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.sansio.multipart import NEED_DATA, Data, Epilogue, Event, Field, File, MultipartDecoder
from wtforms import ValidationError

from app import uploads
from app.errors import InvalidRequest
from app.extensions import csrf
from app.models.upload import Upload
from app.web.auth import token_id
from app.web.people import me

# What any other request may send, in bytes; most views take less.
BODY_LIMIT = 64 * 1024 * 1024
# All of a form's fields together, its file aside, and how many parts it has.
FIELDS_LIMIT, PARTS_LIMIT = 1024 * 1024, 500
READ = 64 * 1024
# A sender that says nothing for so long is gone, in seconds; what it sent is kept.
PATIENCE = 60
FORM = "multipart/form-data"
# More than any file: what limits it is UPLOAD_LIMIT_BYTES, as it comes.
UNLIMITED = 2**62

View = TypeVar("View", bound=Callable[..., Any])
_with_files: set[str] = set()


@dataclass(frozen=True)
class Form:
    """A form's fields, and its file as a complete upload; None: no file was chosen."""

    fields: MultiDict[str, str]
    upload: Upload | None = None


def takes_file(view: View) -> View:
    """For a view that begins with `receive_form`, which checks the CSRF token in the course of the body."""
    _with_files.add(f"{view.__module__}.{view.__name__}")
    csrf.exempt(view)
    return view


def unlimited(endpoint: str | None, values: dict[str, Any] | None) -> None:
    """A `url_value_preprocessor` for blueprints with such views: before anybody looks at the body.

    Forms of their other views stay limited, as these are put down in /tmp.
    """
    view = current_app.view_functions[endpoint or ""]
    takes_one = f"{view.__module__}.{view.__name__}" in _with_files
    if request.mimetype != FORM or takes_one:
        request.max_content_length = UNLIMITED
    if request.mimetype == FORM and takes_one:
        # Not by anybody who would look into the body for the token: `receive_form` asks for it.
        g.csrf_valid = True


def take_time() -> None:
    """Wait for each piece of the body only so long: a laptop that was closed never says good-bye."""
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(PATIENCE)


def receive_form() -> Form:
    """The form that was posted, with a file or without one.

    The session's CSRF token is checked before a byte of the file is taken, so it has to come before the file,
    or in the header. Afterwards `request.form` has the fields, too. Raises what `uploads.begin`, `receive`
    and `complete` raise; a file that was cut off is removed.
    """
    if request.mimetype != FORM:
        if not g.get("csrf_valid"):
            csrf.protect()
        return Form(request.form)
    take_time()
    fields: MultiDict[str, str] = MultiDict()
    # Nobody after us parses the body again, not even an error page.
    vars(request).update(form=fields, files=ImmutableMultiDict())
    form = _Incoming(fields).form()
    _check_csrf(fields)
    return form


def _check_csrf(fields: MultiDict[str, str]) -> None:
    if token_id() is not None:
        return  # a program's token, sent on purpose
    try:
        validate_csrf(fields.get("csrf_token") or request.headers.get("X-CSRFToken"))
    except ValidationError as error:
        raise CSRFError(error.args[0]) from error


@dataclass
class _Incoming:
    """A multipart body while it comes."""

    fields: MultiDict[str, str]
    _left: int = field(default=FIELDS_LIMIT, init=False)

    def form(self) -> Form:
        upload: Upload | None = None
        self._events = self._decoded()
        try:
            for event in self._events:
                if isinstance(event, Field):
                    self._add(event)
                elif isinstance(event, File) and event.filename:
                    _check_csrf(self.fields)
                    if upload is not None:
                        raise InvalidRequest("Send one file at a time. Nothing was changed.")
                    upload = uploads.begin(me(), event.filename)
                    upload = uploads.receive(upload, 0, _Part(self._data()))
        except BaseException:
            # Nobody knows of it, so nobody could go on with it.
            if upload is not None:
                uploads.remove(upload)
            raise
        return Form(self.fields, uploads.complete(upload) if upload else None)

    def _add(self, event: Field) -> None:
        value = bytearray()
        for data in self._data():
            self._left -= len(data)
            if self._left < 0:
                raise RequestEntityTooLarge
            value += data
        self.fields.add(event.name, value.decode("utf-8", "replace"))

    def _data(self) -> Iterator[bytes]:
        for event in self._events:
            assert isinstance(event, Data)
            yield event.data
            if not event.more_data:
                return

    def _decoded(self) -> Iterator[Event]:
        """The body's events up to its end; raises BadRequest when it is cut off or makes no sense."""
        boundary = request.mimetype_params.get("boundary", "").encode()
        if not boundary:
            raise BadRequest
        decoder = MultipartDecoder(boundary, FIELDS_LIMIT, max_parts=PARTS_LIMIT)
        try:
            while True:
                event = decoder.next_event()
                if event is NEED_DATA:
                    decoder.receive_data(request.stream.read(READ) or None)
                elif isinstance(event, Epilogue):
                    return
                else:
                    yield event
        except ValueError as error:
            raise BadRequest("The form came in half, or it is no form. Send it once more.") from error


@dataclass
class _Part:
    """A file's bytes as they come, to be read in any size."""

    pieces: Iterator[bytes]
    _rest: bytes = b""

    def read(self, size: int, /) -> bytes:
        while not self._rest:
            piece = next(self.pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece
