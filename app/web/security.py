"""What every answer and every unsafe request must have: headers, cookies, CSRF tokens, the true address."""

from __future__ import annotations

from typing import Any

from apiflask import APIFlask
from flask import Response, g, request
from flask_security import current_user
from werkzeug.exceptions import Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix

from app.extensions import csrf
from app.models.session import LONGEST
from app.settings import Settings
from app.web.auth import token_id

UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)

# A view may say something else about its own answer, but not nothing.
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
HSTS = "max-age=31536000"


def flask_settings(config: Settings) -> dict[str, Any]:
    """Cookies and CSRF."""
    return {
        # With this prefix browsers refuse the cookie unless it is Secure, for this host and the whole of it.
        "SESSION_COOKIE_NAME": "__Host-waybill" if config.https else "waybill",
        "SESSION_COOKIE_SECURE": config.https,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_PATH": "/",
        "PERMANENT_SESSION_LIFETIME": LONGEST,
        # Otherwise a slow answer brings back the cookie as it was when its request began.
        "SESSION_REFRESH_EACH_REQUEST": False,
        # `_protect` asks, as it knows who came with a token of the API.
        "WTF_CSRF_CHECK_DEFAULT": False,
        # The token lives as long as the session: a page may stay open over night.
        "WTF_CSRF_TIME_LIMIT": None,
        # The session's cookie is bound to this host, and some proxies cut the Referer.
        "WTF_CSRF_SSL_STRICT": False,
    }


def init_app(app: APIFlask, config: Settings) -> None:
    hops = config.trusted_proxies
    if hops:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops, x_port=hops
        )
    app.before_request(_protect)
    headers = HEADERS | ({"Strict-Transport-Security": HSTS} if config.https else {})

    @app.after_request
    def add_headers(answer: Response) -> Response:
        for name, value in headers.items():
            answer.headers.setdefault(name, value)
        return answer


def _protect() -> None:
    """Who comes with an API token did so on purpose; any other change needs the session's CSRF token."""
    if request.endpoint is None or request.method not in UNSAFE:
        return
    if current_user.is_authenticated and token_id() is not None:
        g.csrf_valid = True
        return
    if request.path.startswith("/api/") and not current_user.is_authenticated:
        raise Unauthorized
    csrf.protect(apply_exemptions=True)
