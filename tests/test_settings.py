"""What the environment may say: a setting that would break something later is refused at the start."""

from __future__ import annotations

import pytest

from app.errors import BadSettings
from app.settings import DEFAULT_SECRET_KEY, Settings

ENVIRON = {
    "ENVIRONMENT": "development",
    "DATABASE_URL": "postgresql://waybill:hidden@127.0.0.1/waybill",
    "REDIS_URL": "redis://127.0.0.1",
    "STORAGE_URL": "file:///srv/waybill",
}
GOOD = "an-earlier-key-of-the-tests-long-enough"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("RETENTION_HOURS", "-1"),
        ("RETENTION_HOURS", "0"),
        ("RETENTION_HOURS", "99999999999"),
        ("LEASE_SECONDS", "0"),
        ("ATTEMPTS_LIMIT", "0"),
        ("PART_ROWS", "0"),
        ("CHUNK_BYTES", "0"),
        ("CHUNK_BYTES", "-8"),
        ("STATEMENT_TIMEOUT_SECONDS", "2147484"),
        ("USER_RUNNING_LIMIT", "0"),
        ("TRUSTED_PROXIES", "-1"),
        ("RETENTION_HOURS", "1e3"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=f"^{name} is '?{value}'?; "):
        Settings.from_environ({**ENVIRON, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://waybill:hidden@host:port/waybill"),
        ("DATABASE_URL", "waybill:hidden@host/waybill"),
        ("DATABASE_URL", "mysql://waybill:hidden@host/waybill"),
        ("REDIS_URL", "user:hidden@host:6379"),
        ("REDIS_URL", "redis://user:hidden@host:port"),
        ("PUBLIC_URL", "https://"),
        ("PUBLIC_URL", "http://[::1"),
        ("PUBLIC_URL", "https://host:port"),
        ("PUBLIC_URL", "waybill.example"),
    ],
)
def test_what_is_no_url_is_refused_without_telling_a_password(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=f"^{name} ") as refused:
        Settings.from_environ({**ENVIRON, name: value})
    assert "hidden" not in refused.value.message


@pytest.mark.parametrize(
    "sender", ["Waybill", "Waybill <>", "w@example.org\nBcc: x@example.org", "@example.org"]
)
def test_mails_need_a_sender(sender: str) -> None:
    with pytest.raises(BadSettings, match="MAIL_DEFAULT_SENDER"):
        Settings.from_environ({**ENVIRON, "MAIL_DEFAULT_SENDER": sender})


def test_mail_is_encrypted_in_one_way() -> None:
    with pytest.raises(BadSettings, match="MAIL_USE_TLS and MAIL_USE_SSL"):
        Settings.from_environ({**ENVIRON, "MAIL_USE_TLS": "yes", "MAIL_USE_SSL": "1"})


def test_earlier_keys_may_stand_apart() -> None:
    found = Settings.from_environ({**ENVIRON, "SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": f" {GOOD} ,old, "})
    assert found.secret_keys == ["new", GOOD, "old"]


@pytest.mark.parametrize("key", [DEFAULT_SECRET_KEY, "short"])
def test_no_key_that_others_know_is_believed_outside_development(key: str) -> None:
    production = {**ENVIRON, "ENVIRONMENT": "production", "SECRET_KEY": GOOD}
    assert Settings.from_environ({**production, "SECRET_KEY_FALLBACKS": GOOD}).secret_keys == [GOOD, GOOD]
    with pytest.raises(BadSettings, match=r"^SECRET_KEY_FALLBACKS "):
        Settings.from_environ({**production, "SECRET_KEY_FALLBACKS": f"{GOOD},{key}"})
    with pytest.raises(BadSettings, match=r"^SECRET_KEY is"):
        Settings.from_environ({**production, "SECRET_KEY": key})
