"""One's own account: who one is, the time zone, API tokens, browsers that are signed in."""

from __future__ import annotations

import re

from apiflask import APIBlueprint, APIFlask
from flask import flash, redirect, render_template, request, url_for
from flask_security import auth_required
from werkzeug.wrappers import Response

from app import zones
from app.errors import Conflict, InvalidRequest, NotFound
from app.extensions import db
from app.jobs import database_now
from app.models.session import SignIn
from app.models.token import MOST_DAYS, ApiToken
from app.models.user import User
from app.settings import current
from app.web.auth import sign_in_id
from app.web.people import me

account = APIBlueprint("account", __name__, url_prefix="/account", enable_openapi=False)

TOKENS_LIMIT = 50
NAME_LIMIT = 100
# How long a new token may be good, in days, as offered on the page.
DAYS = (7, 30, 90, 365)
# The largest number that a token can have.
LARGEST = 2**31 - 1
# The more special sign first: Edge says that it is Chrome, and Chrome that it is Safari.
BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
)
SYSTEMS = (
    ("Windows", "Windows"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Mac OS X", "macOS"),
    ("Android", "Android"),
    ("Linux", "Linux"),
)
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def init_app(app: APIFlask) -> None:
    app.register_blueprint(account)

    @app.context_processor
    def account_menu() -> dict[str, object]:
        """The entries of the menu that every page has."""
        pages = (("account.show", "Account and API tokens", "key"),)
        return {
            "account_menu": [
                {"url": url_for(view), "label": label, "icon": icon} for view, label, icon in pages
            ]
        }


@account.get("")
@auth_required("session")
def show() -> str:
    return _page()


@account.post("/time-zone")
@auth_required("session")
def choose_time_zone() -> Response:
    """An empty choice is the installation's zone, whatever that will be."""
    user, name = me(), request.form.get("time_zone", "")
    user.time_zone = zones.check(name) if name else None
    db.session.commit()
    flash(f"Days and times are those of {user.zone} from now on.", "success")
    return redirect(url_for("account.show"), 303)


@account.post("/tokens")
@auth_required("session")
def make_token() -> tuple[str, int]:
    """The answer itself shows the secret: it is kept nowhere, so no other page could."""
    name, days = _one_line(request.form.get("name", "")), _days(request.form.get("days", ""))
    if not name or len(name) > NAME_LIMIT:
        text = (
            f"Use {NAME_LIMIT} characters or fewer."
            if name
            else "Give the token a name that tells what uses it."
        )
        return _page(name=name, days=days, error=text), 422
    if len(ApiToken.of(me())) >= TOKENS_LIMIT:
        raise Conflict(f"You have {TOKENS_LIMIT} tokens. Revoke one that is not used any more.")
    token, secret = ApiToken.create(me(), name, days)
    db.session.commit()
    return _page(made=token, secret=secret), 201


@account.post("/tokens/<int:token_id>/revocation")
@auth_required("session")
def revoke_token(token_id: int) -> Response:
    token = ApiToken.revoke(me(), token_id) if token_id <= LARGEST else None
    if token is None:
        raise NotFound("There is no such token.")
    db.session.commit()
    flash(f"“{token.name}” is revoked. Programs that use it are refused from now on.", "success")
    return redirect(url_for("account.show"), 303)


@account.post("/sign-outs")
@auth_required("session")
def sign_out_others() -> Response:
    SignIn.end_all(me(), but=sign_in_id())
    db.session.commit()
    flash("Every other browser is signed out.", "success")
    return redirect(url_for("account.show"), 303)


def _page(
    *,
    made: ApiToken | None = None,
    secret: str = "",
    name: str = "",
    days: int | None = None,
    error: str = "",
) -> str:
    return render_template(
        "account/show.html",
        tokens=ApiToken.of(me()),
        sign_ins=SignIn.of(me()),
        this_sign_in=sign_in_id(),
        browser=browser,
        made=made,
        secret=secret,
        name=name,
        days=days,
        offered_days=DAYS,
        now=database_now(),
        error=error,
        name_limit=NAME_LIMIT,
        zones=zones.by_area(),
        other_zones=_other_zones(me()),
        usual_zone=current().time_zone,
    )


def _other_zones(user: User) -> list[str]:
    """UTC, and an old name that somebody's browser gave."""
    mine = user.time_zone
    listed = any(mine in names for names in zones.by_area().values())
    return ["UTC"] if mine in (None, "UTC") or listed else ["UTC", mine]


def browser(user_agent: str) -> str:
    """What a person calls it: "Firefox on Windows"."""
    name = next((name for sign, name in BROWSERS if sign in user_agent), "A program")
    system = next((name for sign, name in SYSTEMS if sign in user_agent), "")
    return f"{name} on {system}" if system else name


def _days(text: str) -> int | None:
    """How long a token is to be good; None: until it is revoked."""
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_DAYS:
        raise InvalidRequest(
            f"A token expires after 1 to {MOST_DAYS} days, or never; {text[:20]!r} is neither. "
            "No token was made."
        )
    return int(text)


def _one_line(text: str) -> str:
    return " ".join(UNSEEN.sub(" ", text).split())
