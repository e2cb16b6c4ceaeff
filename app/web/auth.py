"""Signing in and out: Flask-Security's passwords, our own emailed links, sessions that die, API tokens.

The emailed link is ours because Flask-Security's signs in on GET: a mail scanner that follows it would use
it up and hold a session. Ours shows a button on GET, and only the POST behind it signs in, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

from apiflask import APIBlueprint, APIFlask
from flask import Request, g, redirect, render_template, request, session
from flask_login import user_logged_out
from flask_principal import Identity
from flask_security import (
    ChangePasswordForm,
    ForgotPasswordForm,
    LoginForm,
    ResetPasswordForm,
    Security,
    SQLAlchemyUserDatastore,
    current_user,
    password_changed,
    password_reset,
    user_authenticated,
)
from flask_security.utils import login_user, set_request_attr, validate_redirect_url
from sqlalchemy import select
from werkzeug.exceptions import Unauthorized
from werkzeug.wrappers import Response
from wtforms import EmailField, Form, PasswordField
from wtforms.validators import DataRequired, EqualTo, Length

from app.accounts import normal_email
from app.errors import InvalidRequest
from app.extensions import db
from app.models.session import SignIn, SignInLink
from app.models.token import ApiToken
from app.models.user import Role, User
from app.web import mails

LINK_VALID = timedelta(minutes=15)
PASSWORD_MAX = 500

auth = APIBlueprint("auth", __name__, url_prefix="/sign-in", enable_openapi=False)


def init_app(app: APIFlask) -> None:
    """Bind Flask-Security and our own pages, the loaders and what happens at sign-in and sign-out."""
    # One per app: it keeps the app's keys and forms in itself.
    security = Security(
        app,
        SQLAlchemyUserDatastore(db, User, Role),
        mail_util_cls=mails.AccountMails,
        login_form=SignInForm,
        forgot_password_form=ForgottenForm,
        reset_password_form=NewPasswordForm,
        change_password_form=OtherPasswordForm,
    )
    security.want_json(lambda _: False)
    security.unauthn_handler(_ask_to_sign_in)
    security.login_manager.unauthorized_handler(_ask_to_sign_in)
    security.login_manager.user_loader(session_user)
    security.login_manager.request_loader(token_user)
    # Roles are needed by views, not by every picture and probe.
    security.principal.identity_loaders.clear()
    security.principal.identity_loader(_identity)
    app.before_request(_refuse_bad_token)
    user_authenticated.connect(_begin_session, app)
    user_logged_out.connect(_end_session, app)
    password_changed.connect(_end_others, app)
    password_reset.connect(_end_others, app)
    app.register_blueprint(auth)


# --- forms ------------------------------------------------------------------------------------------------


class SignInForm(LoginForm):
    # A second cookie that outlives the session would also outlive signing out.
    remember = None
    password = PasswordField(
        "Password", validators=[DataRequired("Type your password."), Length(max=PASSWORD_MAX)]
    )


class ForgottenForm(ForgotPasswordForm):
    def validate(self, **kwargs: Any) -> bool:
        good: bool = super().validate(**kwargs)
        if not good and self.email.data:
            mails.rehearse()
        return good


class NewPasswordForm(ResetPasswordForm):
    password = PasswordField(
        "New password", validators=[DataRequired("Type a password."), Length(max=PASSWORD_MAX)]
    )


class OtherPasswordForm(ChangePasswordForm):
    password = PasswordField("Present password", validators=[Length(max=PASSWORD_MAX)])
    new_password = PasswordField(
        "New password", validators=[DataRequired("Type a password."), Length(max=PASSWORD_MAX)]
    )
    new_password_confirm = PasswordField(
        "New password again", validators=[EqualTo("new_password", "The two are not the same.")]
    )

    def validate(self, **kwargs: Any) -> bool:
        """Who has no password yet proves by mail who they are: an open browser is not enough."""
        if not current_user.password:
            self.form_errors.append("This account has no password yet. Have a link sent to choose one.")
            return False
        good: bool = super().validate(**kwargs)
        return good


class LinkForm(Form):  # type: ignore[misc]
    email = EmailField("Email", validators=[DataRequired("Type your mail address."), Length(max=255)])


# --- the emailed link -------------------------------------------------------------------------------------


@auth.get("/link")
def ask_for_link() -> str:
    return render_template("security/link.html", form=LinkForm(), next=_next())


@auth.post("/link")
def send_link() -> str | tuple[str, int]:
    """Says the same to everybody, whether or not there is such an account."""
    form = LinkForm(request.form)
    address = _address(form)
    if address is None:
        return render_template("security/link.html", form=form, next=_next()), 422
    user = db.session.scalar(select(User).where(User.email == address, User.active))
    if user is None:
        mails.rehearse()
    else:
        _mail_link(user)
    return render_template("security/link_sent.html", email=address, minutes=LINK_VALID.seconds // 60)


@auth.get("/link/<secret>")
def show_link(secret: str) -> str | tuple[str, int]:
    link = SignInLink.find(secret)
    if link is None:
        return render_template("security/link_dead.html"), 410
    return render_template("security/link_use.html", email=link.user.email, secret=secret, next=_next())


@auth.post("/link/<secret>")
def use_link(secret: str) -> Response | tuple[str, int]:
    user = SignInLink.use(secret)
    if user is None:
        return render_template("security/link_dead.html"), 410
    login_user(user, authn_via=["link"])
    db.session.commit()
    return redirect(_next() or "/", 303)


def _mail_link(user: User) -> None:
    """The link is committed only once its mail has gone out."""
    secret = SignInLink.create(user, LINK_VALID)
    values = {"next": _next()} if _next() else {}
    mails.send(
        "sign_in_link",
        user.email,
        link=mails.public_url("auth.show_link", secret=secret, **values),
        minutes=LINK_VALID.seconds // 60,
    )
    db.session.commit()


def _address(form: LinkForm) -> str | None:
    if not form.validate():
        return None
    try:
        return normal_email(form.email.data or "")
    except InvalidRequest:
        form.email.errors = ["That is not a mail address."]
        return None


def _next() -> str:
    """Where to go on after signing in: a page of ours, or ""."""
    wanted = request.values.get("next", "")
    good = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if good and validate_redirect_url(wanted) else ""


# --- who is asking ----------------------------------------------------------------------------------------


def session_user(uniquifier: str) -> User | None:
    """The person whom the cookie names, while the sign-in lives. A token that came along goes first."""
    sign_in = sign_in_id()
    if _bearer(request) is not None or sign_in is None:
        return None
    user = SignIn.user_of(sign_in, uniquifier)
    if user is not None:
        set_request_attr("fs_authn_via", "session")
        set_request_attr("fs_paa", session.get("fs_paa", 0))
    return user


def token_user(request: Request) -> User | None:
    """The person of the API token in the Authorization header."""
    secret = _bearer(request)
    token = ApiToken.find(secret) if secret else None
    if token is None:
        return None
    set_request_attr("fs_authn_via", "token")
    # A stream asks for it again while it lives.
    g.api_token_id = token.id
    return token.user


def sign_in_id() -> UUID | None:
    """The sign-in that this browser claims; whether it lives is another question."""
    try:
        return UUID(session["sign_in"])
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def token_id() -> int | None:
    """The API token that speaks for the person of this request."""
    found: int | None = g.get("api_token_id")
    return found


def _bearer(request: Request) -> str | None:
    given = request.authorization
    return (given.token or "") if given is not None and given.type == "bearer" else None


def _refuse_bad_token() -> None:
    """A token that is wrong, over or revoked is never taken for "nobody": a program must hear of it."""
    secret = _bearer(request)
    if secret is None or not _serves_pages() or current_user.is_authenticated:
        return
    expired_at = ApiToken.expiry(secret)
    if expired_at is None:
        raise Unauthorized("This API token is wrong or was revoked.")
    raise Unauthorized(
        f"This API token expired on {expired_at.astimezone(UTC):%Y-%m-%d at %H:%M} UTC. Make a new one on "
        "the account's page, or have an operator make one, and give it to the program."
    )


def _identity() -> Identity | None:
    if _serves_pages() and current_user.is_authenticated:
        return Identity(current_user.fs_uniquifier)
    return None


def _serves_pages() -> bool:
    endpoint = request.endpoint or "static"
    return not endpoint.endswith("static") and not endpoint.startswith("health.")


def _ask_to_sign_in(mechanisms: Sequence[str] | None = None, headers: Any = None) -> Response:
    raise Unauthorized


# --- sessions ---------------------------------------------------------------------------------------------


def _begin_session(sender: Any, user: User, authn_via: list[str] | None = None, **_: Any) -> None:
    """A new session: nothing of the one before is kept but Flask-Login's own keys and waiting messages."""
    previous = sign_in_id()
    if previous is not None:
        SignIn.end(previous)
    kept = {key: value for key, value in session.items() if key.startswith("_") or key == "fs_paa"}
    session.clear()
    session.update(kept)
    g.pop("csrf_token", None)
    agent = request.user_agent.string
    begun = SignIn.begin(
        user, via=(authn_via or ["unknown"])[0], address=request.remote_addr or "", user_agent=agent
    )
    session["sign_in"] = str(begun.id)
    session.permanent = True
    db.session.commit()


def _end_session(sender: Any, **_: Any) -> None:
    """The row dies, so that a copy of the cookie is worth nothing."""
    ended = sign_in_id()
    if ended is not None:
        SignIn.end(ended)
        db.session.commit()
    session.clear()


def _end_others(sender: Any, user: User, **_: Any) -> None:
    """A new password: no other browser and no link that was sent lets anybody in any more."""
    SignIn.end_all(user, but=sign_in_id())
    SignInLink.void_all(user)
    db.session.commit()
