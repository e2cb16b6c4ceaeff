"""All settings, read from the environment once. Defaults point at what `make run` starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from email.utils import parseaddr
from pathlib import Path
from urllib.parse import urlsplit

from flask import current_app

from app import zones
from app.errors import BadSettings

VERSION = "0.1.0"
ROOT = Path(__file__).resolve().parent.parent
RUN_ENV = ROOT / "var" / "run.env"
DEFAULT_SECRET_KEY = "waybill-development-only"
# In days; nothing that is asked to last longer is meant so.
TEN_YEARS = 3650
# In seconds: PostgreSQL counts milliseconds in 32 bits.
LONGEST_TIMEOUT = (2**31 - 1) // 1000


def setting(help: str, default: str | int | bool | None = None) -> str:
    """A documented setting: its environment variable is the field's name in capitals."""
    return field(default=default, metadata={"help": help})  # type: ignore[return-value]


def number(help: str, default: int, least: int = 1, most: int = 2**31 - 1) -> int:
    return field(default=default, metadata={"help": help, "range": (least, most)})


def switch(help: str, default: bool) -> bool:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of Waybill. `docs/operator.md` shows the same table."""

    environment: str = setting("`development` or `production`.", "production")
    database_url: str = setting("PostgreSQL 14 or newer; holds jobs, leases, logs and checkpoints.", "")
    redis_url: str = setting("Redis or Valkey 6.2 or newer; messages, live lines and limits.", "")
    storage_url: str = setting("`file:///folder` or `s3://bucket/prefix` (with the usual `AWS_*`).", "")
    secret_key: str = setting("Signs sessions and links. At least 32 characters.", DEFAULT_SECRET_KEY)
    secret_key_fallbacks: str = setting("Earlier secret keys, by commas: links made with them stay good.", "")
    public_url: str = setting(
        "Where people reach Waybill; links in mails start with it.", "http://127.0.0.1:8000"
    )
    port: int = number("Where the web process listens.", 8000, most=65_535)
    time_zone: str = setting("Of everybody who has not chosen one: a name such as Europe/Berlin.", "UTC")

    mail_server: str = setting("SMTP server.", "")
    mail_port: int = number("Its port.", 25, most=65_535)
    mail_use_tls: bool = switch("STARTTLS.", False)
    mail_use_ssl: bool = switch("TLS from the first byte.", False)
    mail_username: str = setting("SMTP user name, if one is needed.", "")
    mail_password: str = setting("SMTP password, if one is needed.", "")
    mail_default_sender: str = setting("The From line.", "Waybill <waybill@localhost>")
    mailbox_dir: str = setting("Folder of caught mails shown at `/mailbox`; development only.", "")

    retention_hours: int = number("How long artifacts and their links live.", 24, most=TEN_YEARS * 24)
    events_retention_days: int = number("How long a finished job's log is kept.", 30, most=TEN_YEARS)
    lease_seconds: int = number("How long a silent worker keeps its job.", 15, least=5, most=3600)
    attempts_limit: int = number("How often a job is tried before it fails.", 3, most=100)
    part_rows: int = number("Rows of one part, about, of an export that can be cut.", 250_000)
    chunk_bytes: int = number("Bytes of one chunk, about, of an import.", 8 * 1024**2, most=1024**3)
    statement_timeout_seconds: int = number("Longest query of a report.", 3600, most=LONGEST_TIMEOUT)
    user_running_limit: int = number("Queued and running jobs of one person at a time.", 20)
    upload_limit_bytes: int = number(
        "The largest file that may be uploaded, in bytes.", 5 * 1024**3, most=2**63 - 1
    )
    user_upload_limit: int = number("Unfinished uploads of one person at a time.", 10)
    request_rate: str = setting("API requests per token or session.", "600 per minute")
    sign_in_rate: str = setting("Sign-in attempts per address.", "10 per minute")
    metrics_token: str = setting("Lets Prometheus read `/metrics`. At least 16 characters.", "")
    trusted_proxies: int = number(
        "Reverse proxies before the web process that set X-Forwarded-*.", 0, least=0, most=100
    )

    demo: bool = switch("Show the reports over the demo data.", False)
    reports_path: str = setting("Folders of your own reports, joined as in PATH.", "")
    importers_path: str = setting("Folders of your own importers, joined as in PATH.", "")
    sources: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "`SOURCE_<NAME>_URL`, one per source: a database that reports read from."},
    )
    targets: Mapping[str, str] = field(
        default_factory=dict,
        metadata={
            "help": "The same database by an account that imports may write with; "
            "without it they use the source's own."
        },
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read and check the environment; raises BadSettings that names the variable and the mend."""
        values = dict(os.environ if environ is None else environ)
        if "DATABASE_URL" not in values and environ is None:
            values = read_env_file(RUN_ENV) | values
        found: dict[str, object] = {}
        for item in fields(cls):
            raw = values.get(item.name.upper())
            if raw is not None and raw != "" and item.name not in ("sources", "targets"):
                found[item.name] = _convert(item.name.upper(), raw, str(item.type))
                _check_range(item.name.upper(), found[item.name], item.metadata.get("range"))
        found["database_url"] = _database_url(values.get("DATABASE_URL", ""))
        named = {name: url for name, url in values.items() if name.startswith("SOURCE_") and url}
        found["targets"] = _by_name(named, "_WRITE_URL")
        found["sources"] = _by_name(
            {name: url for name, url in named.items() if not name.endswith("_WRITE_URL")}, "_URL"
        )
        if found.get("environment") == "development":
            found.setdefault("demo", True)
        return cls(**found)._checked()  # type: ignore[arg-type]

    def _checked(self) -> Settings:
        if self.environment not in ("development", "production"):
            raise BadSettings(f"ENVIRONMENT is {self.environment!r}; use development or production.")
        for name in ("database_url", "redis_url", "storage_url"):
            if not getattr(self, name):
                raise BadSettings(
                    f"{name.upper()} is not set. Set it, or type `make run` to start all that is needed."
                )
        _check_redis_url(self.redis_url)
        if not self.development:
            self._check_secrets()
        if self.metrics_token and len(self.metrics_token) < 16:
            raise BadSettings(
                "METRICS_TOKEN is shorter than 16 characters, so that it could be guessed. Use for instance "
                'the output of: python -c "import secrets; print(secrets.token_hex(16))"'
            )
        if not zones.exists(self.time_zone):
            raise BadSettings(
                f"TIME_ZONE is {self.time_zone!r}, which is no time zone. Use a name such as Europe/Berlin."
            )
        if not _is_web_address(self.public_url):
            raise BadSettings(
                f"PUBLIC_URL is {self.public_url!r}; write http:// or https:// and the name of a host."
            )
        if not _is_sender(self.mail_default_sender):
            raise BadSettings(
                f"MAIL_DEFAULT_SENDER is {self.mail_default_sender!r}; write an address such as "
                "waybill@example.org or Waybill <waybill@example.org>."
            )
        if self.mail_use_tls and self.mail_use_ssl:
            raise BadSettings(
                "MAIL_USE_TLS and MAIL_USE_SSL are both on. Use MAIL_USE_TLS for STARTTLS (port 587) or "
                "MAIL_USE_SSL for TLS from the first byte (port 465)."
            )
        if not self.storage_url.startswith(("file:///", "s3://")):
            raise BadSettings(
                f"STORAGE_URL is {self.storage_url!r}; use file:///folder or s3://bucket/prefix."
            )
        return self

    def _check_secrets(self) -> None:
        for name, keys in (
            ("SECRET_KEY", self.secret_keys[:1]),
            ("SECRET_KEY_FALLBACKS", self.secret_keys[1:]),
        ):
            if any(len(key) < 32 for key in keys):
                raise BadSettings(
                    f"{name} is the default or shorter than 32 characters. Outside development set it to "
                    "a secret of your own, for instance the output of: "
                    'python -c "import secrets; print(secrets.token_hex(32))"'
                )

    @property
    def development(self) -> bool:
        return self.environment == "development"

    @property
    def https(self) -> bool:
        return self.public_url.startswith("https://")

    @property
    def secret_keys(self) -> list[str]:
        """The key that signs first, then the ones that are still believed."""
        earlier = [key.strip() for key in self.secret_key_fallbacks.split(",")]
        return [self.secret_key, *filter(None, earlier)]

    @property
    def source_urls(self) -> dict[str, str]:
        """Every source's URL by its name; `demo` is the app's own database, schema `demo`."""
        separator = "&" if urlsplit(self.database_url).query else "?"
        demo = f"{self.database_url}{separator}options=-csearch_path%3Ddemo"
        return ({"demo": demo} if self.demo else {}) | dict(self.sources)

    @property
    def target_urls(self) -> dict[str, str]:
        """Where imports write, by the source's name."""
        return self.source_urls | dict(self.targets)


def current() -> Settings:
    """The settings of the app at work."""
    settings: Settings = current_app.config["WAYBILL"]
    return settings


def read_env_file(path: Path) -> dict[str, str]:
    """NAME=value lines, as `make run` writes them for a second terminal; {} if there is no such file."""
    if not path.exists():
        return {}
    lines = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {name: value for name, _, value in lines}


def _by_name(values: Mapping[str, str], suffix: str) -> dict[str, str]:
    """SOURCE_SALES_URL=x is {"sales": "x"}."""
    return {
        name.removeprefix("SOURCE_").removesuffix(suffix).lower(): url
        for name, url in values.items()
        if name.endswith(suffix)
    }


def _convert(name: str, raw: str, kind: str) -> object:
    if kind == "int":
        try:
            return int(raw)
        except ValueError:
            raise BadSettings(f"{name} is {raw!r}; it must be a whole number.") from None
    if kind == "bool":
        if raw.lower() not in ("1", "0", "true", "false", "yes", "no", "on", "off"):
            raise BadSettings(f"{name} is {raw!r}; use true or false.")
        return raw.lower() in ("1", "true", "yes", "on")
    return raw


def _check_range(name: str, value: object, allowed: tuple[int, int] | None) -> None:
    if allowed is None or not isinstance(value, int):
        return
    least, most = allowed
    if not least <= value <= most:
        raise BadSettings(f"{name} is {value}; use a number from {least} to {most}.")


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _is_sender(line: str) -> bool:
    local, _, host = parseaddr(line)[1].rpartition("@")
    return bool(local and host) and line.isprintable()


def _database_url(raw: str) -> str:
    """Heroku-like platforms say postgres://; SQLAlchemy wants to know the driver, too.

    What cannot be read is not shown: it may hold a password.
    """
    if not raw:
        return ""
    scheme, separator, rest = raw.partition("://")
    if separator and scheme not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise BadSettings(
            f"DATABASE_URL starts with {scheme}://; Waybill keeps its jobs in PostgreSQL only. "
            "Other databases can be sources: SOURCE_<NAME>_URL."
        )
    # Here, because what reads but one setting need not load it; so with Redis below.
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    url = f"postgresql+psycopg://{rest}"
    try:
        make_url(url)
    except (ArgumentError, ValueError):
        separator = ""
    if not separator:
        raise BadSettings("DATABASE_URL is no URL; write postgresql://user:password@host:port/database.")
    return url


def _check_redis_url(url: str) -> None:
    from redis.connection import parse_url

    try:
        parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:
        raise BadSettings(
            "REDIS_URL is no URL of a Redis; write redis://host:port, rediss://user:password@host:port or "
            "unix:///path."
        ) from None
