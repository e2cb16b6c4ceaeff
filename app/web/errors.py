"""Every failure becomes one answer: a problem document for programs, a page for people.

A page says what happened, whether anything was lost, and what to do next. None of them needs the database.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from apiflask import APIFlask, HTTPError
from flask import Response, current_app, g, jsonify, redirect, render_template, request, url_for
from flask_limiter import RateLimitExceeded
from flask_security.core import AnonymousUser
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, InternalServerError, Unauthorized
from werkzeug.wrappers import Response as AnyResponse

from app.errors import InvalidParams, TooMany, WaybillError
from app.extensions import db
from app.web import limits

log = logging.getLogger(__name__)

PROBLEM = "application/problem+json"
DATABASE_DOWN = (OperationalError, InterfaceError, PoolTimeout)
# What is never sent back to the page it came from.
SECRET_FIELDS = ("csrf_token", "password")
# What a page may carry to be tried again, in characters.
LONGEST_INPUT = 100_000


@dataclass(frozen=True)
class Failure:
    """What went wrong, for both kinds of readers."""

    status: int
    code: str
    title: str
    detail: str
    headers: dict[str, str] = field(default_factory=dict)
    # One message per wrong param.
    errors: dict[str, str] | None = None
    # For whoever reads the process's log.
    reference: str | None = None


NOTHING_CHANGED = "Nothing was changed."
# code, title and sentence of the answers that HTTP itself gives
PLAIN = {
    400: ("bad_request", "That could not be understood", f"{NOTHING_CHANGED} Go back and try it once more."),
    401: ("not_signed_in", "Sign in first", "This needs a sign-in, or a token in the Authorization header."),
    403: ("not_allowed", "Not allowed", f"You may not do this. {NOTHING_CHANGED}"),
    404: ("not_found", "Nothing here", "There is nothing at this address, or it is not yours to see."),
    405: ("method_not_allowed", "Not like this", f"This address is not for that. {NOTHING_CHANGED}"),
    406: ("not_acceptable", "No such form", "This cannot be had in the form that was asked for."),
    409: ("conflict", "That does not fit any more", f"It has changed in the meantime. {NOTHING_CHANGED}"),
    410: ("gone", "No longer here", "This was here once and has been removed."),
    413: ("too_large", "Too big", f"What was sent is bigger than this address takes. {NOTHING_CHANGED}"),
    414: ("uri_too_long", "Too long", f"This address is too long. {NOTHING_CHANGED}"),
    415: ("unsupported_media_type", "Not in this form", f"Send it in another form. {NOTHING_CHANGED}"),
    416: ("range_not_satisfiable", "No such part", "The file has no such part; load it from the start."),
    422: ("invalid_request", "Something is not right yet", f"{NOTHING_CHANGED} Mend it and try again."),
    429: ("too_many", "Too many at once", "Wait a little and try again."),
    503: ("unavailable", "Not available just now", "Try again in a minute."),
}
TITLES = {status: title for status, (_, title, _) in PLAIN.items()}


def init_app(app: APIFlask) -> None:
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(HTTPError, http_error)
    app.register_error_handler(WaybillError, waybill_error)
    for kind in DATABASE_DOWN:
        app.register_error_handler(kind, database_down)


def http_error(error: HTTPException | HTTPError) -> AnyResponse:
    """The one handler of all HTTP errors, unexpected exceptions included."""
    if isinstance(error, InternalServerError):
        return _unexpected(error.original_exception or error)
    if isinstance(error, HTTPException) and (error.response is not None or (error.code or 500) < 400):
        return error.get_response()
    _forget_changes()
    if isinstance(error, CSRFError):
        return _not_from_our_page()
    if isinstance(error, RateLimitExceeded):
        return answer(_too_many(limits.retry_after(_app())))
    if isinstance(error, Unauthorized) and not wants_problem():
        return redirect(sign_in_url(), 303)
    return answer(_plain(error))


def waybill_error(error: WaybillError) -> AnyResponse:
    _forget_changes()
    if error.status >= 500:
        return _logged(error, error.status, error.code, error.message)
    return answer(
        Failure(
            error.status,
            error.code,
            TITLES.get(error.status, HTTPStatus(error.status).phrase),
            error.message,
            headers={"Retry-After": str(error.retry_after)} if isinstance(error, TooMany) else {},
            errors=error.errors if isinstance(error, InvalidParams) else None,
        )
    )


def database_down(error: SQLAlchemyError) -> AnyResponse:
    return _logged(
        error,
        503,
        "database_down",
        "The database does not answer just now. Jobs that were asked for are safe and go on by themselves; "
        "what you just did may not have been saved. Try again in a minute.",
        headers={"Retry-After": "10"},
    )


def wants_problem() -> bool:
    """Programs get problem documents: under /api/ always, elsewhere when they do not ask for HTML."""
    if f"{request.path}/".startswith("/api/"):
        return True
    best = request.accept_mimetypes.best_match(["text/html", "application/json", PROBLEM])
    return best != "text/html" and bool(request.accept_mimetypes)


def answer(failure: Failure) -> Response:
    made = _problem(failure) if wants_problem() else _page(failure)
    made.status_code = failure.status
    made.headers.update(failure.headers)
    return made


def sign_in_url() -> str:
    """The sign-in page; afterwards it goes on where the person was."""
    here = _here() if request.method in ("GET", "HEAD") else _page_before()
    return url_for("security.login", next=here if here not in ("", "/") else None)


def _problem(failure: Failure) -> Response:
    """RFC 9457."""
    body: dict[str, Any] = {
        "type": f"urn:waybill:problem:{failure.code}",
        "title": failure.title,
        "status": failure.status,
        "detail": failure.detail,
        "code": failure.code,
    }
    if failure.errors is not None:
        body["errors"] = failure.errors
    if failure.reference is not None:
        body["reference"] = failure.reference
    made = jsonify(body)
    made.content_type = PROBLEM
    return made


def _page(failure: Failure) -> Response:
    url, label = _next_step(failure)
    return current_app.make_response(
        render_template(
            "error.html",
            title=failure.title,
            message=failure.detail,
            action_url=url,
            action_label=label,
            reference=failure.reference,
        )
    )


def _next_step(failure: Failure) -> tuple[str, str]:
    if failure.status >= 500 and request.method == "GET":
        return _here(), "Try again"
    if request.method not in ("GET", "HEAD") and _page_before():
        return _page_before(), "Go back"
    return "/", "To the reports"


def _plain(error: HTTPException | HTTPError) -> Failure:
    if isinstance(error, HTTPError):
        status, said, headers = error.status_code, error.message, _strings(error.headers)
    else:
        # Werkzeug's own sentences are for developers; what our views say is for people.
        ours = error.description != type(error).description
        status, said, headers = error.code or 500, error.description if ours else None, _extra_headers(error)
    phrase = HTTPStatus(status).phrase
    code, title, sentence = PLAIN.get(status, (phrase.lower().replace(" ", "_"), phrase, phrase))
    if status == 401:
        headers["WWW-Authenticate"] = _challenge()
    return Failure(status, code, title, said or sentence, headers)


def _challenge() -> str:
    """RFC 6750: a token that came along was no good."""
    came = request.authorization is not None and request.authorization.type == "bearer"
    return 'Bearer realm="Waybill"' + (', error="invalid_token"' if came else "")


def _extra_headers(error: HTTPException) -> dict[str, str]:
    """What the error says beyond its body: Allow, Content-Range, Retry-After."""
    return {name: value for name, value in error.get_headers() if name.lower() != "content-type"}


def _strings(headers: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in dict(headers).items()}


def _too_many(seconds: int) -> Failure:
    code, title, _ = PLAIN[429]
    wait = f"{seconds} s" if seconds < 120 else f"{seconds // 60} minutes"
    return Failure(
        429,
        code,
        title,
        f"That was too often in a short time. Try again in {wait}.",
        {"Retry-After": str(seconds)},
    )


def _not_from_our_page() -> Response:
    """A form whose token is not the sender's: too old, from before a sign-in, or from somewhere else."""
    title = "This page was too old"
    if wants_problem():
        sentence = f"{NOTHING_CHANGED} Send the session's token as X-CSRFToken, or use an API token."
        return answer(Failure(400, "csrf", title, sentence))
    kept = _typed() if _from_our_page() else []
    page = render_template(
        "security/expired.html",
        title=title,
        kept=kept,
        again=_here(),
        back=_page_before() or "/",
    )
    return current_app.make_response((page, 400))


def _from_our_page() -> bool:
    """Only a browser's own word counts: a foreign page must not get its input shown here to be confirmed."""
    return request.headers.get("Sec-Fetch-Site") == "same-origin"


def _typed() -> list[tuple[str, str]]:
    """What was typed, to be sent again on a click; [] if it has secrets or files in it, or is too much."""
    pairs = [(name, value) for name, value in request.form.items(multi=True) if name != "csrf_token"]
    secret = any(word in name for name, _ in pairs for word in SECRET_FIELDS)
    long = sum(len(name) + len(value) for name, value in pairs) > LONGEST_INPUT
    return [] if secret or long or request.files else pairs


def _here() -> str:
    return "/" + request.full_path.lstrip("/\\").rstrip("?")


def _page_before() -> str:
    """The page of ours that this request came from, or ""."""
    before = urlsplit(request.referrer or "")
    if before.netloc != request.host:
        return ""
    # One slash: with two, the rest would be another host.
    return "/" + before.path.lstrip("/\\") + (f"?{before.query}" if before.query else "")


def _unexpected(error: BaseException) -> AnyResponse:
    if isinstance(error, DATABASE_DOWN):
        return database_down(error)
    return _logged(
        error,
        500,
        "internal_error",
        "Something went wrong on our side; it has been noted. Jobs that were asked for are safe and go on by "
        "themselves; what you just did may not have been saved.",
    )


def _logged(
    error: BaseException, status: int, code: str, detail: str, headers: dict[str, str] | None = None
) -> Response:
    """The person sees a reference, the log has it beside the cause."""
    reference = secrets.token_hex(4)
    # The rule, not the path: a link's token in the log would open the file to whoever reads the log.
    log.error("[%s] %s %s: %r", reference, request.method, request.url_rule, error, exc_info=error)
    _forget_changes()
    # The page must not ask a database that may be down who is looking at it.
    g._login_user = AnonymousUser()  # type: ignore[no-untyped-call]
    title = PLAIN[503][1] if status == 503 else "Something went wrong"
    return answer(Failure(status, code, title, detail, headers or {}, reference=reference))


def _forget_changes() -> None:
    """Nothing half done is committed by whatever still runs in this request."""
    try:
        db.session.rollback()
    except SQLAlchemyError as error:
        log.warning("The database was gone before its changes could be rolled back: %s", error)


def _app() -> APIFlask:
    app: APIFlask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app
