"""What Flask-Security is told, by what it is about. What is not named here is off."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

PAGES = {
    "LOGIN_URL": "/sign-in",
    "LOGOUT_URL": "/sign-out",
    "RESET_URL": "/reset-password",
    "CHANGE_URL": "/change-password",
    "POST_LOGOUT_VIEW": "/sign-in",
    "POST_RESET_VIEW": "/sign-in",
    "POST_CHANGE_VIEW": "/account",
    "LOGOUT_METHODS": ["POST"],
    "STATIC_FOLDER": None,
    "STATIC_FOLDER_URL": None,
    "API_ENABLED_METHODS": ["session"],
    # Our own commands are `flask users` and `flask tokens`.
    "CLI_USERS_NAME": None,
    "CLI_ROLES_NAME": None,
    # No page that asks for the password again.
    "FRESHNESS": timedelta(seconds=-1),
    "CACHE_CONTROL": None,
}

PASSWORDS = {
    "RECOVERABLE": True,
    "CHANGEABLE": True,
    "RESET_PASSWORD_WITHIN": timedelta(hours=1),
    "RETURN_GENERIC_RESPONSES": True,
    # Argon2 salts by itself; with a salt made from SECRET_KEY a new key would break every password.
    "PASSWORD_SINGLE_HASH": ["argon2"],
    "PASSWORD_HASH": "argon2",
    "PASSWORD_SCHEMES": ["argon2"],
    # OWASP's choice for a server that answers others meanwhile: 19 MiB, two passes.
    "PASSWORD_HASH_PASSLIB_OPTIONS": {
        "argon2__type": "ID",
        "argon2__memory_cost": 19456,
        "argon2__time_cost": 2,
        "argon2__parallelism": 1,
    },
    # Only for the password's trace in a reset token, which is signed as a whole.
    "HASHING_SCHEMES": ["hex_sha256"],
    "PASSWORD_LENGTH_MIN": 10,
    # NFKC as in the accounts' addresses; the default tears letters and accents apart.
    "PASSWORD_NORMALIZE_FORM": "NFKC",
}

MAILS = {
    "EMAIL_VALIDATOR_ARGS": {"check_deliverability": False, "test_environment": True},
    # Folders of templates/mail, rendered by us.
    "EMAIL_PLAINTEXT": False,
    "EMAIL_HTML": False,
    "EMAIL_TEMPLATE_PASSWORD_RESET": "reset_password",
    "EMAIL_TEMPLATE_PASSWORD_RESET_NOTICE": "password_changed",
    "EMAIL_TEMPLATE_PASSWORD_CHANGE_NOTICE": "password_changed",
}

# Each with its look.
WORDS = {
    "MSG_GENERIC_AUTHN_FAILED": ("The address or the password is wrong.", "error"),
    "MSG_INVALID_REDIRECT": (
        "You were not signed in: this address leads elsewhere afterwards. Open the start page instead.",
        "error",
    ),
    "MSG_PASSWORD_RESET_REQUEST": ("", "info"),
    "MSG_PASSWORD_RESET_NO_LOGIN": ("The new password is set. Sign in with it.", "success"),
    "MSG_PASSWORD_CHANGE": (
        "The password is changed. Other browsers that were signed in are signed out.",
        "success",
    ),
    "MSG_PASSWORD_RESET_EXPIRED": ("That link is too old. Have a new one sent.", "error"),
    "MSG_INVALID_RESET_PASSWORD_TOKEN": ("That link is used up or damaged. Have a new one sent.", "error"),
    "MSG_PASSWORD_INVALID_LENGTH": ("Take %(length)s characters or more.", "error"),
    "MSG_INVALID_PASSWORD": ("That is not your present password.", "error"),
    "MSG_PASSWORD_IS_THE_SAME": ("That is the password you have already.", "error"),
    "MSG_RETYPE_PASSWORD_MISMATCH": ("The two are not the same.", "error"),
    "MSG_PASSWORD_NOT_PROVIDED": ("Type a password.", "error"),
    "MSG_EMAIL_NOT_PROVIDED": ("Type your mail address.", "error"),
    "MSG_INVALID_EMAIL_ADDRESS": ("That is not a mail address.", "error"),
}


def flask_settings() -> dict[str, Any]:
    """All of it, as Flask's configuration has it."""
    return {f"SECURITY_{name}": value for name, value in (PAGES | PASSWORDS | MAILS | WORDS).items()}
