"""Live streams over HTTP (server-sent events): one job's log, and the states in a list of jobs.

A stream enters the hub first and reads the database afterwards, so that nothing falls between the two. What
it sends is a plain iterable: it holds neither the request nor a database connection while it waits.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from uuid import UUID

from apiflask import APIBlueprint, APIFlask
from flask import Flask, Response, current_app, request
from flask_security import current_user
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import Unauthorized

from app import events, jobs
from app.errors import NotFound
from app.events import State
from app.models.job import FINAL
from app.settings import Settings
from app.web import passes, sse
from app.web.hub import Hub, Stream
from app.web.people import me
from app.web.sse import Frame

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)
stream = APIBlueprint("stream", __name__, enable_openapi=False)

PAGE = 1000
# After how many milliseconds a client comes back: if its connection broke, and (from, to) if we closed it,
# so that not all of them come in the same instant after a restart.
RETRY = 1000
RETRY_CLOSED = (500, 3000)
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def init_app(app: APIFlask, config: Settings) -> None:
    app.extensions["waybill.hub"] = Hub(app, config.redis_url)
    app.register_blueprint(stream)
    app.wsgi_app = ShallowWait(app.wsgi_app)  # type: ignore[method-assign]


@stream.before_request
def ask_who() -> None:
    if not current_user.is_authenticated:
        raise Unauthorized


@stream.get("/jobs/<uuid:job_id>/events")
@stream.get("/api/v1/jobs/<uuid:job_id>/events", endpoint="api_job")
def job(job_id: UUID) -> Response:
    """The lines after `Last-Event-ID` or `?after=`, then what happens; ends after a final status.

    204 for a client that has all of a finished job's lines: it need not come again.
    """
    given = _position()
    hub, opened = _enter(job_id, everyone=me().is_admin)
    try:
        state = _visible(job_id)
        after = given if given is not None and given <= state.last_event else 0
        if state.status in FINAL and given is not None and after == state.last_event:
            hub.leave(opened)
            return Response(status=204, headers=HEADERS)
        return _answer(JobEvents(_app(), hub, opened, state, after))
    except BaseException:
        hub.leave(opened)
        raise


@stream.get("/jobs/events")
def listing() -> Response:
    """The states of my jobs as they change; `?everyone=1`: of everybody's, for administrators."""
    everyone = me().is_admin and request.args.get("everyone") == "1"
    hub, opened = _enter(None, everyone=everyone)
    return _answer(ListEvents(_app(), hub, opened))


@stream.get("/api/v1/jobs/<uuid:job_id>/log")
def lines(job_id: UUID) -> dict[str, Any]:
    """At most `PAGE` lines after `?after=`, for those who cannot hold a stream open."""
    found = events.after(jobs.find(me(), job_id).id, _position() or 0, PAGE)
    return {"items": [line.as_json() for line in found]}


class ShallowWait:
    """WSGI middleware that lets a stream wait on the server's short stack alone.

    A greenlet keeps whatever memory its stack ever touched. A request goes deep and a stream waits for hours,
    so the request is answered on a stack of its own that is given back: 7 KB less for each open stream.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ["PATH_INFO"].endswith("/events"):
            return self._app(environ, start_response)
        answer: Future[Iterable[bytes]] = Future()

        def work() -> None:
            try:
                answer.set_result(self._app(environ, start_response))
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return answer.result()


class JobEvents:
    """The body of a job's stream; `after` is the number of the last line that the client has."""

    __slots__ = ("_after", "_app", "_begun", "_hub", "_state", "_stream")

    def __init__(self, app: Flask, hub: Hub, opened: Stream, state: State, after: int) -> None:
        self._app, self._hub, self._stream = app, hub, opened
        self._state, self._after = state, after

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._replayed()
            if self._state.status not in FINAL:
                yield from self._live()
        except SQLAlchemyError as error:
            log.warning("A stream was closed, as the database does not answer (%s).", error)
        yield sse.retry(random.randint(*RETRY_CLOSED))

    def close(self) -> None:
        """Called by the server however the stream ends."""
        self._hub.leave(self._stream)

    def _replayed(self) -> Iterator[bytes]:
        """State and lines as they are now. A final status comes after all lines: clients stop there."""
        now = sse.retry(RETRY) + sse.state_frame(self._state).data
        final = self._state.status in FINAL
        if not final:
            yield now
        if self._state.last_event > self._after:
            yield from self._missing()
        if final and not self._stream.closed:
            yield now

    def _missing(self) -> Iterator[bytes]:
        """The lines that the database has and the client has not, page by page."""
        while not self._stream.closed:
            with self._app.app_context():
                found = events.after(self._state.job_id, self._after, PAGE)
            if found:
                self._after = found[-1].number
                yield b"".join(sse.log_frame(line.as_json()).data for line in found)
            if len(found) < PAGE:
                return

    def _live(self) -> Iterator[bytes]:
        while (frame := self._stream.take()) is not None:
            if self._lacks_lines_before(frame):
                yield from self._missing()
            if not self._is_old(frame):
                self._after = frame.line or self._after
                yield frame.data
                if frame.final:
                    return

    def _lacks_lines_before(self, frame: Frame) -> bool:
        return (frame.line or 0) > self._after + 1 or (frame.upto or 0) > self._after

    def _is_old(self, frame: Frame) -> bool:
        """A line that was sent already, or a state from before this stream began."""
        if frame.line is not None:
            return frame.line <= self._after
        return frame.upto is not None and frame.upto < self._state.last_event


class ListEvents:
    """The body of a list's stream: first the jobs that are or were lately at work, then every change."""

    __slots__ = ("_app", "_hub", "_stream")

    def __init__(self, app: Flask, hub: Hub, opened: Stream) -> None:
        self._app, self._hub, self._stream = app, hub, opened

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield sse.retry(RETRY) + self._recent()
            while (frame := self._stream.take()) is not None:
                yield frame.data
        except SQLAlchemyError as error:
            log.warning("A stream was closed, as the database does not answer (%s).", error)
        yield sse.retry(random.randint(*RETRY_CLOSED))

    def close(self) -> None:
        self._hub.leave(self._stream)

    def _recent(self) -> bytes:
        owner = self._stream.admission.owner_id
        with self._app.app_context():
            found = events.recent(None if owner is None else [owner])
        return b"".join(sse.job_frame(state).data for state in found.values())


def _position() -> int | None:
    """The number of the last line that the client has; 0 if what it says makes no sense, None if nothing."""
    said = request.headers.get("Last-Event-ID") or request.args.get("after")
    if said is None:
        return None
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else 0


def _enter(job_id: UUID | None, *, everyone: bool) -> tuple[Hub, Stream]:
    hub: Hub = current_app.extensions["waybill.hub"]
    # Both servers name theirs; a client that reads nothing can only be ended by it.
    connection = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    return hub, hub.enter(passes.of_request(everyone=everyone), job_id, connection)


def _visible(job_id: UUID) -> State:
    state = events.states([job_id]).get(job_id)
    if state is None or not (state.owner_id == me().id or me().is_admin):
        raise NotFound("There is no such job, or it is not yours.")
    return state


def _answer(body: JobEvents | ListEvents) -> Response:
    """The server gets the body itself: a wrapper would keep the answer and more in memory."""
    kind = "text/event-stream; charset=utf-8"
    return Response(body, content_type=kind, headers=HEADERS, direct_passthrough=True)


def _app() -> Flask:
    return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]
