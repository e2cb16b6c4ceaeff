"""How often: sign-in attempts, mails to one account, API requests. Counted in Redis for all web processes.

While Redis is away each process counts for itself, so that nobody is locked out and nothing is unlimited.
One Limiter per app, not one in `extensions`: it keeps its storage and the state of its fallback in itself.
"""

from __future__ import annotations

import hashlib
import time

from apiflask import APIFlask
from flask import Response, request, session
from flask_limiter import ApplicationLimit, Limiter
from flask_limiter.util import get_remote_address
from limits import parse_many

from app.accounts import normal_email
from app.errors import BadSettings, InvalidRequest
from app.settings import Settings

# Mails that anybody may have sent to an account by typing its address.
MAILS_PER_ACCOUNT = "5 per 15 minutes"

SIGN_IN = "security.login"
MAILS = ("security.forgot_password", "auth.send_link")
# Whatever guesses a secret or sends a mail.
GUESSES = (SIGN_IN, *MAILS, "auth.use_link", "security.reset_password", "security.change_password")


def init_app(app: APIFlask, config: Settings) -> None:
    _check("SIGN_IN_RATE", config.sign_in_rate)
    _check("REQUEST_RATE", config.request_rate)
    app.extensions["waybill.limiter"] = Limiter(
        get_remote_address,
        app=app,
        storage_uri=config.redis_url,
        storage_options={"socket_timeout": 1, "socket_connect_timeout": 1},
        in_memory_fallback_enabled=True,
        key_prefix="waybill",
        application_limits=[
            ApplicationLimit(
                config.sign_in_rate,
                key_function=lambda: f"address:{get_remote_address()}",
                scope="sign-in",
                exempt_when=lambda: not _posted_to(*GUESSES),
            ),
            # Only what failed counts, and an emailed link still lets in whoever's password others guess at.
            ApplicationLimit(
                config.sign_in_rate,
                key_function=_account,
                scope="password",
                exempt_when=lambda: not _posted_to(SIGN_IN),
                deduct_when=_failed,
            ),
            ApplicationLimit(
                MAILS_PER_ACCOUNT,
                key_function=_account,
                scope="mail",
                exempt_when=lambda: not _posted_to(*MAILS),
            ),
            ApplicationLimit(
                config.request_rate,
                key_function=_caller,
                scope="api",
                exempt_when=lambda: not request.path.startswith("/api/"),
            ),
        ],
    )


def retry_after(app: APIFlask) -> int:
    """Seconds until the limit that was just reached lets the same caller through."""
    limiter: Limiter = app.extensions["waybill.limiter"]
    reached = limiter.current_limit
    return max(1, round(reached.reset_at - time.time())) if reached else 60


def _check(name: str, rate: str) -> None:
    try:
        parse_many(rate)
    except ValueError:
        raise BadSettings(f"{name} is {rate!r}; write it like: 10 per minute.") from None


def _posted_to(*endpoints: str) -> bool:
    return request.method == "POST" and request.endpoint in endpoints


def _failed(answer: Response) -> bool:
    """A sign-in that worked goes on elsewhere."""
    return not 300 <= answer.status_code < 400


def _account() -> str:
    """However the address is written: what signs in to the same account is counted as one."""
    typed = request.form.get("email", "").strip()
    try:
        return "account:" + _short(normal_email(typed))
    except InvalidRequest:
        return "account:" + _short(typed.lower())


def _caller() -> str:
    """Known without asking the database: the token as it came, the signed session, or the address."""
    given = request.authorization
    if given is not None and given.type == "bearer":
        return "token:" + _short(given.token or "")
    if "_user_id" in session:
        return "session:" + _short(str(session["_user_id"]))
    return f"address:{get_remote_address()}"


def _short(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:32]
